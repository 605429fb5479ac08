//! Our layers under overlayfs against umoci's unpacking of the same image, which applies layers one
//! after the other: the trees must be the same.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::support::image::image;
use crate::support::server::{Server, honest};
use crate::support::tar::{DIR, FILE, Meta, Tar};
use crate::support::{Manager, has, tool};

/// What can be seen of a file, but for its time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    mode: u32,
    owner: (u32, u32),
    device: u64,
    content: Vec<u8>,
    xattrs: BTreeMap<String, Vec<u8>>,
    /// The first path of the same inode.
    same_as: Option<String>,
    mtime: i64,
}

/// A tree by paths below its root.
fn walk(root: &Path) -> BTreeMap<String, Seen> {
    let mut seen = BTreeMap::new();
    let mut inodes: BTreeMap<u64, String> = BTreeMap::new();
    let walker = walkdir(root);
    for path in walker {
        let relative = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let found = std::fs::symlink_metadata(&path).unwrap();
        let kind = found.file_type();
        let content = if kind.is_file() {
            std::fs::read(&path).unwrap()
        } else if kind.is_symlink() {
            std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            Vec::new()
        };
        let same_as = (!kind.is_dir()).then(|| inodes.entry(found.ino()).or_insert(relative.clone()).clone());
        let entry = Seen {
            mode: found.mode(),
            owner: (found.uid(), found.gid()),
            device: found.rdev(),
            content,
            xattrs: xattrs(&path),
            same_as,
            // The times of folders depend on the order in which tools fill them.
            mtime: if kind.is_dir() { 0 } else { found.mtime() },
        };
        seen.insert(relative, entry);
    }
    seen
}

fn walkdir(root: &Path) -> Vec<PathBuf> {
    let mut paths = vec![root.to_owned()];
    let mut next = 0;
    while next < paths.len() {
        let path = paths[next].clone();
        next += 1;
        if std::fs::symlink_metadata(&path).unwrap().is_dir() {
            let mut below: Vec<PathBuf> =
                std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            below.sort();
            paths.extend(below);
        }
    }
    paths
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0u8; 65536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0u8; 65536];
        let length = rustix::fs::lgetxattr(path, CString::new(name).unwrap(), &mut value[..]).unwrap();
        value.truncate(length);
        value
    };
    let pair = |name: &[u8]| (String::from_utf8_lossy(name).into_owned(), value(name));
    // umoci marks who may map its bundle; overlayfs's own attributes are not the image's.
    names.map(pair).filter(|(name, _)| !name.contains("overlay") && !name.contains("umoci")).collect()
}

/// The overlay of these folders (topmost first), walked in a mount namespace of its own.
fn walk_overlay(lower: &str) -> BTreeMap<String, Seen> {
    let lower = lower.to_owned();
    let walked = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace for this thread");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty");
        let target = folder.path().join("target");
        std::fs::create_dir(&empty).unwrap();
        std::fs::create_dir(&target).unwrap();
        // overlayfs wants two lower folders when there is no upper one.
        let options = format!("lowerdir={lower}:{}", empty.display());
        mount(Some("overlay"), &target, Some("overlay"), MsFlags::MS_RDONLY, Some(options.as_str())).unwrap();
        let seen = walk(&target);
        // A command that another test is just starting may still have a copy of our descriptors.
        nix::mount::umount2(&target, nix::mount::MntFlags::MNT_DETACH).unwrap();
        seen
    });
    walked.join().expect("walk the overlay")
}

fn assert_same(case: &str, tars: &[Vec<u8>]) {
    // Shown when something fails before the trees are compared.
    eprintln!("{case}");
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    let image = image(tars);
    image.write_layout(&layout, "image");
    let expected = unpacked_by_umoci(&layout, folder.path());
    let server = Server::start(honest(&[("x", &image)]));
    assert_equal(case, &seen_by_us(&format!("{}/x", server.host)), &expected);
}

pub(crate) fn assert_equal(case: &str, found: &BTreeMap<String, Seen>, expected: &BTreeMap<String, Seen>) {
    let paths = |tree: &BTreeMap<String, Seen>| tree.keys().cloned().collect::<Vec<_>>();
    assert!(paths(found) == paths(expected), "{case}: {}", differences(found, expected));
    for (path, seen) in found {
        assert!(*seen == expected[path], "{case}: {path:?}: {}", differing(seen, &expected[path]));
    }
}

