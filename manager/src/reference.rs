//! Image references: `name[:tag][@digest]`.
//!
//! The grammar of <https://github.com/distribution/reference/blob/main/regexp.go>:
//!
//! ```text
//! reference = name [ ":" tag ] [ "@" digest ]
//! name      = [ domain "/" ] path { "/" path }
//! domain    = host [ ":" port ]          host: DNS labels, or an IPv6 address in brackets
//! path      = [a-z0-9]+ { separator [a-z0-9]+ }     separator: "_" | "." | "__" | one or more "-"
//! tag       = [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}
//! ```
//!
//! A name without a domain is docker's: `busybox` is `docker.io/library/busybox`. The first part is
//! a domain when it has a dot, a colon or an upper-case letter, or is `localhost`.

use std::fmt;

use anyhow::{Context, Result, bail};

use crate::digest::Digest;

const DEFAULT_DOMAIN: &str = "docker.io";
const OFFICIAL_PREFIX: &str = "library/";
/// Of the path part, as docker and the registries have it.
const LONGEST_PATH: usize = 255;

/// A reference with everything filled in that people leave out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads what a person typed. Without tag and digest the tag is `latest`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Self::parse_parts(text).with_context(|| format!("image reference {text:?} is not valid"))
    }

    fn parse_parts(text: &str) -> Result<Self> {
        if text.is_empty() {
            bail!("it is empty");
        }
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            bail!("64 hexadecimal digits are an image id, not a name");
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        // A colon before the last slash belongs to a port.
        let name_end = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_end..].find(':') {
            Some(colon) => (&rest[..name_end + colon], Some(&rest[name_end + colon + 1..])),
            None => (rest, None),
        };
        let (domain, path) = split_domain(name);
        check_domain(domain)?;
        check_path(path)?;
        let tag = match tag {
            Some(tag) => Some(check_tag(tag)?.to_owned()),
            None if digest.is_none() => Some("latest".to_owned()),
            None => None,
        };
        let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
        let official = domain == DEFAULT_DOMAIN && !path.contains('/');
        let path = if official { format!("{OFFICIAL_PREFIX}{path}") } else { path.to_owned() };
        if path.len() > LONGEST_PATH {
            bail!("the repository name is longer than {LONGEST_PATH} characters");
        }
        Ok(Self { domain: domain.to_owned(), path, tag, digest })
    }

    /// `docker.io`, `127.0.0.1:5000`: whom to ask.
    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository at the registry: `library/busybox`.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if one was given or filled in.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given. It decides; a tag beside it is for people.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What stands in a manifest URL: the digest, else the tag.
    pub(crate) fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// Domain and path: `docker.io/library/busybox`.
    pub(crate) fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The repository as people write it: without docker's own domain and `library/`.
    pub(crate) fn familiar_repository(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.repository();
        }
        self.path.strip_prefix(OFFICIAL_PREFIX).unwrap_or(&self.path).to_owned()
    }

    /// The whole reference as people write it.
    pub(crate) fn familiar(&self) -> String {
        self.with_suffix(self.familiar_repository())
    }

    /// The same repository, by digest only.
    pub(crate) fn with_digest(&self, digest: &Digest) -> Self {
        Self { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text = format!("{text}:{tag}");
        }
        if let Some(digest) = &self.digest {
            text = format!("{text}@{digest}");
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.with_suffix(self.repository()))
    }
}

fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => (DEFAULT_DOMAIN, name),
    }
}

/// Whether the first part of a name is taken for a registry.
pub(crate) fn is_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Whether a name says nothing of its registry.
pub(crate) fn is_short(name: &str) -> bool {
    !name.split_once('/').is_some_and(|(first, _)| is_host(first))
}

/// A name without its tag and digest.
pub(crate) fn without_suffix(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    name[last..].find(':').map_or(name, |colon| &name[..last + colon])
}

