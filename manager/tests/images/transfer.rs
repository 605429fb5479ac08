//! Push, copy, save and load: out of the store and between places, with other tools at the other end.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::image::{INDEX, Image, Packed, architecture, digest, image, image_with};
use crate::support::registry::Registry;
use crate::support::tar::Tar;
use crate::support::{Manager, Ran, has, tool};

fn layer(content: &str) -> Vec<u8> {
    Tar::new().file(content, content).finish()
}

fn raw(reference: &str) -> String {
    tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")])
}

/// An index of an image for this machine, one for another, and an attestation.
pub(crate) fn index_layout(folder: &Path) -> (Image, Image, Vec<u8>) {
    let own = image(&[layer("own"), layer("shared")]);
    let other =
        image_with(&[(layer("other"), Packed::Gzip), (layer("shared"), Packed::Gzip)], "s390x", false);
    let statement = br#"{"_type":"https://in-toto.io/Statement/v0.1"}"#.to_vec();
    let config = b"{}".to_vec();
    let blob = |bytes: &[u8], media_type: &str| json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()});
    let attestation = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(&config, "application/vnd.oci.image.config.v1+json"),
        "layers": [blob(&statement, "application/vnd.in-toto+json")],
    })
    .to_string()
    .into_bytes();
    let entry = |image: &Image, architecture: &str| {
        let mut entry = image.descriptor();
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    };
    let mut unknown = blob(&attestation, "application/vnd.oci.image.manifest.v1+json");
    unknown["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [entry(&other, "s390x"), entry(&own, architecture()), unknown],
    })
    .to_string()
    .into_bytes();
    own.write_layout(folder, "unused");
    let blobs = folder.join("blobs/sha256");
    let mut all = other.blobs.clone();
    all.insert(other.digest(), other.manifest.clone());
    for bytes in [&statement, &config, &attestation, &index] {
        all.insert(digest(bytes), bytes.clone());
    }
    for (digest, bytes) in all {
        std::fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).expect("write a blob");
    }
    let mut top = blob(&index, INDEX);
    top["annotations"] = json!({"org.opencontainers.image.ref.name": "many"});
    let text = json!({"schemaVersion": 2, "manifests": [top]}).to_string();
    std::fs::write(folder.join("index.json"), text).expect("write index.json");
    (own, other, index)
}

#[test]
fn what_was_pulled_is_pushed_back_to_the_byte() {
    let registry = Registry::start_private();
    let manager = Manager::new();
    std::fs::write(
        manager.root().with_file_name("auth"),
        json!({"auths": {registry.host.clone(): {"auth": "dGVzdGVyOnNlY3JldA=="}}}).to_string(),
    )
    .expect("write credentials");
    let auth = manager.root().with_file_name("auth");
    let auth = auth.to_str().expect("a path");
    for (n, docker) in [false, true].into_iter().enumerate() {
        let image =
            image_with(&[(layer("one"), Packed::Gzip), (layer("two"), Packed::Gzip)], architecture(), docker);
        let name = format!("{}/from{n}", registry.host);
        let folder = tempfile::tempdir().expect("a folder");
        image.write_layout(folder.path(), "image");
        let layout = format!("oci:{}", folder.path().display());
        manager.ok(&["copy", "-q", "--authfile", auth, &layout, &format!("docker://{name}")]);
        manager.ok(&["pull", "-q", "--authfile", auth, &name]);
        let to = format!("{}/to{n}:v1", registry.host);
        manager.ok(&["tag", &name, &to]);
        let output = manager.ok(&["push", "--authfile", auth, &to]);
        assert!(
            output.starts_with(&format!("The push refers to repository [{}/to{n}]\n", registry.host)),
            "{output}"
        );
        assert!(output.contains(&format!("Mounted from from{n}")), "{output}");
        assert!(
            output.contains(&format!("v1: digest: {} size: {}\n", image.digest(), image.manifest.len())),
            "{output}"
        );
        let again = manager.ok(&["push", "--authfile", auth, &to]);
        assert_eq!(again.matches("Layer already exists").count(), 3, "{again}");
        let found = tool(
            "skopeo",
            &["inspect", "--raw", "--tls-verify=false", "--creds=tester:secret", &format!("docker://{to}")],
        );
        assert_eq!(found.as_bytes(), &image.manifest[..]);
    }
    let ran = manager.run(&["push", &format!("{}/to0:v1", registry.host)]);
    assert!(ran.code == Some(1) && ran.stderr.contains("no credentials"), "{ran:?}");
    assert!(manager.fails(&["push", "nosuch"]).contains("does not exist locally with the tag: nosuch"));
}

