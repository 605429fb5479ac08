//! The mount options of config.md#linux-mount-options: one table, from which the parser and
//! `features` both come.

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::id_mapped::Asked;
use crate::sys::mount::{Change, attr};

/// What an option does.
#[derive(Clone, Copy, Debug)]
enum Effect {
    /// Sets an attribute of the mount.
    Set(u64),
    /// Clears an attribute of the mount.
    Clear(u64),
    /// Sets the access-time mode.
    AccessTime(u64),
    /// Takes back the access-time mode, if it is this one.
    NotAccessTime(u64),
    /// The same three for the mount and all below it.
    SetAll(u64),
    ClearAll(u64),
    AccessTimeAll(u64),
    /// Adds or removes a flag of the file system itself (`ro` of the super block, `sync` ...).
    Super(&'static str, bool),
    /// A propagation type; `true` for all mounts below too.
    Propagation(u64, bool),
    /// `bind` or `rbind`.
    Bind(bool),
    Remount,
    CopyUp,
    IdMap(bool),
    /// Options of crun's for a bind mount whose source or destination is a symbolic link.
    Link(fn(&mut Links)),
    /// Named by the table of the specification, but nothing to do.
    Nothing,
}

use Effect::{
    AccessTime, AccessTimeAll, Bind, Clear, ClearAll, NotAccessTime, Nothing, Propagation, Set, SetAll, Super,
};

/// Every option that is not file-system data.
const TABLE: &[(&str, Effect)] = &[
    ("async", Super("sync", false)),
    ("atime", NotAccessTime(attr::NOATIME)),
    ("bind", Bind(false)),
    ("copy-symlink", Effect::Link(|links| links.copy = true)),
    ("defaults", Nothing),
    ("dest-nofollow", Effect::Link(|links| links.keep_destination = true)),
    ("dev", Clear(attr::NODEV)),
    ("diratime", Clear(attr::NODIRATIME)),
    ("dirsync", Super("dirsync", true)),
    ("exec", Clear(attr::NOEXEC)),
    ("idmap", Effect::IdMap(false)),
    ("iversion", Super("iversion", true)),
    ("lazytime", Super("lazytime", true)),
    ("loud", Nothing), // only what the kernel logs
    ("mand", Super("mand", true)),
    ("noatime", AccessTime(attr::NOATIME)),
    ("nodev", Set(attr::NODEV)),
    ("nodiratime", Set(attr::NODIRATIME)),
    ("noexec", Set(attr::NOEXEC)),
    ("noiversion", Super("iversion", false)),
    ("nolazytime", Super("lazytime", false)),
    ("nomand", Super("mand", false)),
    ("norelatime", NotAccessTime(0)),
    ("nostrictatime", NotAccessTime(attr::STRICTATIME)),
    ("nosuid", Set(attr::NOSUID)),
    ("nosymfollow", Set(attr::NOSYMFOLLOW)),
    ("private", Propagation(libc::MS_PRIVATE, false)),
    ("ratime", ClearAll(attr::ATIME)),
    ("rbind", Bind(true)),
    ("rdev", ClearAll(attr::NODEV)),
    ("rdiratime", ClearAll(attr::NODIRATIME)),
    ("relatime", AccessTime(0)),
    ("remount", Effect::Remount),
    ("rexec", ClearAll(attr::NOEXEC)),
    ("ridmap", Effect::IdMap(true)),
    ("rnoatime", AccessTimeAll(attr::NOATIME)),
    ("rnodev", SetAll(attr::NODEV)),
    ("rnodiratime", SetAll(attr::NODIRATIME)),
    ("rnoexec", SetAll(attr::NOEXEC)),
    ("rnorelatime", ClearAll(attr::ATIME)),
    ("rnostrictatime", ClearAll(attr::ATIME)),
    ("rnosuid", SetAll(attr::NOSUID)),
    ("rnosymfollow", SetAll(attr::NOSYMFOLLOW)),
    ("ro", Set(attr::RDONLY)),
    ("rprivate", Propagation(libc::MS_PRIVATE, true)),
    ("rrelatime", AccessTimeAll(0)),
    ("rro", SetAll(attr::RDONLY)),
    ("rrw", ClearAll(attr::RDONLY)),
    ("rshared", Propagation(libc::MS_SHARED, true)),
    ("rslave", Propagation(libc::MS_SLAVE, true)),
    ("rstrictatime", AccessTimeAll(attr::STRICTATIME)),
    ("rsuid", ClearAll(attr::NOSUID)),
    ("rsymfollow", ClearAll(attr::NOSYMFOLLOW)),
    ("runbindable", Propagation(libc::MS_UNBINDABLE, true)),
    ("rw", Clear(attr::RDONLY)),
    ("shared", Propagation(libc::MS_SHARED, false)),
    ("silent", Nothing),
    ("slave", Propagation(libc::MS_SLAVE, false)),
    ("src-nofollow", Effect::Link(|links| links.keep_source = true)),
    ("strictatime", AccessTime(attr::STRICTATIME)),
    ("suid", Clear(attr::NOSUID)),
    ("symfollow", Clear(attr::NOSYMFOLLOW)),
    ("sync", Super("sync", true)),
    ("tmpcopyup", Effect::CopyUp),
    ("unbindable", Propagation(libc::MS_UNBINDABLE, false)),
];

/// The options of one mount, parsed: a later option wins over an earlier one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MountOptions {
    /// `Some(recursive)` for a bind mount.
    pub(crate) bind: Option<bool>,
    /// Changes the options of a mount that is there already.
    pub(crate) remount: bool,
    /// True if any attribute of the mount was named, be it only to be cleared.
    pub(crate) names_attributes: bool,
    /// `MOUNT_ATTR_*` to set on the mount.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` to clear on the mount.
    pub(crate) clear: u64,
    /// The same for the mount and all below it.
    pub(crate) set_all: u64,
    /// See `set_all`.
    pub(crate) clear_all: u64,
    /// Propagation types in the order given; `true` for all below too.
    pub(crate) propagation: Vec<(u64, bool)>,
    /// Flags of the super block: `sync`, `dirsync`, `mand`, `lazytime`, `iversion`.
    pub(crate) super_flags: Vec<&'static str>,
    /// What the file system itself is told: `mode=755`.
    pub(crate) data: Vec<String>,
    /// `tmpcopyup`: the tmpfs starts with what it covers.
    pub(crate) copy_up: bool,
    /// `idmap` or `ridmap`.
    pub(crate) id_map: Option<Asked>,
    pub(crate) links: Links,
}

