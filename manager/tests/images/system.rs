//! The store as a whole: what is in it, whether it is sound, what can go; and images made of a tar.

use std::fs;

use crate::support::Manager;
use crate::support::image::{Packed, image, pack};
use crate::support::registry::Registry;
use crate::support::tar::{DIR, Meta, Tar};

fn layer(content: &str) -> Vec<u8> {
    Tar::new().file(content, content.repeat(5000)).finish()
}

#[test]
fn damage_is_found_and_repaired_from_the_registry() {
    let registry = Registry::start();
    let image = image(&[layer("one"), layer("two")]);
    let name = registry.push(&image, "a");
    let manager = Manager::new();
    manager.ok(&["pull", "-q", &name]);
    assert_eq!(manager.ok(&["system", "check"]), "no faults\n");
    let blob = manager.root().join("oci/blobs/sha256").join(image.layers[0].replace("sha256:", ""));
    // As a power cut leaves it: as long as before, and zeros.
    fs::write(&blob, vec![0; fs::metadata(&blob).expect("stat").len() as usize]).expect("write");
    let layer = &manager.stored("layers")[0];
    fs::remove_file(manager.root().join("layers").join(layer).join("meta.json")).expect("rm");
    fs::write(manager.root().join("oci/index.json"), "{}").expect("write");
    let ran = manager.run(&["system", "check"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("damaged blob: ") && ran.stdout.contains("damaged layer: "), "{ran:?}");
    assert!(
        ran.stdout.contains(&format!("damaged image: {name}:latest: blob {} is damaged", image.layers[0])),
        "{ran:?}"
    );
    assert!(ran.stdout.contains("index.json does not list"), "{ran:?}");
    let repaired = manager.ok(&["system", "check", "--repair"]);
    assert!(repaired.ends_with(&format!("repaired: {name}:latest\n")), "{repaired}");
    assert_eq!(manager.ok(&["system", "check"]), "no faults\n");
}

#[test]
fn files_of_layers_are_compared_with_their_blobs_and_unpacked_again() {
    let folder = tempfile::tempdir().expect("a folder");
    // A folder without an entry, with a mode from below: it is corrected by one of the store's own folders. And a
    // layer through a link of another, which has a folder for this stack alone.
    let base = Tar::new()
        .dir_with("tmp", Meta { mode: 0o1777, ..DIR })
        .dir("usr")
        .dir("usr/lib")
        .symlink("lib", "usr/lib");
    let upper = Tar::new().file("tmp/x", "x").file("lib/y", "y");
    image(&[base.finish(), upper.finish(), layer("two")]).write_layout(folder.path(), "x:1");
    let manager = Manager::new();
    // There is no registry: all that is needed is here.
    manager.ok(&["load", "-q", "-i", folder.path().to_str().expect("a path")]);
    let root = manager.root();
    let fixup = format!("fixups/{}", manager.stored("fixups")[0]);
    let own = |path: &str| {
        manager
            .stored("layers")
            .iter()
            .map(|layer| root.join("layers").join(layer))
            .find(|layer| layer.join(path).exists())
    };
    let changed = own("fs/two").expect("the layer").join("fs/two");
    let rerouted = own("fs/usr/lib/y").expect("the layer for this stack").join("fs/usr/lib/y");
    let described = own("fs/tmp/x").expect("the layer").join("meta.json");
    type Damage<'a> = &'a dyn Fn();
    let cases: [(&str, Damage); 6] = [
        ("\"two\": its content differs", &|| {
            let before = fs::metadata(&changed).expect("stat");
            fs::write(&changed, vec![0; before.len() as usize]).expect("write");
            fs::File::options()
                .write(true)
                .open(&changed)
                .expect("open")
                .set_modified(before.modified().expect("time"))
                .expect("touch");
        }),
        ("\"two\": it is missing", &|| fs::remove_file(&changed).expect("rm")),
        ("\"usr/lib/y\": its size differs", &|| {
            let before = fs::metadata(&rerouted).expect("stat").modified().expect("time");
            fs::write(&rerouted, "longer").expect("write");
            fs::File::options()
                .write(true)
                .open(&rerouted)
                .expect("open")
                .set_modified(before)
                .expect("touch");
        }),
        ("its meta.json is not what its blob makes of it", &|| {
            let text = fs::read_to_string(&described).expect("read").replace("\"tmp\"", "\"pmt\"");
            fs::write(&described, text).expect("write");
        }),
        ("it is missing", &|| fs::remove_dir_all(root.join(&fixup)).expect("rm")),
        ("\"new\": it does not belong there", &|| {
            let time = fs::metadata(root.join(&fixup).join("fs")).expect("stat").modified().expect("time");
            fs::write(root.join(&fixup).join("fs/new"), "").expect("write");
            fs::File::open(root.join(&fixup).join("fs")).expect("open").set_modified(time).expect("touch");
        }),
    ];
    for (what, damage) in cases {
        assert_eq!(manager.ok(&["system", "check"]), "no faults\n", "{what}");
        damage();
        assert_eq!(manager.ok(&["system", "check", "--quick"]), "no faults\n", "{what}");
        let ran = manager.run(&["system", "check"]);
        assert!(ran.code == Some(1) && ran.stdout.contains(&format!(": {what}\n")), "{what}: {ran:?}");
        assert!(ran.stdout.contains("damaged image: x:1: layer "), "{ran:?}");
        let repaired = manager.ok(&["system", "check", "--repair"]);
        assert!(repaired.ends_with("repaired: x:1\n"), "{repaired}");
    }
    assert_eq!(manager.ok(&["system", "check"]), "no faults\n");
    manager.ok(&["rmi", "x:1"]);
    manager.assert_empty(&[]);
}

#[test]
fn other_platforms_are_checked_too_where_all_were_pulled() {
    let folder = tempfile::tempdir().expect("a folder");
    let (own, other, _) = crate::transfer::index_layout(folder.path());
    let registry = Registry::start();
    let name = format!("{}/many", registry.host);
    let layout = format!("oci:{}:many", folder.path().display());
    let manager = Manager::new();
    manager.ok(&["copy", "-q", "--all-platforms", &layout, &format!("docker://{name}")]);
    manager.ok(&["pull", "-q", &name]);
    assert_eq!(manager.ok(&["system", "check"]), "no faults\n");
    manager.ok(&["pull", "-q", "--all-platforms", &name]);
    let blob = |digest: &str| manager.root().join("oci/blobs/sha256").join(digest.replace("sha256:", ""));
    for digest in [&other.layers[0], &other.config, &other.digest(), &own.layers[0]] {
        assert_eq!(manager.ok(&["system", "check"]), "no faults\n");
        fs::remove_file(blob(digest)).expect("rm");
        let ran = manager.run(&["system", "check"]);
        let expected = format!("damaged image: {name}:latest: ");
        assert!(
            ran.code == Some(1) && ran.stdout.contains(&expected) && ran.stdout.contains(digest),
            "{ran:?}"
        );
        let repaired = manager.ok(&["system", "check", "--repair"]);
        assert!(repaired.ends_with(&format!("repaired: {name}:latest\n")), "{repaired}");
    }
    assert_eq!(manager.ok(&["system", "check"]), "no faults\n");
}

#[test]
fn what_cannot_be_repaired_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = image(&[layer("one")]);
    image.write_layout(folder.path(), "127.0.0.1:1/x:1");
    let manager = Manager::new();
    manager.ok(&["load", "-q", "-i", folder.path().to_str().expect("a path")]);
    fs::remove_file(manager.root().join("oci/blobs/sha256").join(image.layers[0].replace("sha256:", "")))
        .expect("rm");
    let ran = manager.run(&["system", "check", "--repair"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("not repaired: 127.0.0.1:1/x:1: "), "{ran:?}");
    manager.ok(&["rmi", "127.0.0.1:1/x:1"]);
    manager.assert_empty(&[]);
}

#[test]
fn images_that_nobody_needs_are_pruned() {
    let folder = tempfile::tempdir().expect("a folder");
    let manager = Manager::new();
    for (n, (content, name)) in [("one", "x:1"), ("two", "x:1"), ("three", "y:1")].into_iter().enumerate() {
        let path = folder.path().join(n.to_string());
        image(&[layer(content)]).write_layout(&path, name);
        manager.ok(&["load", "-q", "--replace", "-i", path.to_str().expect("a path")]);
    }
    assert_eq!(manager.stored("refs").len(), 3);
    assert!(manager.fails(&["image", "prune"]).contains("--force"));
    let table = manager.ok(&["system", "df"]);
    assert!(table.starts_with("TYPE ") && table.contains("Images          3         0         "), "{table}");
    let pruned = manager.ok(&["image", "prune", "-f"]);
    assert!(
        pruned.starts_with("Deleted Images:\nuntagged: x@sha256:")
            && pruned.contains("Total reclaimed space: "),
        "{pruned}"
    );
    assert!(!pruned.contains("space: 0B"), "{pruned}");
    assert_eq!(manager.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).lines().count(), 2);
    let none = manager.ok(&["image", "prune", "-a", "-f", "--filter", "until=2019-01-01T00:00:00Z"]);
    assert_eq!(none, "Total reclaimed space: 0B\n");
    let all = manager.ok(&["system", "prune", "-a", "-f", "--filter", "reference=y:*"]);
    assert!(all.contains("untagged: y:1\n") && !all.contains("x:1"), "{all}");
    manager.ok(&["system", "prune", "-a", "-f"]);
    manager.assert_empty(&[]);
}

