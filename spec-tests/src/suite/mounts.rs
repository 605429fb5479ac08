//! [Mounts](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md#mounts) and the
//! [table of options](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md#linux-mount-options).

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context, Result};

use crate::case::{Case, Need, Scene};
use crate::probe::Mount;
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "mounts/of_the_kernels_file_systems",
        proves: &[&DEFAULT_FILESYSTEMS],
        needs: &[],
        run: of_the_kernels_file_systems,
    },
    Case {
        name: "mounts/are_made_in_the_listed_order",
        proves: &[&MOUNTS_ORDER],
        needs: &[],
        run: are_made_in_the_listed_order,
    },
    Case {
        name: "mounts/bind_shows_files_and_folders",
        proves: &[&MOUNTS_SOURCE],
        needs: &[],
        run: bind_shows_files_and_folders,
    },
    Case {
        name: "mounts/bind_is_recursive_when_asked",
        proves: &[&MOUNT_OPTIONS],
        needs: &[],
        run: bind_is_recursive_when_asked,
    },
    Case {
        name: "mounts/bind_takes_no_type_as_well",
        proves: &[&MOUNTS_SOURCE],
        needs: &[],
        run: bind_takes_no_type_as_well,
    },
    Case {
        name: "mounts/destination_may_be_relative",
        proves: &[&MOUNTS_RELATIVE],
        needs: &[],
        run: destination_may_be_relative,
    },
    Case {
        name: "mounts/destination_stays_in_the_root",
        proves: &[&MOUNTS_SOURCE],
        needs: &[],
        run: destination_stays_in_the_root,
    },
    Case {
        name: "mounts/read_only_bind_cannot_be_written",
        proves: &[&MOUNT_OPTIONS],
        needs: &[],
        run: read_only_bind_cannot_be_written,
    },
    Case {
        name: "mounts/options_of_tmpfs_are_set",
        proves: &[&MOUNT_OPTIONS],
        needs: &[],
        run: options_of_tmpfs_are_set,
    },
    Case {
        name: "mounts/options_of_a_bind_are_set",
        proves: &[&MOUNT_OPTIONS],
        needs: &[],
        run: options_of_a_bind_are_set,
    },
    Case { name: "mounts/later_options_win", proves: &[&MOUNT_OPTIONS], needs: &[], run: later_options_win },
    Case {
        name: "mounts/knows_every_option_it_must",
        proves: &[&MOUNT_OPTIONS],
        needs: &[],
        run: knows_every_option_it_must,
    },
    Case {
        name: "mounts/knows_the_option_defaults",
        proves: &[&MOUNT_OPTIONS],
        needs: &[],
        run: knows_the_option_defaults,
    },
    Case {
        name: "mounts/propagate_as_asked",
        proves: &[&MOUNT_OPTIONS],
        needs: &[],
        run: propagate_as_asked,
    },
    Case {
        name: "mounts/recursive_options_reach_submounts",
        proves: &[&MOUNT_OPTIONS_SHOULD],
        needs: &[Need::Kernel(5, 12)],
        run: recursive_options_reach_submounts,
    },
    Case {
        name: "mounts/nosymfollow_is_set",
        proves: &[&MOUNT_OPTIONS_SHOULD],
        needs: &[Need::Kernel(5, 10)],
        run: nosymfollow_is_set,
    },
    Case {
        name: "mounts/other_options_go_to_the_file_system",
        proves: &[&MOUNT_DATA],
        needs: &[],
        run: other_options_go_to_the_file_system,
    },
    Case {
        name: "mounts/refuses_an_id_map_without_a_mapping",
        proves: &[&MOUNT_IDMAP],
        needs: &[],
        run: refuses_an_id_map_without_a_mapping,
    },
];

/// The mount at a path, or an empty one.
fn mount_at(seen: &crate::probe::Observation, path: &str) -> Mount {
    seen.mount(path).cloned().unwrap_or_default()
}

