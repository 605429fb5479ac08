//! Challenges: `WWW-Authenticate`, Basic and Bearer tokens.
//!
//! <https://distribution.github.io/distribution/spec/auth/token/>

use std::io::Read;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::credentials::{self, Credentials};
use super::{Answer, Repository, explain, is_loopback};

/// Tokens are JWTs of some kilobytes.
const LARGEST_TOKEN: u64 = 1024 * 1024;

/// What to send from now on.
#[derive(Debug, Clone)]
pub(super) struct Authorization {
    header: String,
}

/// One challenge of a `WWW-Authenticate` header.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Repository {
    pub(super) fn authorization_header(&self) -> Option<String> {
        // A thread that panicked cannot have left a half-written option behind.
        let held = self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        held.as_ref().map(|authorization| authorization.header.clone())
    }

    pub(super) fn has_credentials(&self) -> bool {
        self.credentials().is_ok_and(|found| found.is_some())
    }

    /// Answers a 401 to a request that was sent with `used`; false when there is no other answer.
    pub(super) fn authenticate(&self, answer: &Answer, used: Option<&str>) -> Result<bool> {
        if self.authorization_header().as_deref() != used {
            // Another layer's request was here first, with the same expired token.
            return Ok(true);
        }
        let challenges: Vec<Challenge> = answer
            .headers()
            .get_all("www-authenticate")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse)
            .collect();
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let header = match bearer.or(challenges.first()) {
            Some(Challenge::Bearer { realm, service, scope }) => Some(
                self.token(realm, service.as_deref(), scope.as_deref())
                    .with_context(|| format!("get a token for registry {} from {realm}", self.domain))?,
            ),
            Some(Challenge::Basic) => match self.credentials()? {
                Some(Credentials::Password { user, password }) => {
                    self.check_clear(&self.base)?;
                    Some(basic(&user, &password))
                }
                Some(Credentials::IdentityToken(_)) | None => None,
            },
            None => None,
        };
        let Some(header) = header else { return Ok(false) };
        // The same answer twice will not be taken the second time either.
        let new = used != Some(header.as_str());
        let mut held = self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *held = Some(Authorization { header });
        Ok(new)
    }

    fn credentials(&self) -> Result<Option<Credentials>> {
        credentials::find(&self.domain, &self.path, self.args.authfile.as_deref())
    }

    /// A name and password are not sent where everybody on the way can read them.
    fn check_clear(&self, url: &str) -> Result<()> {
        let Some(rest) = url.strip_prefix("http://") else { return Ok(()) };
        if !is_loopback(rest.split('/').next().unwrap_or("")) {
            bail!("the registry {} speaks plain HTTP: credentials are not sent to it", self.domain);
        }
        Ok(())
    }

    fn token(&self, realm: &str, service: Option<&str>, scope: Option<&str>) -> Result<String> {
        self.check_scheme(realm)?;
        let own_scope = format!("repository:{}:pull", self.path);
        let scope = scope.unwrap_or(&own_scope);
        let credentials = self.credentials()?;
        if credentials.is_some() {
            self.check_clear(realm)?;
            // The token is as good as they are, while it lives.
            self.check_clear(&self.base)?;
        }
        let answer = match &credentials {
            Some(Credentials::IdentityToken(token)) => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("client_id", "manager"),
                    ("service", service.unwrap_or("")),
                    ("scope", scope),
                    ("refresh_token", token.as_str()),
                ];
                self.agent.post(realm).send_form(form)
            }
            _ => {
                let mut request = self.agent.get(realm);
                if let Some(service) = service {
                    request = request.query("service", service);
                }
                for scope in scope.split(' ').filter(|scope| !scope.is_empty()) {
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
        let token: Token = serde_json::from_slice(&body).context("the answer is no token")?;
        let token = token.token.or(token.access_token).filter(|token| !token.is_empty());
        let token = token.context("the answer has no token")?;
        Ok(format!("Bearer {token}"))
    }
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
            (r#"bearer realm="https://a/\"t\"", error="x""#, vec![bearer("https://a/\"t\"", None, None)]),
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
}
