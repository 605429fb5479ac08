//! Pulling from registries that mean well.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::image::{self, INDEX, Packed, architecture, digest, image, image_with};
use crate::support::registry::Registry;
use crate::support::server::{Reply, Server, honest};
use crate::support::tar::Tar;
use crate::support::{Manager, has, noise, tool};

fn small(content: &str) -> Vec<u8> {
    Tar::new().dir("bin").file("bin/tool", content).symlink("bin/sh", "tool").finish()
}

/// Hexadecimal digits differ from run to run; lines do not.
fn without_digests(text: &str) -> String {
    let mut words = Vec::new();
    for line in text.lines() {
        let line: Vec<String> = line
            .split(' ')
            .map(|word| {
                let digits = word.trim_start_matches("sha256:").trim_end_matches(':');
                let hex = digits.len() >= 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                if hex { word.replace(digits, "HEX") } else { word.to_owned() }
            })
            .collect();
        words.push(line.join(" "));
    }
    words.join("\n")
}

#[test]
fn pull_from_dockers_registry_prints_dockers_lines() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = Registry::start();
    let name = registry.push(&image(&[small("one")]), "group/busybox:latest");
    let name = name.trim_end_matches(":latest");
    let manager = Manager::new();
    let first = manager.ok(&["pull", name]);
    assert_eq!(
        without_digests(&first),
        format!(
            "Using default tag: latest\nlatest: Pulling from group/busybox\nHEX: Pulling fs layer\n\
             HEX: Verifying Checksum\nHEX: Download complete\nHEX: Pull complete\nDigest: sha256:HEX\n\
             Status: Downloaded newer image for {name}:latest\n{name}:latest"
        )
    );
    let second = manager.ok(&["pull", name]);
    assert_eq!(
        without_digests(&second),
        format!(
            "Using default tag: latest\nlatest: Pulling from group/busybox\nHEX: Already exists\n\
             Digest: sha256:HEX\nStatus: Image is up to date for {name}:latest\n{name}:latest"
        )
    );
    assert_eq!(manager.ok(&["pull", "-q", name]), format!("{name}:latest\n"));
    let layer = manager.only_layer();
    assert_eq!(std::fs::read_to_string(layer.join("bin/tool")).unwrap(), "one");
    assert_eq!(std::fs::read_link(layer.join("bin/sh")).unwrap().to_str(), Some("tool"));
    let private =
        |path: &str| std::fs::metadata(manager.root().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(private(""), 0o700);
    assert_eq!(private("layers"), 0o700);
}

#[test]
fn other_tools_read_the_store() {
    if !has("docker-registry") || !has("skopeo") || !has("umoci") {
        return;
    }
    let registry = Registry::start();
    let name = registry.push(&image(&[small("one"), small("two")]), "busybox:1.2");
    let manager = Manager::new();
    manager.ok(&["pull", &name]);
    let layout = manager.root().join("oci").display().to_string();
    let inspected = tool("skopeo", &["inspect", &format!("oci:{layout}:{name}")]);
    assert!(inspected.contains("\"Architecture\""), "{inspected}");
    let folder = tempfile::tempdir().unwrap();
    let copy = format!("oci:{}:copy", folder.path().join("copy").display());
    tool("skopeo", &["copy", "--quiet", &format!("oci:{layout}:{name}"), &copy]);
    assert!(tool("umoci", &["list", "--layout", &layout]).contains(&name));
}

#[test]
fn all_compressions_unpack_to_the_same() {
    let tar = small("packed");
    for (packed, docker) in
        [(Packed::Plain, false), (Packed::Gzip, false), (Packed::Zstd, false), (Packed::Gzip, true)]
    {
        let image = image_with(&[(tar.clone(), packed)], architecture(), docker);
        let server = Server::start(honest(&[("x", &image)]));
        let manager = Manager::new();
        manager.ok(&["pull", "-q", &format!("{}/x", server.host)]);
        let content = std::fs::read_to_string(manager.only_layer().join("bin/tool")).unwrap();
        assert_eq!(content, "packed", "{packed:?}");
    }
}

