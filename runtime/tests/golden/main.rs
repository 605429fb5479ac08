//! The same calls through runc and through our runtime, and what both say: standard output, standard
//! error, exit code, the `--log` file. What is meant to differ stands in `differences.rs` with its reason;
//! any other difference fails, and so does one that is no more.
//!
//! `RUNC` names another runc than the one on PATH. The table was made with Debian 12's 1.1.5.

mod differences;
#[path = "../harness/mod.rs"]
mod harness;
mod observe;
mod script;

use std::path::PathBuf;

use differences::Used;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use observe::{Actor, Log};

#[test]
fn what_runc_says_is_what_we_say() {
    let played = std::thread::scope(|scope| {
        let threads = [Log::None, Log::Text, Log::Json].map(|log| scope.spawn(move || play(log)));
        threads.map(|thread| thread.join().expect("it played to its end"))
    });
    let mut used = Used::new();
    let mut wrong = Vec::new();
    for (rows, differences) in played {
        used.extend(rows);
        wrong.extend(differences);
    }
    let unused = differences::unused(&used);
    wrong.extend(unused.iter().map(|row| format!("no difference any more, take it from the table: {row}")));
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// Plays everything through both: the rows of the table that were needed, and differences beyond it.
fn play(log: Log) -> (Used, Vec<String>) {
    mount_for_ourselves();
    let (mut used, mut wrong) = (Used::new(), Vec::new());
    for (scene, act) in script::SCENES {
        let [theirs, ours] = [runc(), harness::runtime()].map(|program| {
            let mut actor = Actor::new(program, log);
            act(&mut actor);
            wrong.extend(
                actor.unreadable.iter().map(|call| format!("{log:?}, {scene}, no engine can read: {call}")),
            );
            // What runc has mounted there would keep the folder.
            let _ = umount2(&actor.bundle.rootfs(""), MntFlags::MNT_DETACH);
            std::mem::take(&mut actor.seen)
        });
        assert_eq!(theirs.len(), ours.len(), "{scene}: as many calls");
        for ((part, theirs), (_, ours)) in theirs.iter().zip(&ours).filter(|(theirs, ours)| theirs != ours) {
            let part = format!("{scene}: {part}");
            match differences::row(&part, theirs, ours) {
                Some(row) => drop(used.insert(row)),
                None => wrong.push(format!("{log:?}, {part}\n  runc {theirs:?}\n  ours {ours:?}")),
            }
        }
    }
    (used, wrong)
}

/// Gives this thread, and what it runs, a mount namespace: runc makes a container without namespaces where
/// it is called, and leaves the mounts.
fn mount_for_ourselves() {
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare");
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("make / private");
}

fn runc() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = places.map(|dir| dir.join("runc")).find(|place| place.exists());
    std::env::var_os("RUNC").map(PathBuf::from).or(found).expect("runc (make packages installs it)")
}
