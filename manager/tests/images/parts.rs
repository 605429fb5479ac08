//! Large blobs, which come in parts.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::Manager;
use crate::support::image::{Image, image};
use crate::support::server::{Reply, Request, Server, honest};
use crate::support::tar::Tar;

const MEGABYTE: usize = 1 << 20;

/// A layer of 100 MB that does not shrink.
fn large() -> Image {
    let file = crate::support::noise(1, MEGABYTE);
    let mut tar = Tar::new();
    for index in 0..100u8 {
        let content: Vec<u8> = file.iter().map(|byte| byte ^ index).collect();
        tar = tar.file(&format!("file{index}"), content);
    }
    image(&[tar.finish()])
}

fn parts_asked_for(server: &Server) -> Vec<String> {
    server.requests().iter().filter_map(|request| request.headers.get("range").cloned()).collect()
}

fn pulled(server: &Server) {
    let manager = Manager::new();
    let name = format!("{}/x", server.host);
    manager.ok(&["pull", "-q", &name]);
    assert_eq!(manager.ok(&["system", "check"]), "no faults\n");
    manager.ok(&["rmi", &name]);
    manager.assert_empty(&[]);
}

#[test]
fn a_large_blob_comes_in_parts_at_the_same_time() {
    let image = large();
    let inner = honest(&[("x", &image)]);
    let (now, most) = (AtomicUsize::new(0), std::sync::Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let server = Server::start(move |request: &Request| {
        if request.headers.contains_key("range") {
            seen.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(100));
            now.fetch_sub(1, Ordering::Relaxed);
        }
        inner(request)
    });
    pulled(&server);
    let asked = parts_asked_for(&server);
    assert_eq!(asked.len(), 7, "{asked:?}");
    assert!(asked.contains(&"bytes=16777216-33554431".to_owned()), "{asked:?}");
    assert!(most.load(Ordering::Relaxed) > 1, "one after the other");
}

#[test]
fn a_registry_without_ranges_sends_it_whole() {
    let image = large();
    let inner = honest(&[("x", &image)]);
    let server = Server::start(move |request: &Request| {
        let mut plain = request.clone();
        plain.headers.remove("range");
        inner(&plain)
    });
    pulled(&server);
    assert_eq!(parts_asked_for(&server).len(), 1);
}

#[test]
fn broken_parts_are_gone_on_with_and_wrong_ones_refused() {
    let image = large();
    let total: usize = image.blobs.values().map(Vec::len).sum();
    let inner = honest(&[("x", &image)]);
    let broken = Mutex::new(0);
    let server = Server::start(move |request: &Request| {
        let mut reply = inner(request);
        let mut count = broken.lock().unwrap();
        if reply.status == 206 && *count < 5 {
            *count += 1;
            reply.cut = Some(5 * MEGABYTE + *count);
        }
        reply
    });
    pulled(&server);
    let twice = server.sent().saturating_sub(total);
    assert!(twice < MEGABYTE, "{twice} bytes came twice");

    let inner = honest(&[("x", &image)]);
    let server = Server::start(move |request: &Request| {
        let mut reply = inner(request);
        if request.headers.get("range").is_some_and(|range| range.starts_with("bytes=50331648-")) {
            reply.body[12345] ^= 1;
        }
        reply
    });
    let manager = Manager::new();
    let error = manager.fails(&["pull", "-q", &format!("{}/x", server.host)]);
    assert!(error.contains("its content hashes to"), "{error}");
    manager.assert_empty(&[]);
    let refusing = Server::start({
        let inner = honest(&[("x", &image)]);
        move |request: &Request| match request.headers.get("range") {
            Some(range) if !range.starts_with("bytes=0-") => Reply::new(500, "no"),
            _ => inner(request),
        }
    });
    let error = manager.fails(&["pull", "-q", &format!("{}/x", refusing.host)]);
    assert!(error.contains("500"), "{error}");
}

#[test]
fn killed_amid_parts_it_is_gone_on_with() {
    let image = large();
    let total: usize = image.blobs.values().map(Vec::len).sum::<usize>() + image.manifest.len();
    for quarters in [2, 3] {
        let inner = honest(&[("x", &image)]);
        let server = Server::start(move |request: &Request| {
            let mut reply = inner(request);
            // The first part is a slow one: the others get ahead of it.
            let slow = request.headers.get("range").is_some_and(|range| range.starts_with("bytes=0-"));
            reply.pause = Some(Duration::from_micros(if slow { 3000 } else { 300 }));
            reply
        });
        let manager = Manager::new();
        let name = format!("{}/x", server.host);
        let mut child = manager.command(&["pull", "-q", &name]).spawn().unwrap();
        let start = Instant::now();
        while server.sent() < total / 4 * quarters && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(server.sent() < total, "it was done before it was killed");
        manager.ok(&["pull", "-q", &name]);
        let twice = server.sent().saturating_sub(total);
        assert!(twice < MEGABYTE, "{twice} bytes came twice");
        assert_eq!(manager.ok(&["system", "check"]), "no faults\n");
    }
}