#[test]
fn many_gzip_members_and_a_large_file_unpack_whole() {
    let content: Vec<u8> = (0..3_000_000u32).flat_map(|number| (number % 251).to_le_bytes()).collect();
    let tar = Tar::new().file("large", &content).finish();
    let (start, end) = tar.split_at(tar.len() / 3);
    let packed = [image::pack(start, Packed::Gzip), image::pack(end, Packed::Gzip)].concat();
    let image = image::image_of(&[(packed, Packed::Gzip)], &[digest(&tar)], architecture(), false);
    let server = Server::start(honest(&[("x", &image)]));
    let manager = Manager::new();
    manager.ok(&["pull", "-q", &format!("{}/x", server.host)]);
    assert!(std::fs::read(manager.only_layer().join("large")).unwrap() == content);
}

#[test]
fn an_index_gives_this_machines_image_or_the_wanted_one() {
    let ours = image_with(&[(small("ours"), Packed::Gzip)], architecture(), false);
    let theirs = image_with(&[(small("theirs"), Packed::Gzip)], "s390x", false);
    let entry = |image: &image::Image, architecture: &str| {
        let mut entry = image.descriptor();
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    };
    let attestation = entry(&theirs, "unknown");
    let index = json!({"schemaVersion": 2, "mediaType": INDEX,
        "manifests": [attestation, entry(&theirs, "s390x"), entry(&ours, architecture())]});
    let index = index.to_string().into_bytes();
    let index_digest = digest(&index);
    let inner = honest(&[("x:ours", &ours), ("x:theirs", &theirs)]);
    let server = Server::start(move |request| match request.path.as_str() {
        "/v2/x/manifests/latest" => Reply::new(200, index.clone()).header("Content-Type", INDEX),
        _ => inner(request),
    });
    let name = format!("{}/x", server.host);
    let manager = Manager::new();
    let output = manager.ok(&["pull", &name]);
    assert!(output.contains(&format!("Digest: {index_digest}")), "{output}");
    assert_eq!(std::fs::read_to_string(manager.only_layer().join("bin/tool")).unwrap(), "ours");
    let found =
        manager.ok(&["image", "inspect", "-f", "{{.Architecture}}", &format!("{name}@{index_digest}")]);
    assert_eq!(found.trim(), architecture());

    let other = Manager::new();
    other.ok(&["pull", "-q", "--platform", "linux/s390x", &name]);
    assert_eq!(std::fs::read_to_string(other.only_layer().join("bin/tool")).unwrap(), "theirs");
    let error = other.fails(&["pull", "-q", "--platform", "linux/riscv64", &name]);
    assert!(error.contains("no matching manifest for linux/riscv64"), "{error}");
}

#[test]
fn pull_by_digest_needs_no_tag() {
    let image = image(&[small("one")]);
    let server = Server::start(honest(&[("x:other", &image)]));
    let name = format!("{}/x@{}", server.host, image.digest());
    let manager = Manager::new();
    manager.ok(&["pull", &name]);
    let listed = manager.ok(&["images"]);
    assert!(listed.contains("<none>"), "{listed}");
    assert!(manager.ok(&["image", "inspect", &name]).contains(&image.config));
}

/// The digest says which image it is, and nothing of what the tag beside it names.
#[test]
fn pull_by_tag_and_digest_leaves_the_tag_alone() {
    let (one, two) = (image(&[small("one")]), image(&[small("two")]));
    let server = Server::start(honest(&[("x:latest", &one), ("x:other", &two)]));
    let manager = Manager::new();
    manager.ok(&["pull", "-q", &format!("{}/x", server.host)]);
    let pinned = format!("{}/x:latest@{}", server.host, two.digest());
    manager.ok(&["pull", "-q", &pinned]);
    assert!(manager.ok(&["image", "inspect", &format!("{}/x:latest", server.host)]).contains(&one.config));
    assert!(manager.ok(&["image", "inspect", &pinned]).contains(&two.config));
}

