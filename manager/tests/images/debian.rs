//! Images as people have them: a Debian of this machine's release, and one with Python on top, from which then
//! something is removed. Made of Debian's own packages.

use std::path::Path;
use std::process::Command;

use crate::compare::{assert_equal, seen_by_us, unpacked_by_tar, unpacked_by_umoci};
use crate::support::registry::Registry;
use crate::support::{has, tool};

/// Three states of one Debian, as tars in the folder. Standard error is the reason why there are none.
const STATES: &str = r#"
set -eu
# Fails before anything is made where no package can be had.
mmdebstrap --quiet --variant=minbase --format=null \
  --customize-hook="tar -C \"\$1\" --one-file-system --xattrs --numeric-owner -cf $1/1-debian.tar ." \
  --customize-hook='APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq --yes --no-install-recommends install python3-minimal' \
  --customize-hook="tar -C \"\$1\" --one-file-system --xattrs --numeric-owner -cf $1/2-python.tar ." \
  --customize-hook='rm -rf "$1"/usr/share/doc "$1"/usr/share/locale/[a-m]* && rm "$1"/etc/motd' \
  --customize-hook='ln -s python3 "$1"/usr/bin/python && chmod 700 "$1"/srv && mv "$1"/usr/share/info "$1"/usr/share/moved' \
  --customize-hook="tar -C \"\$1\" --one-file-system --xattrs --numeric-owner -cf $1/3-slim.tar ." \
  "$(. /etc/os-release && echo "$VERSION_CODENAME")" 2>&1 >/dev/null
"#;

/// An OCI layout of the states, each a layer of what differs from the one before; and those layers as plain tars.
const LAYERS: &str = r#"
set -eu
cd "$1"
umoci init --layout layout
umoci new --image layout:image
umoci unpack --image layout:image made >/dev/null
for state in ?-*.tar; do
  find made/rootfs -mindepth 1 -delete
  tar -C made/rootfs --xattrs --xattrs-include='*' --numeric-owner -xpf "$state"
  umoci repack --refresh-bundle --image layout:image made >/dev/null
done
rm -rf made
skopeo inspect --raw oci:layout:image | tr ',' '\n' | sed -n 's/.*"digest":"sha256:\([0-9a-f]*\)".*/\1/p' | tail -n +2 |
  while read -r blob; do gzip -dc "layout/blobs/sha256/$blob" >"layer-$((n = ${n:-0} + 1)).tar"; done
"#;

fn shell(script: &str, folder: &Path) -> Result<(), String> {
    let output = Command::new("sh").args(["-c", script, "sh"]).arg(folder).output().expect("start a shell");
    let told =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(told) }
}

#[test]
fn debian_and_python_on_it_look_as_umoci_and_tar_unpack_them() {
    if !has("umoci") || !has("mmdebstrap") || !has("skopeo") || !has("docker-registry") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    if let Err(why) = shell(STATES, folder.path()) {
        println!("SKIP: mmdebstrap makes no Debian here: {}", why.lines().last().unwrap_or_default());
        return;
    }
    shell(LAYERS, folder.path()).unwrap();
    let layout = folder.path().join("layout");
    let layers: Vec<Vec<u8>> =
        (1..=3).map(|n| std::fs::read(folder.path().join(format!("layer-{n}.tar"))).unwrap()).collect();

    let registry = Registry::start();
    let name = format!("{}/python", registry.host);
    let from = format!("oci:{}:image", layout.display());
    tool("skopeo", &["copy", "-q", "--dest-tls-verify=false", &from, &format!("docker://{name}")]);

    let found = seen_by_us(&name);
    assert!(found.len() > 3000, "{}", found.len());
    assert!(found.contains_key("usr/bin/python") && !found.contains_key("usr/share/doc"));
    let expected = unpacked_by_umoci(&layout, folder.path());
    assert_equal("umoci", &found, &expected);
    assert_equal("tar", &found, &unpacked_by_tar(&layers, folder.path()));

    // The Debian below, by itself.
    let by_tar = folder.path().join("debian");
    std::fs::create_dir(&by_tar).unwrap();
    let debian = crate::support::image::image(&layers[..1]);
    let name = registry.push(&debian, "debian");
    assert_equal("debian", &seen_by_us(&name), &unpacked_by_tar(&layers[..1], &by_tar));
}
