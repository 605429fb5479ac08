//! A registry's server: one request with everything that can be answered on the way, which is
//! challenges, redirects, and a server that is busy or breaks off.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use ureq::http::{self, Method, Response, Uri};
use ureq::{Agent, ResponseExt, SendBody};

use super::RegistryArgs;
use super::auth::{Session, wants_more_scope};
use super::connection::{Connections, is_loopback};
use super::credentials::Credentials;
use super::request::Request;

/// Docker's own registry answers at another name than its images carry.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

const MOST_REDIRECTS: u32 = 10;
const TRIES_WHEN_BUSY: u32 = 5;
const TRIES_WHEN_BROKEN: u32 = 3;
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A registry that never ends to warn does not fill the terminal.
const MOST_WARNINGS: usize = 20;
/// From the last byte of an upload to its answer.
const LONGEST_COMMIT: Duration = Duration::from_secs(600);

pub(crate) type Answer = Response<ureq::Body>;

/// A server, and who we are there.
pub(crate) struct Server {
    /// For people and credentials: `docker.io`.
    pub(super) domain: String,
    /// The most special key that credentials may have: `docker.io/library/busybox`.
    pub(super) account: String,
    /// `registry-1.docker.io`
    host: String,
    /// `https://registry-1.docker.io`, once it is known.
    base: OnceLock<String>,
    /// Only HTTPS with verified certificates will do.
    verify: bool,
    /// A configuration file wants even names and passwords to be sent in clear.
    pub(super) clear: bool,
    pub(super) authfile: Option<PathBuf>,
    /// Instead of those that the files have.
    pub(super) given: Option<Credentials>,
    connections: Connections,
    pub(super) session: Mutex<Session>,
}

impl Server {
    /// The server of `domain`; nothing is sent yet. `account` is the repository, or the domain;
    /// `insecure` is what a configuration file says of it.
    pub(super) fn new(domain: &str, account: &str, args: &RegistryArgs, insecure: bool) -> Result<Self> {
        let host = if domain == DOCKER_HUB.0 { DOCKER_HUB.1 } else { domain };
        let verify = args.tls_verify && !insecure;
        Ok(Self {
            domain: domain.to_owned(),
            account: account.to_owned(),
            host: host.to_owned(),
            base: OnceLock::new(),
            verify,
            clear: insecure,
            authfile: args.authfile.clone(),
            given: None,
            connections: Connections::new(domain, verify, args.cert_dir.as_deref())?,
            session: Mutex::default(),
        })
    }

    /// `https://registry-1.docker.io`. Finds out how to talk to a server that need not speak TLS.
    pub(super) fn base(&self) -> Result<&str> {
        if let Some(base) = self.base.get() {
            return Ok(base);
        }
        let base = if self.connections.verified() {
            format!("https://{}", self.host)
        } else {
            // On loopback nothing is gained by TLS; elsewhere it is when the registry has it.
            self.choose_scheme(if is_loopback(&self.host) { ["http", "https"] } else { ["https", "http"] })?
        };
        Ok(self.base.get_or_init(|| base))
    }

