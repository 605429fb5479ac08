//! Mounts as config.md#mounts describes them, seen from inside.

mod harness;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::process::Command;

use harness::Bundle;
use serde_json::{Value, json};

fn add(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().expect("mounts").push(mount);
}

fn with_mount(script: &str, mount: Value) -> Bundle {
    Bundle::of_script(script).with(|config| add(config, mount))
}

/// A new user namespace whose root is 100000 outside, and a rootfs that it may walk.
fn in_user_namespace(bundle: Bundle) -> Bundle {
    bundle.with(|config| {
        config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    })
}

/// A folder `data` in the bundle with files of the users 0 and 5, and a mount of a tmpfs below it.
fn data(bundle: &Bundle) {
    let dir = bundle.dir.join("data");
    fs::create_dir_all(dir.join("below")).expect("mkdir");
    for (name, id) in [("zero", 0), ("five", 5), ("below/five", 5)] {
        fs::write(dir.join(name), name).expect("write");
        chown(dir.join(name), Some(id), Some(id)).expect("chown");
    }
}

/// Runs it where `data/below` is a mount point; the machine's other mounts stay as they are.
fn run_with_mount_below(bundle: &Bundle) -> harness::Said {
    let script = format!(
        "mount --bind data/below data/below && exec {:?} --root state run {}",
        harness::runtime(),
        bundle.id
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).current_dir(&bundle.dir);
    harness::said(command.output().expect("run unshare"))
}

fn refused(bundle: &Bundle, words: &str) {
    let said = bundle.run();
    assert!(said.code == 1 && said.stderr.contains(words), "{words:?} is not in {said:?}");
    bundle.assert_nothing_is_left();
}

/// True if files of the bundle cannot be id-mapped here; says so.
fn no_id_maps() -> bool {
    let kind = nix::sys::statfs::statfs(&std::env::temp_dir()).expect("statfs").filesystem_type();
    let old_tmpfs = kind == nix::sys::statfs::TMPFS_MAGIC && !kernel_is(6, 3);
    let none = old_tmpfs || kind == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC;
    if none {
        eprintln!("SKIP: the temporary folder's file system cannot be id-mapped on this kernel");
    }
    none
}

const OWNERS: &str = "stat -c %u:%g /mnt/zero /mnt/five /mnt/below/five";

#[test]
fn an_id_mapped_bind_mount_shows_other_owners() {
    if no_id_maps() {
        return;
    }
    let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    for (options, below) in [(json!(["rbind", "idmap"]), "5:5"), (json!(["rbind", "ridmap"]), "1005:1005")] {
        let bundle = with_mount(
            OWNERS,
            json!({"destination": "/mnt", "source": "data", "options": options,
                   "uidMappings": mapping, "gidMappings": mapping}),
        );
        data(&bundle);
        let said = run_with_mount_below(&bundle);
        assert_eq!(said.stdout, format!("1000:1000\n1005:1005\n{below}\n"), "{options}: {said:?}");
        bundle.assert_nothing_is_left();
    }
}

#[test]
fn an_id_mapped_mount_without_mappings_takes_the_containers() {
    if no_id_maps() {
        return;
    }
    let mount = |option| json!({"destination": "/mnt", "source": "data", "options": ["bind", option]});
    for option in ["idmap", "idmap=uids=@0-0-100;gids=@0-0-100"] {
        let bundle = in_user_namespace(with_mount("stat -c %u:%g /mnt/zero /mnt/five", mount(option)));
        data(&bundle);
        assert_eq!(bundle.run_well(), "0:0\n5:5\n", "{option}");
    }
    refused(&with_mount("true", mount("idmap")), "idmap and ridmap need uidMappings and gidMappings");
    let bundle = with_mount("stat -c %u:%g /mnt/zero", mount("idmap=uids=0-7-1;gids=0-8-1"));
    data(&bundle);
    assert_eq!(bundle.run_well(), "7:8\n");
}

#[test]
fn an_id_mapped_mount_takes_the_user_namespace_that_is_joined() {
    if no_id_maps() {
        return;
    }
    let first = in_user_namespace(Bundle::of(&["sleep", "1000"]));
    first.create();
    let pid = fs::read_to_string(first.dir.join("pid")).expect("pid");
    let second = with_mount(
        "stat -c %u:%g /mnt/zero /mnt/five",
        json!({"destination": "/mnt", "source": "data", "options": ["bind", "ridmap"]}),
    )
    .with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.push(json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}));
    });
    data(&second);
    assert_eq!(second.run_well(), "0:0\n5:5\n");
}

