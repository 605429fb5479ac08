//! The store: names, removal, what a crash or a full disk leaves.

use std::process::Stdio;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::support::image::{Image, image};
use crate::support::server::{Server, honest};
use crate::support::tar::Tar;
use crate::support::{Manager, Ran, command_with_root, noise};

fn layer(content: &str) -> Vec<u8> {
    Tar::new().file(content, content).finish()
}

/// A manager that has pulled these images, as `a`, `b` ...
fn with(images: &[&Image]) -> (Manager, Vec<String>) {
    let letters: Vec<String> =
        (0..images.len()).map(|index| char::from(b'a' + index as u8).to_string()).collect();
    let named: Vec<(&str, &Image)> = letters.iter().map(String::as_str).zip(images.iter().copied()).collect();
    let server = Server::start(honest(&named));
    let manager = Manager::new();
    let names: Vec<String> = letters.iter().map(|letter| format!("{}/{letter}", server.host)).collect();
    for name in &names {
        manager.ok(&["pull", "-q", name]);
    }
    (manager, names)
}

#[test]
fn removing_an_image_removes_all_of_it_and_says_so() {
    let image = image(&[layer("one"), layer("two")]);
    let (manager, names) = with(&[&image]);
    let short = &image.config["sha256:".len()..][..12];
    assert_eq!(manager.ok(&["images", "-q"]), format!("{short}\n"));
    let output = manager.ok(&["rmi", &names[0]]);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], format!("Untagged: {}:latest", names[0]));
    assert_eq!(lines[1], format!("Untagged: {}@{}", names[0], image.digest()));
    assert_eq!(lines[2], format!("Deleted: {}", image.config));
    // Two layers, the upper one first; the lowest chain id is the layer's own.
    assert_eq!(lines.len(), 5, "{output}");
    assert!(lines[4].starts_with("Deleted: sha256:"));
    manager.assert_empty(&[]);
    assert_eq!(manager.fails(&["rmi", &names[0]]), format!("manager: no such image: {}\n", names[0]));
}

#[test]
fn shared_layers_stay_while_somebody_has_them() {
    let base = layer("base");
    let (one, two) = (image(&[base.clone(), layer("one")]), image(&[base, layer("two")]));
    let (manager, names) = with(&[&one, &two]);
    assert_eq!(manager.stored("layers").len(), 3);
    manager.ok(&["rmi", &names[0]]);
    assert_eq!(manager.stored("layers").len(), 2);
    let two_again = manager.ok(&["image", "inspect", &names[1]]);
    assert!(two_again.contains(&two.config));
    manager.ok(&["rmi", &names[1]]);
    manager.assert_empty(&[]);
}

#[test]
fn a_tag_is_one_more_name() {
    let image = image(&[layer("one")]);
    let (manager, names) = with(&[&image]);
    manager.ok(&["tag", &names[0], "mine:1"]);
    let short = &image.config["sha256:".len()..][..12];
    manager.ok(&["tag", short, "mine:2"]);
    let list = manager.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}", "mine"]);
    assert_eq!(list, "mine:1\nmine:2\n");
    let untagged = manager.ok(&["rmi", "mine:1"]);
    assert_eq!(untagged, "Untagged: mine:1\n");
    let error = manager.fails(&["rmi", short]);
    assert!(error.contains("it has several names"), "{error}");
    let all = manager.ok(&["rmi", "-f", short]);
    assert!(all.contains("Untagged: mine:2\n") && all.contains("Deleted: "), "{all}");
    manager.assert_empty(&[]);
    assert!(manager.fails(&["tag", "nosuch", "x"]).contains("no such image: nosuch"));
}

#[test]
fn a_moved_tag_leaves_the_old_image_without_a_name() {
    let (old, new) = (image(&[layer("old")]), image(&[layer("new")]));
    let (manager, names) = with(&[&old, &new]);
    manager.ok(&["tag", &names[0], "x"]);
    manager.ok(&["rmi", &names[0]]);
    manager.ok(&["tag", &names[1], "x"]);
    let list =
        manager.ok(&["images", "--filter", "dangling=true", "--format", "{{.Repository}} {{.Tag}} {{.ID}}"]);
    let short = |image: &Image| image.config["sha256:".len()..][..12].to_owned();
    assert_eq!(list, format!("x <none> {}\n", short(&old)));
    manager.ok(&["rmi", &short(&old)]);
    assert_eq!(manager.stored("layers").len(), 1);
}

#[test]
fn an_image_in_use_is_kept() {
    let image = image(&[layer("one")]);
    let (manager, names) = with(&[&image]);
    let container = manager.root().join("containers/0123456789abcdef");
    std::fs::create_dir_all(&container).unwrap();
    std::fs::write(container.join("image"), &image.config).unwrap();
    let error = manager.fails(&["rmi", &names[0]]);
    assert!(error.contains("(must force): container 0123456789ab is using its image"), "{error}");
    let forced = manager.ok(&["rmi", "-f", &names[0]]);
    assert!(forced.contains("Untagged: ") && !forced.contains("Deleted: "), "{forced}");
    assert_eq!(manager.stored("layers").len(), 1);
    std::fs::remove_dir_all(container).unwrap();
    // Whatever is removed next sweeps what the container kept.
    manager.run(&["rmi", "-f", &names[0]]);
    let server = Server::start(honest(&[("x", &image)]));
    manager.ok(&["pull", "-q", &format!("{}/x", server.host)]);
    manager.ok(&["rmi", &format!("{}/x", server.host)]);
    manager.assert_empty(&[]);
}