#[test]
fn an_image_is_pushed_to_a_registry_that_has_nothing_of_it() {
    let (from, to) = (Registry::start(), Registry::start());
    let image = image(&[layer("one"), Tar::new().file("large", crate::support::noise(1, 40 << 20)).finish()]);
    let name = from.push(&image, "a");
    let manager = Manager::new();
    manager.ok(&["pull", "-q", &name]);
    let there = format!("{}/b/c:2", to.host);
    let output = manager.ok(&["push", &name, &there]);
    assert_eq!(output.matches(": Pushed\n").count(), 3, "{output}");
    assert_eq!(raw(&there).as_bytes(), &image.manifest[..]);
    let other = Manager::new();
    other.ok(&["pull", "-q", &there]);
    assert_eq!(other.stored("layers"), manager.stored("layers"));
}

#[test]
fn all_platforms_are_kept_and_go_on_together() {
    if !has("skopeo") {
        return;
    }
    let (registry, folder) = (Registry::start(), tempfile::tempdir().expect("a folder"));
    let (own, other, index) = index_layout(folder.path());
    let name = format!("{}/many", registry.host);
    let layout = format!("oci:{}:many", folder.path().display());
    let manager = Manager::new();
    manager.ok(&["copy", "-q", "--all-platforms", &layout, &format!("docker://{name}")]);
    assert_eq!(raw(&name).as_bytes(), index);

    manager.ok(&["pull", "-q", &name]);
    assert!(!manager.stored("oci/blobs/sha256").contains(&other.config.replace("sha256:", "")));
    let single = format!("{}/single", registry.host);
    manager.ok(&["push", &name, &single]);
    assert_eq!(raw(&single).as_bytes(), &own.manifest[..]);

    manager.ok(&["pull", "-q", "--all-platforms", &name]);
    assert_eq!(manager.stored("layers").len(), 2, "only this platform's layers are unpacked");
    let whole = format!("{}/whole", registry.host);
    manager.ok(&["push", &name, &whole]);
    assert_eq!(raw(&whole).as_bytes(), index);
    let archive = folder.path().join("saved.tar");
    manager.ok(&["save", "-o", archive.to_str().expect("a path"), &name]);
    let loaded = Manager::new();
    assert_eq!(
        loaded.ok(&["load", "-q", "-i", archive.to_str().expect("a path")]),
        format!("Loaded image: {name}:latest\n")
    );
    let third = format!("{}/third", registry.host);
    loaded.ok(&["push", &name, &third]);
    assert_eq!(raw(&third).as_bytes(), index);
    manager.ok(&["rmi", &name]);
    manager.assert_empty(&[]);
}

