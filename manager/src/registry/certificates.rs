//! Certificates for one registry: authorities that sign it, and what we show it of ourselves.
//!
//! <https://github.com/containers/image/blob/main/docs/containers-certs.d.5.md> and
//! <https://docs.docker.com/engine/security/certificates/>
//!
//! ```text
//! /etc/containers/certs.d/registry.example:5000/
//! ├── ca.crt          any *.crt: trusted beside the system's authorities, for this registry
//! ├── client.cert     shown to the registry, with its key of the same name
//! └── client.key
//! ```
//!
//! The first of `~/.config/containers/certs.d`, `/etc/containers/certs.d` and `/etc/docker/certs.d` that
//! has a folder for the registry is taken; `--cert-dir` names one folder for the registry instead.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, parse_pem};

/// What a folder has.
#[derive(Debug, Default, Clone)]
pub(super) struct Certificates {
    pub(super) authorities: Vec<Certificate<'static>>,
    pub(super) client: Option<ClientCert>,
}

impl Certificates {
    /// Those for `host[:port]`; none when there is no folder for it.
    pub(super) fn find(host: &str, folder: Option<&Path>) -> Result<Self> {
        if let Some(folder) = folder {
            return Self::read(folder).with_context(|| format!("certificates in {}", folder.display()));
        }
        // Strangers name hosts, too: no other folder than one for a host is looked into.
        if host.starts_with('.') || host.contains('/') {
            return Ok(Self::default());
        }
        let home = env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let of_user = home.map(|home| home.join(".config/containers/certs.d"));
        let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
        let folder = of_user.into_iter().chain(system).map(|all| all.join(host)).find(|own| own.is_dir());
        match folder {
            Some(folder) => {
                Self::read(&folder).with_context(|| format!("certificates in {}", folder.display()))
            }
            None => Ok(Self::default()),
        }
    }

    fn read(folder: &Path) -> Result<Self> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            names.push(entry?.path());
        }
        names.sort();
        let mut found = Self::default();
        let mut shown = None;
        for file in &names {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let about = || name.clone().into_owned();
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => found.authorities.extend(certificates(file).with_context(about)?),
                Some("cert") => {
                    let key = file.with_extension("key");
                    if !names.contains(&key) {
                        bail!("the client certificate {name} has no key of the same name");
                    }
                    if let Some(other) = shown.replace(about()) {
                        bail!("there are two client certificates, {other} and {name}: one is supported");
                    }
                    let chain = certificates(file).with_context(about)?;
                    let key = private_key(&key).with_context(|| format!("key of {name}"))?;
                    found.client = Some(ClientCert::new_with_certs(&chain, key));
                }
                Some("key") if !names.contains(&file.with_extension("cert")) => {
                    bail!("the key {name} has no client certificate of the same name");
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// All certificates of a PEM file.
fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>> {
    let mut found = Vec::new();
    for item in parse_pem(&fs::read(file)?) {
        if let PemItem::Certificate(certificate) = item? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        bail!("it has no certificate in PEM");
    }
    Ok(found)
}

fn private_key(file: &Path) -> Result<PrivateKey<'static>> {
    let bytes = fs::read(file)?;
    PrivateKey::from_pem(&bytes).map_err(|_| {
        // The parser's words might quote the key.
        io::Error::new(io::ErrorKind::InvalidData, "it has no private key in PEM").into()
    })
}