fn differences(found: &BTreeMap<String, Seen>, expected: &BTreeMap<String, Seen>) -> String {
    let only = |one: &BTreeMap<String, Seen>, other: &BTreeMap<String, Seen>| {
        one.keys().filter(|path| !other.contains_key(*path)).take(20).cloned().collect::<Vec<_>>()
    };
    format!("{:?} too much, {:?} missing", only(found, expected), only(expected, found))
}

fn differing(found: &Seen, expected: &Seen) -> String {
    let short = |seen: &Seen| {
        let text = format!("{seen:?}");
        text.chars().take(400).collect::<String>()
    };
    format!("{} instead of {}", short(found), short(expected))
}

/// The tree of the one image of a layout, which is called `image`.
pub(crate) fn unpacked_by_umoci(layout: &Path, folder: &Path) -> BTreeMap<String, Seen> {
    let bundle = folder.join("bundle");
    tool("umoci", &["unpack", "--image", &format!("{}:image", layout.display()), bundle.to_str().unwrap()]);
    walk(&bundle.join("rootfs"))
}

/// The tree of an image under overlayfs.
pub(crate) fn seen_by_us(name: &str) -> BTreeMap<String, Seen> {
    let manager = Manager::new();
    manager.ok(&["pull", "-q", name]);
    let name = manager.ok(&["images", "--format", "{{.ID}}"]);
    let lower = manager.ok(&["image", "inspect", "-f", "{{.GraphDriver.Data.LowerDir}}", name.trim()]);
    let found = walk_overlay(lower.trim());
    manager.ok(&["rmi", name.trim()]);
    manager.assert_empty(&[]);
    found
}

