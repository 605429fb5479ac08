//! Lists that come in pages, each naming the next one by a `Link` header.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-tags>

use std::io::Read;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use ureq::ResponseExt;
use ureq::http::Method;

use super::request::Request;
use super::server::{Answer, Server, header, resolve};
use crate::image::LARGEST_DOCUMENT;

/// More is not a list but a way to keep us busy.
const MOST_PAGES: usize = 10_000;

impl Server {
    /// Reads pages from `address` on, for as long as `take` wants another one. `refused` makes an
    /// error, or an end, of an answer that is no page.
    pub(super) fn pages<T: DeserializeOwned>(
        &self,
        address: &str,
        scope: &str,
        accept: &str,
        mut take: impl FnMut(T, &Answer) -> bool,
        refused: impl FnOnce(Answer) -> Result<()>,
    ) -> Result<()> {
        let mut address = address.to_owned();
        for _ in 0..MOST_PAGES {
            let request = Request::new(Method::GET, &address).also(scope).header("Accept", accept);
            let mut answer = self.send(&request)?;
            if answer.status() != 200 {
                return refused(answer);
            }
            let page =
                document(&mut answer).with_context(|| format!("registry {}: read the list", self.domain))?;
            if !take(page, &answer) {
                return Ok(());
            }
            let Some(next) = header(&answer, "link").and_then(next) else { return Ok(()) };
            let next = resolve(&answer.get_uri().to_string(), next)?;
            if next == address {
                bail!("registry {}: a page of the list names itself as the next one", self.domain);
            }
            address = next;
        }
        bail!("registry {}: the list has more than {MOST_PAGES} pages", self.domain)
    }
}

/// A JSON document of a size that everybody can keep in memory.
pub(super) fn document<T: DeserializeOwned>(answer: &mut Answer) -> Result<T> {
    let mut bytes = Vec::new();
    answer.body_mut().as_reader().take(LARGEST_DOCUMENT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_DOCUMENT {
        bail!("it has more than {LARGEST_DOCUMENT} bytes");
    }
    Ok(serde_json::from_slice(&bytes)?)
}

/// The target of `rel="next"`: <https://www.rfc-editor.org/rfc/rfc8288#section-3>
fn next(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let (target, after) = rest[rest.find('<')? + 1..].split_once('>')?;
        let end = after.find('<').unwrap_or(after.len());
        let mut parameters = after[..end].trim_end_matches([' ', ',']).split(';').map(str::trim);
        let is_next = |parameter: &str| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                let relations = value.trim().trim_matches('"');
                name.trim().eq_ignore_ascii_case("rel")
                    && relations.split(' ').any(|one| one.eq_ignore_ascii_case("next"))
            })
        };
        if parameters.any(is_next) {
            return Some(target);
        }
        rest = &after[end..];
    }
}

/// Text for a query.
pub(super) fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        let table = [
            (r#"</v2/x/tags/list?last=b&n=2>; rel="next""#, Some("/v2/x/tags/list?last=b&n=2")),
            ("<https://r.example/v2/x?a,b;c>;rel=next", Some("https://r.example/v2/x?a,b;c")),
            (r#"</a>; rel="prev", </b>; title="x"; rel="last next""#, Some("/b")),
            (r#"</a>; rel="prev""#, None),
            ("</a", None),
            ("", None),
        ];
        for (header, expected) in table {
            assert_eq!(next(header), expected, "{header}");
        }
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode("application/x+json é"), "application%2Fx%2Bjson%20%C3%A9");
    }
}
