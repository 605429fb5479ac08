//! A client of container registries: one repository at a time, blocking, HTTP/1.1.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md>
//!
//! - `request`, `server`: what is sent, and everything that is answered on the way
//! - `connection`, `certificates`: TLS, and whom we trust with and without
//! - `auth`: challenges, Basic and Bearer
//! - `credentials`: whose name and password, from the usual files and helpers
//! - `login`: checking them and keeping them
//! - `pull`, `push`: manifests and blobs
//! - `tags`, `referrers`, `search`: lists, and `pages`, which they come in
//! - `registries`, `mirrors`: where an image is according to registries.conf, and asking there
//!
//! Rules kept here, for every request: TLS with verified certificates, except on loopback or with
//! `--tls-verify=false`; `Authorization` goes to the registry's own host only and never in clear
//! over a network; 429 and 5xx are tried again.

mod auth;
mod certificates;
mod connection;
mod credentials;
pub(crate) mod login;
mod mirrors;
mod pages;
mod pull;
mod push;
mod referrers;
pub(crate) mod registries;
mod request;
pub(crate) mod search;
mod server;
mod tags;

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Result, anyhow, bail};
use ureq::http::Method;

use crate::reference::Reference;
use mirrors::Mirror;
pub(crate) use pull::{BlobBody, Fetched};
pub(crate) use push::Arrived;
use registries::Registries;
pub(crate) use request::{Body, Request};
use server::{Answer, Server};

/// Flags of all commands that talk to a registry.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RegistryArgs {
    /// Credentials for registries are in this file only
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    pub(crate) authfile: Option<PathBuf>,
    /// Take the registry's authorities (*.crt) and our certificate (*.cert, *.key) from this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) cert_dir: Option<PathBuf>,
    /// Require HTTPS with a valid certificate (plain HTTP is always tried on loopback)
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    pub(crate) tls_verify: bool,
}

/// A registry answered, and does not have it, or not for us.
#[derive(Debug)]
pub(crate) struct Absent(String);

impl fmt::Display for Absent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Absent {}

/// The error of an answer that refuses.
fn refused(server: &Server, answer: Answer) -> anyhow::Error {
    let absent = matches!(answer.status().as_u16(), 401 | 403 | 404);
    let said = format!("registry {}: {}", server.domain, server.refusal(answer));
    if absent { Absent(said).into() } else { anyhow!(said) }
}

/// What a repository is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
}

/// One repository at one registry, and the mirrors that it has.
pub(crate) struct Repository {
    server: Box<Server>,
    /// `library/busybox`
    path: String,
    /// Of its tokens: `repository:library/busybox:pull`.
    scope: String,
    /// The name it was opened with, and the tag that this has here.
    opened: (Reference, Option<String>),
    mirrors: Vec<Mirror>,
    /// Where the manifest was found, if that was not here.
    found_at: OnceLock<String>,
}

impl Repository {
    /// The repository of `reference`, wherever the files say it is; nothing is sent yet.
    pub(crate) fn open(reference: &Reference, access: Access, args: &RegistryArgs) -> Result<Self> {
        let registries = Registries::load()?;
        if access == Access::Push {
            let insecure = registries.insecure(&reference.to_string())?;
            return Self::at(reference, reference, access, args, insecure);
        }
        let mut locations = registries.locations(reference)?;
        let Some(own) = locations.pop() else { bail!("there is no location for {}", reference.familiar()) };
        let mut repository = Self::at(&own.reference, reference, access, args, own.insecure)?;
        let mirror = |location| Mirror::new(location, reference, args);
        repository.mirrors = locations.into_iter().map(mirror).collect();
        Ok(repository)
    }

    /// The repository of `reference`, which people call `name`.
    fn at(
        reference: &Reference,
        name: &Reference,
        access: Access,
        args: &RegistryArgs,
        insecure: bool,
    ) -> Result<Self> {
        let path = reference.path().to_owned();
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        Ok(Self {
            server: Server::new(reference.domain(), &reference.repository(), args, insecure)?.into(),
            scope: format!("repository:{path}:{actions}"),
            path,
            opened: (name.clone(), reference.tag().map(str::to_owned)),
            mirrors: Vec::new(),
            found_at: OnceLock::new(),
        })
    }

    /// Where what was asked for came from: `https://registry-1.docker.io/library/busybox`, or a mirror.
    pub(crate) fn address(&self) -> String {
        let own = || match self.server.base() {
            Ok(base) => format!("{base}/{}", self.path),
            Err(_) => format!("{}/{}", self.server.domain, self.path),
        };
        self.found_at.get().cloned().unwrap_or_else(own)
    }

    /// A request for what is below `/v2/<name>/`, or at a whole address: that of an upload.
    pub(crate) fn request<'a>(&self, method: Method, what: &str) -> Request<'a> {
        let whole = what.starts_with("https://") || what.starts_with("http://");
        let address = if whole { what.to_owned() } else { format!("/v2/{}/{what}", self.path) };
        Request::new(method, address).also(&self.scope)
    }

    /// Sends it, with everything that can be answered on the way: challenges, redirects, a busy or
    /// broken server. The answer may still be an error of the caller's.
    pub(crate) fn send(&self, request: &Request<'_>) -> Result<Answer> {
        self.server.send(request)
    }

    fn get(&self, what: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        self.send(&self.request(Method::GET, what).headers(headers))
    }
}
