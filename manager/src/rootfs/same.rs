//! Whether two folders hold the same: names, kinds, owners, modes, times, attributes, links and content.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstat};

use super::entry::show;
use super::pack::{Found, names};
use super::xattr;

/// The first thing that is not the same in both, as a sentence; none if there is nothing. The times of the folders
/// `implicit` do not count: nothing says what they are.
pub(crate) fn difference(found: &Path, expected: &Path, implicit: &[String]) -> Result<Option<String>> {
    let open = |path: &Path| File::open(path).with_context(|| format!("open {}", path.display()));
    let mut comparing = Comparing {
        implicit: implicit.iter().map(String::as_bytes).collect(),
        pairs: HashMap::new(),
        taken: HashMap::new(),
    };
    comparing.folders(open(found)?.into(), open(expected)?.into(), b"")
}

/// A file, by device and number.
type Inode = (u64, u64);

struct Comparing<'a> {
    implicit: HashSet<&'a [u8]>,
    /// Files with several names, and which one is the same in the other folder; and the other way round.
    pairs: HashMap<Inode, Inode>,
    taken: HashMap<Inode, Inode>,
}

impl Comparing<'_> {
    fn folders(&mut self, found: OwnedFd, expected: OwnedFd, path: &[u8]) -> Result<Option<String>> {
        let own = |folder: &OwnedFd| fstat(folder).with_context(|| format!("look at {}", show(path)));
        if let Some(what) =
            self.metadata(&own(&found)?, &own(&expected)?, path).or(attributes(&found, &expected)?)
        {
            return Ok(Some(told(path, what)));
        }
        let list = |folder: &OwnedFd| -> Result<Vec<_>> {
            let mut names = names(folder).with_context(|| format!("list {}", show(path)))?;
            names.sort_unstable();
            Ok(names)
        };
        let (have, want) = (list(&found)?, list(&expected)?);
        let below = |name: &OsStr| -> Vec<u8> {
            let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
            [path, separator, name.as_bytes()].concat()
        };
        if let Some(name) = want.iter().find(|name| have.binary_search(name).is_err()) {
            return Ok(Some(told(&below(name), "it is missing")));
        }
        if let Some(name) = have.iter().find(|name| want.binary_search(name).is_err()) {
            return Ok(Some(told(&below(name), "it does not belong there")));
        }
        for name in &want {
            let path = below(name);
            let look = |folder: &OwnedFd| -> Result<Found> {
                Found::open(folder.as_fd(), name)?
                    .with_context(|| format!("{} is gone meanwhile", show(&path)))
            };
            let (found, expected) = (look(&found)?, look(&expected)?);
            let both = found.kind() == SFlag::S_IFDIR && expected.kind() == SFlag::S_IFDIR;
            let difference = if both {
                let open = |it: &Found| it.reopen(OFlag::O_RDONLY | OFlag::O_DIRECTORY);
                let folders = (open(&found)?, open(&expected)?);
                // A path may have many parts, a process not so many descriptors.
                drop((found, expected));
                self.folders(folders.0, folders.1, &path)?
            } else {
                let one =
                    self.entry(&found, &expected, &path).with_context(|| format!("read {}", show(&path)))?;
                one.map(|what| told(&path, what))
            };
            if difference.is_some() {
                return Ok(difference);
            }
        }
        Ok(None)
    }

    fn entry(&mut self, found: &Found, expected: &Found, path: &[u8]) -> Result<Option<&'static str>> {
        let metadata = self.metadata(&found.stat, &expected.stat, path);
        if let Some(what) = metadata.or(attributes(&found.file, &expected.file)?) {
            return Ok(Some(what));
        }
        let same = match expected.kind() {
            SFlag::S_IFREG => {
                let open = |it: &Found| it.reopen(OFlag::O_RDONLY | OFlag::O_NOATIME).map(File::from);
                same_content(open(found)?, open(expected)?)?
            }
            SFlag::S_IFLNK => readlinkat(&found.file, "")? == readlinkat(&expected.file, "")?,
            _ => true,
        };
        Ok((!same).then_some("its content differs"))
    }

    /// What `stat` tells.
    fn metadata(&mut self, found: &FileStat, expected: &FileStat, path: &[u8]) -> Option<&'static str> {
        let is_folder = expected.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
        let time = |stat: &FileStat| (stat.st_mtime, stat.st_mtime_nsec);
        let inode = |stat: &FileStat| (stat.st_dev, stat.st_ino);
        if found.st_mode != expected.st_mode || found.st_rdev != expected.st_rdev {
            return Some("its kind or mode differs");
        }
        if (found.st_uid, found.st_gid) != (expected.st_uid, expected.st_gid) {
            return Some("its owner differs");
        }
        if time(found) != time(expected) && !(is_folder && self.implicit.contains(path)) {
            return Some("its time differs");
        }
        if is_folder {
            return None;
        }
        if found.st_size != expected.st_size {
            return Some("its size differs");
        }
        let (one, other) = (inode(found), inode(expected));
        let linked_alike = found.st_nlink == expected.st_nlink
            && (expected.st_nlink == 1
                || *self.pairs.entry(one).or_insert(other) == other
                    && *self.taken.entry(other).or_insert(one) == one);
        (!linked_alike).then_some("its other names differ")
    }
}

