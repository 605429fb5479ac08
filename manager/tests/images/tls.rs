//! Who is trusted: TLS with verified certificates, loopback, and what `--tls-verify=false` allows.
//!
//! This machine's own name serves as a host that is not loopback by its name.

use std::net::ToSocketAddrs;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use crate::support::image::{Image, image};
use crate::support::registry::Registry;
use crate::support::server::{Reply, Server, honest};
use crate::support::tar::Tar;
use crate::support::{Manager, has, tool};

/// This machine's name, if it leads to 127.0.0.1 and does not look like loopback.
fn own_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?.to_ascii_lowercase();
    let mut addresses = (name.as_str(), 1).to_socket_addrs().ok()?;
    let ours = name != "localhost" && addresses.all(|address| address.ip() == std::net::Ipv4Addr::LOCALHOST);
    if !ours {
        eprintln!("SKIP: this machine's name {name:?} does not resolve to 127.0.0.1");
    }
    ours.then_some(name)
}

fn sample() -> Image {
    image(&[Tar::new().file("x", "x").finish()])
}

/// A certificate for `name` that only itself vouches for.
fn certificate(name: &str) -> (TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    // The usual configuration would make an authority of it, which is not taken for a server.
    let config = folder.path().join("openssl.cnf");
    let extensions = format!("subjectAltName=DNS:{name}\nbasicConstraints=critical,CA:FALSE\n");
    let text = format!("[req]\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\n[ext]\n{extensions}");
    std::fs::write(&config, text).unwrap();
    let paths = [&config, &key, &certificate].map(|path| path.to_str().unwrap());
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let request = ["req", "-x509", "-subj", "/CN=test", "-days", "2"];
    let files = ["-config", paths[0], "-keyout", paths[1], "-out", paths[2]];
    tool("openssl", &[&request[..], &curve, &files].concat());
    (folder, certificate, key)
}

#[test]
fn certificates_are_verified_but_for_loopback_and_when_told_not_to() {
    let Some(name) = own_name() else { return };
    if !has("openssl") || !has("docker-registry") || !has("skopeo") {
        return;
    }
    let (_folder, certificate, key) = certificate(&name);
    let registry = Registry::start_tls(&certificate, &key);
    let on_loopback = registry.push(&sample(), "x:1");
    let by_name = on_loopback.replace("127.0.0.1", &name);
    let manager = Manager::new();
    let error = manager.fails(&["pull", "-q", &by_name]);
    assert!(error.contains(&format!("registry {name}:")) && error.contains("certificate"), "{error}");
    let trusting =
        manager.command(&["pull", "-q", &by_name]).env("SSL_CERT_FILE", &certificate).output().unwrap();
    assert!(trusting.status.success(), "{}", String::from_utf8_lossy(&trusting.stderr));
    Manager::new().ok(&["pull", "-q", "--tls-verify=false", &by_name]);
    Manager::new().ok(&["pull", "-q", &on_loopback]);
}

#[test]
fn plain_http_is_for_loopback_or_when_told_and_never_sees_credentials() {
    let Some(name) = own_name() else { return };
    let image = sample();
    let inner = honest(&[("open", &image), ("closed", &image)]);
    let server = Server::start(move |request| {
        if request.path.contains("/closed/") && !request.headers.contains_key("authorization") {
            return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=test");
        }
        inner(request)
    });
    let host = server.host.replace("127.0.0.1", &name);
    let manager = Manager::new();
    let error = manager.fails(&["pull", "-q", &format!("{host}/open")]);
    assert!(error.contains(&format!("registry {name}:")), "{error}");
    assert_eq!(server.requests().len(), 0);
    manager.ok(&["pull", "-q", "--tls-verify=false", &format!("{host}/open")]);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("auth.json");
    // tester:secret
    let auth = json!({"auths": {host.as_str(): {"auth": "dGVzdGVyOnNlY3JldA=="}}});
    std::fs::write(&file, auth.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let error =
        manager.fails(&["pull", "-q", "--tls-verify=false", "--authfile", file, &format!("{host}/closed")]);
    assert!(error.contains("credentials are not sent"), "{error}");
    assert!(server.requests().iter().all(|request| !request.headers.contains_key("authorization")));
}

#[test]
fn a_redirect_does_not_leave_tls() {
    let Some(name) = own_name() else { return };
    let image = sample();
    let inner = honest(&[("x", &image)]);
    let server = Server::start(move |request| {
        if request.path.contains("/blobs/") {
            return Reply::new(307, "").header("Location", format!("http://{name}:1{}", request.path));
        }
        inner(request)
    });
    let error = Manager::new().fails(&["pull", "-q", &format!("{}/x", server.host)]);
    assert!(error.contains("which is not HTTPS"), "{error}");
}
