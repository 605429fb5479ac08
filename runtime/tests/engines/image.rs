//! An image of the machine's own busybox, as an archive that every engine reads: the format of
//! `docker save`, <https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md>.

use std::os::unix::fs::symlink;
use std::{fs, path::Path};

use serde_json::json;

use crate::machine::must;

pub(crate) const IMAGE: &str = "docker.io/library/busybox:latest";

/// Makes the archive of an image of this name, and gives its path.
pub(crate) fn archive(name: &str) -> String {
    let folder = format!("/tmp/image-{}", name.replace(['/', ':'], "-"));
    let rootfs = Path::new(&folder).join("rootfs");
    for part in ["usr/bin", "etc", "proc", "sys", "dev", "root", "run", "tmp", "var"] {
        fs::create_dir_all(rootfs.join(part)).expect("make a folder of the image");
    }
    symlink("usr/bin", rootfs.join("bin")).expect("link bin");
    fs::copy("/usr/bin/busybox", rootfs.join("usr/bin/busybox")).expect("copy busybox");
    // Makes absolute links to /usr/bin/busybox.
    must(&["busybox", "--install", "-s", &rootfs.join("usr/bin").to_string_lossy()]);
    let users = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n";
    fs::write(rootfs.join("etc/passwd"), users).expect("write passwd");
    fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\n").expect("write group");
    must(&["tar", "-C", &rootfs.to_string_lossy(), "-cf", &format!("{folder}/layer.tar"), "."]);

    let digest = must(&["sha256sum", &format!("{folder}/layer.tar")]);
    let digest = digest.split_whitespace().next().expect("a digest");
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sleep", "1000000"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "busybox"}],
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    fs::write(format!("{folder}/config.json"), config.to_string()).expect("write config.json");
    fs::write(format!("{folder}/manifest.json"), manifest.to_string()).expect("write manifest.json");
    let archive = format!("{folder}.tar");
    must(&["tar", "-C", &folder, "-cf", &archive, "manifest.json", "config.json", "layer.tar"]);
    archive
}