/// What becomes of symbolic links: followed, unless told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Links {
    /// `copy-symlink`: a source that is a link is made again at the destination.
    pub(crate) copy: bool,
    /// `src-nofollow`: a source that is a link is itself what is mounted.
    pub(crate) keep_source: bool,
    /// `dest-nofollow`: a destination that is a link is itself what is mounted on.
    pub(crate) keep_destination: bool,
}

/// Parses a mount's option list. Unknown options are data for the file system.
pub(crate) fn parse<S: AsRef<str>>(options: &[S]) -> MountOptions {
    let mut parsed = MountOptions::default();
    for option in options.iter().map(AsRef::as_ref) {
        match TABLE.binary_search_by_key(&option, |(name, _)| name) {
            Ok(row) => parsed.take(TABLE[row].1),
            Err(_) => match option.split_once('=') {
                Some((name @ ("idmap" | "ridmap"), mapping)) => {
                    parsed.id_map = Some(Asked { recursive: name == "ridmap", mapping: mapping.to_owned() });
                }
                _ => parsed.data.extend(split_data(option)),
            },
        }
    }
    parsed
}

/// As mount(2)'s data is read: options end at a comma, but not at one that is quoted (`context="..."`) or
/// has a backslash before it (overlay).
fn split_data(text: &str) -> impl Iterator<Item = String> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text.split(move |sign| {
        let ends = sign == ',' && !quoted && !escaped;
        quoted ^= sign == '"' && !escaped;
        escaped = sign == '\\' && !escaped;
        ends
    });
    parts.filter(|part| !part.is_empty()).map(str::to_owned)
}