/// All options of a mount, its file system's too.
fn options(mount: &Mount) -> Vec<&str> {
    mount.options.iter().chain(&mount.super_options).map(String::as_str).collect()
}

fn of_the_kernels_file_systems(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    let seen = scene.observe(&mut bundle, &[])?;
    for (path, kind) in [("/proc", "proc"), ("/sys", "sysfs"), ("/dev/pts", "devpts"), ("/dev/shm", "tmpfs")]
    {
        let mount = mount_at(&seen, path);
        scene.expect_same(&DEFAULT_FILESYSTEMS, path, mount.kind.as_str(), kind);
        for option in ["nosuid", "noexec"] {
            let set = mount.options.iter().any(|word| word == option);
            scene.expect(&DEFAULT_FILESYSTEMS, set, format_args!("{path} is mounted {:?}", mount.options));
        }
    }
    Ok(())
}

fn are_made_in_the_listed_order(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    let shared = bundle.directory().join("shared");
    fs::create_dir(shared.join("below")).context("make a folder")?;
    fs::write(shared.join("below/inner"), "").context("make a file")?;
    fs::write(shared.join("file"), "shared").context("make a file")?;
    let source = shared.to_string_lossy().into_owned();
    // Sorted by path or depth this comes out differently: the tmpfs covers what came before it, and
    // not what comes after.
    bundle.mount("/mnt/below", "tmpfs", "tmpfs", &["size=1m"]);
    bundle.mount("/mnt", "bind", &source, &["bind"]);
    bundle.mount("/zzz", "bind", &source, &["bind"]);
    bundle.mount("/zzz/below", "tmpfs", "tmpfs", &["size=2m"]);
    bundle.mount("/aaa", "tmpfs", "tmpfs", &["size=3m"]);
    let seen = scene.observe(&mut bundle, &["/mnt/file", "/mnt/below", "/zzz/below"])?;
    scene.expect_same(&MOUNTS_ORDER, "/mnt/file", seen.path("/mnt/file").content.as_deref(), Some("shared"));
    let below = mount_at(&seen, "/zzz/below");
    let small = below.super_options.iter().any(|word| word == "size=2048k");
    scene.expect(&MOUNTS_ORDER, small, format_args!("/zzz/below is {:?}", below.super_options));
    // Judged by what is to be seen: mountinfo need not list mounts in the order in which they were made.
    let entries = seen.path("/mnt/below").entries.unwrap_or_default();
    scene.expect(
        &MOUNTS_ORDER,
        entries == ["inner"],
        format_args!("/mnt/below has {entries:?} and not what the bind mount at /mnt brought"),
    );
    Ok(())
}

fn bind_shows_files_and_folders(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    let shared = bundle.directory().join("shared");
    fs::write(shared.join("file"), "content").context("make a file")?;
    let folder = shared.to_string_lossy().into_owned();
    bundle.mount("/a/folder", "bind", &folder, &["bind"]);
    bundle.mount("/a/file", "bind", &format!("{folder}/file"), &["bind"]);
    bundle.mount("/a/relative", "bind", "shared/file", &["bind"]);
    let seen = scene.observe(&mut bundle, &["/a/folder/file", "/a/file", "/a/relative"])?;
    for path in ["/a/folder/file", "/a/file", "/a/relative"] {
        scene.expect_same(&MOUNTS_SOURCE, path, seen.path(path).content.as_deref(), Some("content"));
    }
    Ok(())
}

fn bind_is_recursive_when_asked(scene: &Scene<'_>) -> Result<()> {
    // /dev of the host has mounts below it on any machine: pts, shm or mqueue.
    let host = fs::read_to_string("/proc/self/mountinfo").context("own mounts")?;
    if !host.lines().any(|line| line.split(' ').nth(4).is_some_and(|target| target == "/dev/pts")) {
        scene.skip("the host has no mount at /dev/pts");
        return Ok(());
    }
    for (option, asked) in [("bind", false), ("rbind", true)] {
        let mut bundle = scene.bundle()?;
        bundle.mount("/host", "bind", "/dev", &[option, "rprivate"]);
        let seen = scene.observe(&mut bundle, &[])?;
        let there = seen.mount("/host/pts").is_some();
        scene.expect(&MOUNT_OPTIONS, there == asked, format_args!("{option}: /host/pts is mounted: {there}"));
    }
    Ok(())
}