#[test]
fn layers_look_as_umoci_unpacks_them() {
    if !has("umoci") {
        return;
    }
    let base = || {
        Tar::new()
            .dir("./")
            .dir("d")
            .file("d/old", "old")
            .file("d/older", "older")
            .dir("d/sub")
            .file("d/sub/deep", "deep")
            .file("file", "file")
            .symlink("link", "d/old")
            .dir_with("tmp", Meta { mode: 0o1777, ..DIR })
            .dir_with("secret", Meta { mode: 0o700, uid: 5, gid: 6, xattrs: &[("user.a", b"b")], ..DIR })
            .dir("secret/inner")
    };
    let cases: Vec<(&str, Vec<Tar>)> = vec![
        ("one layer", vec![base()]),
        ("a file is gone", vec![base(), Tar::new().dir("d").file("d/.wh.old", "")]),
        ("a folder is gone", vec![base(), Tar::new().file(".wh.d", "")]),
        ("a link is gone", vec![base(), Tar::new().file(".wh.link", "")]),
        ("what is not there is gone", vec![base(), Tar::new().file(".wh.nothing", "").file("d/.wh.no", "")]),
        ("gone, then back", vec![base(), Tar::new().file(".wh.d", "").dir("d").file("d/new", "new")]),
        ("back, then gone", vec![base(), Tar::new().dir("d").file("d/new", "new").file(".wh.d", "")]),
        ("back without an entry", vec![base(), Tar::new().file(".wh.d", "").file("d/new", "new")]),
        ("opaque first", vec![base(), Tar::new().dir("d").file("d/.wh..wh..opq", "").file("d/new", "new")]),
        ("opaque last", vec![base(), Tar::new().dir("d").file("d/new", "new").file("d/.wh..wh..opq", "")]),
        (
            "whiteouts below an opaque folder",
            vec![
                base(),
                Tar::new()
                    .dir("d")
                    .file("d/.wh.old", "")
                    .dir("d/sub")
                    .file("d/sub/.wh.deep", "")
                    .file("d/.wh..wh..opq", "")
                    .file("d/.wh.older", ""),
            ],
        ),
        ("file becomes folder", vec![base(), Tar::new().dir("file").file("file/x", "x")]),
        ("folder becomes file", vec![base(), Tar::new().file("d", "a file")]),
        ("folder becomes link", vec![base(), Tar::new().symlink("d", "tmp")]),
        ("link becomes folder", vec![base(), Tar::new().dir("link").file("link/x", "x")]),
        (
            "file changes",
            vec![base(), Tar::new().file_with("file", "new", Meta { mode: 0o600, uid: 3, ..FILE })],
        ),
        (
            "mode of a folder changes",
            vec![base(), Tar::new().dir_with("d", Meta { mode: 0o2750, gid: 9, ..DIR })],
        ),
        ("parents left out", vec![base(), Tar::new().file("tmp/x", "x").file("secret/inner/y", "y")]),
        (
            "parents left out twice",
            vec![base(), Tar::new().file("tmp/x", "x"), Tar::new().file("tmp/z", "z").file("secret/z", "z")],
        ),
        (
            "hidden, then a parent left out",
            vec![base(), Tar::new().file(".wh.secret", ""), Tar::new().file("secret/x", "x")],
        ),
        (
            "root attributes",
            vec![
                base(),
                Tar::new().dir_with("./", Meta { mode: 0o700, gid: 4, ..DIR }),
                Tar::new().file("x", "x"),
            ],
        ),
        (
            "gone and back over three layers",
            vec![base(), Tar::new().file(".wh.d", ""), Tar::new().dir("d").file("d/third", "3")],
        ),
        (
            "hard links",
            vec![base(), Tar::new().file("a", "same").hard_link("b", "a").dir("e").hard_link("e/c", "./a")],
        ),
        ("fifo and device", vec![base(), Tar::new().fifo("p").device("n", 1, 3)]),
        (
            "capabilities and setuid",
            vec![
                base(),
                Tar::new().file_with(
                    "cap",
                    "x",
                    Meta {
                        mode: 0o4755,
                        uid: 7,
                        xattrs: &[(
                            "security.capability",
                            &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                        )],
                        ..FILE
                    },
                ),
            ],
        ),
        (
            "a layer twice",
            vec![
                base(),
                Tar::new().file(".wh.link", "").file("twice", "1").dir("d").file("d/old", "new"),
                Tar::new().file(".wh.twice", "").symlink("link", "tmp").file("d/old", "newer"),
                Tar::new().file(".wh.link", "").file("twice", "1").dir("d").file("d/old", "new"),
            ],
        ),
        ("nothing is gone of what is not there", vec![base(), Tar::new().file("no/where/.wh.x", "")]),
        (
            "nothing is gone of what is gone",
            vec![
                base(),
                Tar::new().file(".wh.d", ""),
                Tar::new().file("d/.wh.old", "").file("secret/inner/deep/.wh.x", ""),
                Tar::new().file("other", "other").file("d/sub/.wh.deep", ""),
            ],
        ),
        (
            "gone twice",
            vec![base(), Tar::new().file("d/.wh.old", "").file("d/sub/.wh.x", "").file(".wh.d", "")],
        ),
        ("a file instead", vec![base(), Tar::new().file("n/.wh.x", ""), Tar::new().file("n", "a file")]),
        (
            "then it comes back",
            vec![
                base(),
                Tar::new().file("no/where/.wh.x", "").file("n/.wh.x", ""),
                Tar::new().file("no/x", "x"),
            ],
        ),
        ("everything is gone", vec![base(), Tar::new().file(".wh..wh..opq", "").file("only", "only")]),
    ];
    for (case, tars) in cases {
        assert_same(case, &tars.into_iter().map(Tar::finish).collect::<Vec<_>>());
    }
}

