//! Notes of another boot, written by hand: what a store looks like after a power cut, made piece by piece.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::image::{Image, image};
use crate::support::registry::Registry;
use crate::support::tar::Tar;
use crate::support::{Manager, Ran};

fn layer(content: &str) -> Vec<u8> {
    Tar::new().file(content, content.repeat(1000)).finish()
}

fn blob(manager: &Manager, digest: &str) -> PathBuf {
    manager.root().join("oci/blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

fn load(manager: &Manager, image: &Image, name: &str) {
    let folder = tempfile::tempdir().unwrap();
    image.write_layout(folder.path(), name);
    manager.ok(&["load", "-q", "--replace", "-i", folder.path().to_str().unwrap()]);
    manager.ok(&["system", "settle"]);
}

/// Leaves a note as a pull of another boot would have.
fn note(manager: &Manager, name: &str, blobs: &[&str], folders: &[String], before: Value) {
    let folder = manager.root().join("unsettled");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "all is settled");
    let text = json!({"boot": "another", "blobs": blobs, "folders": folders, "name": name, "before": before});
    fs::write(folder.join("1-0-1"), text.to_string()).unwrap();
}

fn notes(manager: &Manager) -> usize {
    fs::read_dir(manager.root().join("unsettled")).unwrap().count()
}

fn record(manager: &Manager, name: &str) -> Value {
    let all = fs::read_dir(manager.root().join("refs")).unwrap();
    let mut records =
        all.map(|entry| serde_json::from_slice::<Value>(&fs::read(entry.unwrap().path()).unwrap()).unwrap());
    records.find(|record| record["name"].as_str().unwrap().ends_with(name)).expect("a record")
}

/// The first command after the boot, of which more is said on standard error than the beginning.
fn first(manager: &Manager) -> Ran {
    let ran = manager.run(&["images", "--format", "{{.Repository}}"]);
    let told = "manager: the machine may have gone down before all that was pulled had reached the disk: looking at it\n";
    assert!(ran.stderr.starts_with(told), "{ran:?}");
    Ran { stderr: ran.stderr.replace(told, ""), ..ran }
}

fn assert_whole(manager: &Manager) {
    assert_eq!(notes(manager), 0);
    assert_eq!(manager.ok(&["system", "check"]), "no faults\n");
}

#[test]
fn folders_are_made_again_and_nothing_else_is_touched() {
    let manager = Manager::new();
    let (one, two) = (image(&[layer("one"), layer("same")]), image(&[layer("two"), layer("same")]));
    load(&manager, &one, "one:1");
    let folders: Vec<String> = manager.stored("layers").iter().map(|name| format!("layers/{name}")).collect();
    load(&manager, &two, "two:1");
    let inode =
        |path: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(manager.root().join(path)).unwrap());
    let before: Vec<u64> = folders.iter().map(|folder| inode(folder)).collect();
    note(&manager, "docker.io/library/one:1", &[&one.layers[0], &one.config], &folders, Value::Null);
    let ran = first(&manager);
    assert_eq!((ran.stderr.as_str(), ran.stdout.lines().count()), ("", 2));
    assert!(folders.iter().zip(before).all(|(folder, old)| inode(folder) != old), "they are new");
    assert_whole(&manager);
    assert_eq!(manager.run(&["images"]).stderr, "", "it is told once");
}

#[test]
fn a_damaged_image_that_no_note_tells_of_keeps_its_name() {
    let manager = Manager::new();
    let (one, two) = (image(&[layer("one")]), image(&[layer("two")]));
    load(&manager, &one, "one:1");
    load(&manager, &two, "two:1");
    fs::write(blob(&manager, &two.config), "damaged").unwrap();
    fs::write(blob(&manager, &one.layers[0]), "damaged").unwrap();
    note(&manager, "docker.io/library/one:1", &[&one.layers[0]], &[], Value::Null);
    let ran = first(&manager);
    assert!(
        ran.stderr.starts_with("manager: one:1 is lost: not all of its blobs are here: pull it again\n"),
        "{ran:?}"
    );
    assert!(record(&manager, "/two:1")["config"].is_string());
}

