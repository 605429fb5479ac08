//! Digests: the only names content has here, and readers that refuse content which does not match.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#digests>
//!
//! A digest becomes part of paths and URLs, so a `Digest` exists only after its text was checked to
//! the letter (CVE-2024-3727: `sha256:../../x` as a path).

use std::fmt;
use std::io::{self, Read};

use anyhow::{Result, bail};
use oci_spec::image::{Descriptor, MediaType};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// The hash functions of image-spec that are built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Algorithm {
    /// 64 hexadecimal digits.
    Sha256,
    /// 128 hexadecimal digits.
    Sha512,
}

impl Algorithm {
    /// Its registered name, also the folder below `blobs/`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A digest known to be well-formed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    /// The one way in: `sha256:` and 64, or `sha512:` and 128, lower-case hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let Some((name, hex)) = text.split_once(':') else {
            bail!("{text:?} is not a digest: it has no colon");
        };
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => bail!("digest {text:?}: only sha256 and sha512 are supported"),
        };
        let digits = algorithm.hex_digits();
        if hex.len() != digits || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            bail!("digest {text:?} is not {name}: and {digits} lower-case hexadecimal digits");
        }
        Ok(Self { algorithm, hex: hex.to_owned() })
    }

    /// The digest that a descriptor of the specification's type carries.
    pub(crate) fn of_descriptor(descriptor: &Descriptor) -> Result<Self> {
        Self::parse(descriptor.digest().as_ref())
    }

    /// A descriptor of content with this digest.
    pub(crate) fn describe(&self, media_type: MediaType, size: u64) -> Result<Descriptor> {
        Ok(Descriptor::new(media_type, size, self.to_string().parse::<oci_spec::image::Digest>()?))
    }

    /// The sha256 digest of bytes in memory.
    pub(crate) fn sha256(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The hash function.
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digits alone.
    pub(crate) fn hex(&self) -> &str {
        &self.hex
    }

    /// The first twelve digits: what tables show.
    pub(crate) fn short(&self) -> &str {
        &self.hex[..12]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl TryFrom<String> for Digest {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// A hash being computed.
pub(crate) enum Hasher {
    /// sha256
    Sha256(sha2::Sha256),
    /// sha512
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Starts one.
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    /// Takes more bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of all bytes so far.
    pub(crate) fn finish(self) -> Digest {
        let (algorithm, bytes) = match self {
            Self::Sha256(hash) => (Algorithm::Sha256, hash.finalize().to_vec()),
            Self::Sha512(hash) => (Algorithm::Sha512, hash.finalize().to_vec()),
        };
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Digest { algorithm, hex }
    }
}

/// A reader that ends well only if its bytes are what a descriptor promised: neither fewer nor more
/// bytes, and the right hash. It never reads more than one byte past the promised size, so an
/// endless body ends too.
pub(crate) struct Verified<R> {
    inner: R,
    hasher: Option<Hasher>,
    digest: Digest,
    size: u64,
    seen: u64,
}

impl<R: Read> Verified<R> {
    /// Wraps `inner`, which must yield `size` bytes that hash to `digest`.
    pub(crate) fn new(inner: R, digest: &Digest, size: u64) -> Self {
        let hasher = Some(Hasher::new(digest.algorithm()));
        Self { inner, hasher, digest: digest.clone(), size, seen: 0 }
    }

    fn check_end(&mut self) -> io::Result<()> {
        // Reading on after the end stays the end.
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        if self.seen != self.size {
            return Err(invalid(format!("{} of {} bytes arrived", self.seen, self.size)));
        }
        let found = hasher.finish();
        if found != self.digest {
            return Err(invalid(format!("the content hashes to {found}, not to {}", self.digest)));
        }
        Ok(())
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let allowed = usize::try_from(self.size + 1 - self.seen).unwrap_or(usize::MAX);
        let end = buffer.len().min(allowed);
        let count = self.inner.read(&mut buffer[..end])?;
        if count == 0 {
            self.check_end()?;
            return Ok(0);
        }
        self.seen += count as u64;
        if self.seen > self.size {
            return Err(invalid(format!("more than the promised {} bytes arrived", self.size)));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn only_well_formed_digests_exist() {
        assert_eq!(Digest::parse(EMPTY).unwrap().to_string(), EMPTY);
        assert!(Digest::parse(&format!("sha512:{}", "a".repeat(128))).is_ok());
        let bad = [
            String::new(),
            "sha256".to_owned(),
            "sha256:".to_owned(),
            "sha256:../../../../etc/passwd".to_owned(),
            EMPTY.to_uppercase(),
            format!("sha256:{}", "A".repeat(64)),
            format!("sha256:{}", "a".repeat(63)),
            format!("sha256:{}", "a".repeat(65)),
            format!("sha512:{}", "a".repeat(64)),
            format!("md5:{}", "a".repeat(32)),
            format!("sha256:{}/", "a".repeat(63)),
            format!("sha256:{}\0", "a".repeat(63)),
        ];
        for text in bad {
            assert!(Digest::parse(&text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn hashes_match_known_values() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
        assert!(Hasher::new(Algorithm::Sha512).finish().hex().starts_with("cf83e1357eefb8bd"));
    }

    fn verify(content: &[u8], digest: &Digest, size: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Verified::new(content, digest, size).read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn a_verified_reader_refuses_short_long_and_different_content() {
        let digest = Digest::sha256(b"hello");
        assert_eq!(verify(b"hello", &digest, 5).unwrap(), b"hello");
        let message = |content: &[u8]| verify(content, &digest, 5).unwrap_err().to_string();
        assert!(message(b"hell").contains("4 of 5 bytes"));
        assert!(message(b"hello!").contains("more than the promised 5 bytes"));
        assert!(message(b"hellO").contains("hashes to"));
    }

    #[test]
    fn an_endless_body_ends() {
        let digest = Digest::sha256(b"hello");
        let error = io::copy(&mut Verified::new(io::repeat(b'x'), &digest, 5), &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("more than"));
    }
}