#[test]
fn other_tools_read_what_is_saved() {
    if !has("skopeo") || !has("umoci") {
        return;
    }
    let registry = Registry::start();
    let image = image(&[layer("one"), layer("two")]);
    let name = registry.push(&image, "a");
    let manager = Manager::new();
    manager.ok(&["pull", "-q", &name]);
    manager.ok(&["tag", &name, "a:1"]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    manager.ok(&["save", "-o", &path("docker.tar"), "a:1"]);
    manager.ok(&["save", "--format", "oci-archive", "-o", &path("oci.tar"), "a:1"]);
    manager.ok(&["save", "--format", "oci-dir", "-o", &path("oci"), "a:1"]);
    for source in [
        format!("docker-archive:{}:docker.io/library/a:1", path("docker.tar")),
        format!("oci-archive:{}:docker.io/library/a:1", path("oci.tar")),
        format!("oci:{}:docker.io/library/a:1", path("oci")),
    ] {
        let config: Value =
            serde_json::from_str(&tool("skopeo", &["inspect", "--config", &source])).expect("JSON");
        assert_eq!(config["rootfs"]["diff_ids"].as_array().map(Vec::len), Some(2), "{source}");
        // All of its layers too.
        tool("skopeo", &["copy", "-q", &source, &format!("dir:{}", path("copy"))]);
    }
    tool(
        "umoci",
        &[
            "unpack",
            "--rootless",
            "--image",
            &format!("{}:docker.io/library/a:1", path("oci")),
            &path("bundle"),
        ],
    );
    assert!(folder.path().join("bundle/rootfs/two").exists());
    // A second image goes beside the first.
    let second = crate::support::image::image(&[layer("three")]);
    let name = registry.push(&second, "b");
    manager.ok(&["copy", "-q", &format!("docker://{name}"), &format!("oci:{}:b", path("oci"))]);
    tool("skopeo", &["inspect", &format!("oci:{}:b", path("oci"))]);
    tool("skopeo", &["inspect", &format!("oci:{}:docker.io/library/a:1", path("oci"))]);
    // Through a pipe.
    let piped = manager.command(&["save", "a:1"]).stdout(Stdio::piped()).output().expect("save");
    assert_eq!(piped.stdout, std::fs::read(path("docker.tar")).expect("read"));
}

#[test]
fn what_other_tools_save_is_loaded() {
    if !has("skopeo") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let image = image(&[layer("one"), layer("two"), layer("one")]);
    image.write_layout(&folder.path().join("layout"), "image");
    let layout = format!("oci:{}:image", path("layout"));
    // Made by the same code as podman's: no layout in it, plain layers.
    tool("skopeo", &["copy", "-q", &layout, &format!("docker-archive:{}:r.example/x:1", path("docker.tar"))]);
    tool("skopeo", &["copy", "-q", &layout, &format!("oci-archive:{}:r.example/y:1", path("oci.tar"))]);
    tool("gzip", &["-k", &path("docker.tar")]);
    tool("zstd", &["-q", "-k", &path("oci.tar")]);
    tool("xz", &["-9", "-k", &path("oci.tar")]);
    tool("bzip2", &["-k", &path("oci.tar")]);
    let table = [
        ("docker.tar", "r.example/x:1"),
        ("docker.tar.gz", "r.example/x:1"),
        ("oci.tar", "r.example/y:1"),
        ("oci.tar.zst", "r.example/y:1"),
        ("oci.tar.xz", "r.example/y:1"),
        ("oci.tar.bz2", "r.example/y:1"),
        ("layout", "image:latest"),
    ];
    for (file, name) in table {
        let manager = Manager::new();
        assert_eq!(
            manager.ok(&["load", "-q", "-i", &path(file)]),
            format!("Loaded image: {name}\n"),
            "{file}"
        );
        let config = manager.ok(&["image", "inspect", "--format", "{{.Id}}", name]);
        assert_eq!(config.trim_end(), image.config, "{file}");
        assert_eq!(manager.stored("layers").len(), 2);
    }
    // From a pipe, whose parts cannot be read out of order.
    let manager = Manager::new();
    let script = format!("cat {} | exec \"$@\"", path("docker.tar.gz"));
    let command = manager.command(&["load"]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
    let ran = Ran::of(shell.output().expect("run a pipe"));
    assert_eq!(ran.stdout, "Loaded image: r.example/x:1\n", "{ran:?}");
}

/// The maker of an archive says what it is called, and everybody else trusts names (CVE-2026-50195).
#[test]
fn a_loaded_name_takes_over_no_other_image_unasked() {
    let folder = tempfile::tempdir().expect("a folder");
    let (good, bad) = (image(&[layer("good")]), image(&[layer("bad")]));
    good.write_layout(&folder.path().join("good"), "docker.io/library/alpine:latest");
    bad.write_layout(&folder.path().join("bad"), "docker.io/library/alpine:latest");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let manager = Manager::new();
    manager.ok(&["load", "-q", "-i", &path("good")]);
    manager.ok(&["load", "-q", "-i", &path("good")]);
    let error = manager.fails(&["load", "-q", "-i", &path("bad")]);
    assert!(error.contains("alpine:latest is another image here") && error.contains("--replace"), "{error}");
    let id = || manager.ok(&["image", "inspect", "--format", "{{.Id}}", "alpine"]);
    assert_eq!(id().trim_end(), good.config);
    manager.ok(&["load", "-q", "--replace", "-i", &path("bad")]);
    assert_eq!(id().trim_end(), bad.config);
}

#[test]
fn bad_archives_are_refused_and_leave_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("write");
    let image = image(&[layer("one")]);
    image.write_layout(&folder.path().join("layout"), "image");
    let blob = folder.path().join("layout/blobs/sha256").join(image.layers[0].replace("sha256:", ""));
    let mut bytes = std::fs::read(&blob).expect("read");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&blob, bytes).expect("write");
    write("empty", b"");
    write("text", b"hello, this is no archive at all");
    write("no-index", &Tar::new().file("x", "y").finish());
    write(
        "list",
        &Tar::new().file("manifest.json", r#"[{"Config":"c.json","Layers":["../../etc/passwd"]}]"#).finish(),
    );
    write("xz", b"\xfd7zXZ\0");
    write("bzip2", b"BZh91AY&SY");
    write("cut", &Tar::new().file("manifest.json", "x".repeat(2000)).finish()[..1000]);
    for (file, what) in [
        ("layout", "hashes to"),
        ("empty", "neither an OCI image layout"),
        ("text", "the tar"),
        ("no-index", "neither an OCI image layout"),
        ("list", "c.json is not in it"),
        ("xz", "decompress it"),
        ("bzip2", "decompress it"),
        ("cut", "the tar ends in the middle"),
        ("nothing-there", "No such file"),
    ] {
        let manager = Manager::new();
        let error = manager.fails(&["load", "-q", "-i", &path(file)]);
        assert!(error.contains(what), "{file}: {error}");
        manager.assert_empty(&[]);
    }
}

#[test]
fn history_tells_what_made_an_image() {
    let folder = tempfile::tempdir().expect("a folder");
    image(&[layer("one")]).write_layout(folder.path(), "h");
    let manager = Manager::new();
    manager.ok(&["load", "-q", "-i", folder.path().to_str().expect("a path")]);
    let table = manager.ok(&["history", "h"]);
    assert!(
        table.starts_with("IMAGE ") && table.contains("CREATED BY") && table.contains("made by a test"),
        "{table}"
    );
    assert_eq!(manager.ok(&["history", "--format", "{{.Comment}} {{.Size}}", "h"]), "made by a test 3B\n");
}

#[test]
fn a_copy_goes_between_registries_without_a_store() {
    let (from, to) = (Registry::start(), Registry::start());
    let image = image(&[layer("one")]);
    let name = from.push(&image, "a");
    let manager = Manager::new();
    let there = format!("{}/b:1", to.host);
    manager.ok(&["copy", "-q", &format!("docker://{name}"), &format!("docker://{there}")]);
    assert_eq!(raw(&there).as_bytes(), &image.manifest[..]);
    assert!(!manager.root().exists(), "a store was made");
    assert!(manager.fails(&["copy", &name, "oci:x"]).contains("say where it is"));
    assert!(
        manager
            .fails(&["copy", &format!("docker://{name}"), "dir:x"])
            .contains("images of dir: are not supported")
    );
}

#[test]
fn plain_layers_that_were_loaded_are_compressed_on_their_way_to_a_registry() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().expect("a folder"));
    let large = Tar::new().file("large", "text ".repeat(200_000)).finish();
    let image = image_with(
        &[(layer("one"), Packed::Plain), (large, Packed::Plain), (layer("gzip"), Packed::Gzip)],
        architecture(),
        false,
    );
    image.write_layout(&folder.path().join("layout"), "x:1");
    let manager = Manager::new();
    manager.ok(&["load", "-q", "-i", folder.path().join("layout").to_str().expect("a path")]);
    let pushed = |arguments: &[&str], name: &str| -> (Value, String) {
        let name = format!("{}/{name}", registry.host);
        manager.ok(&["tag", "x:1", &name]);
        let output = manager.ok(&[&["push"], arguments, &[&name]].concat());
        let text = raw(&name);
        assert!(output.contains(&format!(": digest: {} ", digest(text.as_bytes()))), "{output}");
        (serde_json::from_str(&text).expect("a manifest"), name)
    };
    let types = |manifest: &Value| -> Vec<String> {
        let layers = manifest["layers"].as_array().expect("layers");
        let name = |layer: &Value| {
            layer["mediaType"].as_str().expect("a type").rsplit_once('.').expect("a type").1.to_owned()
        };
        layers.iter().map(name).collect()
    };
    let (plain, name) = pushed(&["--compression-format", "none"], "plain");
    assert_eq!(types(&plain), ["tar", "tar", "tar+gzip"]);
    let cases: [(&[&str], &str); 3] = [
        (&[], "tar+gzip"),
        (&["--compression-format", "zstd"], "tar+zstd"),
        (&["--compression-format", "gzip", "--compression-level", "9"], "tar+gzip"),
    ];
    for (n, (arguments, expected)) in cases.into_iter().enumerate() {
        let (manifest, name) = pushed(arguments, &format!("packed{n}"));
        assert_eq!(types(&manifest), [expected, expected, "tar+gzip"]);
        assert_eq!(manifest["config"], plain["config"], "the id stays");
        assert_eq!(manifest["layers"][2], plain["layers"][2], "what is packed stays");
        assert!(manifest["layers"][1]["size"].as_u64().expect("a size") < 20_000);
        let other = Manager::new();
        other.ok(&["pull", "-q", &name]);
        assert_eq!(other.stored("layers"), manager.stored("layers"));
    }
    // What was pulled goes back to the byte, unless something else is asked for.
    let other = Manager::new();
    other.ok(&["pull", "-q", &name]);
    let again = format!("{}/again", registry.host);
    other.ok(&["tag", &name, &again]);
    other.ok(&["push", "-q", &again]);
    assert_eq!(raw(&again), raw(&name));
    other.ok(&["push", "-q", "--compression-format", "zstd", &again]);
    assert_eq!(
        types(&serde_json::from_str(&raw(&again)).expect("a manifest")),
        ["tar+zstd", "tar+zstd", "tar+gzip"]
    );

    let refused: [(&[&str], &str); 3] = [
        (&["--compression-level", "10"], "not between 1 and 9"),
        (&["--compression-format", "none", "--compression-level", "1"], "nothing is compressed"),
        (&["--compression-format", "zstd", "--compression-level", "23"], "not between 1 and 22"),
    ];
    for (arguments, why) in refused {
        assert!(manager.fails(&[&["push"], arguments, &[name.as_str()]].concat()).contains(why), "{why}");
    }

    // As docker writes it, and from one place to another.
    let archive = format!("docker-archive:{}", folder.path().join("saved.tar").display());
    manager.ok(&["copy", "-q", "store:x:1", &format!("{archive}:x:1")]);
    let copied = format!("{}/copied", registry.host);
    manager.ok(&["copy", "-q", &archive, &format!("docker://{copied}")]);
    let manifest: Value = serde_json::from_str(&raw(&copied)).expect("a manifest");
    assert!(types(&manifest).iter().all(|name| name == "tar+gzip"), "{manifest}");
    assert_eq!(manifest["config"]["digest"], plain["config"]["digest"]);
    let elsewhere = format!("oci:{}", folder.path().join("elsewhere").display());
    let why = manager.fails(&["copy", "--compression-format", "zstd", &archive, &elsewhere]);
    assert!(why.contains("are for registries"), "{why}");
}