#[test]
fn a_tmpfs_can_be_id_mapped() {
    if !kernel_is(6, 3) {
        eprintln!("SKIP: tmpfs can be id-mapped from Linux 6.3 on");
        return;
    }
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
    let bundle = in_user_namespace(with_mount(
        "touch /mnt/new && stat -c %u:%a /mnt /mnt/new && grep -c 'idmapped' /proc/self/mountinfo",
        json!({"destination": "/mnt", "type": "tmpfs", "source": "x", "options": ["idmap"],
               "uidMappings": mapping, "gidMappings": mapping}),
    ));
    fs::set_permissions(bundle.rootfs("mnt"), std::os::unix::fs::PermissionsExt::from_mode(0o751))
        .expect("chmod");
    assert_eq!(bundle.run_well(), "0:751\n0:644\n1\n");
}

#[test]
fn an_id_mapped_mount_that_cannot_be_says_why() {
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
    let mount = |extra: Value| {
        let mut mount = json!({"destination": "/mnt", "source": "/tmp", "options": ["bind", "idmap"]});
        mount.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        with_mount("true", mount)
    };
    refused(&mount(json!({"uidMappings": mapping})), "mounts[4]: uidMappings: must come with gidMappings");
    refused(&mount(json!({"gidMappings": mapping})), "mounts[4]: gidMappings: must come with uidMappings");
    refused(
        &mount(json!({"uidMappings": [], "gidMappings": mapping})),
        "mounts[4]: uidMappings: an id-mapped",
    );
    refused(
        &mount(json!({"uidMappings": mapping, "gidMappings": mapping, "source": "/proc"})),
        "this kind of file system, or one below it, cannot be id-mapped",
    );
    let twice =
        json!([{"containerID": 0, "hostID": 1, "size": 10}, {"containerID": 5, "hostID": 50, "size": 10}]);
    refused(
        &mount(json!({"uidMappings": twice, "gidMappings": mapping})),
        "write \"0 1 10\\n5 50 10\" to /proc/",
    );
}

#[test]
fn features_lists_id_mapped_mounts() {
    let said = Bundle::of(&["true"]).say(&["features"]);
    let features: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    let options = features["mountOptions"].as_array().expect("options");
    for option in ["idmap", "ridmap", "rro", "nosymfollow", "defaults", "tmpcopyup"] {
        assert!(options.contains(&json!(option)), "{option}");
    }
}

#[test]
fn links_are_followed_copied_or_mounted_as_asked() {
    let script = "busybox readlink /mnt/link; cat /mnt/link";
    let mount = |option: &str| {
        let bundle = with_mount(
            script,
            json!({"destination": "/mnt/link", "source": "data/link", "options": ["bind", option]}),
        );
        data(&bundle);
        symlink("five", bundle.dir.join("data/link")).expect("link");
        bundle
    };
    assert_eq!(mount("rw").run_well(), "five");
    let bundle = mount("copy-symlink");
    fs::write(bundle.rootfs("mnt/five"), "of the container").expect("write");
    assert_eq!(bundle.run_well(), "five\nof the container");
    assert_eq!(bundle.run_well(), "five\nof the container", "the same link may be there already");
    fs::remove_file(bundle.rootfs("mnt/link")).expect("remove");
    symlink("elsewhere", bundle.rootfs("mnt/link")).expect("link");
    refused(&bundle, "make a link to \"five\": EEXIST");

    let bundle = mount("src-nofollow");
    assert!(bundle.run().stdout.starts_with("five\n"), "the link itself is mounted");

    let bundle = mount("dest-nofollow");
    symlink("/tmp/elsewhere", bundle.rootfs("mnt/link")).expect("link");
    assert_eq!(bundle.run_well(), "five");
    assert!(!bundle.rootfs("tmp/elsewhere").exists(), "the link was followed");
    let both = with_mount(
        "true",
        json!({"destination": "/mnt", "source": "/tmp", "options": ["bind", "copy-symlink", "src-nofollow"]}),
    );
    refused(&both, "copy-symlink excludes");
}

