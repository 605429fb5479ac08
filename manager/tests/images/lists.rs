//! Lists from registries: tags, what refers to an image, and searches.

use serde_json::{Value, json};

use crate::support::image::{INDEX, image};
use crate::support::registry::Registry;
use crate::support::server::{Reply, Request, Server};
use crate::support::tar::Tar;
use crate::support::{Manager, has};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn dockers_registry_lists_tags_and_repositories() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = Registry::start();
    let image = image(&[Tar::new().file("x", "x").finish()]);
    for name in ["group/tool:1", "group/tool:2", "group/tool:3", "other:latest"] {
        registry.push(&image, name);
    }
    let manager = Manager::new();
    let tool = format!("{}/group/tool", registry.host);
    // This registry has them in no order.
    let listed = manager.ok(&["tags", &tool]);
    let mut sorted = lines(&listed);
    sorted.sort_unstable();
    assert_eq!(sorted, ["1", "2", "3"]);
    assert_eq!(lines(&manager.ok(&["tags", "--limit", "2", &tool])), lines(&listed)[..2]);
    let told: Value = serde_json::from_str(&manager.ok(&["tags", "--format", "json", &tool])).unwrap();
    assert_eq!(told, json!({"Repository": tool, "Tags": lines(&listed)}));
    let error = manager.fails(&["tags", &format!("{}/nosuch", registry.host)]);
    assert!(error.contains("repository name not known to registry"), "{error}");
    let error = manager.fails(&["tags", &format!("{tool}:1")]);
    assert!(error.contains("give the repository only"), "{error}");

    let found = manager.ok(&["search", "--format", "{{.Name}}", &format!("{}/tool", registry.host)]);
    assert_eq!(lines(&found), [tool.as_str()]);
    let all = manager.ok(&["search", &format!("{}/", registry.host)]);
    assert_eq!(lines(&all).len(), 3, "{all}");
    assert!(all.starts_with("NAME ") && all.contains("DESCRIPTION   STARS     OFFICIAL\n"), "{all}");
    // This registry does not know of referrers, and there are none under the tag either.
    let listed = manager.ok(&["referrers", &format!("{tool}:1")]);
    assert_eq!(lines(&listed), ["DIGEST    TYPE      SIZE"]);
}

