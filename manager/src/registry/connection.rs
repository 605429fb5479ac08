//! Connections: TLS with verified certificates, and whom we trust without.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Result, bail};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

pub(super) fn agent(verify: bool, through_proxy: bool) -> Result<Agent> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
    let tls = if verify { tls.root_certs(system_roots()?) } else { tls.disable_verification(true) };
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

/// The certificate authorities that this machine trusts, read once.
fn system_roots() -> Result<RootCerts> {
    static ROOTS: OnceLock<Vec<Certificate<'static>>> = OnceLock::new();
    if ROOTS.get().is_none() {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            let reason =
                found.errors.first().map_or_else(|| "none are installed".to_owned(), ToString::to_string);
            bail!("read the system's certificate authorities: {reason}");
        }
        let certificates = found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let _ = ROOTS.set(certificates);
    }
    Ok(RootCerts::new_with_certs(ROOTS.get().map_or(&[], Vec::as_slice)))
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
