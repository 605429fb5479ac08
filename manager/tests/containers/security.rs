//! Hostile images and planted files. The names are those of the attacks.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::host::{Host, Runtime, each_runtime, one_runtime, unique};

/// A root filesystem with nothing but busybox in it.
fn tree(host: &Host) -> std::path::PathBuf {
    let tree = host.scratch();
    for folder in ["bin", "etc"] {
        fs::create_dir(tree.join(folder)).unwrap();
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
    tree
}

fn run(
    host: &Host,
    runtime: &Runtime,
    flags: &[&str],
    tree: &std::path::Path,
    words: &[&str],
) -> crate::host::Printed {
    let tree = tree.display().to_string();
    host.manager(runtime, &[&["run", "--rm"], flags, &["--rootfs", &tree, "/bin/busybox"], words].concat())
}

#[test]
fn cve_2022_23648_a_volume_that_is_a_symlink_stays_inside() {
    each_runtime(|host, runtime| {
        let tree = tree(host);
        fs::write(tree.join("etc/own"), "image\n").unwrap();
        symlink("/etc", tree.join("link")).unwrap();
        let text = run(host, runtime, &["-v", "/link"], &tree, &["ls", "/link/"]).ok();
        // What the volume was filled with is the image's /etc, not the host's.
        assert!(text.contains("own") && !text.contains("debian_version"), "{text}");
    });
}

#[test]
fn cve_2024_9676_a_passwd_that_is_a_fifo_or_a_device_is_an_error() {
    one_runtime(|host, runtime| {
        let tree = tree(host);
        let passwd = tree.join("etc/passwd");
        nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let printed = run(host, runtime, &["-u", "web"], &tree, &["true"]);
        assert!(printed.code == 125 && printed.err.contains("not a regular file"), "{printed:?}");
        fs::remove_file(&passwd).unwrap();
        symlink("/dev/zero", &passwd).unwrap();
        let printed = run(host, runtime, &["-u", "web"], &tree, &["true"]);
        assert_eq!(printed.code, 125, "{printed:?}");
        fs::remove_file(&passwd).unwrap();
        fs::write(&passwd, vec![b'x'; 2 << 20]).unwrap();
        let printed = run(host, runtime, &["-u", "web"], &tree, &["true"]);
        assert!(printed.code == 125 && printed.err.contains("too much"), "{printed:?}");
    });
}

#[test]
fn cve_2024_40635_a_user_that_does_not_fit_is_not_root() {
    one_runtime(|host, runtime| {
        for user in ["4294967296", "4294967295", "-1", "0:4294967296"] {
            let printed = host.run(runtime, &["-u", user], &["id"]);
            assert_eq!((printed.code, printed.out.as_str()), (125, ""), "{user}: {printed:?}");
        }
    });
}

#[test]
fn cve_2026_53488_labels_of_an_image_do_not_become_annotations() {
    one_runtime(|host, runtime| {
        let name = unique("labels");
        let id = host.manager(runtime, &["run", "-d", "--name", &name, &host.image, "sleep", "100"]).ok();
        let config = host.state(id.trim(), "config.json").unwrap();
        assert!(config.get("annotations").is_none() && config.get("hooks").is_none());
        host.manager(runtime, &["rm", "-f", &name]).ok();
    });
}

#[test]
fn cve_2026_53489_a_planted_symlink_is_not_written_through() {
    one_runtime(|host, runtime| {
        let name = unique("planted");
        host.manager(runtime, &["create", "--name", &name, &host.image, "echo", "text"]).ok();
        let target = host.scratch().join("target");
        fs::write(&target, "before").unwrap();
        let log = host.inspect(&name)["LogPath"].as_str().unwrap().to_owned();
        symlink(&target, log).unwrap();
        let printed = host.manager(runtime, &["start", &name]);
        assert!(printed.code != 0 && printed.err.contains("symbolic links"), "{printed:?}");
        assert_eq!(fs::read_to_string(target).unwrap(), "before");
        host.manager(runtime, &["rm", &name]).ok();
    });
}

#[test]
fn cve_2020_15257_the_socket_is_a_path_for_its_owner_only() {
    one_runtime(|host, runtime| {
        let name = unique("socket");
        let id = host.manager(runtime, &["run", "-d", "--name", &name, &host.image, "sleep", "100"]).ok();
        let folder = host.run_root().join(id.trim());
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("attach"))), (0o700, 0o600));
        let abstract_ones = fs::read_to_string("/proc/net/unix").unwrap();
        assert!(!abstract_ones.lines().any(|line| line.contains('@') && line.contains(id.trim())));
        host.manager(runtime, &["rm", "-f", &name]).ok();
    });
}

#[test]
fn cve_2024_21626_no_descriptor_leaks_into_the_container() {
    each_runtime(|host, runtime| {
        // The fourth is that of `ls` itself, on the folder it lists.
        let text = host.run(runtime, &[], &["ls", "/proc/self/fd"]).ok();
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
        // A runtime that closes what it is given would hide a leak: look at what it is given.
        let spy = host.scratch().join("spy");
        let list = host.scratch().join("list");
        let script =
            format!("#!/bin/sh\nls -l /proc/$$/fd >> {}\nexec {} \"$@\"\n", list.display(), runtime.program);
        fs::write(&spy, script).unwrap();
        fs::set_permissions(&spy, fs::Permissions::from_mode(0o755)).unwrap();
        host.run(runtime, &["--runtime", spy.to_str().unwrap()], &["true"]).ok();
        let list = fs::read_to_string(list).unwrap();
        // 10 and up are the shell's own, on the script.
        let leaked =
            |line: &&str| line.contains("socket:") || line.contains("pidfd") || line.contains("containers/");
        assert_eq!(list.lines().filter(leaked).collect::<Vec<_>>(), Vec::<&str>::new());
    });
}

#[test]
fn cve_2024_25621_nobody_else_can_enter_a_container_folder() {
    one_runtime(|host, runtime| {
        let id = host.manager(runtime, &["create", &host.image]).ok();
        let folder = host.root().join("containers").join(id.trim());
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        host.manager(runtime, &["rm", id.trim()]).ok();
    });
}