#[test]
fn options_that_come_in_one_string_are_told_apart() {
    let bundle = with_mount(
        "stat -c %a /mnt; grep /mnt /proc/self/mounts",
        json!({"destination": "/mnt", "type": "tmpfs", "source": "x", "options": ["size=64k,mode=711"]}),
    );
    let said = bundle.run_well();
    assert!(said.starts_with("711\n") && said.contains("size=64k"), "{said}");
}

#[test]
fn a_remount_changes_the_file_system_too() {
    let bundle = with_mount(
        "grep /mnt /proc/self/mounts",
        json!({"destination": "/mnt", "type": "tmpfs", "source": "x", "options": ["size=64k", "nosuid"]}),
    )
    .with(|config| {
        add(
            config,
            json!({"destination": "/mnt", "type": "tmpfs", "options": ["remount", "size=128k", "ro"]}),
        );
    });
    let said = bundle.run_well();
    assert!(said.contains("size=128k") && said.contains("ro,nosuid"), "{said}");
    let bad = bundle.with(|config| config["mounts"][5]["options"] = json!(["remount", "flavour=mint"]));
    refused(&bad, "flavour");
}

#[test]
fn propagation_options_work_in_the_order_given() {
    let mount = |options: Value| {
        with_mount(
            "grep ' /mnt ' /proc/self/mountinfo",
            json!({"destination": "/mnt", "type": "tmpfs", "source": "x", "options": options}),
        )
        .run_well()
    };
    let last = mount(json!(["shared", "slave"]));
    assert!(!last.contains("shared:"), "{last}");
    let both = mount(json!(["private", "rslave", "rshared"]));
    assert!(both.contains("shared:"), "{both}");
}

#[test]
fn an_overlay_may_have_more_layers_than_one_value_holds() {
    let bundle = Bundle::of_script("ls /mnt; echo new > /mnt/new && cat /mnt/new");
    let base = bundle.dir.join("layers");
    let names: Vec<_> =
        (0..12).map(|n| base.join(format!("a layer with a rather long name, :{n}"))).collect();
    for (n, dir) in names.iter().enumerate() {
        fs::create_dir_all(dir).expect("mkdir");
        fs::write(dir.join(format!("file{n:02}")), "").expect("write");
    }
    for dir in ["upper", "work"] {
        fs::create_dir_all(base.join(dir)).expect("mkdir");
    }
    let escaped = |path: &std::path::PathBuf| path.to_string_lossy().replace(',', "\\,").replace(':', "\\:");
    let lower = names.iter().map(escaped).collect::<Vec<_>>().join(":");
    assert!(lower.len() > 255);
    let bundle = bundle.with(|config| {
        add(
            config,
            json!({"destination": "/mnt", "type": "overlay", "source": "overlay", "options": [
                format!("lowerdir={lower}"), format!("upperdir={}/upper", base.display()),
                format!("workdir={}/work", base.display()), "nosuid"]}),
        );
    });
    let said = bundle.run();
    if said.stderr.contains("ENODEV") {
        eprintln!("SKIP: no overlay here: {said:?}");
        return;
    }
    let files: String = (0..12).map(|n| format!("file{n:02}\n")).collect();
    assert_eq!((said.code, said.stdout), (0, format!("{files}new\n")), "{}", said.stderr);
    assert!(base.join("upper/new").exists());
}

#[test]
fn a_relative_destination_counts_from_the_root_and_is_warned_of() {
    let bundle = with_mount(
        "grep -c ' /mnt/x ' /proc/self/mounts",
        json!({"destination": "mnt/x", "type": "tmpfs", "source": "x"}),
    );
    let said = bundle.say(&["--debug", "run", &bundle.id]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "1\n"), "{said:?}");
    assert!(said.stderr.contains("mounts[4].destination: \"mnt/x\" is relative"), "{said:?}");
}

#[test]
fn a_mapped_file_is_not_written_by_somebody_without_a_mapping() {
    if no_id_maps() {
        return;
    }
    let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    let bundle = with_mount(
        "touch /mnt/new",
        json!({"destination": "/mnt", "source": "data", "options": ["bind", "idmap"],
               "uidMappings": mapping, "gidMappings": mapping}),
    );
    data(&bundle);
    let said = bundle.run();
    assert!(said.code != 0 && said.stderr.contains("Value too large"), "{said:?}");
    assert_eq!(fs::metadata(bundle.dir.join("data/five")).expect("stat").uid(), 5);
}

