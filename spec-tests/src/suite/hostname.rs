//! [Hostname](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md#hostname) and
//! [domain name](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md#domainname).

use anyhow::Result;
use serde_json::json;

use crate::case::{Case, Scene};
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "hostname/is_seen_inside_and_only_there",
        proves: &[&HOSTNAME],
        needs: &[],
        run: is_seen_inside_and_only_there,
    },
    Case {
        name: "hostname/of_the_domain_is_seen_inside",
        proves: &[&DOMAINNAME],
        needs: &[],
        run: of_the_domain_is_seen_inside,
    },
];

fn is_seen_inside_and_only_there(scene: &Scene<'_>) -> Result<()> {
    let before = rustix::system::uname().nodename().to_owned();
    let mut bundle = scene.bundle()?;
    bundle.set("/hostname", json!("mrs-dalloway"));
    let seen = scene.observe(&mut bundle, &[])?;
    scene.expect_same(&HOSTNAME, "the host name", seen.hostname.as_str(), "mrs-dalloway");
    scene.expect_same(&HOSTNAME, "the host's own name", rustix::system::uname().nodename(), &*before);
    Ok(())
}

fn of_the_domain_is_seen_inside(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/domainname", json!("example.test"));
    let seen = scene.observe(&mut bundle, &[])?;
    scene.expect_same(&DOMAINNAME, "the domain name", seen.domainname.as_str(), "example.test");
    Ok(())
}