    fn choose_scheme(&self, schemes: [&str; 2]) -> Result<String> {
        let agent = self.connections.to_registry()?;
        let mut first_error = None;
        for scheme in schemes {
            let base = format!("{scheme}://{}", self.host);
            match agent.get(format!("{base}/v2/")).call() {
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
        bail!("registry {}: {error}", self.domain)
    }

    /// The agent for an address.
    pub(super) fn agent(&self, url: &str) -> Result<Agent> {
        if same_origin(url, self.base()?) {
            return self.connections.to_registry();
        }
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is not an address"))?;
        self.connections.to_other(uri.authority().map_or("", |authority| authority.as_str()))
    }

    /// Sends a request. The answer may still be an error of the caller's.
    pub(super) fn send(&self, request: &Request<'_>) -> Result<Answer> {
        let url = self.url(&request.address)?;
        let mut challenges = 0;
        let mut failures = 0;
        loop {
            let used = self.authorization(&request.scope)?;
            let answer = match self.follow(&url, request, used.as_deref()) {
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
            self.tell_warnings(&answer);
            let status = answer.status().as_u16();
            let tries = if status == 429 { TRIES_WHEN_BUSY } else { TRIES_WHEN_BROKEN };
            if (status == 429 || (500..600).contains(&status)) && failures + 1 < tries {
                failures += 1;
                std::thread::sleep(retry_after(&answer).unwrap_or_else(|| pause(failures)).min(LONGEST_WAIT));
                continue;
            }
            // Twice: the token of the first challenge may turn out to have too small a scope.
            if (status == 401 || wants_more_scope(&answer)) && challenges < 2 {
                challenges += 1;
                if self.authenticate(&answer, &request.scope, used.as_deref())? {
                    continue;
                }
            }
            return Ok(answer);
        }
    }

    fn url(&self, address: &str) -> Result<String> {
        if address.starts_with('/') {
            return Ok(format!("{}{address}", self.base()?));
        }
        self.check_scheme(address)?;
        Ok(address.to_owned())
    }

    /// One request with its redirects. Only the registry itself sees `Authorization`
    /// (CVE-2020-15157).
    pub(super) fn follow(
        &self,
        url: &str,
        request: &Request<'_>,
        authorization: Option<&str>,
    ) -> Result<Answer, Failed> {
        let wrong = |error: anyhow::Error| Failed::Final(format!("{error:#}"));
        let base = self.base().map_err(wrong)?;
        let mut url = url.to_owned();
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        for _ in 0..=MOST_REDIRECTS {
            let authorization = authorization.filter(|_| same_origin(&url, base));
            let answer = self.once(&url, request, authorization)?;
            match answer.status().as_u16() {
                307 | 308 => {}
                301..=303 if reads => {}
                // A body that arrives as a GET, as browsers do it, would be no upload.
                status @ 301..=303 => {
                    let method = &request.method;
                    return Err(Failed::Final(format!("it redirects a {method} with the status {status}")));
                }
                _ => return Ok(answer),
            }
            url = self.location(&answer).map_err(wrong)?;
        }
        Err(Failed::Final(format!("it redirects more than {MOST_REDIRECTS} times")))
    }

    fn once(&self, url: &str, request: &Request<'_>, authorization: Option<&str>) -> Result<Answer, Failed> {
        let mut head = http::Request::builder().method(request.method.clone()).uri(url);
        for (name, value) in &request.headers {
            head = head.header(*name, *value);
        }
        if let Some(value) = authorization {
            head = head.header("Authorization", value);
        }
        let invalid = |error: http::Error| Failed::Final(format!("{url:?} cannot be asked: {error}"));
        let agent = self.agent(url).map_err(|error| Failed::Final(format!("{error:#}")))?;
        let sends = matches!(request.method, Method::POST | Method::PUT | Method::PATCH);
        let answer = if sends {
            let unread = |error: std::io::Error| Failed::Final(format!("read what is to be sent: {error}"));
            let mut reader = request.body.open().map_err(unread)?;
            // Also for no bytes: without the header some servers wait for them (RFC 9110, 8.6).
            let head = head.header("Content-Length", request.body.len());
            let body = SendBody::from_reader(&mut reader);
            let whole = head.body(body).map_err(invalid)?;
            // A registry may move or check a whole blob before it answers.
            let patient = agent.configure_request(whole).timeout_recv_response(Some(LONGEST_COMMIT));
            agent.run(patient.build())
        } else {
            agent.run(head.body(()).map_err(invalid)?)
        };
        answer.map_err(|error| Failed::of(&error))
    }

    /// Where an answer sends us: to another address of the same thing, or to an upload.
    pub(super) fn location(&self, answer: &Answer) -> Result<String> {
        let location = header(answer, "location").context("it redirects without saying where to")?;
        let url = resolve(&answer.get_uri().to_string(), location)?;
        self.check_scheme(&url)?;
        Ok(url)
    }

    /// Refuses to leave TLS on the way, unless that was allowed.
    pub(super) fn check_scheme(&self, url: &str) -> Result<()> {
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is not an address"))?;
        let host = uri.authority().map_or("", |authority| authority.as_str());
        match uri.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if is_loopback(host) || !self.verify => Ok(()),
            _ => bail!("it sends us to {url}, which is not HTTPS"),
        }
    }

    /// Passes on what the registry wants its users to know, once, and does nothing about it:
    /// <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#warnings>
    fn tell_warnings(&self, answer: &Answer) {
        static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        for value in answer.headers().get_all("warning") {
            let Some(text) = value.to_str().ok().and_then(warning) else { continue };
            let line = format!("registry {} warns: {}", self.domain, foreign(&text));
            let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
            if told.len() < MOST_WARNINGS && told.insert(line.clone()) {
                eprintln!("manager: {line}");
            }
        }
    }

    /// What the registry says about a request that it refused.
    pub(super) fn refusal(&self, answer: Answer) -> String {
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
        let said = said.map_or_else(|| status.to_string(), |said| foreign(&said));
        if matches!(status.as_u16(), 401 | 403) && !self.has_credentials() {
            return format!("{said} (there are no credentials for {} in any auth file)", self.domain);
        }
        said
    }
}

/// A stranger's words: one line, no escape sequences for the terminal.
pub(super) fn foreign(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(200).collect()
}

/// The text of `299 - "text"`; other codes are not for people.
fn warning(value: &str) -> Option<String> {
    let quoted = value.strip_prefix("299 - \"")?;
    let mut text = String::new();
    let mut letters = quoted.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return Some(text),
            '\\' => text.extend(letters.next()),
            _ => text.push(letter),
        }
    }
    None
}

