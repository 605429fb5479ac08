//! A client of container registries: one repository at a time, blocking, HTTP/1.1.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md>
//!
//! - `auth`: challenges, Basic and Bearer
//! - `credentials`: whose name and password, from the usual files and helpers
//! - `pull`: manifests and blobs
//!
//! Rules kept here, for every request: TLS with verified certificates, except on loopback or with
//! `--tls-verify=false`; `Authorization` goes to the registry's own host only and never in clear
//! over a network; 429 and 5xx are tried again.

mod auth;
mod credentials;
mod pull;

use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use ureq::Agent;
use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::reference::Reference;
use auth::Authorization;
pub(crate) use pull::{BlobBody, Fetched};

/// Docker's own registry answers at another name than its images carry.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

const MOST_REDIRECTS: u32 = 10;
const TRIES_WHEN_BUSY: u32 = 5;
const TRIES_WHEN_BROKEN: u32 = 3;
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Flags of all commands that talk to a registry.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RegistryArgs {
    /// Read registry credentials from this file only
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    pub(crate) authfile: Option<PathBuf>,
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

/// One repository at one registry.
pub(crate) struct Repository {
    /// `https://registry-1.docker.io`
    base: String,
    /// `library/busybox`
    path: String,
    /// For people and credentials: `docker.io`.
    domain: String,
    args: RegistryArgs,
    agent: Agent,
    authorization: Mutex<Option<Authorization>>,
}

type Answer = Response<ureq::Body>;

impl Repository {
    /// Finds out how to talk to the registry of `reference`.
    pub(crate) fn open(reference: &Reference, args: &RegistryArgs) -> Result<Self> {
        let domain = reference.domain();
        let host = if domain == DOCKER_HUB.0 { DOCKER_HUB.1 } else { domain };
        let verify = args.tls_verify && !is_loopback(host);
        let mut repository = Self {
            base: format!("https://{host}"),
            path: reference.path().to_owned(),
            domain: domain.to_owned(),
            args: args.clone(),
            agent: agent(verify, !is_loopback(host))?,
            authorization: Mutex::new(None),
        };
        if !verify {
            // On loopback nothing is gained by TLS; elsewhere it is when the registry has it.
            let schemes = if is_loopback(host) { ["http", "https"] } else { ["https", "http"] };
            repository.base = repository.choose_scheme(host, schemes)?;
        }
        Ok(repository)
    }

    /// Where this repository is: `https://registry-1.docker.io/library/busybox`.
    pub(crate) fn address(&self) -> String {
        format!("{}/{}", self.base, self.path)
    }

    fn choose_scheme(&self, host: &str, schemes: [&str; 2]) -> Result<String> {
        let mut first_error = None;
        for scheme in schemes {
            let base = format!("{scheme}://{host}");
            match self.agent.get(format!("{base}/v2/")).call() {
                // How Go's servers answer plain HTTP on a TLS port.
                Ok(answer) if answer.status() == 400 && scheme == "http" => {}
                Ok(_) => return Ok(base),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        let error = first_error
            .map_or_else(|| "it speaks neither HTTP nor HTTPS".to_owned(), |error| explain(&error));
        bail!("registry {host}: {error}")
    }

    /// `GET` below `/v2/<name>/`, with everything that can be answered on the way: challenges,
    /// redirects, a busy or broken server. The answer may still be an error of the caller's.
    fn get(&self, what: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let url = format!("{}/v2/{}/{what}", self.base, self.path);
        let mut challenges = 0;
        let mut failures = 0;
        loop {
            let used = self.authorization_header();
            let answer = match self.follow(&url, headers, used.as_deref()) {
                Ok(answer) => answer,
                Err(Failed::Temporary(_)) if failures + 1 < TRIES_WHEN_BROKEN => {
                    failures += 1;
                    std::thread::sleep(pause(failures));
                    continue;
                }
                Err(Failed::Temporary(message) | Failed::Final(message)) => {
                    bail!("registry {}: {message}", self.domain)
                }
            };
            let status = answer.status().as_u16();
            let tries = if status == 429 { TRIES_WHEN_BUSY } else { TRIES_WHEN_BROKEN };
            if (status == 429 || (500..600).contains(&status)) && failures + 1 < tries {
                failures += 1;
                std::thread::sleep(retry_after(&answer).unwrap_or_else(|| pause(failures)).min(LONGEST_WAIT));
                continue;
            }
            // Twice: the token of the first challenge may turn out to have too small a scope.
            if status == 401 && challenges < 2 {
                challenges += 1;
                if self.authenticate(&answer, used.as_deref())? {
                    continue;
                }
            }
            return Ok(answer);
        }
    }

    /// One request with its redirects. Only the registry itself sees `Authorization`
    /// (CVE-2020-15157).
    fn follow(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        authorization: Option<&str>,
    ) -> Result<Answer, Failed> {
        let mut url = url.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.agent.get(&url);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if same_origin(&url, &self.base)
                && let Some(value) = authorization
            {
                request = request.header("Authorization", value);
            }
            let answer = request.call().map_err(|error| Failed::of(&error))?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let location = header(&answer, "location")
                .ok_or_else(|| Failed::Final("it redirects without saying where to".to_owned()))?;
            url = resolve(&url, location).map_err(|error| Failed::Final(format!("{error:#}")))?;
            self.check_scheme(&url).map_err(|error| Failed::Final(format!("{error:#}")))?;
        }
        Err(Failed::Final(format!("it redirects more than {MOST_REDIRECTS} times")))
    }

    /// Refuses to leave TLS on the way, unless that was allowed.
    fn check_scheme(&self, url: &str) -> Result<()> {
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is not an address"))?;
        let host = uri.authority().map_or("", |authority| authority.as_str());
        match uri.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if is_loopback(host) || !self.args.tls_verify => Ok(()),
            _ => bail!("it sends us to {url}, which is not HTTPS"),
        }
    }

    /// What the registry says about a request that it refused.
    fn refusal(&self, answer: Answer) -> String {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<OneError>,
        }
        #[derive(Deserialize)]
        struct OneError {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let status = answer.status();
        let mut body = Vec::new();
        let _ = answer.into_body().into_reader().take(64 * 1024).read_to_end(&mut body);
        let said =
            serde_json::from_slice::<Errors>(&body).ok().and_then(|errors| errors.errors.into_iter().next());
        let said = said.map(|said| if said.message.is_empty() { said.code } else { said.message });
        // A stranger's words: one line, no escape sequences for the terminal.
        let said: Option<String> =
            said.map(|said| said.chars().filter(|letter| !letter.is_control()).take(200).collect());
        let said = said.unwrap_or_else(|| status.to_string());
        if matches!(status.as_u16(), 401 | 403) && !self.has_credentials() {
            return format!("{said} (there are no credentials for {} in any auth file)", self.domain);
        }
        said
    }
}

/// A request that got no answer.
enum Failed {
    /// Worth another try.
    Temporary(String),
    Final(String),
}

impl Failed {
    fn of(error: &ureq::Error) -> Self {
        use std::io::ErrorKind;
        let temporary = match error {
            ureq::Error::Io(error) => !matches!(
                error.kind(),
                ErrorKind::ConnectionRefused | ErrorKind::InvalidData | ErrorKind::PermissionDenied
            ),
            ureq::Error::Timeout(_) => true,
            _ => false,
        };
        let message = explain(error);
        if temporary { Self::Temporary(message) } else { Self::Final(message) }
    }
}

fn explain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::HostNotFound => "its host name does not resolve".to_owned(),
        ureq::Error::Timeout(_) => "it does not answer in time".to_owned(),
        other => other.to_string(),
    }
}

