//! Layers made by somebody who means harm. Each case names what it does, as containerd's
//! `TestBreakouts` and the advisories do; each gives an error that names the entry, or stays inside.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use tar_core::EntryType;

use crate::support::Manager;
use crate::support::image::{Packed, architecture, image_with};
use crate::support::server::{Server, honest};
use crate::support::tar::{DIR, FILE, Meta, Tar};

struct Unpacked {
    manager: Manager,
    result: Result<(), String>,
}

/// Pulls an image whose only layer is this tar, as it is.
fn unpack(tar: Tar) -> Unpacked {
    unpack_bytes(tar.finish())
}

fn unpack_bytes(tar: Vec<u8>) -> Unpacked {
    let image = image_with(&[(tar, Packed::Plain)], architecture(), false);
    let server = Server::start(honest(&[("x", &image)]));
    let manager = Manager::new();
    let ran = manager.run(&["pull", "-q", &format!("{}/x", server.host)]);
    let result = match ran.code {
        Some(0) => Ok(()),
        Some(1) => {
            assert!(ran.stderr.contains(&format!("layer {}: ", image.layers[0])), "{}", ran.stderr);
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
            manager.assert_empty(&[]);
            Err(ran.stderr)
        }
        _ => panic!("{ran:?}"),
    };
    Unpacked { manager, result }
}

impl Unpacked {
    fn refused(&self, entry: &str, reason: &str) {
        let error = self.result.as_ref().expect_err("it was unpacked");
        assert!(error.contains(&format!("entry {entry:?}: ")), "{error}");
        assert!(error.contains(reason), "{error}");
    }

    fn layer(&self) -> std::path::PathBuf {
        self.result.as_ref().expect("it was refused");
        self.manager.only_layer()
    }
}

#[test]
fn dot_dot_is_refused_anywhere() {
    for path in ["../../etc/passwd", "..", "a/../../x", "a/..", "/../x", "a/./../b"] {
        unpack(Tar::new().file(path, "canary")).refused(path, "it leaves the layer");
    }
    unpack(Tar::new().dir("../d")).refused("../d", "it leaves the layer");
    unpack(Tar::new().symlink("../l", "x")).refused("../l", "it leaves the layer");
}

#[test]
fn absolute_paths_stay_inside() {
    let folder = tempfile::tempdir().unwrap();
    let canary = folder.path().join("canary");
    let unpacked = unpack(Tar::new().file(canary.to_str().unwrap(), "inside"));
    assert!(!canary.exists());
    let inside = unpacked.layer().join(canary.strip_prefix("/").unwrap());
    assert_eq!(std::fs::read_to_string(inside).unwrap(), "inside");
}

