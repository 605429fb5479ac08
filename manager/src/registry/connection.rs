//! Connections: TLS with verified certificates, and whom we trust without.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::certificates::Certificates;

/// Connections to a registry and to whom it sends us, which is its token server and its storage.
pub(super) struct Connections {
    /// Certificates are verified, but for loopback.
    verify: bool,
    /// The registry's `host[:port]`, as people name it.
    own: String,
    certificates: Certificates,
    /// By host. Each keeps its connections open.
    agents: Mutex<HashMap<String, Agent>>,
}

impl Connections {
    pub(super) fn new(own: &str, verify: bool, folder: Option<&Path>) -> Result<Self> {
        let certificates = Certificates::find(own, folder)?;
        Ok(Self { verify, own: own.to_owned(), certificates, agents: Mutex::default() })
    }

    /// Whether the registry's certificate is verified. Loopback's is when somebody has named its
    /// authority.
    pub(super) fn verified(&self) -> bool {
        self.verify && (!is_loopback(&self.own) || !self.certificates.authorities.is_empty())
    }

    /// The agent for the registry itself, at whatever address it is.
    pub(super) fn to_registry(&self) -> Result<Agent> {
        self.kept(&self.own, || agent(self.verified(), !is_loopback(&self.own), &self.certificates))
    }

    /// The agent for another host. The registry's authorities count there as well, since they have
    /// signed it often; our own certificate is for the registry only.
    pub(super) fn to_other(&self, host: &str) -> Result<Agent> {
        self.kept(host, || {
            let mut certificates = Certificates::find(host, None)?;
            let verify = self.verify && (!is_loopback(host) || !certificates.authorities.is_empty());
            certificates.authorities.extend(self.certificates.authorities.iter().map(Certificate::to_owned));
            agent(verify, !is_loopback(host), &certificates)
        })
    }

    fn kept(&self, host: &str, make: impl FnOnce() -> Result<Agent>) -> Result<Agent> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(host) {
            return Ok(agent.clone());
        }
        let agent = make()?;
        agents.insert(host.to_owned(), agent.clone());
        Ok(agent)
    }
}

fn agent(verify: bool, through_proxy: bool, certificates: &Certificates) -> Result<Agent> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider)
        .client_cert(certificates.client.clone());
    let tls = if verify {
        tls.root_certs(roots(&certificates.authorities)?)
    } else {
        tls.disable_verification(true)
    };
    let mut config = Agent::config_builder()
        .tls_config(tls.build())
        .http_status_as_error(false)
        // Redirects are ours to follow: see `follow`.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .accept_encoding("identity")
        .user_agent(concat!("manager/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(30)))
        .timeout_per_read(Some(Duration::from_secs(60)));
    if !through_proxy {
        config = config.proxy(None);
    }
    Ok(config.build().into())
}

/// The certificate authorities that this machine trusts, read once, and these.
fn roots(more: &[Certificate<'static>]) -> Result<RootCerts> {
    static SYSTEM: OnceLock<Vec<Certificate<'static>>> = OnceLock::new();
    if SYSTEM.get().is_none() {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() && more.is_empty() {
            let reason =
                found.errors.first().map_or_else(|| "none are installed".to_owned(), ToString::to_string);
            bail!("read the system's certificate authorities: {reason}");
        }
        let certificates: Vec<_> =
            found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        if !certificates.is_empty() {
            let _ = SYSTEM.set(certificates);
        }
    }
    let system = SYSTEM.get().map_or(&[][..], Vec::as_slice);
    Ok(system.iter().chain(more).map(Certificate::to_owned).collect::<Vec<_>>().into())
}

/// Whether `host[:port]` is this machine without asking anybody.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.split(':').next().unwrap_or(""),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_recognised_and_nothing_else() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["docker.io", "127.0.0.1.example", "localhost.example:80", "10.0.0.1:5000", "[::2]:1", ""]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