#[test]
fn layers_go_through_links_of_lower_ones_as_umoci_unpacks_them() {
    if !has("umoci") {
        return;
    }
    let base = || {
        Tar::new()
            .dir_with("usr", Meta { mode: 0o750, ..DIR })
            .dir_with("usr/lib", Meta { mode: 0o711, uid: 9, ..DIR })
            .file("usr/lib/old", "old")
            .dir("usr/lib/sub")
            .symlink("lib", "usr/lib")
            .symlink("absolute", "/usr/lib")
            .symlink("twice", "lib/sub")
            .symlink("usr/up", "../../../usr")
            .symlink("loose", "not/there")
    };
    let x = || Tar::new().file("lib/x", "x");
    let cases: Vec<(&str, Vec<Tar>)> = vec![
        ("a file", vec![base(), x()]),
        ("over a layer", vec![base(), Tar::new().file("etc/x", "x"), Tar::new().dir("lib/deep/er")]),
        ("a whiteout", vec![base(), Tar::new().file("lib/.wh.old", "")]),
        ("a link again", vec![base(), Tar::new().file("twice/x", "x").file("absolute/sub/y", "y")]),
        ("up and down", vec![base(), Tar::new().file("usr/up/lib/x", "x")]),
        ("then the folder", vec![base(), x(), Tar::new().dir("lib")]),
        ("another link", vec![base(), x(), Tar::new().symlink("lib", "etc"), x()]),
        ("hard links", vec![base(), x().hard_link("lib/y", "lib/x").hard_link("z", "lib/y")]),
        ("a folder of its own", vec![base(), Tar::new().dir("lib").file("lib/x", "x")]),
        ("the other path", vec![base(), Tar::new().file("usr/lib/x", "x")]),
        ("no link any more", vec![base(), Tar::new().file(".wh.lib", "").file("lib/x", "x")]),
        ("since a layer", vec![base(), Tar::new().file(".wh.lib", ""), x()]),
        ("a folder since a layer", vec![base(), Tar::new().dir("lib"), x()]),
        ("nothing below", vec![base(), Tar::new().file(".wh..wh..opq", "").file("lib/x", "x")]),
        ("the same layer twice", vec![base(), x(), Tar::new().file("y", "y"), x()]),
    ];
    for (case, tars) in cases {
        assert_same(case, &tars.into_iter().map(Tar::finish).collect::<Vec<_>>());
    }
}

#[test]
fn an_image_without_layers_is_an_image() {
    let image = image(&[]);
    let server = Server::start(honest(&[("x", &image)]));
    let manager = Manager::new();
    let name = format!("{}/x", server.host);
    manager.ok(&["pull", "-q", &name]);
    let lower = manager.ok(&["image", "inspect", "-f", "{{.GraphDriver.Data.LowerDir}}", &name]);
    assert_eq!(walk_overlay(lower.trim()).len(), 1);
}

/// Small random numbers, the same ones for the same seed.
struct Random(std::vec::IntoIter<u8>);

impl Random {
    fn new(seed: u64) -> Self {
        Self(crate::support::noise(seed, 4096).into_iter())
    }

    fn below(&mut self, limit: u8) -> u8 {
        self.0.next().expect("enough random bytes") % limit
    }
}

/// A layer of random entries on top of `tree` (path -> whether it is a folder), which it changes.
/// Two things are left out: paths that go through what is no folder, which we refuse or see
/// differently on purpose, and a path with two entries.
fn random_layer(random: &mut Random, tree: &mut BTreeMap<String, bool>) -> Vec<u8> {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let below = tree.clone();
    let mut tar = Tar::new();
    let mut made: BTreeMap<String, bool> = BTreeMap::new();
    let mut gone: Vec<String> = Vec::new();
    let mut opaque: Vec<String> = Vec::new();
    let mut implied: Vec<String> = Vec::new();
    for _ in 0..2 + random.below(7) {
        let depth = 1 + usize::from(random.below(3));
        let parts: Vec<&str> = (0..depth).map(|_| NAMES[usize::from(random.below(3))]).collect();
        let path = parts.join("/");
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let ancestors: Vec<String> = (1..depth).map(|count| parts[..count].join("/")).collect();
        let solid = |path: &String| made.get(path).copied().unwrap_or(below.get(path) == Some(&true));
        if made.contains_key(&path) || !ancestors.iter().all(solid) {
            continue;
        }
        let prefix = if parent.is_empty() { String::new() } else { format!("{parent}/") };
        let mode = [0o755, 0o700, 0o1777, 0o2750][usize::from(random.below(4))];
        let uid = u64::from(random.below(3));
        let meta = Meta { mode, uid, ..FILE };
        match random.below(8) {
            0 | 1 => {
                tar = tar.dir_with(&path, meta);
                made.insert(path.clone(), true);
            }
            2 | 3 => {
                // A file where this layer has a folder's entries already is a path with two meanings.
                if made.keys().any(|other| other.starts_with(&format!("{path}/"))) {
                    continue;
                }
                tar = tar.file_with(&path, format!("{path} {uid}"), meta);
                made.insert(path.clone(), false);
            }
            4 => {
                if made.keys().any(|other| other.starts_with(&format!("{path}/"))) {
                    continue;
                }
                tar = tar.symlink(&path, "nowhere");
                made.insert(path.clone(), false);
            }
            5 | 6 => {
                tar = tar.file(&format!("{prefix}.wh.{name}"), "");
                gone.push(path.clone());
                // It makes no folder.
                continue;
            }
            _ => {
                // Of a folder that is there; elsewhere tools differ in whether it makes one.
                if parent.is_empty()
                    || gone.iter().any(|gone| parent == gone || parent.starts_with(&format!("{gone}/")))
                {
                    continue;
                }
                // Nor after entries whose parents were left out: what these look like then is nowhere said.
                if implied.iter().any(|path| path.starts_with(&prefix)) {
                    continue;
                }
                tar = tar.file(&format!("{prefix}.wh..wh..opq"), "");
                opaque.push(parent.to_owned());
            }
        }
        for ancestor in ancestors {
            made.entry(ancestor).or_insert_with_key(|ancestor| {
                implied.push(ancestor.clone());
                true
            });
        }
    }
    let hidden = |path: &String| {
        gone.iter().any(|gone| path == gone || path.starts_with(&format!("{gone}/")))
            || opaque.iter().any(|folder| path.starts_with(&format!("{folder}/")))
    };
    tree.retain(|path, _| !hidden(path));
    for (path, folder) in made {
        if !folder {
            tree.retain(|other, _| !other.starts_with(&format!("{path}/")));
        }
        tree.insert(path, folder);
    }
    tar.finish()
}