#[test]
fn a_symlink_parent_is_refused_whatever_it_points_to() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().to_str().unwrap();
    for target in [outside, "..", "../../../../../../..", "inside", "/", "."] {
        let tar = Tar::new().dir("inside").symlink("link", target).file("link/canary", "x");
        unpack(tar).refused("link/canary", "it goes through \"link\", which is a symbolic link");
        let tar = Tar::new().dir("inside").symlink("link", target).dir("link/deep/er");
        unpack(tar).refused("link/deep/er", "it goes through \"link\"");
        let tar = Tar::new().dir("inside").symlink("link", target).file("link/.wh.canary", "");
        unpack(tar).refused("link/.wh.canary", "it goes through \"link\"");
        let tar = Tar::new().dir("inside").symlink("link", target).file("link/.wh..wh..opq", "");
        unpack(tar).refused("link/.wh..wh..opq", "it goes through \"link\"");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_file_is_no_parent() {
    let tar = Tar::new().file("f", "x").file("f/g", "y");
    unpack(tar).refused("f/g", "it goes through \"f\", which is no folder");
}

#[test]
fn the_root_is_a_folder() {
    // CVE-2021-29136
    unpack(Tar::new().symlink("./", "/etc").file("passwd", "x")).refused("./", "root of the layer");
    unpack(Tar::new().symlink(".", "/etc")).refused(".", "root of the layer");
    unpack(Tar::new().file("/.", "x")).refused("/.", "root of the layer");
    unpack(Tar::new().file(".wh..", "")).refused(".wh..", "a whiteout names");
}

#[test]
fn a_symlink_gives_way_to_a_later_entry_of_its_name() {
    // CVE-2021-32760: modes and owners of the later entry must not go through the link.
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    let before = std::fs::metadata(&victim).unwrap();
    let target = victim.to_str().unwrap();
    let loud = Meta { mode: 0o4777, uid: 99, gid: 99, ..FILE };
    let unpacked = unpack(Tar::new().symlink("a", target).file_with("a", "new", loud));
    assert_eq!(std::fs::read_to_string(unpacked.layer().join("a")).unwrap(), "new");
    let unpacked = unpack(
        Tar::new().symlink("a", folder.path().to_str().unwrap()).dir_with("a", Meta { mode: 0, ..DIR }),
    );
    assert!(std::fs::symlink_metadata(unpacked.layer().join("a")).unwrap().is_dir());
    let after = std::fs::metadata(&victim).unwrap();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!((before.mode(), before.uid(), before.mtime()), (after.mode(), after.uid(), after.mtime()));
}

#[test]
fn hard_links_stay_in_the_layer() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("secret");
    std::fs::write(&outside, "secret").unwrap();
    let outside = outside.to_str().unwrap();
    let refused = [
        (Tar::new().hard_link("a", outside), "not in this layer"),
        (Tar::new().hard_link("a", "../../../../../../../etc/passwd"), "it leaves the layer"),
        (
            Tar::new().symlink("l", folder.path().to_str().unwrap()).hard_link("a", "l/secret"),
            "symbolic link",
        ),
        (Tar::new().symlink("l", "..").hard_link("a", "l/x"), "symbolic link"),
        (Tar::new().dir("d").hard_link("a", "d"), "it is a folder"),
        (Tar::new().hard_link("a", "/"), "it is a folder"),
        (Tar::new().file(".wh.gone", "").hard_link("a", "gone"), "removes it"),
        (Tar::new().hard_link("a", "a"), "not in this layer"),
    ];
    for (tar, reason) in refused {
        unpack(tar).refused("a", reason);
    }
}

#[test]
fn a_hard_link_to_a_symlink_is_that_symlink() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("secret");
    std::fs::write(&outside, "secret").unwrap();
    let loud = Meta { mode: 0o777, uid: 7, gid: 7, ..FILE };
    let tar = Tar::new().symlink("l", outside.to_str().unwrap()).entry(
        EntryType::Link,
        "a",
        Some("l"),
        b"",
        loud,
        None,
    );
    let layer = unpack(tar).layer().join("a");
    assert!(layer.parent().is_some());
    assert_eq!(std::fs::metadata(&outside).unwrap().uid(), 0);
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "secret");
}

#[test]
fn the_last_entry_of_a_path_counts() {
    let tar = Tar::new()
        .file("a", "1")
        .file("a", "2")
        .dir("d")
        .file("d/x", "1")
        .file("d", "file")
        .dir("e")
        .dir("e");
    let layer = unpack(tar);
    let layer = layer.layer();
    assert_eq!(std::fs::read_to_string(layer.join("a")).unwrap(), "2");
    assert_eq!(std::fs::read_to_string(layer.join("d")).unwrap(), "file");
    let tar = Tar::new().file("f", "1").dir("f").file("f/x", "2");
    assert_eq!(std::fs::read_to_string(unpack(tar).layer().join("f/x")).unwrap(), "2");
}

#[test]
fn whiteouts_without_a_meaning_are_refused() {
    for (path, reason) in [
        (".wh.", "has no name"),
        ("a/.wh.", "has no name"),
        ("a/.wh...", "a whiteout names"),
        (".wh.a/b", "a whiteout is not a folder"),
    ] {
        unpack(Tar::new().file(path, "")).refused(path, reason);
    }
}

#[test]
fn a_device_cannot_pose_as_a_whiteout() {
    unpack(Tar::new().device("x", 0, 0)).refused("x", "taken for a whiteout");
    let layer = unpack(Tar::new().device("x", 1, 7));
    assert!(std::fs::symlink_metadata(layer.layer().join("x")).unwrap().file_type().is_char_device());
}

