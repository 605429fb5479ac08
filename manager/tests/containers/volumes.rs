//! `-v`, `--tmpfs`, and the image's VOLUMEs.

use crate::host::{each_runtime, one_runtime, unique};

#[test]
fn a_folder_of_the_host_is_bound_and_can_be_read_only() {
    each_runtime(|host, runtime| {
        let folder = host.scratch();
        std::fs::write(folder.join("file"), "from the host\n").unwrap();
        let volume = format!("{}:/mnt", folder.display());
        let script = "cat /mnt/file; echo new > /mnt/new";
        assert_eq!(host.run(runtime, &["-v", &volume], &["sh", "-c", script]).ok(), "from the host\n");
        assert_eq!(std::fs::read_to_string(folder.join("new")).unwrap(), "new\n");
        let printed = host.run(runtime, &["-v", &format!("{volume}:ro")], &["touch", "/mnt/new"]);
        assert!(printed.err.contains("Read-only file system"), "{printed:?}");
    });
}

#[test]
fn a_named_volume_is_filled_once_and_outlives_containers() {
    each_runtime(|host, runtime| {
        let volume = format!("{}:/data", unique("volume"));
        let script = "cat /data/seed; stat -c %U /data/seed; echo mine > /data/seed";
        assert_eq!(host.run(runtime, &["-v", &volume], &["sh", "-c", script]).ok(), "from the image\nweb\n");
        assert_eq!(host.run(runtime, &["-v", &volume], &["cat", "/data/seed"]).ok(), "mine\n");
        let name = volume.split(':').next().unwrap();
        assert!(host.plain(&["volume", "ls", "-q"]).ok().lines().any(|line| line == name));
        let user = host.manager(runtime, &["create", "-v", &volume, &host.image]).ok();
        let printed = host.plain(&["volume", "rm", name]);
        assert!(printed.code == 1 && printed.err.contains("is in use by container"), "{printed:?}");
        host.manager(runtime, &["rm", user.trim()]).ok();
        host.plain(&["volume", "rm", name]).ok();
        assert!(!host.root().join("volumes").join(name).exists());
    });
}

#[test]
fn an_image_volume_is_filled_and_goes_with_its_container() {
    each_runtime(|host, runtime| {
        let name = unique("anonymous");
        let words =
            ["run", "--name", &name, &host.image, "sh", "-c", "cat /data/seed; mount | grep -c ' /data '"];
        assert_eq!(host.manager(runtime, &words).ok(), "from the image\n1\n");
        let mount = host.inspect(&name)["Mounts"][0].clone();
        assert_eq!((mount["Type"].as_str(), mount["Destination"].as_str()), (Some("volume"), Some("/data")));
        let source = std::path::PathBuf::from(mount["Source"].as_str().unwrap());
        assert!(source.join("seed").exists());
        host.manager(runtime, &["rm", "-v", &name]).ok();
        assert!(!source.exists());
    });
}

#[test]
fn a_tmpfs_has_the_options_asked_for() {
    each_runtime(|host, runtime| {
        let text = host
            .run(runtime, &["--tmpfs", "/mnt:size=1m,mode=700"], &["grep", " /mnt ", "/proc/mounts"])
            .ok();
        for option in ["size=1024k", "mode=700", "nosuid", "nodev", "noexec"] {
            assert!(text.contains(option), "{option}: {text}");
        }
    });
}

#[test]
fn a_folder_cannot_be_mounted_twice() {
    one_runtime(|host, runtime| {
        let printed = host.run(runtime, &["-v", "/tmp:/a", "--tmpfs", "/a"], &["true"]);
        assert!(printed.code == 125 && printed.err.contains("duplicate mount point: /a"), "{printed:?}");
    });
}