#[test]
fn a_private_registry_takes_the_right_password_only() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = Registry::start_private();
    let name = registry.push(&image(&[small("one")]), "x:1");
    let manager = Manager::new();
    let error = manager.fails(&["pull", "-q", &name]);
    assert!(error.contains("there are no credentials for 127.0.0.1:"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("auth.json");
    let entry = |auth: &str| json!({"auths": {registry.host.as_str(): {"auth": auth}}}).to_string();
    // tester:wrong
    std::fs::write(&file, entry("dGVzdGVyOndyb25n")).unwrap();
    let error = manager.fails(&["pull", "-q", "--authfile", file.to_str().unwrap(), &name]);
    assert!(error.contains("authentication required") && !error.contains("no credentials"), "{error}");
    // tester:secret
    std::fs::write(&file, entry("dGVzdGVyOnNlY3JldA==")).unwrap();
    manager.ok(&["pull", "-q", "--authfile", file.to_str().unwrap(), &name]);
    let by_variable = Manager::new();
    let output =
        by_variable.command(&["pull", "-q", &name]).env("REGISTRY_AUTH_FILE", &file).output().unwrap();
    assert!(output.status.success());
}

#[test]
fn bearer_tokens_are_fetched_once_and_again_when_their_scope_is_too_small() {
    // RFC 6750 has 403 for that, registries have 401.
    for status in [401, 403] {
        let image = image(&[small("one"), small("two"), small("three")]);
        let inner = honest(&[("x", &image)]);
        let server = Server::start(move |request| {
            let host = &request.headers["host"];
            let challenge = |status: u16, more: &str| {
                let error = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
                let value = format!("Bearer realm=\"http://{host}/token\",service=\"test\",{more}");
                Reply::new(status, error).header("WWW-Authenticate", value)
            };
            if let Some(query) = request.path.strip_prefix("/token?") {
                assert!(query.contains("service=test") && query.contains("pull"), "{query}");
                let token = if query.contains("look") { "good" } else { "poor" };
                return Reply::new(200, format!(r#"{{"token":"{token}"}}"#));
            }
            match request.headers.get("authorization").map(String::as_str) {
                _ if request.path == "/v2/" => Reply::new(200, ""),
                Some("Bearer good") => inner(request),
                Some("Bearer poor") => {
                    challenge(status, r#"scope="repository:x:look",error="insufficient_scope""#)
                }
                _ => challenge(401, r#"scope="repository:x:pull""#),
            }
        });
        let manager = Manager::new();
        manager.ok(&["pull", "-q", &format!("{}/x", server.host)]);
        let tokens: Vec<String> = server
            .requests()
            .into_iter()
            .map(|one| one.path)
            .filter(|path| path.contains("/token"))
            .collect();
        assert_eq!(tokens.len(), 2, "{tokens:?}");
        assert!(tokens[1].contains("pull,look") || tokens[1].contains("pull%2Clook"), "{tokens:?}");
    }
}

#[test]
fn expired_tokens_are_renewed_for_all_layers_at_once() {
    let image = image(&[small("one"), small("two"), small("three"), small("four")]);
    let inner = honest(&[("x", &image)]);
    let tokens = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        if request.path == "/v2/" {
            return Reply::new(200, "");
        }
        if request.path.starts_with("/token?") {
            // The first one is for the manifest only; from then on there is one and the same.
            let number = tokens.fetch_add(1, Ordering::Relaxed).min(1);
            return Reply::new(200, format!(r#"{{"access_token":"t{number}","expires_in":60}}"#));
        }
        let wanted = if request.path.contains("/manifests/") { "Bearer t0" } else { "Bearer t1" };
        if request.headers.get("authorization").map(String::as_str) == Some(wanted) {
            std::thread::sleep(Duration::from_millis(20));
            return inner(request);
        }
        std::thread::sleep(Duration::from_millis(20));
        let realm = format!("Bearer realm=\"http://{}/token\",service=\"test\"", request.headers["host"]);
        Reply::new(401, "").header("WWW-Authenticate", realm)
    });
    Manager::new().ok(&["pull", "-q", &format!("{}/x", server.host)]);
}

#[test]
fn a_credential_helper_is_asked() {
    use std::os::unix::fs::PermissionsExt as _;
    let image = image(&[small("one")]);
    let inner = honest(&[("x", &image)]);
    let server = Server::start(move |request| {
        if request.headers.get("authorization").map(String::as_str) != Some("Basic dGVzdGVyOnNlY3JldA==") {
            return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=test");
        }
        inner(request)
    });
    let manager = Manager::new();
    let folder = tempfile::tempdir().unwrap();
    let helper = folder.path().join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread server\n[ \"$1 $server\" = \"get {}\" ] || {{ echo credentials not found; exit 1; }}\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"tester\",\"Secret\":\"secret\"}}'\n",
        server.host
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.path().join("config.json"), r#"{"auths":{},"credsStore":"test"}"#).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let name = format!("{}/x", server.host);
    let mut command = manager.command(&["pull", "-q", &name]);
    let output = command.env("DOCKER_CONFIG", folder.path()).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn credentials_stay_with_the_registry_on_redirects() {
    // CVE-2020-15157
    let image = image(&[small("one")]);
    let storage = Server::start({
        let inner = honest(&[("x", &image)]);
        move |request| inner(request)
    });
    let target = storage.host.clone();
    let inner = honest(&[("x", &image)]);
    let server = Server::start(move |request| {
        if request.headers.get("authorization").map(String::as_str) != Some("Basic dGVzdGVyOnNlY3JldA==") {
            return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=test");
        }
        if request.path.contains("/blobs/") {
            return Reply::new(307, "").header("Location", format!("http://{target}{}", request.path));
        }
        inner(request)
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("auth.json");
    let auth = json!({"auths": {server.host.as_str(): {"auth": "dGVzdGVyOnNlY3JldA=="}}});
    std::fs::write(&file, auth.to_string()).unwrap();
    let manager = Manager::new();
    manager.ok(&["pull", "-q", "--authfile", file.to_str().unwrap(), &format!("{}/x", server.host)]);
    let seen = storage.requests();
    assert!(seen.len() >= 2, "{seen:?}");
    assert!(seen.iter().all(|request| !request.headers.contains_key("authorization")), "{seen:?}");
}

#[test]
fn relative_redirects_and_busy_servers_are_followed() {
    let image = image(&[small("one")]);
    let inner = honest(&[("x", &image)]);
    let busy = Mutex::new(vec![429, 503]);
    let server = Server::start(move |request| {
        if request.path.contains("manifests")
            && let Some(status) = busy.lock().unwrap().pop()
        {
            return Reply::new(status, "").header("Retry-After", "0");
        }
        match request.path.strip_prefix("/moved") {
            Some(path) => {
                let mut request = request.clone();
                request.path = path.to_owned();
                inner(&request)
            }
            None if request.path.contains("/blobs/") => {
                Reply::new(302, "").header("Location", format!("/moved{}", request.path))
            }
            None => inner(request),
        }
    });
    Manager::new().ok(&["pull", "-q", &format!("{}/x", server.host)]);
    assert_eq!(server.count("manifests/latest"), 3);
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_was() {
    let noise = noise(1, 400_000);
    let image = image(&[Tar::new().file("noise", &noise).finish()]);
    let layer = image.layers[0].clone();
    let inner = honest(&[("x", &image)]);
    let server = Server::start(move |request| {
        let mut reply = inner(request);
        if request.path.ends_with(&layer) && !request.headers.contains_key("range") {
            reply.cut = Some(100_000);
        }
        reply
    });
    let manager = Manager::new();
    manager.ok(&["pull", "-q", &format!("{}/x", server.host)]);
    let ranges: Vec<String> =
        server.requests().iter().filter_map(|request| request.headers.get("range").cloned()).collect();
    assert_eq!(ranges, ["bytes=100000-"]);
    assert!(std::fs::read(manager.only_layer().join("noise")).unwrap() == noise);
}

#[test]
fn a_killed_pull_leaves_a_download_that_the_next_one_goes_on_from() {
    let noise = noise(1, 400_000);
    let image = image(&[Tar::new().file("noise", &noise).finish()]);
    let size = image.blobs[&image.layers[0]].len();
    let layer = image.layers[0].clone();
    let inner = honest(&[("x", &image)]);
    let server = Server::start(move |request| {
        let mut reply = inner(request);
        if request.path.ends_with(&layer) && !request.headers.contains_key("range") {
            // Slow near the end, so that the kill hits the middle.
            reply.pause = Some(Duration::from_millis(40));
        }
        reply
    });
    let name = format!("{}/x", server.host);
    let manager = Manager::new();
    let mut child = manager.command(&["pull", "-q", &name]).spawn().unwrap();
    let part = || std::fs::read_dir(manager.root().join("ingest")).ok()?.next()?.ok()?.metadata().ok();
    while part().is_none_or(|found| found.len() < 100_000) {
        std::thread::sleep(Duration::from_millis(10));
        assert!(child.try_wait().unwrap().is_none(), "the pull was too quick for the test");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(manager.ok(&["images", "-q"]).is_empty());
    manager.ok(&["pull", "-q", &name]);
    let range = server.requests().iter().find_map(|request| request.headers.get("range").cloned()).unwrap();
    let start: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    assert!(start >= 100_000 && start < size, "{range}");
    assert!(std::fs::read(manager.only_layer().join("noise")).unwrap() == noise);
    manager.ok(&["rmi", &name]);
    manager.assert_empty(&[]);
}

#[test]
fn two_pulls_of_one_image_do_the_work_once() {
    let image = image(&[small("one"), small("two")]);
    let layer = image.layers[0].clone();
    let inner = honest(&[("x", &image), ("y", &image)]);
    let server = Server::start(move |request| {
        let reply = inner(request);
        if request.path.ends_with(&layer) {
            std::thread::sleep(Duration::from_millis(300));
        }
        reply
    });
    let manager = Manager::new();
    // The first command of a store makes it; that is not what is tested.
    manager.ok(&["images"]);
    let names = [format!("{}/x", server.host), format!("{}/y", server.host)];
    let children: Vec<_> =
        names.iter().map(|name| manager.command(&["pull", "-q", name]).spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(server.count(&image.layers[0]), 1);
    assert_eq!(manager.ok(&["images", "-q"]).lines().count(), 2);
}

#[test]
fn attributes_of_all_kinds_arrive() {
    use crate::support::tar::{DIR, FILE, Meta};
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = Tar::new()
        .dir_with("./", Meta { mode: 0o711, ..DIR })
        .dir_with("tmp", Meta { mode: 0o1777, mtime: "1234567890.123456789", ..DIR })
        .file_with("tmp/su", "x", Meta { mode: 0o6755, uid: 1000, gid: 70_000, mtime: "100.5", ..FILE })
        .file_with(
            "cap",
            "x",
            Meta {
                mode: 0o755,
                uid: 5,
                xattrs: &[("security.capability", capability), ("user.note", b"hello\n")],
                ..FILE
            },
        )
        .hard_link("cap2", "cap")
        .fifo("pipe")
        .device("null", 1, 3)
        .symlink("dangling", "/no/where")
        .file("name with \u{e9} and \n newline", "x")
        .file(&format!("{}/{}", "d".repeat(200), "f".repeat(200)), "long")
        .finish();
    let image = image(&[tar]);
    let server = Server::start(honest(&[("x", &image)]));
    let manager = Manager::new();
    manager.ok(&["pull", "-q", &format!("{}/x", server.host)]);
    let layer = manager.only_layer();
    let stat = |path: &str| std::fs::symlink_metadata(layer.join(path)).unwrap();
    assert_eq!(stat("").mode() & 0o7777, 0o711);
    assert_eq!(stat("tmp").mode() & 0o7777, 0o1777);
    assert_eq!((stat("tmp").mtime(), stat("tmp").mtime_nsec()), (1_234_567_890, 123_456_789));
    let su = stat("tmp/su");
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid()), (0o6755, 1000, 70_000));
    assert_eq!((su.mtime(), su.mtime_nsec()), (100, 500_000_000));
    assert_eq!(stat("cap").ino(), stat("cap2").ino());
    assert!(stat("pipe").file_type().is_fifo());
    assert!(stat("null").file_type().is_char_device());
    assert_eq!(stat("null").rdev(), nix::sys::stat::makedev(1, 3));
    assert!(stat("name with \u{e9} and \n newline").is_file());
    assert_eq!(stat("d".repeat(200).as_str()).mode() & 0o7777, 0o755);
    if has("getfattr") {
        let dump = tool("getfattr", &["-d", "-m", "-", "-e", "hex", layer.join("cap").to_str().unwrap()]);
        assert!(dump.contains("security.capability=0x0100000200040000"), "{dump}");
        assert!(dump.contains("user.note=0x68656c6c6f0a"), "{dump}");
    }
}