#[test]
fn overlay_attributes_cannot_steer_our_overlay() {
    for name in ["trusted.overlay.redirect", "trusted.overlay.opaque", "trusted.overlay.metacopy"] {
        let layer = unpack(Tar::new().dir_with("d", Meta { xattrs: &[(name, b"/etc")], ..DIR }));
        let folder = layer.layer().join("d");
        assert!(rustix::fs::lgetxattr(&folder, name, &mut vec![0u8; 64][..]).is_err(), "{name}");
        let escaped = name.replace("trusted.overlay.", "trusted.overlay.overlay.");
        let mut value = [0u8; 64];
        assert_eq!(rustix::fs::lgetxattr(&folder, &*escaped, &mut value[..]).unwrap(), 4);
    }
    let tar = Tar::new().file_with("f", "x", Meta { xattrs: &[("nonsense", b"1")], ..FILE });
    unpack(tar).refused("f", "no known namespace");
}

#[test]
fn owners_are_ids() {
    // CVE-2024-40635
    let owner = |uid: u64| Meta { uid, ..FILE };
    for uid in [u64::from(u32::MAX), 1 << 32, 1 << 40] {
        unpack(Tar::new().file_with("f", "x", owner(uid))).refused("f", "is not a valid id");
    }
    let layer = unpack(Tar::new().file_with("f", "x", owner(4_294_967_294)));
    assert_eq!(std::fs::metadata(layer.layer().join("f")).unwrap().uid(), 4_294_967_294);
}