#[test]
fn random_layers_look_as_umoci_unpacks_them() {
    if !has("umoci") {
        return;
    }
    let rounds = std::env::var("RANDOM_IMAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    for seed in 1..=rounds {
        let mut random = Random::new(seed);
        let mut tree = BTreeMap::new();
        let tars: Vec<Vec<u8>> = (0..3).map(|_| random_layer(&mut random, &mut tree)).collect();
        assert_same(&format!("seed {seed}"), &tars);
    }
}

/// Layers with everything that is hard: very many files, hard links, attributes, holes, long names, whiteouts of
/// every kind.
fn worst_layers(count: usize, folder: &Path) -> Vec<Vec<u8>> {
    let tree = folder.join("tree");
    let long = "l".repeat(255);
    let deep = ["deep"; 60].join("/");
    std::fs::create_dir_all(tree.join(&deep)).unwrap();
    std::fs::write(tree.join(&deep).join(&long), "deep").unwrap();
    std::os::unix::fs::symlink(format!("/{deep}/{long}"), tree.join("far")).unwrap();
    for index in 0..count {
        let folder = tree.join(format!("d{}", index % 100));
        if index < 100 {
            std::fs::create_dir_all(folder.join("sub")).unwrap();
            std::fs::write(folder.join("sub/kept"), "kept").unwrap();
        }
        let file = folder.join(index.to_string());
        match index % 10 {
            7 if index > 1000 => std::fs::hard_link(folder.join((index - 1000).to_string()), &file).unwrap(),
            8 => std::os::unix::fs::symlink(index.to_string(), &file).unwrap(),
            _ => std::fs::write(&file, index.to_string()).unwrap(),
        }
        if index % 10 == 1 {
            let value = index.to_string();
            rustix::fs::lsetxattr(&file, "user.number", value.as_bytes(), rustix::fs::XattrFlags::empty())
                .unwrap();
            std::os::unix::fs::chown(&file, Some(u32::try_from(index).unwrap()), Some(7)).unwrap();
        }
    }
    let sparse = std::fs::File::create(tree.join("sparse")).unwrap();
    for offset in [0, 1 << 20, (16 << 20) + 12345] {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", offset).unwrap();
    }
    sparse.set_len(32 << 20).unwrap();
    drop(sparse);
    let tar = folder.join("base.tar");
    let options = ["--format=pax", "--sparse", "--xattrs", "--sort=name", "--numeric-owner"];
    let files = ["-C", tree.to_str().unwrap(), "-cf", tar.to_str().unwrap(), "."];
    tool("tar", &[&options[..], &files[..]].concat());
    let base = std::fs::read(&tar).unwrap();
    std::fs::remove_dir_all(&tree).unwrap();
    let mut upper = Tar::new();
    let mut top = Tar::new();
    for index in 0..100 {
        let (folder, file) = (format!("d{index}"), format!("d{index}/{index}"));
        upper = match index % 10 {
            0 => upper.file(&format!("{folder}/.wh.{index}"), ""),
            1 => upper.file(&format!(".wh.{folder}"), ""),
            2 => upper.dir(&folder).file(&format!("{folder}/.wh..wh..opq"), "").file(&file, "new"),
            3 => upper.file(&format!(".wh.{folder}"), "").dir(&folder).file(&file, "back"),
            4 => upper.file(&folder, "a file now"),
            5 => upper.dir(&file).file(&format!("{file}/x"), "a folder now"),
            6 => upper.dir_with(&folder, Meta { mode: 0o1770, uid: 5, gid: 6, ..DIR }),
            7 => upper.file(&format!("{folder}/sub/added"), "without the folders"),
            8 => upper.symlink(&folder, "d9"),
            _ => {
                upper.file(&format!("{folder}/sub/.wh.kept"), "").hard_link(&format!("{file}-link"), "d0/new")
            }
        };
        if index == 0 {
            upper = upper.file("d0/new", "linked to");
        }
        top = top.file(&format!("d{}/top", index / 10 * 10 + 6), "top");
    }
    vec![base, upper.finish(), top.file(".wh.far", "").file("new/.wh.nothing", "").finish()]
}

