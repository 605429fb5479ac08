//! The three files in `/etc` that say where the container is: written here, bound over the image's.
//! [hosts(5)](https://man7.org/linux/man-pages/man5/hosts.5.html)

use std::fs;

use anyhow::Result;

use crate::container::record::Network;
use crate::container::{Container, files};

/// What `/etc/hosts` holds without a network.
const HOSTS: &str = "127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

/// Writes `hosts`, `hostname` and `resolv.conf` into the container's folder.
pub(crate) fn write(container: &Container) -> Result<()> {
    let record = &container.record;
    let host = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let hosts = match record.network {
        // The container reaches what the host reaches, by the same names.
        Network::Host => host("/etc/hosts"),
        Network::None => format!("{HOSTS}127.0.1.1\t{}\n", record.hostname),
    };
    // Without a network its servers are out of reach, but programs want the file to be there.
    let resolv = host("/etc/resolv.conf");
    for (name, content) in
        [("hosts", hosts), ("hostname", format!("{}\n", record.hostname)), ("resolv.conf", resolv)]
    {
        files::write_atomically(&container.folder.join(name), content.as_bytes(), 0o644)?;
    }
    Ok(())
}