fn bind_takes_no_type_as_well(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    fs::write(bundle.directory().join("shared/file"), "content").context("make a file")?;
    let source = bundle.directory().join("shared");
    bundle.add("/mounts", serde_json::json!({"destination": "/mnt", "source": source, "options": ["bind"]}));
    bundle.mount("/opt", "none", &source.to_string_lossy(), &["rbind"]);
    let seen = scene.observe(&mut bundle, &["/mnt/file", "/opt/file"])?;
    for path in ["/mnt/file", "/opt/file"] {
        scene.expect_same(&MOUNTS_SOURCE, path, seen.path(path).content.as_deref(), Some("content"));
    }
    Ok(())
}

fn destination_may_be_relative(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/process/cwd", serde_json::json!("/tmp"));
    bundle.mount("some/where", "tmpfs", "tmpfs", &["size=1m"]);
    let seen = scene.observe(&mut bundle, &[])?;
    scene.expect_same(&MOUNTS_RELATIVE, "/some/where", mount_at(&seen, "/some/where").kind.as_str(), "tmpfs");
    Ok(())
}

fn destination_stays_in_the_root(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    // An absolute link in the image means a place in the image.
    let outside = bundle.directory().join("outside");
    fs::create_dir(&outside).context("make a folder")?;
    symlink(&outside, bundle.rootfs("link")).context("make a link")?;
    fs::create_dir_all(bundle.rootfs("real")).context("make a folder")?;
    symlink("/real", bundle.rootfs("inner")).context("make a link")?;
    bundle.mount("/link/mnt", "tmpfs", "tmpfs", &["size=1m"]);
    bundle.mount("/inner/mnt", "tmpfs", "tmpfs", &["size=1m"]);
    let (container, output) = scene.try_create(&bundle)?;
    // Refusing is safe as well; leaving the root is not.
    let left = fs::read_dir(&outside).context("read the folder")?.count();
    scene.expect_same(&MOUNTS_SOURCE, "the number of files made outside the root", left, 0);
    if output.ok() {
        container.start()?;
        let made = bundle.rootfs("real/mnt").is_dir();
        scene.expect(&MOUNTS_SOURCE, made, "the link /inner -> /real was not followed inside the root");
    }
    Ok(())
}

fn read_only_bind_cannot_be_written(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    let source = bundle.directory().join("shared").to_string_lossy().into_owned();
    fs::write(bundle.directory().join("shared/file"), "").context("make a file")?;
    bundle.mount("/ro", "bind", &source, &["bind", "ro"]);
    bundle.mount("/rw", "bind", &source, &["bind", "rw"]);
    let seen = scene.observe(&mut bundle, &["/ro", "/ro/file", "/rw", "/rw/file"])?;
    for path in ["/ro", "/ro/file"] {
        let error = seen.path(path).write_error;
        scene.expect(
            &MOUNT_OPTIONS,
            error.as_deref() == Some("EROFS"),
            format_args!("writing {path}: {error:?}"),
        );
    }
    for path in ["/rw", "/rw/file"] {
        let seen = seen.path(path);
        scene.expect(&MOUNT_OPTIONS, seen.writable(), format_args!("writing {path}: {:?}", seen.write_error));
    }
    Ok(())
}

