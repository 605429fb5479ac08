//! Challenges: `WWW-Authenticate`, Basic and Bearer tokens.
//!
//! <https://distribution.github.io/distribution/spec/auth/token/>

use std::collections::HashMap;
use std::io::Read;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::connection::is_loopback;
use super::credentials::{self, Credentials};
use super::server::{Answer, Server, explain};

/// Tokens are JWTs of some kilobytes.
const LARGEST_TOKEN: u64 = 1024 * 1024;

/// "A token should never be returned with less than 60 seconds to live", and has as much when
/// nothing is said.
const SHORTEST_LIFE: u64 = 60;
const LONGEST_LIFE: u64 = 24 * 60 * 60;
/// Clocks and ways differ: a token is not used up to its last second.
const MARGIN: Duration = Duration::from_secs(5);

/// What has been agreed with a server.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// A name and password, which are for everything.
    basic: Option<String>,
    /// By the scope that a request wants.
    tokens: HashMap<String, Token>,
}

#[derive(Debug, Clone)]
struct Token {
    header: String,
    expires: Instant,
    /// How it was got, and is got again.
    asked: Asked,
}

/// What a token server is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    realm: String,
    service: Option<String>,
    scopes: Vec<String>,
}

/// One challenge of a `WWW-Authenticate` header.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String>, error: Option<String> },
}

#[derive(Deserialize)]
struct Issued {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<i64>,
}

impl Server {
    /// What to send with a request that wants this scope. A token that has expired is renewed first:
    /// a body that was sent for nothing costs more than that.
    pub(super) fn authorization(&self, scope: &str) -> Result<Option<String>> {
        // A thread that panicked cannot have left a half-written entry behind.
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if session.basic.is_some() {
            return Ok(session.basic.clone());
        }
        let Some(token) = session.tokens.get(scope) else { return Ok(None) };
        if token.expires > Instant::now() {
            return Ok(Some(token.header.clone()));
        }
        let token = self.token(token.asked.clone())?;
        let header = token.header.clone();
        session.tokens.insert(scope.to_owned(), token);
        Ok(Some(header))
    }

    pub(super) fn has_credentials(&self) -> bool {
        self.credentials().is_ok_and(|found| found.is_some())
    }

    /// Answers the challenge to a request that wanted `scope` and was sent with `used`; false when
    /// there is no other answer than that.
    pub(super) fn authenticate(&self, answer: &Answer, scope: &str, used: Option<&str>) -> Result<bool> {
        // Held while the token is fetched: other layers' requests wait and find it.
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let current = session.basic.as_ref().or(session.tokens.get(scope).map(|token| &token.header));
        if current.map(String::as_str) != used {
            // Another layer's request was here first, with the same expired token.
            return Ok(true);
        }
        let challenges = challenges(answer);
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        match bearer.or(challenges.first()) {
            Some(Challenge::Bearer { realm, service, scope: wanted, .. }) => {
                let before = session.tokens.get(scope).map_or(&[][..], |token| &token.asked.scopes);
                let mut scopes = Vec::new();
                for one in scope.split(' ').chain(wanted.iter().flat_map(|wanted| wanted.split(' '))) {
                    add_scope(&mut scopes, one);
                }
                before.iter().for_each(|one| add_scope(&mut scopes, one));
                let token = self.token(Asked { realm: realm.clone(), service: service.clone(), scopes })?;
                let new = used != Some(token.header.as_str());
                session.tokens.insert(scope.to_owned(), token);
                // The same answer twice will not be taken the second time either.
                Ok(new)
            }
            Some(Challenge::Basic) => match self.credentials()? {
                Some(Credentials::Password { user, password }) => {
                    self.check_clear(self.base()?)?;
                    let header = basic(&user, &password);
                    let new = used != Some(header.as_str());
                    session.basic = Some(header);
                    Ok(new)
                }
                Some(Credentials::IdentityToken(_)) | None => Ok(false),
            },
            None => Ok(false),
        }
    }

    fn credentials(&self) -> Result<Option<Credentials>> {
        if self.given.is_some() {
            return Ok(self.given.clone());
        }
        credentials::find(&self.domain, &self.account, self.authfile.as_deref())
    }