#[test]
fn a_bind_mount_takes_options_as_runc_does() {
    let options = |host: &str, wanted: Value, user_namespace: bool| {
        let mount = json!({"destination": "/mnt", "source": "data/below", "options": wanted});
        let mut bundle = with_mount("grep ' /mnt ' /proc/self/mounts", mount);
        if user_namespace {
            bundle = in_user_namespace(bundle);
        }
        data(&bundle);
        let script = format!(
            "mount --bind data/below data/below && mount -o remount,bind,{host} data/below &&
             exec {:?} --root state run {}",
            harness::runtime(),
            bundle.id
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).current_dir(&bundle.dir);
        let said = harness::said(command.output().expect("run unshare"));
        let words: Vec<String> =
            said.stdout.split(' ').nth(3).unwrap_or(&said.stderr).split(',').map(str::to_owned).collect();
        words
    };
    let has = |words: &[String], word: &str| words.iter().any(|known| known == word);
    let kept = options("ro,noexec", json!(["bind"]), false);
    assert!(has(&kept, "ro") && has(&kept, "noexec"), "{kept:?}");
    let settled = options("ro,noexec", json!(["bind", "nosuid"]), false);
    assert!(has(&settled, "rw") && has(&settled, "nosuid") && !has(&settled, "noexec"), "{settled:?}");
    let locked = options("ro,noexec", json!(["bind", "nosuid"]), true);
    assert!(has(&locked, "ro") && has(&locked, "nosuid") && has(&locked, "noexec"), "{locked:?}");
    let refused = options("ro", json!(["bind", "rw"]), true).join(",");
    assert!(refused.contains("cannot clear locked flags") && refused.contains("EPERM"), "{refused}");
}

#[test]
fn a_source_inside_the_rootfs_is_taken_as_earlier_mounts_have_made_it() {
    if no_id_maps() {
        return;
    }
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    for (user_namespace, mapped) in [(false, false), (true, true)] {
        let mut bundle = Bundle::of_script("stat -c %u /tmp/again/five; cat /tmp/again/five");
        if user_namespace {
            bundle = in_user_namespace(bundle);
        }
        data(&bundle);
        fs::create_dir(bundle.rootfs("tmp/again")).expect("mkdir");
        let inside = bundle.rootfs("mnt").to_string_lossy().into_owned();
        let bundle = bundle.with(|config| {
            add(config, json!({"destination": "/mnt", "source": "data", "options": ["bind"]}));
            let mut again = json!({"destination": "/tmp/again", "source": inside, "options": ["rbind"]});
            if mapped {
                again["uidMappings"] = mapping.clone();
                again["gidMappings"] = mapping.clone();
            }
            add(config, again);
        });
        assert_eq!(bundle.run_well(), "5\nfive");
    }
}

#[test]
fn a_source_that_leads_out_of_the_rootfs_again_is_the_hosts() {
    let mount = json!({"destination": "/mnt", "source": "rootfs/../data", "options": ["bind"]});
    let bundle = with_mount("cat /mnt/five", mount);
    data(&bundle);
    assert_eq!(bundle.run_well(), "five");
}

#[test]
fn containers_that_share_a_rootfs_may_make_its_mount_points_at_once() {
    for _ in 0..10 {
        let first = Bundle::of(&["true"]);
        let shared = first.rootfs("");
        let bundles = [first, Bundle::of(&["true"])].map(|bundle| {
            data(&bundle);
            bundle.with(|config| {
                config["root"]["path"] = json!(shared);
                for n in 0..30 {
                    let source = if n % 2 == 0 { "data" } else { "data/five" };
                    let destination = format!("/new/folder/{n}");
                    add(config, json!({"destination": destination, "source": source, "options": ["bind"]}));
                }
            })
        });
        std::thread::scope(|scope| {
            bundles.iter().for_each(|bundle| drop(scope.spawn(|| bundle.run_well())));
        });
    }
}