fn expect_options(
    scene: &Scene<'_>,
    kind: &str,
    source: &str,
    table: &[(&[&str], &[&str], &[&str])],
) -> Result<()> {
    let mut bundle = scene.bundle()?;
    for (number, (asked, _, _)) in table.iter().enumerate() {
        let mut all: Vec<&str> = if kind == "bind" { vec!["bind"] } else { vec![] };
        all.extend(*asked);
        bundle.mount(&format!("/m{number}"), kind, source, &all);
    }
    let seen = scene.observe(&mut bundle, &[])?;
    for (number, (asked, with, without)) in table.iter().enumerate() {
        let mount = mount_at(&seen, &format!("/m{number}"));
        let words = options(&mount);
        let met =
            with.iter().all(|word| words.contains(word)) && !without.iter().any(|word| words.contains(word));
        scene.expect(&MOUNT_OPTIONS, met, format_args!("a {kind} with {asked:?} has {words:?}"));
    }
    Ok(())
}

fn options_of_tmpfs_are_set(scene: &Scene<'_>) -> Result<()> {
    expect_options(
        scene,
        "tmpfs",
        "tmpfs",
        &[
            (&["ro"], &["ro"], &[]),
            (&["nosuid"], &["nosuid"], &["nodev", "noexec"]),
            (&["nodev"], &["nodev"], &["nosuid", "noexec"]),
            (&["noexec"], &["noexec"], &["nosuid", "nodev"]),
            (&["noatime"], &["noatime"], &["relatime"]),
            (&["relatime"], &["relatime"], &["noatime"]),
            (&["strictatime"], &[], &["relatime", "noatime"]),
            (&["nodiratime"], &["nodiratime"], &[]),
            (&["sync"], &["sync"], &[]),
            (&["dirsync"], &["dirsync"], &[]),
        ],
    )
}

fn options_of_a_bind_are_set(scene: &Scene<'_>) -> Result<()> {
    expect_options(
        scene,
        "bind",
        "shared",
        &[
            (&["ro", "nosuid"], &["ro", "nosuid"], &["noexec"]),
            (&["nodev", "noexec"], &["nodev", "noexec"], &["nosuid"]),
            (&["noatime"], &["noatime"], &["relatime"]),
            (&["nodiratime"], &["nodiratime"], &[]),
        ],
    )
}

fn later_options_win(scene: &Scene<'_>) -> Result<()> {
    expect_options(
        scene,
        "tmpfs",
        "tmpfs",
        &[
            (&["ro", "rw"], &["rw"], &["ro"]),
            (&["rw", "ro"], &["ro"], &[]),
            (&["nosuid", "suid"], &[], &["nosuid"]),
            (&["suid", "nosuid"], &["nosuid"], &[]),
            (&["noexec", "exec"], &[], &["noexec"]),
            (&["nodev", "dev"], &[], &["nodev"]),
        ],
    )
}

fn knows_every_option_it_must(scene: &Scene<'_>) -> Result<()> {
    let words = [
        "async",
        "atime",
        "dev",
        "diratime",
        "dirsync",
        "exec",
        "iversion",
        "lazytime",
        "loud",
        "noatime",
        "nodev",
        "nodiratime",
        "noexec",
        "noiversion",
        "nolazytime",
        "norelatime",
        "nostrictatime",
        "nosuid",
        "private",
        "relatime",
        "ro",
        "rprivate",
        "rshared",
        "rslave",
        "runbindable",
        "rw",
        "shared",
        "silent",
        "slave",
        "strictatime",
        "suid",
        "sync",
        "unbindable",
    ];
    let mut bundle = scene.bundle()?;
    for word in words {
        bundle.mount(&format!("/m-{word}"), "tmpfs", "tmpfs", &[word]);
    }
    let (_container, output) = scene.try_create(&bundle)?;
    if output.ok() {
        return Ok(());
    }
    // Which ones: one by one.
    for word in words {
        let mut bundle = scene.bundle()?;
        bundle.mount("/mnt", "tmpfs", "tmpfs", &[word]);
        let (_container, output) = scene.try_create(&bundle)?;
        scene.expect(&MOUNT_OPTIONS, output.ok(), format_args!("{word}: {}", output.complaint()));
    }
    Ok(())
}