/// Every option name, sorted: `mountOptions` of features.md.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

impl MountOptions {
    fn take(&mut self, effect: Effect) {
        self.names_attributes |= matches!(effect, Set(_) | Clear(_) | AccessTime(_) | NotAccessTime(_));
        match effect {
            Set(bits) => change(&mut self.set, &mut self.clear, bits, 0),
            Clear(bits) => change(&mut self.set, &mut self.clear, 0, bits),
            AccessTime(mode) => change(&mut self.set, &mut self.clear, mode, attr::ATIME),
            NotAccessTime(mode) => {
                if self.clear & attr::ATIME != 0 && self.set & attr::ATIME == mode {
                    self.set &= !attr::ATIME;
                    self.clear &= !attr::ATIME;
                }
            }
            SetAll(bits) => change(&mut self.set_all, &mut self.clear_all, bits, 0),
            ClearAll(bits) => change(&mut self.set_all, &mut self.clear_all, 0, bits),
            AccessTimeAll(mode) => change(&mut self.set_all, &mut self.clear_all, mode, attr::ATIME),
            Super(name, on) => {
                self.super_flags.retain(|flag| *flag != name);
                if on {
                    self.super_flags.push(name);
                }
            }
            Propagation(kind, all) => self.propagation.push((kind, all)),
            Bind(recursive) => self.bind = Some(recursive || self.bind == Some(true)),
            Effect::Remount => self.remount = true,
            Effect::CopyUp => self.copy_up = true,
            Effect::IdMap(recursive) => self.id_map = Some(Asked { recursive, mapping: String::new() }),
            Effect::Link(mark) => mark(&mut self.links),
            Nothing => {}
        }
    }
}

impl MountOptions {
    /// What a bind mount's own options make of a mount that has the attributes `has`. As with mount(2) and
    /// runc, any attribute named settles all of them; access times only if one of theirs is named.
    ///
    /// In a user namespace what restricts the mount outside is `locked`: it stays unless it is named, and
    /// then that is an error.
    pub(crate) fn bind_change(&self, has: u64, locked: bool) -> Result<Change> {
        const LOCKABLE: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
        const TIMES: u64 = attr::ATIME | attr::NODIRATIME;
        let mut change = Change { set: self.set, clear: self.clear, ..Change::default() };
        if !self.names_attributes {
            return Ok(change);
        }
        change.clear |= (LOCKABLE | attr::NOSYMFOLLOW) & !self.set;
        let names_times = self.clear & attr::ATIME != 0 || self.set & attr::NODIRATIME != 0;
        if names_times {
            change.clear |= attr::ATIME | (attr::NODIRATIME & !self.set);
        }
        if locked {
            if self.clear & has & LOCKABLE != 0 {
                return Err(Errno::EPERM).context(
                    "cannot clear locked flags: what the source's mount restricts stays so in a user namespace",
                );
            }
            if names_times && (change.set ^ has) & TIMES != 0 {
                return Err(Errno::EPERM).context(
                    "cannot change access times: those of the source's mount stay in a user namespace",
                );
            }
            change.clear &= !(has & LOCKABLE) & !TIMES;
            change.set &= !TIMES;
        }
        Ok(change)
    }
}