#[test]
fn a_damaged_store_is_named_and_can_be_pulled_again() {
    let image = image(&[layer("one")]);
    let (manager, names) = with(&[&image]);
    let config = manager.root().join("oci/blobs/sha256").join(&image.config["sha256:".len()..]);
    std::fs::write(&config, "{}").unwrap();
    let error = manager.fails(&["image", "inspect", &names[0]]);
    assert!(
        error.contains(&format!("image {}:latest: the stored blob {} is damaged", names[0], image.config)),
        "{error}"
    );
    let listed = manager.fails(&["images"]);
    assert!(listed.contains("is damaged"), "{listed}");
    manager.ok(&["rmi", &names[0]]);
    manager.assert_empty(&[]);
}

#[test]
fn a_store_of_another_version_is_left_alone() {
    let manager = Manager::new();
    manager.ok(&["images"]);
    std::fs::write(manager.root().join("version"), "{\"layout\":2}").unwrap();
    let error = manager.fails(&["images"]);
    assert!(error.contains("another layout"), "{error}");
}

#[test]
fn leftovers_of_a_killed_command_are_swept_by_the_next() {
    let image = image(&[layer("one")]);
    let (manager, names) = with(&[&image]);
    // What a killed pull leaves: a scratch folder of a process that is gone, and things that got to
    // their place before the name was written.
    let root = manager.root();
    std::fs::create_dir_all(root.join("tmp/999999999-0-1/layer-0/fs/deep")).unwrap();
    std::fs::create_dir_all(root.join("layers").join("f".repeat(64)).join("fs")).unwrap();
    std::fs::write(root.join("oci/blobs/sha256").join("e".repeat(64)), "orphan").unwrap();
    manager.ok(&["rmi", &names[0]]);
    manager.assert_empty(&[]);
}

#[test]
fn a_pull_killed_at_any_time_leaves_a_store_that_works() {
    let tars =
        [1, 2, 3].map(|seed| Tar::new().dir("d").file(&format!("d/{seed}"), noise(seed, 150_000)).finish());
    let image = image(&tars);
    let inner = honest(&[("x", &image)]);
    let server = Server::start(move |request| {
        let mut reply = inner(request);
        reply.pause = Some(Duration::from_millis(5));
        reply
    });
    let name = format!("{}/x", server.host);
    let manager = Manager::new();
    for delay in [5, 20, 40, 60, 80, 100, 130, 160, 200] {
        let mut child = manager.command(&["pull", "-q", &name]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        // It is there whole, or not at all.
        for line in manager.ok(&["images", "--format", "{{.ID}} {{.Size}}"]).lines() {
            assert_eq!(line, format!("{} 450kB", &image.config["sha256:".len()..][..12]));
        }
    }
    manager.ok(&["pull", "-q", &name]);
    let content: Vec<Vec<u8>> = manager
        .stored("layers")
        .iter()
        .map(|layer| {
            let folder = manager.root().join("layers").join(layer).join("fs/d");
            std::fs::read(folder.join(&crate::support::names(&folder)[0])).unwrap()
        })
        .collect();
    assert!([1, 2, 3].iter().all(|seed| content.contains(&noise(*seed, 150_000))));
    manager.ok(&["rmi", &name]);
    manager.assert_empty(&[]);
}

/// A small file system of its own, gone with the value.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=700");
        match mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str())) {
            Ok(()) => Some(Self(folder)),
            Err(errno) => {
                eprintln!("SKIP: mount a tmpfs: {errno}");
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_is_named_and_left_clean() {
    let Some(disk) = Tmpfs::new("3m") else { return };
    let small = image(&[layer("fits")]);
    let large = image(&[Tar::new()
        .file("usr/share/a", noise(1, 1_500_000))
        .file("usr/share/b", noise(2, 1_500_000))
        .finish()]);
    let server = Server::start(honest(&[("small", &small), ("large", &large)]));
    let root = disk.0.path().join("root");
    let run = |arguments: &[&str]| Ran::of(command_with_root(&root, arguments).output().unwrap());
    let ran = run(&["pull", "-q", &format!("{}/small", server.host)]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let ran = run(&["pull", "-q", &format!("{}/large", server.host)]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains(&format!("layer {}: ", large.layers[0])), "{}", ran.stderr);
    assert!(ran.stderr.contains("No space left on device"), "{}", ran.stderr);
    for folder in ["tmp", "trash", "ingest"] {
        assert_eq!(crate::support::names(&root.join(folder)), Vec::<String>::new(), "left in {folder}");
    }
    assert_eq!(crate::support::names(&root.join("layers")).len(), 1);
    // And there is room again for what is small, and for making room.
    for arguments in [&["tag", &format!("{}/small", server.host), "still:works"][..], &["rmi", "still:works"]]
    {
        let ran = run(arguments);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
}

#[test]
fn a_container_whose_image_is_not_known_keeps_everything_but_names() {
    let (one, two) = (image(&[layer("one")]), image(&[layer("two")]));
    let (manager, names) = with(&[&one, &two]);
    let container = manager.root().join("containers").join("0".repeat(64));
    std::fs::create_dir_all(&container).unwrap();
    std::fs::write(container.join("image"), "").unwrap();
    let removed = manager.run(&["rmi", &names[0]]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    assert!(!removed.stdout.contains("Deleted:") && removed.stderr.contains("cannot be read"), "{removed:?}");
    assert_eq!(manager.stored("layers").len(), 2);
    // With the container gone the next sweep takes the rest.
    std::fs::remove_dir_all(&container).unwrap();
    manager.ok(&["rmi", &names[1]]);
    manager.assert_empty(&[]);
}