#[test]
fn an_index_names_what_its_compressed_layers_have_become() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().expect("a folder"));
    let plain = |content: &str, architecture: &str| {
        image_with(&[(layer(content), Packed::Plain)], architecture, false)
    };
    let (own, other) = (plain("own", architecture()), plain("other", "s390x"));
    own.write_layout(folder.path(), "unused");
    let entry = |image: &Image, architecture: &str| {
        let mut entry = image.descriptor();
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    };
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [entry(&other, "s390x"), entry(&own, architecture())],
    });
    let text = index.to_string().into_bytes();
    let mut all = other.blobs.clone();
    all.insert(other.digest(), other.manifest.clone());
    all.insert(digest(&text), text.clone());
    for (digest, bytes) in all {
        let blob = folder.path().join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        std::fs::write(blob, bytes).expect("write a blob");
    }
    let top = json!({"mediaType": INDEX, "digest": digest(&text), "size": text.len(),
        "annotations": {"org.opencontainers.image.ref.name": "many"}});
    let layout = json!({"schemaVersion": 2, "manifests": [top]}).to_string();
    std::fs::write(folder.path().join("index.json"), layout).expect("write index.json");

    let name = format!("{}/many", registry.host);
    let from = format!("oci:{}:many", folder.path().display());
    let manager = Manager::new();
    manager.ok(&["copy", "-q", "--all", "--compression-format", "gzip", &from, &format!("docker://{name}")]);
    let pushed: Value = serde_json::from_str(&raw(&name)).expect("an index");
    for (entry, before) in pushed["manifests"].as_array().expect("manifests").iter().zip([&other, &own]) {
        let manifest = raw(&format!("{name}@{}", entry["digest"].as_str().expect("a digest")));
        assert_eq!(entry["size"].as_u64(), Some(manifest.len() as u64));
        let manifest: Value = serde_json::from_str(&manifest).expect("a manifest");
        assert_eq!(manifest["config"]["digest"], before.config.as_str());
        assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    }
    manager.ok(&["pull", "-q", "--all-platforms", &name]);
    assert_eq!(manager.ok(&["system", "check"]), "no faults\n");
}