#[test]
fn unknown_kinds_of_entries_are_named() {
    unpack(Tar::new().entry(EntryType::new(b'V'), "label", None, b"", FILE, None))
        .refused("label", "its type 'V'");
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let huge = Tar::new().file("f", "x").finish();
    let mut huge = huge[..512].to_vec();
    // Base 256: 2^60 bytes.
    huge[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    huge[148..156].fill(b' ');
    let sum: u32 = huge.iter().map(|byte| u32::from(*byte)).sum();
    huge[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let unpacked = unpack_bytes(huge);
    let error = unpacked.result.unwrap_err();
    assert!(error.contains("entry \"f\": "), "{error}");
}

#[test]
fn malformed_extended_headers_are_refused() {
    // RUSTSEC-2026-0112: readers that skip what they cannot read see another archive.
    for pax in [
        "30 path=short\n",
        "x path=a\n",
        "11 size=abc\n",
        "12 path=a",
        "11 uid=-77\n",
        "23 GNU.sparse.size=xx\n",
    ] {
        let tar =
            Tar::new().entry(EntryType::XHeader, "pax", None, pax.as_bytes(), FILE, None).file("f", "x");
        let error = unpack(tar).result.expect_err(pax);
        assert!(error.contains("malformed"), "{pax}: {error}");
    }
}

/// As umoci 0.4 writes tars: the last file's content ends them, without padding and end marker.
#[test]
fn padding_may_be_missing_at_the_end() {
    let mut tar = Tar::new().file("a", "one").file("b", "x".repeat(700)).finish();
    tar.truncate(512 + 512 + 512 + 700);
    let unpacked = unpack_bytes(tar.clone());
    assert_eq!(std::fs::read(unpacked.layer().join("b")).expect("read").len(), 700);
    tar.pop();
    unpack_bytes(tar).refused("b", "ends in the middle");
}

#[test]
fn a_block_of_zeros_between_entries_is_refused() {
    let first = Tar::new().file("a", "1");
    let tar = first.raw(&[0; 512]).file("b", "2");
    let error = unpack(tar).result.unwrap_err();
    assert!(error.contains("a block of zeros"), "{error}");
}

#[test]
fn an_extended_header_of_megabytes_is_refused() {
    let pax = format!("2000010 comment={}\n", "x".repeat(1_999_993));
    let tar = Tar::new().entry(EntryType::XHeader, "pax", None, pax.as_bytes(), FILE, None).file("f", "x");
    let error = unpack(tar).result.unwrap_err();
    assert!(error.contains("metadata exceeds limit"), "{error}");
}

#[test]
fn a_map_of_holes_without_an_end_does_not_fill_the_memory() {
    let record = |text: &str| {
        let length = text.len() + 4;
        format!("{length} {text}\n")
    };
    let pax =
        ["GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=f", "GNU.sparse.realsize=9999999"];
    let pax: String = pax.iter().map(|text| record(text)).collect();
    let tar = Tar::new()
        .entry(EntryType::XHeader, "pax", None, pax.as_bytes(), FILE, None)
        .file("f", vec![b'1'; 9_000_000]);
    let error = unpack(tar).result.expect_err("it was unpacked");
    assert!(error.contains("bytes of headers") || error.contains("sparse map"), "{error}");
}

#[test]
fn a_path_of_very_many_folders_is_refused() {
    // Some kilobytes would make a hundred thousand folders, in a time that grows with their depth
    // once more.
    let deep = |parts: usize, name: &str| format!("{name}/{}f", "d/".repeat(parts - 2));
    for tar in [Tar::new().file(&deep(257, "a"), ""), Tar::new().dir(&deep(1900, "a"))] {
        let error = unpack(tar).result.expect_err("it was unpacked");
        assert!(error.contains("entry \"a/d/d/d/"), "{error}");
        assert!(error.contains(" parts, 256 are allowed"), "{error}");
    }
    let mut tar = Tar::new();
    for index in 0..4 {
        tar = tar.file(&deep(256, &index.to_string()), "x");
    }
    assert!(unpack(tar).layer().join(deep(256, "3")).exists());
    let mut tar = Tar::new();
    for index in 0..60 {
        tar = tar.file(&deep(256, &index.to_string()), "x");
    }
    let error = unpack(tar).result.expect_err("it was unpacked");
    assert!(
        error.contains("folders have no entry of their own, which is too many for 17 entries"),
        "{error}"
    );
}

#[test]
fn a_folder_hidden_or_replaced_again_and_again_does_not_stall() {
    let mut tar = Tar::new().dir("d");
    for index in 0..3000 {
        tar = tar.dir(&format!("d/{index}"));
    }
    for _ in 0..3000 {
        tar = tar.file(".wh.d", "").dir("x").file("x", "x");
    }
    let started = std::time::Instant::now();
    let unpacked = unpack(tar);
    assert!(unpacked.layer().join("d/2999").exists());
    assert!(started.elapsed().as_secs() < 20, "it took {:?}", started.elapsed());
}

#[test]
fn a_zstd_bomb_stops() {
    // Two gigabytes of zeros in some tens of kilobytes.
    let tar_start = {
        // Content that is skipped: the test shall not write it to the disk.
        let mut tar = Tar::new().file(".wh.zeros", "").finish();
        tar.truncate(512);
        tar[124..136].copy_from_slice(format!("{:011o}\0", 3u64 << 30).as_bytes());
        tar[148..156].fill(b' ');
        let sum: u32 = tar.iter().map(|byte| u32::from(*byte)).sum();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar
    };
    let zeros = vec![0u8; 64 << 20];
    let mut blob = zstd::encode_all(&tar_start[..], 1).unwrap();
    let frame = zstd::encode_all(&zeros[..], 1).unwrap();
    (0..48).for_each(|_| blob.extend(&frame));
    let diff_id = crate::support::image::digest(b"never reached");
    let image = crate::support::image::image_of(&[(blob, Packed::Zstd)], &[diff_id], architecture(), false);
    let server = Server::start(honest(&[("x", &image)]));
    let manager = Manager::new();
    let error = manager.fails(&["pull", "-q", &format!("{}/x", server.host)]);
    assert!(error.contains("which no honest layer does") || error.contains("No space left"), "{error}");
    manager.assert_empty(&[]);
}

#[test]
fn sparse_files_keep_their_holes() {
    let Some(tar) = gnu_sparse() else { return };
    let unpacked = unpack_bytes(tar);
    let file = unpacked.layer().join("sparse");
    let found = std::fs::metadata(&file).unwrap();
    assert_eq!(found.len(), 8 << 20);
    assert!(found.blocks() * 512 < 1 << 20, "{} blocks", found.blocks());
    let content = std::fs::read(&file).unwrap();
    assert_eq!(&content[4 << 20..(4 << 20) + 5], b"hello");
    assert!(content[..4 << 20].iter().all(|byte| *byte == 0));
}

/// What GNU tar makes of a file with holes.
fn gnu_sparse() -> Option<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    if !crate::support::has("tar") {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(folder.path().join("sparse")).unwrap();
    file.set_len(8 << 20).unwrap();
    file.write_all_at(b"hello", 4 << 20).unwrap();
    let tar = folder.path().join("tar");
    let folder_path = folder.path().to_str().unwrap();
    crate::support::tool(
        "tar",
        &["-C", folder_path, "--sparse", "--format=posix", "-cf", tar.to_str().unwrap(), "sparse"],
    );
    Some(std::fs::read(tar).unwrap())
}
