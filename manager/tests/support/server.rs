//! A registry in the test's own process, which answers what the test wants: truth or lies.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::image::{Image, digest};

/// A request, headers in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// An answer.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// Never end the body.
    pub(crate) endless: bool,
    /// Wait after every 16 KiB.
    pub(crate) pause: Option<Duration>,
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A running server; stopped with the value.
pub(crate) struct Server {
    pub(crate) host: String,
    requests: Arc<Mutex<Vec<Request>>>,
    sent: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None, endless: false, pause: None }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let host = listener.local_addr().expect("listen").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let sent = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let handler: Arc<Handler> = Arc::new(handler);
        let (seen, count, stopped) = (requests.clone(), sent.clone(), stop.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (handler, seen) = (handler.clone(), seen.clone());
                let (count, stopped) = (count.clone(), stopped.clone());
                std::thread::spawn(move || {
                    // The client may hang up whenever it has seen enough.
                    let _ = serve(connection, &*handler, &seen, &count, &stopped);
                });
            }
        });
        Self { host, requests, sent, stop }
    }

    /// How many bytes of bodies it has sent.
    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }

    /// How many requests had this in their path.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.requests().iter().filter(|request| request.path.contains(part)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.host);
    }
}

fn serve(
    mut connection: TcpStream,
    handler: &Handler,
    seen: &Mutex<Vec<Request>>,
    sent: &AtomicUsize,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    // A TLS handshake; we speak plain HTTP only.
    if reader.fill_buf()?.first() == Some(&0x16) {
        return Ok(());
    }
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let request = Request { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() };
    seen.lock().expect("no panic").push(request.clone());
    let reply = handler(&request);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    if !reply.endless {
        head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
    }
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    connection.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let end = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
    for piece in reply.body[..end].chunks(16 * 1024) {
        connection.write_all(piece)?;
        sent.fetch_add(piece.len(), Ordering::Relaxed);
        if let Some(pause) = reply.pause {
            std::thread::sleep(pause);
        }
    }
    while reply.endless && !stop.load(Ordering::Relaxed) {
        connection.write_all(&[b'x'; 4096])?;
    }
    Ok(())
}

/// Answers like an honest registry that has these images, each under `name:tag`.
pub(crate) fn honest(images: &[(&str, &Image)]) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let images: Vec<(String, String, Image)> = images
        .iter()
        .map(|(name, image)| {
            let (name, tag) = name.split_once(':').unwrap_or((name, "latest"));
            (name.to_owned(), tag.to_owned(), (*image).clone())
        })
        .collect();
    move |request| {
        let path = request.path.split('?').next().unwrap_or_default();
        if path == "/v2/" {
            return Reply::new(200, "{}");
        }
        for (name, tag, image) in &images {
            let Some(rest) = path.strip_prefix(&format!("/v2/{name}/")) else { continue };
            if let Some(selector) = rest.strip_prefix("manifests/")
                && (selector == tag || selector == image.digest())
            {
                return Reply::new(200, image.manifest.clone())
                    .header("Content-Type", image.manifest_type.clone())
                    .header("Docker-Content-Digest", digest(&image.manifest));
            }
            if let Some(blob) = rest.strip_prefix("blobs/").and_then(|digest| image.blobs.get(digest)) {
                return ranged(request, blob);
            }
        }
        Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#)
    }
}

/// A blob, or what the request wants of it.
pub(crate) fn ranged(request: &Request, blob: &[u8]) -> Reply {
    let Some(range) = request.headers.get("range").and_then(|text| text.strip_prefix("bytes=")) else {
        return Reply::new(200, blob);
    };
    let (start, last) = range.split_once('-').expect("a range");
    let start: usize = start.parse().expect("a number");
    let end = last.parse().map_or(blob.len(), |last: usize| blob.len().min(last + 1));
    if start >= end {
        return Reply::new(416, "");
    }
    Reply::new(206, &blob[start..end])
        .header("Content-Range", format!("bytes {start}-{}/{}", end - 1, blob.len()))
}