    /// A name and password are not sent where everybody on the way can read them, unless somebody
    /// wrote down that they are.
    fn check_clear(&self, url: &str) -> Result<()> {
        if self.clear {
            return Ok(());
        }
        let Some(rest) = url.strip_prefix("http://") else { return Ok(()) };
        if !is_loopback(rest.split('/').next().unwrap_or("")) {
            bail!("the registry {} speaks plain HTTP: credentials are not sent to it", self.domain);
        }
        Ok(())
    }

    fn token(&self, asked: Asked) -> Result<Token> {
        let issued = self
            .issue(&asked)
            .with_context(|| format!("get a token for registry {} from {}", self.domain, asked.realm))?;
        let life = issued.expires_in.and_then(|life| u64::try_from(life).ok()).unwrap_or(SHORTEST_LIFE);
        let life = Duration::from_secs(life.clamp(SHORTEST_LIFE, LONGEST_LIFE)) - MARGIN;
        let token = issued.token.or(issued.access_token).unwrap_or_default();
        Ok(Token { header: format!("Bearer {token}"), expires: Instant::now() + life, asked })
    }

    fn issue(&self, asked: &Asked) -> Result<Issued> {
        let Asked { realm, service, scopes } = asked;
        self.check_scheme(realm)?;
        let credentials = self.credentials()?;
        if credentials.is_some() {
            self.check_clear(realm)?;
            // The token is as good as they are, while it lives.
            self.check_clear(self.base()?)?;
        }
        let agent = self.agent(realm)?;
        let answer = match &credentials {
            Some(Credentials::IdentityToken(token)) => {
                let scope = scopes.join(" ");
                let form = [
                    ("grant_type", "refresh_token"),
                    ("client_id", "manager"),
                    ("service", service.as_deref().unwrap_or("")),
                    ("scope", scope.as_str()),
                    ("refresh_token", token.as_str()),
                ];
                agent.post(realm).send_form(form)
            }
            _ => {
                let mut request = agent.get(realm);
                if let Some(service) = service {
                    request = request.query("service", service);
                }
                for scope in scopes {
                    request = request.query("scope", scope);
                }
                if let Some(Credentials::Password { user, password }) = &credentials {
                    request = request.query("account", user).header("Authorization", basic(user, password));
                }
                request.call()
            }
        };
        let answer = answer.map_err(|error| anyhow::anyhow!(explain(&error)))?;
        if !answer.status().is_success() {
            bail!(self.refusal(answer));
        }
        let mut body = Vec::new();
        answer.into_body().into_reader().take(LARGEST_TOKEN).read_to_end(&mut body).context("read it")?;
        let issued: Issued = serde_json::from_slice(&body).context("the answer is no token")?;
        let named = [&issued.token, &issued.access_token];
        if named.iter().all(|token| token.as_deref().is_none_or(str::is_empty)) {
            bail!("the answer has no token");
        }
        Ok(issued)
    }
}

/// Whether a token was good for less than the request: RFC 6750, 3.1. Registries say it with 401, the
/// document with 403.
pub(super) fn wants_more_scope(answer: &Answer) -> bool {
    let insufficient = |challenge: &Challenge| matches!(challenge, Challenge::Bearer { error: Some(error), .. } if error == "insufficient_scope");
    answer.status() == 403 && challenges(answer).iter().any(insufficient)
}

fn challenges(answer: &Answer) -> Vec<Challenge> {
    let values = answer.headers().get_all("www-authenticate").iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(parse).collect()
}

