//! A container's root filesystem as a tar.

use std::io::Cursor;
use std::process::Command;

use crate::host::{Host, one_runtime, unique, wait_until};

/// The names in a tar, by GNU tar.
fn listed(host: &Host, tar: &[u8]) -> Vec<String> {
    let file = host.scratch().join("export.tar");
    std::fs::write(&file, tar).unwrap();
    let output = Command::new("tar").arg("-tf").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The content of one file in a tar.
fn content(tar: &[u8], name: &str) -> String {
    let mut command = Command::new("tar");
    let mut child = command
        .args(["-xO", "-f", "-", name])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(std::io::copy(&mut Cursor::new(tar), &mut input)));
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    })
}

#[test]
fn what_a_container_changed_is_exported_running_or_not() {
    one_runtime(|host, runtime| {
        let name = unique("export");
        let script = "echo changed >/etc/group; busybox rm /etc/passwd; mkdir /new; echo x >/data/in-volume; \
                      echo y >/bound/z; echo done; sleep 1000";
        let bound = host.scratch();
        let volume = format!("{}:/bound", bound.display());
        let arguments = ["run", "-d", "--name", &name, "-v", &volume, &host.image, "sh", "-c", script];
        host.manager(runtime, &arguments).ok();
        wait_until("it is not ready", || host.plain(&["logs", &name]).out == "done\n");
        let check = |tar: &[u8]| {
            let names = listed(host, tar);
            let has = |wanted: &str| names.iter().any(|name| name == wanted);
            assert!(has("new/") && has("etc/group") && has("bin/busybox") && has("data/"), "{names:?}");
            assert!(!has("etc/passwd") && !has("data/in-volume") && !has("bound/z") && has("bound/"));
            assert!(!names.iter().any(|name| name.starts_with("proc/") && name != "proc/"), "{names:?}");
            assert_eq!(content(tar, "etc/group"), "changed\n");
        };
        let export = || {
            let output = host.command(runtime, &["export", &name]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        check(&export());
        host.manager(runtime, &["stop", "-t", "0", &name]).ok();
        let stopped = export();
        check(&stopped);
        assert!(stopped == export(), "the same container gives another tar");
        // Into a file, and from there into an image that runs.
        let file = host.scratch().join("export.tar");
        let file = file.to_str().unwrap();
        assert_eq!(host.plain(&["export", "-o", file, &name]).ok(), "");
        assert!(std::fs::read(file).unwrap() == stopped);
        let image = unique("localhost/exported");
        host.plain(&["import", "--change", "ENV PATH=/bin", file, &image]).ok();
        assert_eq!(host.manager(runtime, &["run", "--rm", &image, "cat", "/etc/group"]).ok(), "changed\n");
        host.plain(&["rmi", &image]).ok();
        host.plain(&["rm", &name]).ok();
    });
}

#[test]
fn a_container_that_never_ran_is_its_image() {
    one_runtime(|host, runtime| {
        let name = unique("export");
        host.manager(runtime, &["create", "--name", &name, &host.image]).ok();
        let output = host.command(runtime, &["export", &name]).output().unwrap();
        assert_eq!(content(&output.stdout, "data/seed"), "from the image\n");
        host.plain(&["rm", &name]).ok();
        let printed = host.plain(&["export", &name]);
        assert_eq!(printed.err, format!("manager: no such container: {name}\n"));
        assert_eq!(printed.code, 1);
    });
}

#[test]
fn a_folder_of_the_users_is_exported_without_mounts() {
    one_runtime(|host, runtime| {
        let folder = host.scratch();
        for inner in ["bin", "mnt"] {
            std::fs::create_dir(folder.join(inner)).unwrap();
        }
        std::fs::write(folder.join("mnt/below"), "x").unwrap();
        let name = unique("export");
        let path = folder.to_str().unwrap();
        host.manager(runtime, &["create", "--name", &name, "--rootfs", path, "true"]).ok();
        // A mount namespace of its own.
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
        command
            .arg(format!("mount -t tmpfs tmpfs {path}/mnt; echo y >{path}/mnt/above; exec \"$@\""))
            .arg("sh");
        command.arg(env!("CARGO_BIN_EXE_manager")).arg("--root").arg(host.root());
        let output = command.arg("--run-root").arg(host.run_root()).args(["export", &name]).output().unwrap();
        assert_eq!(listed(host, &output.stdout), ["bin/", "mnt/"], "{output:?}");
        host.plain(&["rm", &name]).ok();
    });
}
