//! The second wall around unpacking: the thread that writes a layer's files can reach nothing but that layer's
//! folder, whatever a tar makes it do. [landlock(7)](https://man7.org/linux/man-pages/man7/landlock.7.html)
//!
//! The first wall is `entry`, which opens everything by descriptors below that folder. A kernel without Landlock
//! (before 5.13, or where it is switched off) has that one alone. What Landlock does not look at (owners, modes,
//! times and attributes of files) is changed by descriptors only.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use landlock::{ABI, Access, AccessFs, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr};

/// Confines the calling thread for as long as it lives. Descriptors that are open already stay usable.
pub(crate) fn to(folder: impl AsFd) -> Result<()> {
    // What an older kernel does not know of this, it leaves out.
    let all = AccessFs::from_all(ABI::V5);
    let confine = || -> Result<(), landlock::RulesetError> {
        Ruleset::default()
            .handle_access(all)?
            .create()?
            .add_rule(PathBeneath::new(folder, all))?
            .restrict_self()
            .map(drop)
    };
    confine().context("confine unpacking to the layer's folder (landlock)")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    #[test]
    fn a_confined_thread_writes_to_its_folder_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        let (here, there) = std::thread::scope(|scope| {
            let write = || {
                super::to(File::open(&inside).unwrap()).unwrap();
                (fs::write(inside.join("file"), "x").is_ok(), fs::write(outside.join("file"), "x").is_ok())
            };
            scope.spawn(write).join().unwrap()
        });
        assert!(here, "it cannot write at all");
        let has_landlock =
            fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|list| list.contains("landlock"));
        if has_landlock {
            assert!(!there, "it can write outside");
        } else {
            eprintln!("SKIP: this kernel has no Landlock, or does not say so");
        }
        fs::write(outside.join("file"), "x").unwrap(); // other threads are free
    }
}
