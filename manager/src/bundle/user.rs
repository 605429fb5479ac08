//! `USER` and `-u`: `user[:group]` by name or number, looked up in the image's own files.
//! [conversion.md](https://github.com/opencontainers/image-spec/blob/main/conversion.md#parsed-fields),
//! [passwd(5)](https://man7.org/linux/man-pages/man5/passwd.5.html)

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::statfs::{PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};

/// More than any sane file of users has; a hostile image may bring /dev/zero (CVE-2024-9676).
const FILE_LIMIT: u64 = 1024 * 1024;
/// -1 means "unchanged" to setuid(2), so the largest id is one less.
const ID_LIMIT: u32 = u32::MAX - 1;

/// Who a process runs as.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// Its user id.
    pub(crate) uid: u32,
    /// Its group id.
    pub(crate) gid: u32,
    /// Its groups, `gid` among them: without it a negative permission of the group could be shaken
    /// off (CVE-2022-36109).
    pub(crate) groups: Vec<u32>,
    /// Its home folder.
    pub(crate) home: String,
}

/// Looks a user up in `/etc/passwd` and `/etc/group` below the open folder `root`.
pub(crate) fn look_up(root: &OwnedFd, user: &str) -> Result<User> {
    resolve(user, &read(root, "etc/passwd")?, &read(root, "etc/group")?)
}

