//! Registries that lie, break off, or never end: each gives one sentence that names the thing, and
//! leaves nothing behind but what can be gone on from.

use serde_json::json;

use crate::support::image::{self, INDEX, Image, MANIFEST, Packed, architecture, digest, image, image_of};
use crate::support::server::{Reply, Request, Server, honest};
use crate::support::tar::Tar;
use crate::support::{Manager, noise};

fn sample() -> Image {
    image(&[Tar::new().file("noise", noise(1, 200_000)).finish(), Tar::new().file("small", "x").finish()])
}

/// Pulls from a registry that answers honestly but for what `lie` changes.
fn pull(image: &Image, lie: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> (Manager, String) {
    let inner = honest(&[("x", image)]);
    let server = Server::start(move |request| {
        let reply = inner(request);
        lie(request, reply)
    });
    let manager = Manager::new();
    let error = manager.fails(&["pull", "-q", &format!("{}/x", server.host)]);
    assert!(error.contains(&format!("pull {}/x:latest", server.host)), "{error}");
    (manager, error)
}

#[test]
fn a_layer_with_another_digest_is_refused() {
    let image = sample();
    let layer = image.layers[0].clone();
    let expected = layer.clone();
    let (manager, error) = pull(&image, move |request, mut reply| {
        if request.path.ends_with(&layer) {
            reply.body[1000] ^= 1;
        }
        reply
    });
    assert!(error.contains(&format!("layer {expected}: its content hashes to sha256:")), "{error}");
    manager.assert_only_other_parts(&image.layers[0]);
}

#[test]
fn a_truncated_layer_is_refused_and_its_part_kept() {
    let image = sample();
    let layer = image.layers[0].clone();
    let expected = layer.clone();
    let (manager, error) = pull(&image, move |request, mut reply| {
        if request.path.ends_with(&layer) {
            reply.cut = Some(50_000.min(reply.body.len()));
            reply.status = 200;
            reply.headers.clear();
        }
        reply
    });
    assert!(error.contains(&format!("layer {expected}: ")), "{error}");
    assert!(error.contains(" bytes came"), "{error}");
    manager.assert_empty(&["ingest"]);
}

#[test]
fn a_layer_of_the_wrong_size_is_refused() {
    let image = sample();
    let layer = image.layers[0].clone();
    let (manager, error) = pull(&image, move |request, mut reply| {
        if request.path.ends_with(&layer) {
            reply.body.extend(b"more");
        }
        reply
    });
    assert!(error.contains(&image.layers[0]) && error.contains("more than its"), "{error}");
    manager.assert_only_other_parts(&image.layers[0]);
}

#[test]
fn an_endless_layer_ends() {
    let image = sample();
    let layer = image.layers[1].clone();
    let (manager, error) = pull(&image, move |request, mut reply| {
        if request.path.ends_with(&layer) {
            reply.endless = true;
        }
        reply
    });
    assert!(error.contains(&image.layers[1]) && error.contains("more than its"), "{error}");
    manager.assert_only_other_parts(&image.layers[1]);
}

#[test]
fn an_endless_manifest_ends() {
    let (manager, error) = pull(&sample(), |request, mut reply| {
        reply.endless = request.path.contains("manifests");
        reply
    });
    assert!(error.contains("manifest has more than 4194304 bytes"), "{error}");
    manager.assert_empty(&[]);
}

#[test]
fn a_manifest_that_does_not_match_its_digest_header_is_refused() {
    let (manager, error) = pull(&sample(), |request, reply| {
        if !request.path.contains("manifests") {
            return reply;
        }
        reply.header("Docker-Content-Digest", format!("sha256:{}", "0".repeat(64)))
    });
    assert!(error.contains("the registry states another digest"), "{error}");
    manager.assert_empty(&[]);
}

#[test]
fn a_digest_header_that_is_a_path_is_refused() {
    // CVE-2024-3727
    let (manager, error) = pull(&sample(), |_, reply| {
        reply.header("Docker-Content-Digest", "sha256:../../../../../../etc/passwd")
    });
    assert!(error.contains("is not sha256:"), "{error}");
    manager.assert_empty(&[]);
}

#[test]
fn a_manifest_pulled_by_digest_must_have_it() {
    let image = sample();
    let other = self::image(&[Tar::new().file("other", "x").finish()]);
    let wanted = image.digest();
    let lie = other.manifest.clone();
    let inner = honest(&[("x", &image)]);
    let server = Server::start(move |request| {
        let reply = inner(request);
        if request.path.contains("manifests") {
            Reply::new(200, lie.clone()).header("Content-Type", MANIFEST)
        } else {
            reply
        }
    });
    let manager = Manager::new();
    let error = manager.fails(&["pull", "-q", &format!("{}/x@{wanted}", server.host)]);
    assert!(error.contains(&format!("not to {wanted}")), "{error}");
    manager.assert_empty(&[]);
}

#[test]
fn a_document_that_is_both_manifest_and_index_is_refused() {
    // GHSA-5j5w-g665-5m35
    let image = sample();
    let mut both: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    both["manifests"] = json!([]);
    both.as_object_mut().unwrap().remove("mediaType");
    let both = both.to_string().into_bytes();
    for media_type in [MANIFEST, INDEX] {
        let both = both.clone();
        let (manager, error) = pull(&image, move |request, reply| {
            if request.path.contains("manifests") {
                Reply::new(200, both.clone()).header("Content-Type", media_type)
            } else {
                reply
            }
        });
        assert!(error.contains("both the fields of an index and of a manifest"), "{error}");
        manager.assert_empty(&[]);
    }
}

#[test]
fn a_manifest_under_another_media_type_is_refused() {
    let (manager, error) = pull(&sample(), |request, reply| {
        if request.path.contains("manifests") { reply.header("Content-Type", INDEX) } else { reply }
    });
    assert!(error.contains("says it is"), "{error}");
    manager.assert_empty(&[]);
}

#[test]
fn dockers_first_manifest_format_is_named() {
    let (manager, error) = pull(&sample(), |request, reply| {
        if !request.path.contains("manifests") {
            return reply;
        }
        Reply::new(200, r#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#)
            .header("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
    });
    assert!(error.contains("docker schema 1"), "{error}");
    manager.assert_empty(&[]);
}

#[test]
fn a_configuration_with_another_digest_is_refused() {
    let image = sample();
    let config = image.config.clone();
    let (manager, error) = pull(&image, move |request, mut reply| {
        if request.path.ends_with(&config) {
            reply.body =
                String::from_utf8(reply.body).unwrap().replace("PATH=/bin", "PATH=/bad").into_bytes();
        }
        reply
    });
    assert!(error.contains(&format!("image configuration {}", image.config)), "{error}");
    manager.assert_empty(&[]);
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    let tar = Tar::new().file("x", "x").finish();
    let lie = digest(b"another tar");
    let packed = image::pack(&tar, Packed::Gzip);
    let image = image_of(&[(packed, Packed::Gzip)], std::slice::from_ref(&lie), architecture(), false);
    let (manager, error) = pull(&image, |_, reply| reply);
    assert!(error.contains(&format!("layer {}: its tar hashes to", image.layers[0])), "{error}");
    assert!(error.contains(&lie), "{error}");
    manager.assert_empty(&[]);
}

#[test]
fn a_truncated_gzip_is_named() {
    let tar = Tar::new().file("x", noise(1, 100_000)).finish();
    let whole = image::pack(&tar, Packed::Gzip);
    for cut in [whole.len() / 2, whole.len() - 4, 5] {
        let image =
            image_of(&[(whole[..cut].to_vec(), Packed::Gzip)], &[digest(&tar)], architecture(), false);
        let (manager, error) = pull(&image, |_, reply| reply);
        assert!(
            error.contains(&format!("layer {}: its gzip stream is truncated", image.layers[0])),
            "{error}"
        );
        manager.assert_empty(&[]);
    }
}

#[test]
fn damaged_streams_are_named() {
    // Compressible, or the damage would be in stored bytes, which only the digest notices.
    let text: Vec<u8> = noise(1, 100_000).iter().map(|byte| byte & 15).collect();
    let tar = Tar::new().file("x", text).finish();
    for (packed, name) in [(Packed::Gzip, "gzip stream"), (Packed::Zstd, "zstd stream")] {
        let mut blob = image::pack(&tar, packed);
        let middle = blob.len() / 2;
        blob[middle..middle + 64].fill(0xff);
        let image = image_of(&[(blob, packed)], &[digest(&tar)], architecture(), false);
        let (manager, error) = pull(&image, |_, reply| reply);
        // zstd without a checksum may decode to something else: the digest of the tar tells.
        let told = [format!("its {name} is "), "its tar hashes to ".to_owned()];
        assert!(
            told.iter().any(|told| error.contains(&format!("layer {}: {told}", image.layers[0]))),
            "{error}"
        );
        manager.assert_empty(&[]);
    }
}

#[test]
fn what_is_no_tar_is_refused() {
    let junk = noise(1, 5000);
    let image = image_of(&[(junk.clone(), Packed::Plain)], &[digest(&junk)], architecture(), false);
    let (manager, error) = pull(&image, |_, reply| reply);
    assert!(error.contains("the tar is malformed"), "{error}");
    manager.assert_empty(&[]);
}

#[test]
fn a_tar_may_end_with_one_block_of_zeros_or_none() {
    let whole = Tar::new().file("x", "x").finish();
    for end in [1024, 512, 0] {
        let tar = whole[..1024 + end].to_vec();
        let image = image_of(&[(tar.clone(), Packed::Plain)], &[digest(&tar)], architecture(), false);
        let server = Server::start(honest(&[("x", &image)]));
        Manager::new().ok(&["pull", "-q", &format!("{}/x", server.host)]);
    }
}

#[test]
fn a_tar_that_ends_in_an_entry_is_refused() {
    let whole = Tar::new().file("x", noise(1, 3000)).finish();
    let cut = whole[..1500].to_vec();
    let image = image_of(&[(cut.clone(), Packed::Plain)], &[digest(&cut)], architecture(), false);
    let (manager, error) = pull(&image, |_, reply| reply);
    assert!(error.contains("entry \"x\"") && error.contains("middle of an entry"), "{error}");
    manager.assert_empty(&[]);
}

#[test]
fn a_zstd_window_of_gigabytes_is_refused() {
    // A frame header that asks for a 2 GiB window (RFC 8878, 3.1.1.1.2), and one empty block.
    let blob = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
    let image = image_of(&[(blob, Packed::Zstd)], &[digest(b"")], architecture(), false);
    let (manager, error) = pull(&image, |_, reply| reply);
    assert!(error.contains("zstd stream is damaged"), "{error}");
    manager.assert_empty(&[]);
}

#[test]
fn unknown_images_and_absent_registries_are_named() {
    let server = Server::start(honest(&[]));
    let manager = Manager::new();
    let error = manager.fails(&["pull", "-q", &format!("{}/nosuch", server.host)]);
    assert_eq!(
        error,
        format!(
            "manager: pull {0}/nosuch:latest: manifest for {0}/nosuch:latest not found: manifest unknown\n",
            server.host
        )
    );
    let error = manager.fails(&["pull", "-q", "127.0.0.1:1/x"]);
    assert!(error.contains("registry 127.0.0.1:1: Connection refused"), "{error}");
    let error = manager.fails(&["pull", "-q", "nosuch.invalid/x"]);
    assert!(error.contains("registry nosuch.invalid:"), "{error}");
    manager.assert_empty(&[]);
}

#[test]
fn a_registrys_words_cannot_write_to_the_terminal() {
    let server = Server::start(|request| {
        if request.path == "/v2/" {
            return Reply::new(200, "");
        }
        Reply::new(403, r#"{"errors":[{"code":"DENIED","message":"\u001b[2Jno\nway"}]}"#)
    });
    let error = Manager::new().fails(&["pull", "-q", &format!("{}/x", server.host)]);
    assert!(error.contains("[2Jnoway") && !error.contains('\u{1b}'), "{error:?}");
}