fn told(path: &[u8], what: &str) -> String {
    format!("{}: {what}", show(path))
}

fn attributes(found: impl AsFd, expected: impl AsFd) -> Result<Option<&'static str>> {
    let sorted = |file| -> Result<_> {
        let mut all = xattr::all(file).context("read its extended attributes")?;
        // Of the place, not of the file: each folder may label what is made in it.
        all.retain(|(name, _)| name.as_c_str() != c"security.selinux");
        all.sort();
        Ok(all)
    };
    let same = sorted(found.as_fd())? == sorted(expected.as_fd())?;
    Ok((!same).then_some("its extended attributes differ"))
}

fn same_content(mut found: File, mut expected: File) -> Result<bool> {
    let (mut one, mut other) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    loop {
        let count = expected.read(&mut other)?;
        if count == 0 {
            return Ok(found.read(&mut one)? == 0);
        }
        match found.read_exact(&mut one[..count]) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        if one[..count] != other[..count] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn fill(folder: &Path) {
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("a/file"), "content").unwrap();
        fs::write(folder.join("a/other"), "content").unwrap();
        fs::hard_link(folder.join("a/file"), folder.join("a/linked")).unwrap();
        symlink("file", folder.join("a/link")).unwrap();
        age(folder);
    }

    /// The same times everywhere, children first.
    fn age(folder: &Path) {
        let mut paths = vec![folder.to_owned()];
        let mut next = 0;
        while let Some(path) = paths.get(next).cloned() {
            next += 1;
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        let time = nix::sys::time::TimeSpec::new(1, 0);
        for path in paths.iter().rev() {
            let flag = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
            nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, flag).unwrap();
        }
    }

    #[test]
    fn the_first_difference_is_told() {
        type Change = fn(&Path);
        let cases: [(&str, Change); 8] = [
            ("\"a/file\": its content differs", |folder| {
                fs::write(folder.join("a/file"), "CONTENT").unwrap()
            }),
            ("\"a/file\": its size differs", |folder| fs::write(folder.join("a/file"), "").unwrap()),
            ("\"a/b\": its kind or mode differs", |folder| {
                fs::set_permissions(folder.join("a/b"), fs::Permissions::from_mode(0o700)).unwrap();
            }),
            ("\"a/b\": it is missing", |folder| fs::remove_dir(folder.join("a/b")).unwrap()),
            ("\"a/b/new\": it does not belong there", |folder| {
                fs::write(folder.join("a/b/new"), "").unwrap()
            }),
            ("\"a/link\": its content differs", |folder| {
                fs::remove_file(folder.join("a/link")).unwrap();
                symlink("elif", folder.join("a/link")).unwrap();
            }),
            ("\"a/linked\": its other names differ", |folder| {
                fs::remove_file(folder.join("a/linked")).unwrap();
                fs::hard_link(folder.join("a/other"), folder.join("a/linked")).unwrap();
                fs::hard_link(folder.join("a/file"), folder.join("z")).unwrap();
            }),
            ("\"a/other\": its extended attributes differ", |folder| {
                xattr::set(File::open(folder.join("a/other")).unwrap(), c"user.x", b"y").unwrap();
            }),
        ];
        for (expected, change) in cases {
            let folder = tempfile::tempdir().unwrap();
            let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
            fill(&one);
            fill(&other);
            assert_eq!(difference(&one, &other, &[]).unwrap(), None);
            change(&one);
            age(&one);
            let found = difference(&one, &other, &[]).unwrap();
            assert!(
                found.as_deref() == Some(expected) || expected.contains("names") && found.is_some(),
                "{found:?} instead of {expected:?}"
            );
        }
    }

    #[test]
    fn the_time_of_a_folder_that_nothing_describes_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        fill(&one);
        fill(&other);
        fs::write(one.join("a/b/x"), "").unwrap();
        fs::remove_file(one.join("a/b/x")).unwrap();
        assert_eq!(difference(&one, &other, &[]).unwrap().unwrap(), "\"a/b\": its time differs");
        assert_eq!(difference(&one, &other, &["a/b".to_owned()]).unwrap(), None);
    }
}
