//! The root filesystem of a container: the layers of its image below a layer of its own.
//! [Overlayfs](https://docs.kernel.org/filesystems/overlayfs.html) through the new mount API
//! ([fsopen(2)](https://man7.org/linux/man-pages/man2/fsopen.2.html)), one `lowerdir+` a layer;
//! kernels before 6.5 do not know that key and get mount(2).

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

/// What overlayfs can stack.
const LAYERS_LIMIT: usize = 500;
/// fsconfig(2) takes no longer string.
const STRING_LIMIT: usize = 255;

/// Mounts `layers` (lowest first) with `upper` on top at `target`.
pub(crate) fn mount(layers: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> Result<()> {
    let top = layers.last().context("the image has no layers")?;
    ensure!(
        layers.len() <= LAYERS_LIMIT,
        "the image has {} layers, {LAYERS_LIMIT} can be mounted",
        layers.len()
    );
    take_attributes(upper, top).with_context(|| format!("prepare {}", upper.display()))?;
    let stack = Stack::open(layers, upper, work)?;
    match stack.mount_new(target) {
        // EINVAL: no `lowerdir+` before 6.5. ENOSYS: no fsopen where a filter forbids it.
        Err(Errno::INVAL | Errno::NOSYS) => stack.mount_old(target),
        other => other,
    }
    .with_context(|| format!("mount the overlay of {} layers on {}", layers.len(), target.display()))
}

/// The root folder of an overlay has the mode and owner of the upper layer: those of the image.
fn take_attributes(upper: &Path, top: &Path) -> std::io::Result<()> {
    let top = top.metadata()?;
    chown(upper, Some(top.uid()), Some(top.gid()))?;
    fs::set_permissions(upper, fs::Permissions::from_mode(top.mode() & 0o7777))
}

/// The folders of an overlay, open: their names for the kernel are those of descriptors when the
/// real ones are too long or hold what option strings cannot.
struct Stack {
    layers: Vec<(PathBuf, File)>,
    upper: (PathBuf, File),
    work: (PathBuf, File),
}

impl Stack {
    fn open(layers: &[PathBuf], upper: &Path, work: &Path) -> Result<Self> {
        let open = |path: &Path| {
            let file =
                OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path);
            Ok((path.to_owned(), file.with_context(|| format!("open layer {}", path.display()))?))
        };
        Ok(Self {
            layers: layers.iter().map(|layer| open(layer)).collect::<Result<_>>()?,
            upper: open(upper)?,
            work: open(work)?,
        })
    }

    fn mount_new(&self, target: &Path) -> Result<(), Errno> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(context.as_fd(), "source", "overlay")?;
        for layer in self.layers.iter().rev() {
            fsconfig_set_string(context.as_fd(), "lowerdir+", name(layer))?;
        }
        fsconfig_set_string(context.as_fd(), "upperdir", name(&self.upper))?;
        fsconfig_set_string(context.as_fd(), "workdir", name(&self.work))?;
        // Off whatever the kernel's default: the upper layer must stay a plain difference, and a
        // layer that carries such attributes must not be obeyed.
        for key in ["redirect_dir", "metacopy"] {
            fsconfig_set_string(context.as_fd(), key, "off")?;
        }
        fsconfig_create(context.as_fd())?;
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        move_mount(mount.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    }

    fn mount_old(&self, target: &Path) -> Result<(), Errno> {
        // All options share one page; by descriptor a layer takes some 17 bytes.
        let by_descriptor = |(_, file): &(PathBuf, File)| format!("/proc/self/fd/{}", file.as_raw_fd());
        let lower: Vec<String> = self.layers.iter().rev().map(by_descriptor).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off",
            lower.join(":"),
            by_descriptor(&self.upper),
            by_descriptor(&self.work),
        );
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
        rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), options.as_c_str())
    }
}

/// The path when the kernel can take it, which is what people want to read in mountinfo.
fn name((path, file): &(PathBuf, File)) -> PathBuf {
    if path.as_os_str().len() <= STRING_LIMIT {
        return path.clone();
    }
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_way_and_the_new_way_give_the_same_tree() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIP: not root");
            return;
        }
        // This thread's own: nothing of it is seen outside, and it goes with the thread.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let private =
            rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tmpfs = folder.path();
        let none: Option<&std::ffi::CStr> = None;
        // overlayfs takes no upper layer on overlayfs, which the host's /tmp may be.
        rustix::mount::mount("tmpfs", tmpfs, "tmpfs", MountFlags::empty(), none).unwrap();
        // Longer than a string of fsconfig, and with what separates options.
        let long = tmpfs.join("x".repeat(200)).join("a:b,c").join("y".repeat(100));
        let layers = [long.join("one"), long.join("two")];
        for (layer, file) in layers.iter().zip(["low", "high"]) {
            fs::create_dir_all(layer).unwrap();
            fs::write(layer.join(file), file).unwrap();
            fs::write(layer.join("both"), file).unwrap();
        }
        fs::set_permissions(&layers[1], fs::Permissions::from_mode(0o751)).unwrap();
        for way in [Stack::mount_new, Stack::mount_old] {
            let [upper, work, target] = ["upper", "work", "target"].map(|name| tmpfs.join(name));
            for path in [&upper, &work, &target] {
                fs::create_dir_all(path).unwrap();
            }
            take_attributes(&upper, &layers[1]).unwrap();
            match way(&Stack::open(&layers, &upper, &work).unwrap(), &target) {
                Err(error @ (Errno::INVAL | Errno::NOSYS)) => {
                    println!("SKIP one way: {error}");
                    continue;
                }
                other => other.unwrap(),
            }
            assert_eq!(fs::read_to_string(target.join("both")).unwrap(), "high");
            assert_eq!(fs::read_dir(&target).unwrap().count(), 3);
            assert_eq!(target.metadata().unwrap().mode() & 0o777, 0o751);
            fs::write(target.join("new"), "").unwrap();
            assert!(upper.join("new").exists());
            rustix::mount::unmount(&target, rustix::mount::UnmountFlags::empty()).unwrap();
            fs::remove_dir_all(&upper).unwrap();
        }
        rustix::mount::unmount(tmpfs, rustix::mount::UnmountFlags::empty()).unwrap();
    }
}