#[test]
fn pages_are_followed_as_far_as_they_are_wanted() {
    let server = Server::start(|request| {
        let page = |tags: &[&str], next: &str| {
            let reply = Reply::new(200, json!({"name": "x", "tags": tags}).to_string());
            if next.is_empty() { reply } else { reply.header("Link", format!("<{next}>; rel=\"next\"")) }
        };
        match request.path.as_str() {
            "/v2/x/tags/list" | "/v2/x/tags/list?n=3" => page(&["a", "b"], "/v2/x/tags/list?last=b"),
            "/v2/x/tags/list?last=b" => page(&["c\u{1b}[1m", "d"], "list?last=d"),
            "/v2/x/tags/list?last=d" => page(&["e"], ""),
            "/v2/round/tags/list?last=a" => page(&["a"], "/v2/round/tags/list?last=a"),
            "/v2/round/tags/list" => page(&["a"], "/v2/round/tags/list?last=a"),
            "/v2/empty/tags/list" => Reply::new(200, r#"{"name":"empty","tags":null}"#),
            "/v2/junk/tags/list" => Reply::new(200, "junk"),
            "/v2/away/tags/list" => page(&["a"], "http://203.0.113.1/v2/x/tags/list"),
            _ => Reply::new(200, "{}"),
        }
    });
    let manager = Manager::new();
    let name = |path: &str| format!("{}/{path}", server.host);
    assert_eq!(lines(&manager.ok(&["tags", &name("x")])), ["a", "b", "c[1m", "d", "e"]);
    assert_eq!(server.count("/v2/x/"), 3);
    assert_eq!(lines(&manager.ok(&["tags", "--limit", "3", &name("x")])), ["a", "b", "c[1m"]);
    assert_eq!(server.count("/v2/x/"), 5);
    assert_eq!(manager.ok(&["tags", &name("empty")]), "");
    for (path, part) in
        [("round", "names itself as the next one"), ("junk", "read the list"), ("away", "which is not HTTPS")]
    {
        let error = manager.fails(&["tags", &name(path)]);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn referrers_come_from_the_endpoint_or_from_the_tag_that_stands_in_for_it() {
    let entry = |kind: &str, size: u64| {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": DIGEST, "size": size,
            "artifactType": kind})
    };
    let index =
        |entries: &[Value]| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
    let (first, second) =
        (index(&[entry("a/signature+json", 1), entry("a/list", 2)]), index(&[entry("a/signature+json", 3)]));
    let tagged = index(&[entry("a/list", 4)]);
    let server = Server::start(move |request: &Request| {
        let whole = |body: &str| Reply::new(200, body.to_owned()).header("Content-Type", INDEX);
        let path = request.path.as_str();
        let (base, query) = path.split_once('?').unwrap_or((path, ""));
        if base == format!("/v2/new/referrers/{DIGEST}") {
            return if query.contains("page=2") {
                whole(&second)
            } else {
                whole(&first).header("Link", format!("<{base}?page=2>; rel=\"next\""))
            };
        }
        if path == format!("/v2/old/manifests/{}", DIGEST.replace(':', "-")) {
            return whole(&tagged);
        }
        if path == format!("/v2/wrong/manifests/{}", DIGEST.replace(':', "-")) {
            return Reply::new(200, "{\"schemaVersion\":2,\"manifests\":[]}")
                .header("Content-Type", "text/plain");
        }
        Reply::new(if path == "/v2/" { 200 } else { 404 }, "{}")
    });
    let manager = Manager::new();
    let name = |path: &str| format!("{}/{path}@{DIGEST}", server.host);
    let sizes = |arguments: &[&str]| -> Vec<u64> {
        let told = manager.ok(&[&["referrers", "--format", "json"], arguments].concat());
        let told: Vec<Value> = serde_json::from_str(&told).unwrap();
        told.iter().map(|one| one["size"].as_u64().unwrap()).collect()
    };
    assert_eq!(sizes(&[&name("new")]), [1, 2, 3]);
    assert_eq!(sizes(&["--artifact-type", "a/signature+json", &name("new")]), [1, 3]);
    assert_eq!(server.count("artifactType=a%2Fsignature%2Bjson"), 1);
    assert_eq!(sizes(&[&name("old")]), [4]);
    assert_eq!(sizes(&["--artifact-type", "a/other", &name("old")]), Vec::<u64>::new());
    assert_eq!(sizes(&[&name("none")]), Vec::<u64>::new());
    let error = manager.fails(&["referrers", &name("wrong")]);
    assert!(error.contains("not an index of referrers"), "{error}");
    let table = manager.ok(&["referrers", &name("old")]);
    assert!(table.contains("a/list    4B"), "{table}");
}

#[test]
fn searches_print_dockers_table() {
    let server = Server::start(|request| {
        if request.path == "/v1/search?q=busy%20box&n=25" {
            let long = "d".repeat(60);
            return Reply::new(
                200,
                json!({"num_results": 3, "results": [
                    {"name": "busybox", "description": long, "star_count": 3000, "is_official": true},
                    {"name": "me/busybox", "description": "two\nlines", "star_count": 5, "is_automated": true},
                    {"name": "no/stars"},
                ]})
                .to_string(),
            );
        }
        Reply::new(if request.path == "/v2/" { 200 } else { 404 }, "")
    });
    let manager = Manager::new();
    let term = format!("{}/busy box", server.host);
    let host = &server.host;
    let printed = manager.ok(&["search", &term]);
    let rows: Vec<Vec<&str>> = printed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]);
    assert_eq!(rows[1][1..], [&*format!("{}…", "d".repeat(44)), "3000", "[OK]"]);
    assert_eq!(rows[2], [&*format!("{host}/me/busybox"), "two", "lines", "5"]);
    let names = |arguments: &[&str]| {
        let arguments = [&["search", "--format", "{{.Name}} {{.StarCount}}"], arguments, &[&term]].concat();
        manager.ok(&arguments).replace(&format!("{host}/"), "")
    };
    assert_eq!(names(&["--filter", "stars=5"]), "busybox 3000\nme/busybox 5\n");
    assert_eq!(names(&["--filter", "is-official=true"]), "busybox 3000\n");
    assert_eq!(names(&["--filter", "stars=1", "-f", "is-automated=true"]), "me/busybox 5\n");
    let whole = manager.ok(&["search", "--no-trunc", "--format", "json", &term]);
    assert!(whole.contains(&"d".repeat(60)) && whole.lines().count() == 3, "{whole}");
    let error = manager.fails(&["search", "--filter", "colour=red", &term]);
    assert!(error.contains("colour=red"), "{error}");
    let error = manager.fails(&["search", &format!("{host}/other")]);
    assert!(error.contains(&format!("search {host}: registry {host}: 404")), "{error}");
}