fn agent(verify: bool, through_proxy: bool) -> Result<Agent> {
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
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.split(':').next().unwrap_or(""),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn same_origin(url: &str, base: &str) -> bool {
    url.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A `Location`, which may be relative.
fn resolve(base: &str, location: &str) -> Result<String> {
    let base: Uri = base.parse().context("the address redirected from")?;
    let (Some(scheme), Some(authority)) = (base.scheme_str(), base.authority()) else {
        bail!("{base} is not absolute");
    };
    let absolute = if location.contains("://") && !location.starts_with('/') {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let absolute = absolute.split('#').next().unwrap_or_default().to_owned();
    let parsed: Uri =
        absolute.parse().with_context(|| format!("it redirects to {location:?}, no address"))?;
    // `https://registry@elsewhere/` is not the registry, and nobody needs names in an address.
    if parsed.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        bail!("it redirects to {location:?}, which carries a user name");
    }
    Ok(absolute)
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = header(answer, "retry-after")?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    SystemTime::from(time).duration_since(SystemTime::now()).ok()
}

/// Half a second, one, two ..., a little different for everybody.
fn pause(failures: u32) -> Duration {
    let base = 500u64 << failures.saturating_sub(1).min(7);
    let jitter = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    Duration::from_millis(base + u64::from(jitter) % (base / 2))
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

    #[test]
    fn locations_are_resolved_against_the_request() {
        let base = "https://r.example:5000/v2/a/blobs/sha256:1";
        let table = [
            ("https://cdn.example/x?sig=1", "https://cdn.example/x?sig=1"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("/other?next=https://y/", "https://r.example:5000/other?next=https://y/"),
            ("other", "https://r.example:5000/v2/a/blobs/other"),
        ];
        for (location, expected) in table {
            assert_eq!(resolve(base, location).unwrap(), expected);
        }
        assert!(resolve(base, "https://r.example:5000@evil.example/").is_err());
    }

    #[test]
    fn authorization_stays_with_the_registry() {
        assert!(same_origin("https://r.example/v2/", "https://r.example"));
        for other in
            ["http://r.example/v2/", "https://r.example:8443/", "https://r.example.evil/", "https://cdn/"]
        {
            assert!(!same_origin(other, "https://r.example"), "{other}");
        }
    }
}