#[test]
fn a_note_stays_until_all_that_it_tells_of_was_looked_at() {
    let manager = Manager::new();
    load(&manager, &image(&[layer("one")]), "one:1");
    let folders: Vec<String> = manager.stored("layers").iter().map(|name| format!("layers/{name}")).collect();
    note(&manager, "docker.io/library/one:1", &[], &folders, Value::Null);
    let obstacle = manager.root().join("refs/obstacle");
    fs::write(&obstacle, "damaged").unwrap();
    let ran = first(&manager);
    assert!(ran.stderr.contains("make whole what was pulled before the machine went down: "), "{ran:?}");
    assert_eq!(notes(&manager), 1);
    fs::remove_file(obstacle).unwrap();
    let ran = manager.run(&["images"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "nothing suspicious is there any more");
    let repaired = manager.run(&["system", "check"]);
    assert_eq!(repaired.stdout, "no faults\n", "{repaired:?}");
}

#[test]
fn a_name_goes_back_to_the_last_image_that_is_whole() {
    let manager = Manager::new();
    let images: Vec<Image> = ["one", "two", "three"].iter().map(|name| image(&[layer(name)])).collect();
    let mut records = Vec::new();
    for image in &images {
        load(&manager, image, "x:1");
        records.push(record(&manager, "/x:1"));
    }
    let folder = manager.root().join("unsettled");
    for (n, before) in records[..2].iter().enumerate() {
        note(&manager, "docker.io/library/x:1", &[&images[n + 1].layers[0]], &[], before.clone());
        fs::rename(folder.join("1-0-1"), manager.root().join(format!("note-{n}"))).unwrap();
    }
    for n in 0..2 {
        fs::rename(manager.root().join(format!("note-{n}")), folder.join(format!("1-0-{n}"))).unwrap();
    }
    fs::remove_file(blob(&manager, &images[2].layers[0])).unwrap();
    let ran = first(&manager);
    let told = "manager: x:1 is again what it was before: not all of its blobs are here: pull it again\n";
    assert_eq!(ran.stderr, told);
    assert_eq!(record(&manager, "/x:1")["config"], images[1].config.as_str());
    assert_whole(&manager);
}

#[test]
fn an_index_and_other_platforms_belong_to_an_image() {
    let registry = Registry::start();
    let name = format!("{}/many", registry.host);
    let folder = tempfile::tempdir().unwrap();
    let (_, other, index) = crate::transfer::index_layout(folder.path());
    let index = crate::support::image::digest(&index);
    let manager = Manager::new();
    let layout = format!("oci:{}:many", folder.path().display());
    manager.ok(&["copy", "-q", "--all-platforms", &layout, &format!("docker://{name}")]);
    manager.ok(&["pull", "-q", &name]);
    manager.ok(&["system", "settle"]);
    let one = record(&manager, ":latest");

    // The registry has it again, for those who ask.
    fs::remove_file(blob(&manager, &index)).unwrap();
    let repaired = manager.ok(&["system", "check", "--repair"]);
    assert!(repaired.ends_with(&format!("repaired: {name}:latest\n")), "{repaired}");
    assert_whole(&manager);

    // All platforms came later, and one of their blobs did not reach the disk.
    manager.ok(&["pull", "-q", "--all-platforms", &name]);
    manager.ok(&["system", "settle"]);
    fs::write(blob(&manager, &other.layers[0]), "").unwrap();
    note(&manager, &format!("{name}:latest"), &[&other.layers[0]], &[], one.clone());
    let ran = first(&manager);
    assert!(ran.stderr.contains("is again what it was before"), "{ran:?}");
    assert_eq!(record(&manager, ":latest"), one);
    assert_whole(&manager);

    // And the index itself.
    fs::remove_file(blob(&manager, &index)).unwrap();
    note(&manager, &format!("{name}:latest"), &[&index, &other.config], &[], Value::Null);
    let ran = first(&manager);
    assert!(ran.stderr.contains("is lost"), "{ran:?}");
    assert_eq!(ran.stdout, "");
    assert_whole(&manager);
}

#[test]
fn a_note_reaches_no_further_than_the_store() {
    let manager = Manager::new();
    load(&manager, &image(&[layer("one")]), "one:1");
    let outside = tempfile::tempdir().unwrap();
    let folders = [
        "/".to_owned() + outside.path().to_str().unwrap(),
        "layers/../containers".to_owned(),
        "refs".to_owned(),
    ];
    note(&manager, "docker.io/library/one:1", &[], &folders, Value::Null);
    assert_eq!(manager.run(&["images", "-q"]).stdout.lines().count(), 1);
    assert!(outside.path().exists());
    assert_whole(&manager);
}
