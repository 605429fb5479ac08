//! The 34 ways out of a root filesystem that containerd tries (`TestBreakouts`), by their names there. We put
//! each layer into a folder of its own and go through no link of its own on the way to a place, so that many of them are
//! errors where others find out what was meant; the rest does what it says, inside.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::support::image::image;
use crate::support::server::{Server, honest};
use crate::support::tar::Tar;
use crate::support::{Manager, names};

/// What becomes of it.
enum Ends {
    /// The whole image is refused, with these words.
    Refused(&'static str),
    /// It is unpacked, and a layer is as this says.
    Inside(fn(&Path) -> bool),
}

use Ends::{Inside, Refused};

const THROUGH: &str = "which is a symbolic link";
const LINK_THROUGH: &str = "what is on the way is no folder or a symbolic link";
const LEAVES: &str = "it leaves the layer";
const ELSEWHERE: &str = "it is not in this layer";

fn etc() -> Tar {
    Tar::new().dir("etc").file("/etc/passwd", "inside")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn is_whiteout(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == 0)
}

fn is_one(root: &Path, one: &str, other: &str) -> bool {
    let inode = |path: &str| root.join(path).symlink_metadata().map(|found| found.ino()).ok();
    inode(one).is_some() && inode(one) == inode(other)
}

#[test]
fn the_ways_out_that_containerd_tries_lead_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let canary = folder.path().join("canary");
    std::fs::write(&canary, "untouched").unwrap();
    std::fs::set_permissions(&canary, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    let before = canary.metadata().unwrap();
    let outside = folder.path().to_str().unwrap();
    let (victim, there) = (canary.to_str().unwrap(), folder.path().join("also-there"));
    let there = there.to_str().unwrap();
    let breakout = format!("foo{outside}/breakout");

    let one = |tar: Tar| vec![tar];
    let link = |target: &str| etc().symlink("localetc", target).hard_link("localpasswd", "/localetc/passwd");
    let cases: Vec<(&str, Vec<Tar>, Ends)> = vec![
        (
            "SymlinkAbsolute",
            one(Tar::new().dir("etc").symlink("localetc", "/etc").file("/localetc/unbroken", "x")),
            Refused(THROUGH),
        ),
        (
            "SymlinkUpAndOut",
            one(Tar::new()
                .dir("etc")
                .dir("dummy")
                .symlink("localetc", "/dummy/../etc")
                .file("/localetc/x", "x")),
            Refused(THROUGH),
        ),
        (
            "SymlinkMultipleAbsolute",
            one(Tar::new()
                .dir("etc")
                .dir("dummy")
                .symlink("/dummy/etc", "/etc")
                .symlink("localetc", "/dummy/etc")
                .file("/dummy/etc/unbroken", "x")),
            Refused(THROUGH),
        ),
        (
            "SymlinkMultipleRelative",
            one(Tar::new()
                .dir("etc")
                .dir("dummy")
                .symlink("/dummy/etc", "/etc")
                .symlink("localetc", "./dummy/etc")
                .file("/dummy/etc/unbroken", "x")),
            Refused(THROUGH),
        ),
        (
            "SymlinkEmptyFile",
            one(Tar::new()
                .dir("etc")
                .file("etc/emptied", "x")
                .symlink("localetc", "/etc")
                .file("/localetc/emptied", "")),
            Refused(THROUGH),
        ),
        (
            "HardlinkRelative",
            one(etc()
                .dir("breakouts")
                .symlink("breakouts/d1", "../../etc")
                .hard_link("breakouts/my", "/breakouts/d1/passwd")),
            Refused(LINK_THROUGH),
        ),
        (
            "HardlinkDownAndOut",
            one(etc()
                .dir("breakouts")
                .dir("downandout")
                .symlink("breakouts/d1", "../downandout/../../etc")
                .hard_link("breakouts/my", "/breakouts/d1/passwd")),
            Refused(LINK_THROUGH),
        ),
        ("HardlinkAbsolute", one(link("/etc")), Refused(LINK_THROUGH)),
        ("HardlinkRelativeLong", one(link("../../../../../../../etc")), Refused(LINK_THROUGH)),
        ("HardlinkRelativeUpAndOut", one(link("upandout/../../../etc")), Refused(LINK_THROUGH)),
        (
            "HardlinkDirectRelative",
            one(etc().hard_link("localpasswd", "../../../../../etc/passwd")),
            Refused(LEAVES),
        ),
        (
            "HardlinkDirectAbsolute",
            one(etc().hard_link("localpasswd", "/etc/passwd")),
            Inside(|root| is_one(root, "localpasswd", "etc/passwd")),
        ),
        (
            "SymlinkParentDirectory",
            one(etc().symlink("..", "/etc/").hard_link("localpasswd", "/etc/passwd")),
            Refused(LEAVES),
        ),
        (
            "SymlinkEmptyFilename",
            one(etc().symlink("", "/etc/").hard_link("localpasswd", "/etc/passwd")),
            Refused("layer"),
        ),
        (
            "SymlinkParentRelative",
            one(etc().symlink("localetc/sub/..", "/etc/").hard_link("/localetc/localpasswd", "/etc/passwd")),
            Refused(LEAVES),
        ),
        (
            "SymlinkSlashEnded",
            one(etc().dir("localetc/").hard_link("/localetc/localpasswd", "/etc/passwd")),
            Inside(|root| is_one(root, "localetc/localpasswd", "etc/passwd")),
        ),
        (
            "SymlinkOverrideDirectory",
            vec![
                etc().dir("localetc"),
                Tar::new().symlink("localetc", "/etc").hard_link("/localetc/my", "/etc/passwd"),
            ],
            Refused(ELSEWHERE),
        ),
        (
            "SymlinkOverrideDirectoryRelative",
            vec![
                etc().dir("localetc"),
                Tar::new().symlink("localetc", "../../etc").hard_link("/localetc/my", "/etc/passwd"),
            ],
            Refused(ELSEWHERE),
        ),
        (
            "DirectoryOverrideSymlink",
            vec![
                etc().symlink("localetc", "/etc"),
                Tar::new().dir("/localetc/").hard_link("/localetc/my", "/etc/passwd"),
            ],
            Refused(ELSEWHERE),
        ),
        (
            "DirectoryOverrideSymlinkAndHardlink",
            vec![
                etc().symlink("localetc", "etc").hard_link("localpasswd", "/etc/passwd"),
                Tar::new().dir("/localetc/").file("/localetc/localpasswd", "different"),
            ],
            Inside(|root| read(&root.join("localetc/localpasswd")) == "different"),
        ),
        ("WhiteoutRootParent", vec![etc(), Tar::new().file(".wh...", "")], Refused("a whiteout names")),
        ("WhiteoutParent", vec![etc(), Tar::new().file("etc/.wh...", "")], Refused("a whiteout names")),
        ("WhiteoutRoot", vec![etc(), Tar::new().file(".wh..", "")], Refused("a whiteout names")),
        (
            "WhiteoutCurrentDirectory",
            vec![etc(), Tar::new().file("etc/.wh..", "")],
            Refused("a whiteout names"),
        ),
        (
            "WhiteoutSymlink",
            vec![etc().symlink("localetc", "/etc"), Tar::new().file(".wh.localetc", "")],
            Inside(|root| is_whiteout(&root.join("localetc"))),
        ),
        (
            "WhiteoutSymlinkPath",
            vec![etc().symlink("localetc", "/etc"), Tar::new().file("localetc/.wh.passwd", "")],
            Inside(|root| is_whiteout(&root.join("etc/passwd"))),
        ),
        (
            "WhiteoutDirectoryName",
            vec![etc(), Tar::new().file(".wh.etc/somefile", "x")],
            Refused("a whiteout is not a folder"),
        ),
        (
            "WhiteoutDeadSymlinkParent",
            vec![etc().symlink("localetc", "/dne"), Tar::new().file("localetc/.wh.etc", "")],
            Inside(|root| is_whiteout(&root.join("dne/etc"))),
        ),
        ("WhiteoutRelativePath", vec![etc(), Tar::new().file("dne/../.wh.etc", "")], Refused(LEAVES)),
        (
            "SymlinkOverridePath",
            one(Tar::new()
                .dir("foo")
                .file(&breakout, "1")
                .symlink("foo", "/")
                .file(&breakout, "2")
                .dir("foo")
                .file(&breakout, "3")),
            Refused(THROUGH),
        ),
        (
            "HardlinkSymlinkBeforeCreateTarget",
            one(Tar::new()
                .dir("etc")
                .symlink("localpasswd", "/etc/passwd")
                .hard_link("again", "localpasswd")
                .file("/etc/passwd", "after")),
            Inside(|root| is_one(root, "again", "localpasswd") && read(&root.join("etc/passwd")) == "after"),
        ),
        (
            "HardlinkSymlinkRelative",
            one(etc()
                .symlink("passwdlink", "../../../../../etc/passwd")
                .hard_link("localpasswd", "/passwdlink")),
            Inside(|root| is_one(root, "localpasswd", "passwdlink")),
        ),
        (
            "HardlinkSymlinkAbsolute",
            one(etc().symlink("passwdlink", "/etc/passwd").hard_link("localpasswd", "/passwdlink")),
            Inside(|root| is_one(root, "localpasswd", "passwdlink")),
        ),
        (
            "HardlinkSymlinkChmod",
            one(Tar::new().symlink(there, victim).hard_link("sketchylink", there)),
            Inside(|root| root.join("sketchylink").is_symlink()),
        ),
    ];
    assert_eq!(cases.len(), 34);
    for (name, tars, ends) in cases {
        let image = image(&tars.into_iter().map(Tar::finish).collect::<Vec<_>>());
        let server = Server::start(honest(&[("x", &image)]));
        let manager = Manager::new();
        let ran = manager.run(&["pull", "-q", &format!("{}/x", server.host)]);
        match ends {
            Refused(words) => {
                assert_eq!(ran.code, Some(1), "{name}: {ran:?}");
                assert!(ran.stderr.contains(words) && ran.stderr.lines().count() == 1, "{name}: {ran:?}");
                // A lower layer's download is right, for another image too.
                manager.assert_empty(&["ingest"]);
            }
            Inside(is_so) => {
                assert_eq!(ran.code, Some(0), "{name}: {ran:?}");
                let layers = manager.stored("layers");
                let found =
                    layers.iter().any(|layer| is_so(&manager.root().join("layers").join(layer).join("fs")));
                assert!(found, "{name}: no layer is as it says");
            }
        }
        assert_eq!(names(folder.path()), ["canary"], "{name}");
        let after = canary.metadata().unwrap();
        let facts =
            |found: &std::fs::Metadata| (found.mode(), found.uid(), found.mtime(), found.ctime_nsec());
        assert_eq!((facts(&before), read(&canary).as_str()), (facts(&after), "untouched"), "{name}");
    }
}