#[test]
fn a_mount_point_behind_a_dangling_link_is_made_inside() {
    let bundle = with_mount(
        "cat /tmp/deep/down/hosts",
        json!({"destination": "/etc/hosts", "source": "data/five", "options": ["bind"]}),
    );
    data(&bundle);
    symlink("/tmp/deep", bundle.rootfs("jump")).expect("link");
    symlink("../jump/down/hosts", bundle.rootfs("etc/hosts")).expect("link");
    assert_eq!(bundle.run_well(), "five");
    // What `..` behind another link means only the kernel knows, and it says nothing of what is not there.
    fs::remove_file(bundle.rootfs("etc/hosts")).expect("remove");
    symlink("/tmp/deep", bundle.rootfs("etc/via")).expect("link");
    symlink("via/../other", bundle.rootfs("etc/hosts")).expect("link");
    refused(&bundle, "follow the link /etc/hosts to \"via/../other\"");
    let outside = bundle.dir.join("outside");
    let bundle = with_mount("true", json!({"destination": "/mnt/x/y", "type": "tmpfs", "source": "x"}));
    symlink(format!("../../../../..{}", outside.display()), bundle.rootfs("mnt/x")).expect("link");
    bundle.run_well();
    assert!(!outside.exists(), "a link has led outside");
}

#[test]
fn a_tmpfs_has_the_mode_of_what_it_covers_and_of_tmp_otherwise() {
    for (destination, mode) in [("/mnt", "710"), ("/mnt/new", "1777")] {
        let bundle = with_mount(
            &format!("stat -c %a {destination}"),
            json!({"destination": destination, "type": "tmpfs", "source": "x"}),
        );
        fs::set_permissions(bundle.rootfs("mnt"), std::os::unix::fs::PermissionsExt::from_mode(0o710))
            .expect("chmod");
        assert_eq!(bundle.run_well(), format!("{mode}\n"));
    }
}

#[test]
fn a_container_without_a_mount_namespace_leaves_no_mounts() {
    let alone = |bundle: Bundle| {
        bundle.with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
            namespaces.retain(|namespace| namespace["type"] != "mount");
        })
    };
    let bundle = alone(Bundle::of_script("ls /; grep -c ' /dev/pts ' /proc/self/mounts; sleep 1000"));
    bundle.create();
    bundle.start();
    let here = fs::read_to_string("/proc/self/mounts").expect("read the mounts");
    assert!(here.contains(&*bundle.rootfs("dev/pts").to_string_lossy()), "{here}");
    let said = bundle.exec(&[&bundle.id, "ls", "/"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "bin\ndev\netc\nmnt\nproc\nsys\ntmp\n"), "{said:?}");
    let said = bundle.say(&["delete", "--force", &bundle.id]);
    assert_eq!(said.code, 0, "{said:?}");
    bundle.assert_nothing_is_left();
    assert_eq!(alone(Bundle::of_script("ls -d /bin")).run_well(), "/bin\n");
    refused(&alone(Bundle::of(&["nonexist"])), "executable file not found");
    let masked = Bundle::of(&["true"]).with(|config| config["linux"]["maskedPaths"] = json!(["/mnt"]));
    refused(
        &alone(masked),
        "linux.maskedPaths: unable to restrict sys entries without a private MNT namespace",
    );
    refused(&alone(in_user_namespace(Bundle::of(&["true"]))), "a user namespace needs a mount namespace");
}

#[test]
fn a_rootfs_that_the_engine_has_mounted_stays_mounted() {
    let bundle = Bundle::of(&["sleep", "1000"]).with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "mount");
    });
    // What remains of a runtime that was killed before its own mount, or of one unmounted by hand.
    let script =
        "mount --bind rootfs rootfs || exit 77; $RUNTIME create $ID >log 2>&1 || { cat log; exit 1; }
        grep -c ' '$PWD/rootfs' ' /proc/self/mounts; umount -l rootfs; $RUNTIME delete --force $ID || exit 1
        grep -c ' '$PWD/rootfs' ' /proc/self/mounts";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).env("ID", &bundle.id).current_dir(&bundle.dir);
    let runtime = format!("{} --root {}", harness::runtime().display(), bundle.dir.join("state").display());
    let said = harness::said(command.env("RUNTIME", runtime).output().expect("run unshare"));
    assert_eq!((said.code, said.stdout.as_str()), (0, "2\n1\n"), "{said:?}");
    bundle.assert_nothing_is_left();
}