/// Later wins: a bit that is set is no longer cleared, and the other way round. The access-time bits
/// are one field of three bits, so any change of it clears the field first.
fn change(set: &mut u64, clear: &mut u64, on: u64, off: u64) {
    *set &= !off;
    *clear = (*clear | off) & !(on & !attr::ATIME);
    *set |= on;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_for_binary_search() {
        assert!(TABLE.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn a_later_option_wins() {
        let parsed = parse(&["ro", "nosuid", "rw"]);
        assert_eq!((parsed.set, parsed.clear), (attr::NOSUID, attr::RDONLY));
        let parsed = parse(&["rw", "ro"]);
        assert_eq!((parsed.set, parsed.clear), (attr::RDONLY, 0));
    }

    #[test]
    fn access_time_modes_replace_each_other() {
        let parsed = parse(&["noatime", "strictatime"]);
        assert_eq!((parsed.set, parsed.clear), (attr::STRICTATIME, attr::ATIME));
        let parsed = parse(&["strictatime", "relatime"]);
        assert_eq!((parsed.set, parsed.clear), (0, attr::ATIME));
    }

    #[test]
    fn an_access_time_mode_is_taken_back_by_its_own_opposite_only() {
        let parsed = parse(&["noatime", "norelatime"]);
        assert_eq!((parsed.set, parsed.clear), (attr::NOATIME, attr::ATIME));
        let parsed = parse(&["noatime", "atime"]);
        assert_eq!((parsed.set, parsed.clear), (0, 0));
    }

    /// What a mount with these attributes has after a bind mount with these options.
    fn bound(has: u64, options: &[&str], locked: bool) -> Option<u64> {
        let change = parse(options).bind_change(has, locked).ok()?;
        Some(has & !change.clear | change.set)
    }

    #[test]
    fn any_attribute_named_settles_all_of_them() {
        let has = attr::RDONLY | attr::NOEXEC | attr::NOSYMFOLLOW | attr::NODIRATIME;
        assert_eq!(bound(has, &["bind"], false), Some(has));
        assert_eq!(bound(has, &["bind", "dev"], false), Some(attr::NODIRATIME));
        assert_eq!(bound(attr::NOATIME, &["atime", "ro"], false), Some(attr::NOATIME | attr::RDONLY));
        assert_eq!(bound(attr::NOATIME, &["relatime"], false), Some(0));
        assert_eq!(bound(attr::NOATIME, &["nodiratime"], false), Some(attr::NODIRATIME));
        assert_eq!(bound(attr::NODIRATIME, &["strictatime"], false), Some(attr::STRICTATIME));
    }

    #[test]
    fn locked_attributes_stay_and_cannot_be_cleared() {
        let has = attr::RDONLY | attr::NOSYMFOLLOW;
        assert_eq!(bound(has, &["nosuid"], true), Some(attr::RDONLY | attr::NOSUID));
        assert_eq!(bound(has, &["rw"], true), None);
        assert_eq!(bound(attr::NODEV, &["ro", "suid"], true), Some(attr::NODEV | attr::RDONLY));
        assert_eq!(bound(attr::NOATIME, &["ro", "atime"], true), Some(attr::NOATIME | attr::RDONLY));
        assert_eq!(bound(attr::NOATIME, &["noatime"], true), Some(attr::NOATIME));
        for (has, option) in
            [(attr::NOATIME, "relatime"), (0, "strictatime"), (attr::STRICTATIME, "nodiratime")]
        {
            assert_eq!(bound(has, &[option], true), None, "{option}");
        }
    }

    #[test]
    fn unknown_options_are_data() {
        let parsed = parse(&["mode=755", "defaults", "rslave", "size=64k"]);
        assert_eq!(parsed.data, ["mode=755", "size=64k"]);
        assert_eq!(parsed.propagation, [(libc::MS_SLAVE, true)]);
    }

    #[test]
    fn data_ends_at_a_comma_that_is_not_quoted() {
        let parsed = parse(&["size=1k,mode=700", "context=\"a:s0:c1,c2\",uid=5", r"lowerdir=/a\,b:/c", ""]);
        assert_eq!(
            parsed.data,
            ["size=1k", "mode=700", "context=\"a:s0:c1,c2\"", "uid=5", r"lowerdir=/a\,b:/c"]
        );
    }

    #[test]
    fn an_id_map_may_bring_its_mapping() {
        let asked = |recursive, mapping: &str| Some(Asked { recursive, mapping: mapping.to_owned() });
        assert_eq!(parse(&["ridmap"]).id_map, asked(true, ""));
        assert_eq!(parse(&["idmap=uids=0-1-2;gids=0-1-2"]).id_map, asked(false, "uids=0-1-2;gids=0-1-2"));
    }

    #[test]
    fn rbind_stays_recursive_when_bind_follows() {
        assert_eq!(parse(&["rbind", "bind"]).bind, Some(true));
        assert_eq!(parse(&["bind"]).bind, Some(false));
    }
}