fn knows_the_option_defaults(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.mount("/mnt", "tmpfs", "tmpfs", &["defaults", "size=1m"]);
    let (_container, output) = scene.try_create(&bundle)?;
    scene.expect(&MOUNT_OPTIONS, output.ok(), output.complaint());
    Ok(())
}

fn propagate_as_asked(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    let words = ["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"];
    for word in words {
        bundle.mount(&format!("/m-{word}"), "tmpfs", "tmpfs", &[word]);
    }
    let seen = scene.observe(&mut bundle, &[])?;
    for word in words {
        let tags = mount_at(&seen, &format!("/m-{word}")).propagation;
        let has = |tag: &str| tags.iter().any(|seen| seen.starts_with(tag));
        let met = match word.trim_start_matches('r') {
            "shared" => has("shared:"),
            "unbindable" => has("unbindable"),
            // A slave of nobody is private.
            _ => !has("shared:") && !has("unbindable"),
        };
        scene.expect(&MOUNT_OPTIONS, met, format_args!("a mount with {word} has {tags:?}"));
    }
    Ok(())
}

fn recursive_options_reach_submounts(scene: &Scene<'_>) -> Result<()> {
    let host = fs::read_to_string("/proc/self/mountinfo").context("own mounts")?;
    if !host.lines().any(|line| line.split(' ').nth(4).is_some_and(|target| target == "/dev/pts")) {
        scene.skip("the host has no mount at /dev/pts");
        return Ok(());
    }
    for (word, shown) in [
        ("rro", "ro"),
        ("rnoexec", "noexec"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoatime", "noatime"),
    ] {
        let mut bundle = scene.bundle()?;
        bundle.mount("/host", "bind", "/dev", &["rbind", "rprivate", word]);
        let (container, output) = scene.try_create(&bundle)?;
        if !output.ok() {
            scene.expect(&MOUNT_OPTIONS_SHOULD, false, format_args!("{word}: {}", output.complaint()));
            continue;
        }
        container.start()?;
        let mut container = container;
        container.wait()?;
        let seen = container.report()?;
        for path in ["/host", "/host/pts"] {
            let words = mount_at(&seen, path).options;
            let met = words.iter().any(|option| option == shown);
            scene.expect(&MOUNT_OPTIONS_SHOULD, met, format_args!("{path} with {word} has {words:?}"));
        }
    }
    Ok(())
}

fn nosymfollow_is_set(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.mount("/mnt", "tmpfs", "tmpfs", &["nosymfollow"]);
    let words = mount_at(&scene.observe(&mut bundle, &[])?, "/mnt").options;
    let set = words.iter().any(|word| word == "nosymfollow");
    scene.expect(&MOUNT_OPTIONS_SHOULD, set, format_args!("/mnt has {words:?}"));
    Ok(())
}

fn other_options_go_to_the_file_system(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.mount("/mnt", "tmpfs", "tmpfs", &["nosuid", "mode=1751", "uid=12", "gid=34", "size=100k"]);
    let seen = scene.observe(&mut bundle, &["/mnt"])?;
    let folder = seen.path("/mnt");
    scene.expect_same(&MOUNT_DATA, "mode", folder.mode, 0o1751);
    scene.expect_same(&MOUNT_DATA, "owner and group", (folder.uid, folder.gid), (12, 34));
    let mount = mount_at(&seen, "/mnt");
    let sized = mount.super_options.iter().any(|word| word == "size=100k");
    scene.expect(&MOUNT_DATA, sized, format_args!("the file system has {:?}", mount.super_options));
    Ok(())
}

fn refuses_an_id_map_without_a_mapping(scene: &Scene<'_>) -> Result<()> {
    for word in ["idmap", "ridmap"] {
        let mut bundle = scene.bundle()?;
        bundle.mount("/mnt", "bind", "/tmp", &["bind", word]);
        scene.expect_refused(&MOUNT_IDMAP, &format!("{word} without a mapping"), &bundle)?;
    }
    Ok(())
}