#[test]
fn a_tar_becomes_an_image() {
    let folder = tempfile::tempdir().expect("a folder");
    let tar = Tar::new().dir("bin").file("bin/x", "content").finish();
    for (name, packed) in [("plain", Packed::Plain), ("gzip", Packed::Gzip), ("zstd", Packed::Zstd)] {
        let path = folder.path().join(name);
        fs::write(&path, pack(&tar, packed)).expect("write");
        let manager = Manager::new();
        let id = manager.ok(&[
            "import",
            "-c",
            "CMD [\"x\"]",
            "-m",
            "mine",
            path.to_str().expect("a path"),
            "made:1",
        ]);
        assert_eq!(manager.ok(&["image", "inspect", "--format", "{{.Id}}", "made:1"]), id);
        assert_eq!(
            manager.ok(&["image", "inspect", "--format", "{{json .Config.Cmd}}", "made:1"]),
            "[\"x\"]\n"
        );
        assert_eq!(manager.ok(&["history", "--format", "{{.Comment}}", "made:1"]), "mine\n");
        assert_eq!(fs::read_to_string(manager.only_layer().join("bin/x")).expect("read"), "content");
        assert_eq!(manager.ok(&["system", "check"]), "no faults\n");
    }
    let manager = Manager::new();
    assert!(manager.fails(&["import", "/nonexistent", "x"]).contains("No such file"));
    fs::write(folder.path().join("bad"), "no tar at all").expect("write");
    assert!(
        manager.fails(&["import", folder.path().join("bad").to_str().expect("a path"), "x"]).contains("tar")
    );
    manager.assert_empty(&[]);
}
