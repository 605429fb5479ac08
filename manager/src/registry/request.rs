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

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::super::RegistryArgs;
    use super::super::server::Server;
    use super::*;

    /// Answers one request after the other, each with a head and a body, and returns those of all
    /// requests.
    pub(in super::super) fn serve(
        answers: &'static [(&'static str, &'static str)],
    ) -> (String, std::thread::JoinHandle<Vec<(String, String)>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            // The first one is a look at what the server speaks.
            for (answer, content) in std::iter::once(&("200 OK\r\n", "")).chain(answers) {
                let (mut connection, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(connection.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
                }
                let lower = head.to_ascii_lowercase();
                let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
                let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
                reader.read_exact(&mut body).unwrap();
                seen.push((lower, String::from_utf8(body).unwrap()));
                let length = content.len();
                let end = format!("Connection: close\r\nContent-Length: {length}\r\n\r\n{content}");
                connection.write_all(format!("HTTP/1.1 {answer}{end}").as_bytes()).unwrap();
            }
            seen.split_off(1)
        });
        (host, thread)
    }

    pub(in super::super) fn server(host: &str) -> Server {
        let args = RegistryArgs { authfile: Some("/dev/null".into()), cert_dir: None, tls_verify: true };
        Server::new(host, host, &args, false).unwrap()
    }

    #[test]
    fn a_body_is_sent_anew_after_a_redirect_and_a_busy_server() {
        let (host, served) = serve(&[
            ("307 X\r\nLocation: /there?state=1\r\n", ""),
            ("503 X\r\nRetry-After: 0\r\n", ""),
            ("202 X\r\nLocation: next\r\n", ""),
            ("201 X\r\n", ""),
        ]);
        let opened = Cell::new(0);
        let open = || {
            opened.set(opened.get() + 1);
            Ok(Box::new(&b"content"[..]) as Box<dyn Read>)
        };
        let server = server(&host);
        let request = Request::new(Method::PATCH, "/here")
            .header("Content-Range", "0-6")
            .body(Body::Stream { len: 7, open: &open });
        // The busy server is asked at the first address again, where the next answer comes from.
        let answer = server.send(&request).unwrap();
        assert_eq!((answer.status().as_u16(), opened.get()), (202, 3));
        let next = server.location(&answer).unwrap();
        assert_eq!(next, format!("http://{host}/next"));
        let answer = server.send(&Request::new(Method::PUT, next)).unwrap();
        assert_eq!(answer.status(), 201);
        let seen = served.join().unwrap();
        let bodies: Vec<&str> = seen.iter().map(|(_, body)| body.as_str()).collect();
        assert_eq!(bodies, ["content", "content", "content", ""]);
        assert!(seen[1].0.starts_with("patch /there?state=1 ") && seen[1].0.contains("content-range: 0-6"));
        assert!(
            seen[3].0.starts_with("put /next ") && seen[3].0.contains("content-length: 0"),
            "{}",
            seen[3].0
        );
    }

    #[test]
    fn what_cannot_be_sent_twice_ends_the_request() {
        let (host, served) = serve(&[("503 X\r\nRetry-After: 0\r\n", "")]);
        let first = Cell::new(true);
        let open = || match first.replace(false) {
            true => Ok(Box::new(&b"x"[..]) as Box<dyn Read>),
            false => Err(io::Error::other("it came through a pipe")),
        };
        let request = Request::new(Method::PUT, "/").body(Body::Stream { len: 1, open: &open });
        let error = server(&host).send(&request).unwrap_err().to_string();
        assert!(error.contains("read what is to be sent: it came through a pipe"), "{error}");
        served.join().unwrap();
    }

    #[test]
    fn an_upload_is_not_turned_into_a_download() {
        let (host, served) = serve(&[("302 X\r\nLocation: /there\r\n", "")]);
        let request = Request::new(Method::PUT, "/").body(Body::Bytes(b"x"));
        let error = server(&host).send(&request).unwrap_err().to_string();
        assert!(error.contains("it redirects a PUT with the status 302"), "{error}");
        served.join().unwrap();
    }
}
