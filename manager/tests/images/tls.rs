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
    let kind = if name.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" };
    let extensions = format!("subjectAltName={kind}:{name}\nbasicConstraints=critical,CA:FALSE\n");
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

/// The folder of a registry, in the home of the manager's user.
fn certs_d(manager: &Manager, host: &str) -> PathBuf {
    let folder = manager.root().parent().unwrap().join(".config/containers/certs.d").join(host);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_registrys_own_authority_is_trusted_for_it_alone() {
    if !has("openssl") || !has("docker-registry") || !has("skopeo") {
        return;
    }
    // On loopback, too, certificates are verified once somebody has said by whom.
    let mut names = vec!["127.0.0.1".to_owned()];
    names.extend(own_name());
    for name in names {
        let (_folder, certificate, key) = certificate(&name);
        let registry = Registry::start_tls(&certificate, &key);
        let by_name = registry.push(&sample(), "x:1").replace("127.0.0.1", &name);
        let host = by_name.split('/').next().unwrap();
        let manager = Manager::new();
        let folder = certs_d(&manager, host);
        let (_other_folder, other, _) = self::certificate(&name);
        std::fs::copy(&other, folder.join("other.crt")).unwrap();
        let error = manager.fails(&["pull", "-q", &by_name]);
        assert!(error.contains("certificate"), "{error}");
        std::fs::copy(&certificate, folder.join("own.crt")).unwrap();
        manager.ok(&["pull", "-q", &by_name]);

        let elsewhere = Manager::new();
        let only = elsewhere.root().parent().unwrap().join("authorities");
        std::fs::create_dir(&only).unwrap();
        std::fs::copy(&certificate, only.join("ca.crt")).unwrap();
        elsewhere.ok(&["pull", "-q", "--cert-dir", only.to_str().unwrap(), &by_name]);
        let error = elsewhere.fails(&["pull", "-q", "--cert-dir", "/nosuch", &by_name]);
        assert!(error.contains("certificates in /nosuch: No such file"), "{error}");
        std::fs::write(only.join("ca.crt"), "junk").unwrap();
        let error = elsewhere.fails(&["pull", "-q", "--cert-dir", only.to_str().unwrap(), &by_name]);
        assert!(error.contains("ca.crt: it has no certificate in PEM"), "{error}");
    }
}

#[test]
fn a_client_certificate_is_shown_to_the_registry() {
    if !has("openssl") || !has("docker-registry") {
        return;
    }
    let (_folder, server_certificate, server_key) = certificate("127.0.0.1");
    let (_folder, client_certificate, client_key) = certificate("client");
    let registry = Registry::start_tls_for(&server_certificate, &server_key, &client_certificate);
    let name = format!("{}/x", registry.host);
    let manager = Manager::new();
    let folder = certs_d(&manager, &registry.host);
    std::fs::copy(&server_certificate, folder.join("ca.crt")).unwrap();
    let error = manager.fails(&["tags", &name]);
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    std::fs::copy(&client_certificate, folder.join("client.cert")).unwrap();
    let error = manager.fails(&["tags", &name]);
    assert!(error.contains("client certificate client.cert has no key"), "{error}");
    std::fs::copy(&client_key, folder.join("client.key")).unwrap();
    let error = manager.fails(&["tags", &name]);
    assert!(error.contains("repository name not known"), "{error}");
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
