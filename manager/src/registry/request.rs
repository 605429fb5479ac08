//! What is sent: a method, an address, headers and a body that may have to be sent again.

use std::io::{self, Read};

use ureq::http::Method;

/// One request, before anything is known of challenges and redirects.
pub(crate) struct Request<'a> {
    pub(super) method: Method,
    /// Whole, or from `/` on.
    pub(super) address: String,
    pub(super) headers: Vec<(&'a str, &'a str)>,
    pub(super) body: Body<'a>,
    /// What a token has to allow, separated by spaces: `repository:library/busybox:pull`.
    pub(super) scope: String,
}

/// What goes with a request.
#[allow(dead_code, reason = "only a push sends bodies")]
pub(crate) enum Body<'a> {
    /// Nothing.
    Empty,
    /// A document in memory.
    Bytes(&'a [u8]),
    /// So many bytes from a reader.
    Stream {
        /// How many bytes the reader has.
        len: u64,
        /// Gives them from their beginning, once for each try: a challenge, a redirect or a busy
        /// server makes another one. Who cannot give them twice returns an error, which ends it.
        open: &'a dyn Fn() -> io::Result<Box<dyn Read + 'a>>,
    },
}

impl<'a> Request<'a> {
    /// A request without headers, body and scope.
    pub(super) fn new(method: Method, address: impl Into<String>) -> Self {
        Self { method, address: address.into(), headers: Vec::new(), body: Body::Empty, scope: String::new() }
    }

    /// Adds a header.
    #[allow(dead_code, reason = "only a push has one at a time")]
    pub(crate) fn header(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds several headers.
    pub(crate) fn headers(mut self, headers: &[(&'a str, &'a str)]) -> Self {
        self.headers.extend(headers);
        self
    }

    /// Sets the body; its length is sent with it.
    #[allow(dead_code, reason = "only a push sends bodies")]
    pub(crate) fn body(mut self, body: Body<'a>) -> Self {
        self.body = body;
        self
    }

    /// Wants one more scope than the repository's own: that of a mount's source.
    pub(crate) fn also(mut self, scope: &str) -> Self {
        if !self.scope.is_empty() {
            self.scope.push(' ');
        }
        self.scope.push_str(scope);
        self
    }
}

impl Body<'_> {
    /// How many bytes to announce.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Stream { len, .. } => *len,
        }
    }

    /// The bytes, from their beginning.
    pub(super) fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        match self {
            Self::Empty => Ok(Box::new(io::empty())),
            Self::Bytes(bytes) => Ok(Box::new(*bytes)),
            Self::Stream { open, .. } => open(),
        }
    }
}
