//! registries.conf: mirrors, other locations, what is blocked, and short names.

use std::path::PathBuf;
use std::process::Output;

use serde_json::json;

use crate::support::image::{Image, image};
use crate::support::server::{Reply, Request, Server, honest};
use crate::support::tar::Tar;
use crate::support::{Manager, Ran, noise};

fn sample() -> Image {
    image(&[Tar::new().file("noise", noise(3, 100_000)).finish(), Tar::new().file("small", "x").finish()])
}

/// A manager with a configuration file of its own.
struct Configured {
    manager: Manager,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Configured {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registries.conf");
        std::fs::write(&file, config).unwrap();
        Self { manager: Manager::new(), file, _folder: folder }
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let mut command = self.manager.command(arguments);
        command.env("CONTAINERS_REGISTRIES_CONF", &self.file).output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let ran = Ran::of(self.output(arguments));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        ran.stdout
    }

    fn fails(&self, arguments: &[&str]) -> String {
        let ran = Ran::of(self.output(arguments));
        assert_eq!(ran.code, Some(1), "{arguments:?}: {ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        ran.stderr
    }
}

fn config(upstream: &Server, mirrors: &[(&Server, &str)]) -> String {
    let mut text = format!("[[registry]]\nprefix = \"up.example\"\nlocation = \"{}\"\n", upstream.host);
    for (mirror, more) in mirrors {
        text.push_str(&format!("[[registry.mirror]]\nlocation = \"{}/copy\"\n{more}\n", mirror.host));
    }
    text
}

fn absent(_: &Request) -> Reply {
    Reply::new(404, r#"{"errors":[{"code":"NAME_UNKNOWN","message":"unknown"}]}"#)
}

#[test]
fn a_tag_is_resolved_by_the_registry_and_the_rest_comes_from_the_mirror() {
    let image = sample();
    let upstream = Server::start(honest(&[("x", &image)]));
    let mirror = Server::start(honest(&[("copy/x", &image)]));
    let configured = Configured::new(&config(&upstream, &[(&mirror, "")]));
    let printed = configured.ok(&["pull", "-q", "up.example/x"]);
    assert_eq!(printed, "up.example/x:latest\n");
    assert_eq!(mirror.count("/manifests/"), 0);
    assert_eq!(mirror.count("/blobs/"), 3);
    assert_eq!((upstream.count("/manifests/latest"), upstream.count("/blobs/")), (1, 0));

    // By digest the registry is not asked at all.
    let configured = Configured::new(&config(&upstream, &[(&mirror, "")]));
    let before = upstream.requests().len();
    configured.ok(&["pull", "-q", &format!("up.example/x@{}", image.digest())]);
    assert_eq!(upstream.requests().len(), before);
    assert_eq!(mirror.count("/manifests/"), 1);
}

#[test]
fn a_mirror_that_is_trusted_with_tags_stands_in_for_the_registry() {
    let image = sample();
    let upstream = Server::start(absent);
    let mirror = Server::start(honest(&[("copy/x", &image)]));
    let trusted = config(&upstream, &[(&mirror, "pull-from-mirror = \"all\"")]);
    Configured::new(&trusted).ok(&["pull", "-q", "up.example/x"]);
    assert_eq!(upstream.requests().len(), 0);

    // And without that trust one is told what is missing.
    let gone = config(&upstream, &[(&mirror, "")]).replace(&upstream.host, "127.0.0.1:1");
    let error = Configured::new(&gone).fails(&["pull", "-q", "up.example/x"]);
    assert!(error.contains("Connection refused") && error.contains("pull-from-mirror = \"all\""), "{error}");

    let only_tags = config(&upstream, &[(&mirror, "pull-from-mirror = \"tag-only\"")]);
    let error =
        Configured::new(&only_tags).fails(&["pull", "-q", &format!("up.example/x@{}", image.digest())]);
    assert!(error.contains("not found"), "{error}");
}

#[test]
fn mirrors_that_lack_fail_or_lie_are_passed_over() {
    let image = sample();
    let (config_digest, layer) = (image.config.clone(), image.layers[0].clone());
    let empty = Server::start(absent);
    let broken = Server::start(|request| Reply::new(if request.path == "/v2/" { 200 } else { 400 }, "no"));
    let (inner, bad) = (honest(&[("copy/x", &image)]), layer.clone());
    let liar = Server::start(move |request| {
        let mut reply = inner(request);
        if request.path.ends_with(&bad) || request.path.ends_with(&config_digest) {
            reply.body[10] ^= 1;
        }
        reply
    });
    let (inner, cut) = (honest(&[("copy/x", &image)]), layer.clone());
    let breaks = Server::start(move |request| {
        let mut reply = inner(request);
        if request.path.ends_with(&cut) {
            reply.cut = Some(30_000);
        }
        reply
    });
    for mirrors in [vec![&empty], vec![&broken], vec![&liar], vec![&breaks], vec![&empty, &breaks]] {
        let upstream = Server::start(honest(&[("x", &image)]));
        let mirrors: Vec<(&Server, &str)> =
            mirrors.into_iter().map(|mirror| (mirror, "pull-from-mirror = \"all\"")).collect();
        Configured::new(&config(&upstream, &mirrors)).ok(&["pull", "-q", "up.example/x"]);
        assert_eq!(upstream.count(&layer), 1);
    }
    // Asked once, found broken, and not again.
    assert_eq!(broken.count("/copy/"), 1);
    // When all fail, all are named.
    let upstream = Server::start(absent);
    let mirrors = [(&broken, "pull-from-mirror = \"all\""), (&empty, "pull-from-mirror = \"all\"")];
    let error = Configured::new(&config(&upstream, &mirrors)).fails(&["pull", "-q", "up.example/x"]);
    assert!(error.contains("manifest for up.example/x:latest not found: unknown (mirror"), "{error}");
    assert!(error.contains("400 Bad Request") && error.contains(&empty.host), "{error}");
}

#[test]
fn a_mirror_never_sees_the_registrys_credentials() {
    // tester:secret
    const SECRET: &str = "dGVzdGVyOnNlY3JldA==";
    let image = sample();
    let inner = honest(&[("x", &image)]);
    let upstream = Server::start(move |request| {
        if request.headers.get("authorization").map(String::as_str) != Some(&format!("Basic {SECRET}")) {
            return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=test");
        }
        inner(request)
    });
    // It asks for a password, too; and has a token server which asks for one.
    let mirror = Server::start(|request| {
        if request.path.starts_with("/token") {
            return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=test");
        }
        let realm =
            format!("Bearer realm=\"http://{}/token\",service=\"up.example\"", request.headers["host"]);
        Reply::new(401, "").header("WWW-Authenticate", realm)
    });
    let configured = Configured::new(&config(&upstream, &[(&mirror, "pull-from-mirror = \"all\"")]));
    let auths = json!({"auths": {
        upstream.host.as_str(): {"auth": SECRET},
        "up.example": {"auth": SECRET},
    }});
    let authfile = configured.file.with_file_name("auth.json");
    std::fs::write(&authfile, auths.to_string()).unwrap();
    configured.ok(&["pull", "-q", "--authfile", authfile.to_str().unwrap(), "up.example/x"]);
    assert!(mirror.count("/copy/") > 0);
    let seen = mirror.requests();
    assert!(seen.iter().all(|request| !request.headers.contains_key("authorization")), "{seen:?}");
    assert!(seen.iter().all(|request| !request.path.contains("tester")), "{seen:?}");
}

#[test]
fn blocked_registries_and_broken_files_are_named() {
    let blocked = Configured::new("[[registry]]\nlocation = \"127.0.0.1:1/group\"\nblocked = true\n");
    let error = blocked.fails(&["pull", "-q", "127.0.0.1:1/group/x"]);
    assert!(error.contains("registries.conf blocks the registry 127.0.0.1:1/group"), "{error}");
    let error = Configured::new("[registries.search]\n").fails(&["pull", "-q", "x"]);
    assert!(error.contains("version 1 of the format"), "{error}");
    let image = sample();
    let server = Server::start(honest(&[("x", &image)]));
    let unknown = Configured::new("colour = \"blue\"\n");
    let ran = Ran::of(unknown.output(&["pull", "-q", &format!("{}/x", server.host)]));
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.stderr.ends_with("registries.conf: \"colour\" is not supported and has no effect\n"),
        "{ran:?}"
    );
}

#[test]
fn short_names_go_where_the_files_say() {
    let image = sample();
    let (first, second) =
        (Server::start(absent), Server::start(honest(&[("x", &image), ("group/y", &image)])));
    let search = format!("unqualified-search-registries = [\"{}\", \"{}\"]\n", first.host, second.host);
    let configured = Configured::new(&search);
    let printed = configured.ok(&["pull", "-q", "x"]);
    assert_eq!(printed, format!("{}/x:latest\n", second.host));
    // And what was pulled by a short name is found by it.
    assert!(configured.ok(&["image", "inspect", "x"]).contains(&image.config));
    assert_eq!(configured.ok(&["images", "-q", "x:latest"]).lines().count(), 1);
    configured.ok(&["rmi", "x"]);
    let error = configured.fails(&["pull", "-q", "nosuch"]);
    assert!(error.contains("no registry has it") && error.contains(&second.host), "{error}");

    let enforcing = Configured::new(&format!("{search}short-name-mode = \"enforcing\"\n"));
    let error = enforcing.fails(&["pull", "-q", "x"]);
    assert!(error.contains("the short name \"x\" may be") && error.contains("give the whole one"), "{error}");

    let aliases = format!("[aliases]\nnick = \"{}/group/y\"\n", second.host);
    let configured = Configured::new(&aliases);
    let printed = configured.ok(&["pull", "nick"]);
    assert!(printed.contains("Resolved \"nick\" as an alias (/"), "{printed}");
    assert!(printed.ends_with(&format!("{}/group/y:latest\n", second.host)), "{printed}");
    configured.ok(&["rmi", "nick"]);

    // A registry that does not answer might have had it.
    let down = Configured::new(&search.replace(&first.host, "127.0.0.1:1"));
    let error = down.fails(&["pull", "-q", "x"]);
    assert!(error.contains("127.0.0.1:1: Connection refused"), "{error}");
}

#[test]
fn warnings_are_passed_on_once() {
    let image = sample();
    let inner = honest(&[("x", &image)]);
    let server = Server::start(move |request| inner(request).header("Warning", "299 - \"moves tomorrow\""));
    let ran = Manager::new().run(&["pull", "-q", &format!("{}/x", server.host)]);
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.stderr, format!("manager: registry {} warns: moves tomorrow\n", server.host));
}
