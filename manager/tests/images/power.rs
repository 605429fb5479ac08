//! Power cuts: a store on an ext4 of its own, of which only what was written to its disk is left, and then another
//! boot. What is there must be whole, whatever it is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::killed::{kills, moments, sample, steady, timed};
use crate::support::image::Image;
use crate::support::server::{Server, honest};
use crate::support::{Ran, command_with_root, has, tool};

/// A machine with one disk, in a mount namespace of this thread's own.
struct Machine {
    folder: TempDir,
}

impl Machine {
    /// None where it cannot be made.
    fn new() -> Option<Self> {
        if !has("mkfs.ext4") {
            return None;
        }
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace for this thread");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        for name in ["disk", "after"] {
            fs::create_dir(machine.path(name)).unwrap();
        }
        machine.format();
        let mounted = machine.mount("disk.img", "disk");
        if !mounted {
            println!("SKIP: no loop device to mount an ext4 from");
        }
        mounted.then_some(machine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn format(&self) {
        let image = self.path("disk.img");
        let _ = fs::remove_file(&image);
        File::create(&image).unwrap().set_len(96 << 20).unwrap();
        tool("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
    }

    /// Nothing is written before somebody asks for it.
    fn mount(&self, image: &str, at: &str) -> bool {
        let mut command = Command::new("mount");
        command.args(["-o", "loop,commit=300"]).arg(self.path(image)).arg(self.path(at));
        command.stderr(Stdio::null()).status().unwrap().success()
    }

    fn unmount(&self, at: &str) {
        while umount2(&self.path(at), MntFlags::empty()).is_err() {
            // Somebody is still at work on it.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// An empty disk.
    fn renew(&self) {
        self.unmount("disk");
        self.format();
        assert!(self.mount("disk.img", "disk"));
    }

    fn command(&self, at: &str, arguments: &[&str]) -> Command {
        let mut command = command_with_root(&self.path(at).join("root"), arguments);
        command.arg("--run-root").arg(self.path("run")).env("HOME", self.folder.path());
        command
    }

    fn run(&self, at: &str, arguments: &[&str]) -> Ran {
        Ran::of(self.command(at, arguments).output().unwrap())
    }

    fn ok(&self, at: &str, arguments: &[&str]) -> String {
        let ran = self.run(at, arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
        ran.stdout
    }

    /// The power goes, and comes back: what is on the disk is mounted at `after` in another boot. What the first
    /// command says then.
    fn cut(&self) -> Ran {
        // To copy a disk that is being written to would not be a power cut.
        while self.is_synced_now() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let (disk, cut) = (self.path("disk.img"), self.path("cut.img"));
        tool("cp", &["--sparse=always", disk.to_str().unwrap(), cut.to_str().unwrap()]);
        assert!(self.mount("cut.img", "after"), "mount what is left");
        fs::write(self.path("boot_id"), "another boot\n").unwrap();
        let boot = Path::new("/proc/sys/kernel/random/boot_id");
        mount(Some(&self.path("boot_id")), boot, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        self.run("after", &["images", "--no-trunc", "--format", "{{.ID}}"])
    }

    /// Whether what a pull has left behind it is at work.
    fn is_synced_now(&self) -> bool {
        let root = self.path("disk").display().to_string();
        let lines =
            fs::read_dir("/proc").unwrap().flatten().map(|entry| fs::read(entry.path().join("cmdline")));
        lines.flatten().any(|line| {
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains(&root) && line.contains("--behind")
        })
    }

    /// All is well again, and stays so.
    fn after(&self, what: &str, name: &str) {
        assert_eq!(self.ok("after", &["system", "check"]), "no faults\n", "{what}");
        self.ok("after", &["pull", "-q", name]);
        assert_eq!(self.ok("after", &["system", "check"]), "no faults\n", "{what}");
        umount2("/proc/sys/kernel/random/boot_id", MntFlags::MNT_DETACH).unwrap();
        self.unmount("after");
    }
}

/// Runs a test in a thread of its own, whose namespaces are nobody else's.
fn apart(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(test).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// One name that stands for one image and then for another.
fn changing(old: &Image, new: &Image) -> (Server, Arc<AtomicBool>) {
    let changed = Arc::new(AtomicBool::new(false));
    let (before, after, switch) = (honest(&[("x", old)]), honest(&[("x", new)]), changed.clone());
    let server = Server::start(move |request| {
        let mut reply = if switch.load(Ordering::SeqCst) { after(request) } else { before(request) };
        reply.pause = Some(Duration::from_micros(500));
        reply
    });
    (server, changed)
}

#[test]
fn a_power_cut_in_a_pull_leaves_the_old_image_or_the_new_one() {
    apart(|| {
        let Some(machine) = Machine::new() else { return };
        let (old, new) = (sample(31), sample(32));
        let whole = {
            let server = steady(&new);
            timed(&mut machine.command("disk", &["pull", "-q", &format!("{}/x", server.host)]))
        };
        for moment in moments(whole) {
            machine.renew();
            let (server, changed) = changing(&old, &new);
            let name = format!("{}/x", server.host);
            machine.ok("disk", &["pull", "-q", &name]);
            machine.ok("disk", &["system", "settle"]);
            changed.store(true, Ordering::SeqCst);
            let mut pull =
                machine.command("disk", &["pull", "-q", &name]).stdout(Stdio::null()).spawn().unwrap();
            std::thread::sleep(moment);
            let _ = pull.kill();
            pull.wait().unwrap();
            let what = format!("power cut after {moment:?} of {whole:?}");
            let first = machine.cut();
            assert_eq!(first.code, Some(0), "{what}: {first:?}");
            assert!(
                first.stdout.contains(&old.config) || first.stdout.contains(&new.config),
                "{what}: {first:?}"
            );
            machine.after(&what, &name);
        }
    });
}

/// A pull that is over, and nobody has synced what it brought: the test has its note.
fn pulled_and_not_settled(machine: &Machine, name: &str) -> Flock<File> {
    let mut pull = machine.command("disk", &["pull", "-q", name]).stdout(Stdio::null()).spawn().unwrap();
    let notes = machine.path("disk").join("root/unsettled");
    let note = loop {
        let found = fs::read_dir(&notes).into_iter().flatten().flatten().next();
        if let Some(file) = found.and_then(|entry| File::open(entry.path()).ok()) {
            break file;
        }
        assert!(pull.try_wait().unwrap().is_none(), "a pull without a note");
        std::thread::yield_now();
    };
    // Whoever waits for the lock has it before anybody who only tries.
    let note = Flock::lock(note, FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap();
    assert!(pull.wait().unwrap().success());
    note
}

#[test]
fn a_power_cut_after_a_pull_takes_the_name_back_or_not_but_never_half() {
    apart(|| {
        let Some(machine) = Machine::new() else { return };
        let told = "the machine may have gone down before all that was pulled had reached the disk";
        for round in 0..kills().min(20) {
            let (old, new) = (sample(41), sample(42));
            for had_old in [true, false] {
                machine.renew();
                let (server, changed) = changing(&old, &new);
                let name = format!("{}/x", server.host);
                if had_old {
                    machine.ok("disk", &["pull", "-q", &name]);
                    machine.ok("disk", &["system", "settle"]);
                }
                changed.store(true, Ordering::SeqCst);
                let note = pulled_and_not_settled(&machine, &name);
                let what =
                    format!("round {round}, {}", if had_old { "an old image" } else { "no old image" });
                let first = machine.cut();
                assert!(first.code == Some(0) && first.stderr.contains(told), "{what}: {first:?}");
                let left = first.stdout.contains(if had_old { &old.config } else { &new.config })
                    || first.stdout.contains(&new.config)
                    || (!had_old && first.stdout.is_empty() && first.stderr.contains("is lost: "));
                assert!(left, "{what}: {first:?}");
                let second = machine.run("after", &["images"]);
                assert_eq!(second.stderr, "", "it is told once");
                machine.after(&what, &name);
                drop(note);
                // What the machine without a power cut has: all of it.
                machine.ok("disk", &["system", "settle"]);
                assert_eq!(machine.ok("disk", &["system", "check"]), "no faults\n");
            }
        }
    });
}

#[test]
fn what_reached_the_disk_is_unpacked_again() {
    apart(|| {
        let Some(machine) = Machine::new() else { return };
        let image = sample(51);
        let server = steady(&image);
        let name = format!("{}/x", server.host);
        let note = pulled_and_not_settled(&machine, &name);
        // All of it is there, but nobody has said so.
        tool("sync", &["-f", machine.path("disk").to_str().unwrap()]);
        let layers = machine.path("disk").join("root/layers");
        let layer = fs::read_dir(&layers).unwrap().next().unwrap().unwrap().path();
        // A file that was there and has not all of its bytes.
        let file = walk(&layer.join("fs")).into_iter().find(|path| path.is_file()).unwrap();
        File::options().write(true).open(&file).unwrap().set_len(1).unwrap();
        tool("sync", &["-f", machine.path("disk").to_str().unwrap()]);
        let first = machine.cut();
        assert!(first.code == Some(0) && first.stdout.contains(&image.config), "{first:?}");
        assert_eq!(first.stderr.lines().count(), 1, "{first:?}");
        drop(server);
        assert_eq!(machine.ok("after", &["system", "check"]), "no faults\n");
        umount2("/proc/sys/kernel/random/boot_id", MntFlags::MNT_DETACH).unwrap();
        machine.unmount("after");
        drop(note);
    });
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut paths = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(path) = paths.get(next).cloned() {
        next += 1;
        if path.is_dir() {
            paths.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    paths
}