/// A small regular file below `root`, empty when there is none. Symlinks are followed as the
/// container would follow them, never out of it.
fn read(root: &OwnedFd, path: &str) -> Result<String> {
    let describe = || format!("/{path} of the image");
    let how = OpenHow::new()
        // O_PATH first: opening a device or a FIFO may have effects of its own.
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(root, path, how) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(String::new()),
        other => File::from(other.with_context(describe)?),
    };
    let data = file.metadata().with_context(describe)?;
    ensure!(data.is_file(), "{} is not a regular file", describe());
    ensure!(data.len() <= FILE_LIMIT, "{} has {} bytes, which is too much", describe(), data.len());
    // Files of the kernel are regular ones, too, but /proc/kmsg never ends and keeps its reader waiting.
    let kind = fstatfs(&file).with_context(describe)?.filesystem_type();
    ensure!(kind != PROC_SUPER_MAGIC && kind != SYSFS_MAGIC, "{} is a file of the kernel", describe());
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).with_context(describe)?;
    let mut text = Vec::new();
    file.take(FILE_LIMIT).read_to_end(&mut text).with_context(describe)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn resolve(user: &str, passwd: &str, group: &str) -> Result<User> {
    let (user, wanted_group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let number = id(user).with_context(|| format!("user {user:?}"))?;
    let entry = passwd.lines().map(fields).find(|entry| {
        entry.len() >= 6 && (entry[0] == user || (number.is_some() && entry[2].parse().ok() == number))
    });
    let in_entry = |at: usize| entry.as_ref().and_then(|entry| entry[at].parse::<u32>().ok());
    let uid = number
        .or_else(|| in_entry(2))
        .with_context(|| format!("unable to find user {user}: no matching entries in passwd file"))?;
    let home = entry.as_ref().map_or("/", |entry| entry[5]);
    let (gid, mut groups) = match wanted_group {
        Some(wanted) if !wanted.is_empty() => (group_id(wanted, group)?, Vec::new()),
        _ => (
            in_entry(3).unwrap_or(0),
            entry.as_ref().map_or_else(Vec::new, |entry| groups_of(entry[0], group)),
        ),
    };
    groups.insert(0, gid);
    let mut seen = Vec::new();
    groups.retain(|gid| {
        !seen.contains(gid) && {
            seen.push(*gid);
            true
        }
    });
    let home = if home.is_empty() { "/" } else { home }.to_owned();
    Ok(User { uid, gid, groups, home })
}

fn group_id(wanted: &str, group: &str) -> Result<u32> {
    let number = id(wanted).with_context(|| format!("group {wanted:?}"))?;
    let named =
        || group.lines().map(fields).find(|entry| entry.len() >= 3 && entry[0] == wanted)?[2].parse().ok();
    number
        .or_else(named)
        .with_context(|| format!("unable to find group {wanted}: no matching entries in group file"))
}

/// The groups that list a user as a member.
fn groups_of(name: &str, group: &str) -> Vec<u32> {
    let listed = group
        .lines()
        .map(fields)
        .filter(|entry| entry.len() >= 4 && entry[3].split(',').any(|member| member.trim() == name));
    listed.filter_map(|entry| entry[2].parse().ok()).collect()
}

fn fields(line: &str) -> Vec<&str> {
    line.split(':').map(str::trim).collect()
}

/// A number, none when it is a name. What looks like a number must be one: a wrapped-around user
/// 4294967296 would be root (CVE-2024-40635).
fn id(text: &str) -> Result<Option<u32>> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let number = text.parse::<u32>().ok().filter(|&number| number <= ID_LIMIT && digits == text);
    Ok(Some(number.with_context(|| format!("ids are numbers from 0 to {ID_LIMIT}"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:\nlogs:x:4:web,other\nroots:x:7:root\n";

    fn user(text: &str) -> Result<(u32, u32, Vec<u32>, String)> {
        resolve(text, PASSWD, GROUP).map(|user| (user.uid, user.gid, user.groups, user.home))
    }

    #[test]
    fn users_and_groups_have_names_and_numbers() {
        assert_eq!(user("").unwrap(), (0, 0, vec![0, 7], "/root".into()));
        assert_eq!(user("web").unwrap(), (33, 33, vec![33, 4], "/var/www".into()));
        assert_eq!(user("33").unwrap(), (33, 33, vec![33, 4], "/var/www".into()));
        assert_eq!(user("web:logs").unwrap(), (33, 4, vec![4], "/var/www".into()));
        assert_eq!(user("1000").unwrap(), (1000, 0, vec![0], "/".into()));
        assert_eq!(user("1000:1001").unwrap(), (1000, 1001, vec![1001], "/".into()));
    }

    #[test]
    fn ids_that_do_not_fit_and_unknown_names_are_errors() {
        for (text, part) in [
            ("nosuch", "unable to find user nosuch"),
            ("web:nosuch", "unable to find group nosuch"),
            ("-1", "from 0 to"),
            ("4294967295", "from 0 to"),
            ("4294967296", "from 0 to"),
            ("0:99999999999999999999", "from 0 to"),
        ] {
            let error = format!("{:#}", user(text).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_passwd_file_that_is_no_file_is_an_error_and_a_link_stays_inside() {
        let folder = tempfile::tempdir().unwrap();
        let etc = folder.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        let open = || OwnedFd::from(File::open(folder.path()).unwrap());
        assert_eq!(look_up(&open(), "5").unwrap().uid, 5);
        nix::unistd::mkfifo(&etc.join("passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(format!("{:#}", look_up(&open(), "web").unwrap_err()).contains("not a regular file"));
        std::fs::remove_file(etc.join("passwd")).unwrap();
        // Out of the folder this would be the host's own file, which has a user root.
        std::os::unix::fs::symlink("../../../../../../etc/passwd", etc.join("group")).unwrap();
        std::os::unix::fs::symlink("/etc/group", etc.join("passwd")).unwrap();
        assert!(look_up(&open(), "root").is_err());
    }

    #[test]
    fn files_of_the_kernel_are_not_read() {
        let root = OwnedFd::from(File::open("/").unwrap());
        for path in ["proc/kmsg", "proc/self/status", "sys/kernel/uevent_seqnum"] {
            if std::path::Path::new("/").join(path).exists() {
                let error = format!("{:#}", read(&root, path).unwrap_err());
                assert!(error.contains("a file of the kernel"), "{error}");
            }
        }
    }
}