/// What GNU tar makes of layers that are unpacked one after the other, whiteouts done by hand.
pub(crate) fn unpacked_by_tar(tars: &[Vec<u8>], folder: &Path) -> BTreeMap<String, Seen> {
    let root = folder.join("by-tar");
    std::fs::create_dir(&root).unwrap();
    for bytes in tars {
        let tar = folder.join("layer.tar");
        std::fs::write(&tar, bytes).unwrap();
        let list = tool("tar", &["-tf", tar.to_str().unwrap()]);
        let kinds = tool("tar", &["-tvf", tar.to_str().unwrap()]);
        for (path, kind) in list.lines().zip(kinds.lines()) {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let parent = root.join(parent);
            let gone = match name.strip_prefix(".wh.") {
                Some(".wh..opq") => std::fs::read_dir(&parent)
                    .unwrap_or_else(|error| panic!("{path}: {error}"))
                    .map(|entry| entry.unwrap().path())
                    .collect(),
                Some(name) => vec![parent.join(name)],
                // Not what tar does by itself: it wants the folder empty.
                None if !kind.starts_with('d') => vec![root.join(path)],
                None => Vec::new(),
            };
            for path in gone {
                match path.symlink_metadata() {
                    Ok(found) if found.is_dir() => std::fs::remove_dir_all(path).unwrap(),
                    Ok(_) => std::fs::remove_file(path).unwrap(),
                    Err(_) => {}
                }
            }
        }
        let options = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--exclude=.wh.*"];
        let files = ["-C", root.to_str().unwrap(), "-xpf", tar.to_str().unwrap()];
        tool("tar", &[&options[..], &files[..]].concat());
    }
    walk(&root)
}

/// `WORST_FILES=100000` makes so many.
#[test]
fn the_worst_layers_look_as_umoci_and_tar_unpack_them() {
    if !has("umoci") {
        return;
    }
    let count = std::env::var("WORST_FILES").ok().and_then(|text| text.parse().ok()).unwrap_or(5000);
    let folder = tempfile::tempdir().unwrap();
    let tars = worst_layers(count, folder.path());
    let image = image(&tars);
    let layout = folder.path().join("layout");
    image.write_layout(&layout, "image");
    let server = Server::start(honest(&[("x", &image)]));
    let found = seen_by_us(&format!("{}/x", server.host));
    assert!(found.len() > count / 2, "{}", found.len());
    assert_equal("umoci", &found, &unpacked_by_umoci(&layout, folder.path()));
    assert_equal("tar", &found, &unpacked_by_tar(&tars, folder.path()));
}

/// `COMPARE_IMAGE=127.0.0.1:5000/debian` compares an image of one's own, from a registry on loopback.
#[test]
fn an_image_of_ones_own_looks_as_umoci_unpacks_it() {
    let Ok(name) = std::env::var("COMPARE_IMAGE") else {
        println!("SKIP: COMPARE_IMAGE names no image");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    let to = format!("oci:{}:image", layout.display());
    tool("skopeo", &["copy", "-q", "--src-tls-verify=false", &format!("docker://{name}"), &to]);
    let found = seen_by_us(&name);
    eprintln!("{} files", found.len());
    assert_equal(&name, &found, &unpacked_by_umoci(&layout, folder.path()));
}