/// A request that got no answer.
pub(super) enum Failed {
    /// Worth another try.
    Temporary(String),
    Final(String),
}

impl Failed {
    pub(super) fn of(error: &ureq::Error) -> Self {
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

pub(super) fn explain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::HostNotFound => "its host name does not resolve".to_owned(),
        ureq::Error::Timeout(_) => "it does not answer in time".to_owned(),
        other => other.to_string(),
    }
}

/// Whether both are addresses of one server; the port of the scheme may be left out.
fn same_origin(url: &str, base: &str) -> bool {
    let origin = |address: &str| {
        let uri: Uri = address.parse().ok()?;
        let usual = if uri.scheme_str()? == "https" { 443 } else { 80 };
        let authority = uri.authority()?;
        // Names in an address are not ours.
        let plain = !authority.as_str().contains('@');
        plain.then(|| {
            (
                uri.scheme().cloned(),
                authority.host().to_ascii_lowercase(),
                authority.port_u16().unwrap_or(usual),
            )
        })
    };
    origin(url).is_some_and(|origin_of_url| Some(origin_of_url) == origin(base))
}

/// A `Location`, which may be relative.
pub(super) fn resolve(base: &str, location: &str) -> Result<String> {
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

pub(super) fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
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
    fn warnings_are_read_as_the_specification_has_them() {
        let table = [
            (r#"299 - "going away""#, Some("going away")),
            (r#"299 - "a \"b\"" x"#, Some("a \"b\"")),
            (r#"199 - "x""#, None),
            (r#"299 - open"#, None),
            (r#"299 - "open"#, None),
            ("", None),
        ];
        for (value, expected) in table {
            assert_eq!(warning(value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn authorization_stays_with_the_registry() {
        for same in ["https://r.example/v2/", "https://r.example:443/v2/", "https://R.example"] {
            assert!(same_origin(same, "https://r.example"), "{same}");
        }
        for other in [
            "http://r.example/v2/",
            "https://r.example:8443/",
            "https://r.example.evil/",
            "https://cdn/",
            "https://r.example@cdn/",
            "/v2/",
        ] {
            assert!(!same_origin(other, "https://r.example"), "{other}");
        }
    }
}