/// Adds `type:name:actions` to scopes; the actions of one thing are named together.
fn add_scope(scopes: &mut Vec<String>, scope: &str) {
    if scope.is_empty() {
        return;
    }
    // A name may have colons of its own: that of a host with a port.
    let split =
        |scope: &str| scope.rsplit_once(':').map(|(thing, actions)| (thing.to_owned(), actions.to_owned()));
    let Some((thing, actions)) = split(scope) else {
        if !scopes.iter().any(|other| other == scope) {
            scopes.push(scope.to_owned());
        }
        return;
    };
    for other in scopes.iter_mut() {
        if let Some((same, _)) = split(other)
            && same == thing
        {
            for action in actions.split(',') {
                let held = other.rsplit(':').next().unwrap_or("");
                if !held.split(',').any(|one| one == action) {
                    other.push(',');
                    other.push_str(action);
                }
            }
            return;
        }
    }
    scopes.push(scope.to_owned());
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// The challenges of one header value: `Scheme key="value", key=value, Scheme2 ...`.
/// <https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1>
fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut current: Option<(String, Vec<(String, String)>)> = None;
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            break;
        }
        let word_end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let word = &rest[..word_end];
        rest = &rest[word_end..];
        let Some(after) = rest.strip_prefix('=') else {
            challenges.extend(current.take().and_then(challenge));
            current = Some((word.to_ascii_lowercase(), Vec::new()));
            continue;
        };
        let (value, after) = value(after);
        rest = after;
        if let Some((_, parameters)) = &mut current {
            parameters.push((word.to_ascii_lowercase(), value));
        }
    }
    challenges.extend(current.and_then(challenge));
    challenges
}

/// A quoted string or a token, and what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((index, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[index + 1..]),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            _ => value.push(letter),
        }
    }
    (value, "")
}

fn challenge((scheme, parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    let parameter =
        |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: parameter("realm")?,
            service: parameter("service"),
            scope: parameter("scope"),
            error: parameter("error"),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
            error: None,
        }
    }

    #[test]
    fn challenges_are_read() {
        let table = [
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            ("Basic", vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push""#,
                vec![bearer(
                    "https://auth.example/token",
                    Some("r.example"),
                    Some("repository:a/b:pull,push"),
                )],
            ),
            (r#"bearer realm="https://a/\"t\"", other="x""#, vec![bearer("https://a/\"t\"", None, None)]),
            (
                r#"Negotiate, Basic realm="x", Bearer realm=y"#,
                vec![Challenge::Basic, bearer("y", None, None)],
            ),
            ("Bearer service=x", vec![]),
            ("", vec![]),
            (r#"Bearer realm="open"#, vec![bearer("open", None, None)]),
        ];
        for (header, expected) in table {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    #[test]
    fn scopes_of_one_repository_are_asked_for_together() {
        let mut scopes = Vec::new();
        for scope in [
            "repository:a/b:pull",
            "",
            "repository:c:pull",
            "repository:a/b:pull,push",
            "repository:h:5000/x:pull",
            "aws",
            "aws",
            "registry:catalog:*",
        ] {
            add_scope(&mut scopes, scope);
        }
        let expected = [
            "repository:a/b:pull,push",
            "repository:c:pull",
            "repository:h:5000/x:pull",
            "aws",
            "registry:catalog:*",
        ];
        assert_eq!(scopes, expected);
    }

    #[test]
    fn a_token_that_has_expired_is_renewed_before_it_is_used() {
        use super::super::request::{Request, tests};
        use ureq::http::Method;

        let (host, served) = tests::serve(&[
            ("200 X\r\n", r#"{"token":"new","expires_in":300}"#),
            ("200 X\r\n", ""),
            ("200 X\r\n", ""),
            ("200 X\r\n", ""),
        ]);
        let server = tests::server(&host);
        server.base().unwrap();
        let scope = "repository:x:pull";
        let asked = Asked {
            realm: format!("http://{host}/token"),
            service: Some("s".to_owned()),
            scopes: vec![scope.to_owned()],
        };
        let old = Token { header: "Bearer old".to_owned(), expires: Instant::now(), asked };
        server.session.lock().unwrap().tokens.insert(scope.to_owned(), old);
        for wanted in [scope, scope, "repository:y:pull"] {
            server.send(&Request::new(Method::GET, "/v2/x").also(wanted)).unwrap();
        }
        let seen: Vec<String> = served.join().unwrap().into_iter().map(|(head, _)| head).collect();
        assert!(seen[0].starts_with("get /token?service=s&scope=repository"), "{}", seen[0]);
        // The token is for its scope only.
        let with_token = |head: &String| head.contains("authorization: bearer new\r\n");
        let sent: Vec<bool> = seen.iter().map(with_token).collect();
        assert_eq!(sent, [false, true, true, false], "{seen:?}");
    }
}