#[test]
fn a_device_that_is_there_gets_owner_and_mode_and_must_be_the_one() {
    let bundle = Bundle::of_script("stat -c '%F %t:%T %u:%g %a' /etc/node").with(|config| {
        config["linux"]["devices"] = json!([{"path": "/etc/node", "type": "c", "major": 1, "minor": 3,
                                             "fileMode": 0o640, "uid": 7, "gid": 8}]);
    });
    let number = nix::sys::stat::makedev(1, 3);
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::sys::stat::mknod(&bundle.rootfs("etc/node"), nix::sys::stat::SFlag::S_IFCHR, mode, number)
        .expect("mknod");
    assert_eq!(bundle.run_well(), "character special file 1:3 7:8 640\n");
    let bundle = bundle.with(|config| config["linux"]["devices"][0]["minor"] = json!(5));
    refused(&bundle, "linux.devices[0]: make /etc/node: there is another file that is not this device");
}

#[test]
fn a_device_number_that_the_kernel_would_cut_is_refused() {
    for (major, minor, wanted) in [
        (0x1_0000_0001_i64, 3, "linux.devices[0]: major 4294967297 is no device number"),
        (1, 0x1_0000_0003_i64, "linux.devices[0]: minor 4294967299 is no device number"),
        (4096, 0, "linux.devices[0]: major 4096 is no device number"),
        (1, -1, "linux.devices[0]: minor -1 is no device number"),
    ] {
        let bundle = Bundle::of(&["true"]).with(|config| {
            config["linux"]["devices"] =
                json!([{"path": "/dev/node", "type": "c", "major": major, "minor": minor}]);
        });
        refused(&bundle, wanted);
    }
}

#[test]
fn a_device_in_a_user_namespace_is_the_hosts_if_that_is_the_one() {
    let device = |minor: u32| {
        in_user_namespace(Bundle::of_script("stat -c '%t:%T' /dev/zero")).with(|config| {
            config["linux"]["devices"] =
                json!([{"path": "/dev/zero", "type": "c", "major": 1, "minor": minor}]);
        })
    };
    assert_eq!(device(5).run_well(), "1:5\n");
    refused(&device(3), "linux.devices[0]: make /dev/zero: the host's /dev/zero is another file");
}

#[test]
fn the_root_has_the_propagation_asked_for() {
    let script = "grep -E ' / / ' /proc/self/mountinfo || grep ' / ' /proc/self/mountinfo";
    for (value, mark) in [
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
        ("private", ""),
        ("rprivate", ""),
        ("slave", ""),
        ("rslave", ""),
    ] {
        for no_pivot in [false, true] {
            let bundle =
                Bundle::of_script(script).with(|config| config["linux"]["rootfsPropagation"] = json!(value));
            let flags: &[&str] = if no_pivot { &["run", "--no-pivot"] } else { &["run"] };
            let said = bundle.say(&[flags, &[&bundle.id]].concat());
            let line =
                said.stdout.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap_or_default();
            assert_eq!(said.code, 0, "{value} {no_pivot}: {said:?}");
            if mark.is_empty() {
                assert!(!line.contains("shared:") && !line.contains("unbindable"), "{value}: {line}");
            } else {
                assert!(line.contains(mark), "{value} {no_pivot}: {line}");
            }
            bundle.assert_nothing_is_left();
        }
    }
    let bad = Bundle::of(&["true"]).with(|config| config["linux"]["rootfsPropagation"] = json!("wide"));
    refused(&bad, "linux.rootfsPropagation: unknown value \"wide\"");
}

#[test]
fn a_cgroup_mount_shows_the_containers_own() {
    let script =
        "cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/devices/cgroup.procs 2>/dev/null | grep -x $$;
                  grep ' /sys/fs/cgroup ' /proc/self/mountinfo";
    for namespace in [true, false] {
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                           "options": ["ro", "nosuid", "shared"]});
        let bundle = with_mount(script, mount).with(|config| {
            if !namespace {
                let all = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
                all.retain(|one| one["type"] != "cgroup");
            }
        });
        let said = bundle.run_well();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0], "1", "{said}");
        let line = lines.last().expect("a mount");
        assert!(line.contains(" ro,nosuid") && line.contains("shared:"), "{line}");
    }
}

#[test]
fn a_path_masked_twice_is_masked_once() {
    let bundle = Bundle::of_script("grep -c ' /mnt ' /proc/self/mounts").with(|config| {
        config["linux"]["maskedPaths"] = json!(["/mnt", "/mnt/", "/tmp/../mnt"]);
    });
    assert_eq!(bundle.run_well(), "1\n");
}

fn kernel_is(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("read the version");
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}