fn check_domain(domain: &str) -> Result<()> {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else {
                bail!("the registry {domain:?} has no closing bracket");
            };
            if address.is_empty() || !address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':') {
                bail!("the registry {domain:?} is not an IPv6 address in brackets");
            }
            ("", port)
        }
        None => match domain.find(':') {
            Some(colon) => (&domain[..colon], &domain[colon..]),
            None => (domain, ""),
        },
    };
    if !port.is_empty() {
        let digits = port.strip_prefix(':').unwrap_or("");
        if digits.is_empty()
            || !digits.bytes().all(|byte| byte.is_ascii_digit())
            || digits.parse::<u16>().is_err()
        {
            bail!("the registry {domain:?} has no valid port");
        }
    }
    if domain.starts_with('[') {
        return Ok(());
    }
    for label in host.split('.') {
        let valid = !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !valid {
            // `Bad/Name` gets here: an upper-case first part is taken for a registry.
            bail!("the registry {domain:?} is not a host name");
        }
    }
    Ok(())
}

fn check_path(path: &str) -> Result<()> {
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        bail!("the repository name must be lower-case");
    }
    for component in path.split('/') {
        if !valid_component(component) {
            bail!(
                "the repository name part {component:?} is not lower-case letters and digits joined by \
                 '.', '_', '__' or dashes"
            );
        }
    }
    Ok(())
}

fn valid_component(component: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().is_some_and(|byte| word(*byte)) || !bytes.last().is_some_and(|byte| word(*byte)) {
        return false;
    }
    component.split(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit()).all(|separator| {
        matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
    })
}

fn check_tag(tag: &str) -> Result<&str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = tag.bytes();
    let valid = bytes.next().is_some_and(word)
        && bytes.all(|byte| word(byte) || byte == b'.' || byte == b'-')
        && tag.len() <= 128;
    if !valid {
        bail!("the tag {tag:?} is not 1 to 128 letters, digits, '_', '.' or '-'");
    }
    Ok(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    #[test]
    fn names_are_filled_in_as_docker_does() {
        let digest = format!("sha256:{HEX}");
        let table = [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("me/tool", "docker.io/me/tool:latest", "me/tool:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("docker.io/library/a:b", "docker.io/library/a:b", "a:b"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest", "127.0.0.1:5000/a/b/c:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("Host/x", "Host/x:latest", "Host/x:latest"),
            ("ghcr.io/a__b/c.d-e--f", "ghcr.io/a__b/c.d-e--f:latest", "ghcr.io/a__b/c.d-e--f:latest"),
            ("a_b/c", "docker.io/a_b/c:latest", "a_b/c:latest"),
        ];
        for (text, full, familiar) in table {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
        }
        let by_digest = Reference::parse(&format!("busybox@{digest}")).unwrap();
        assert_eq!(by_digest.tag(), None);
        assert_eq!(by_digest.selector(), digest);
        let both = Reference::parse(&format!("r.example:1/busybox:old@{digest}")).unwrap();
        assert_eq!((both.tag(), both.selector()), (Some("old"), digest.clone()));
    }

    #[test]
    fn what_is_not_a_reference_is_refused() {
        let long = "a".repeat(256);
        let long_tag = format!("x:{}", "t".repeat(129));
        let table = [
            "",
            ":latest",
            "@sha256:",
            "Busybox",
            "a/B",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "x:",
            "x:-y",
            "x:.y",
            "x:a/b/",
            "x@md5:abc",
            "x@sha256:abc",
            "host:99999/x",
            "host:p/x",
            "host:/x",
            "-h.example/x",
            "h..example/x",
            "[::1/x",
            "[zz]/x",
            "a b",
            "a\nb",
            "http://x/y",
            HEX,
            &long,
            &long_tag,
        ];
        for text in table {
            assert!(Reference::parse(text).is_err(), "{text:?} was taken");
        }
        let upper = format!("x@sha256:{}", HEX.to_uppercase());
        assert!(Reference::parse(&upper).is_err());
    }
}
