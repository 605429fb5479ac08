//! The root filesystem of a container: the layers of its image below a layer of its own.
//! [Overlayfs](https://docs.kernel.org/filesystems/overlayfs.html) through the new mount API
//! ([fsopen(2)](https://man7.org/linux/man-pages/man2/fsopen.2.html)), one `lowerdir+` a layer;
//! kernels before 6.5 do not know that key and get mount(2).

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, open, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
};

/// What overlayfs can stack.
const LAYERS_LIMIT: usize = 500;
/// fsconfig(2) takes no longer string.
const STRING_LIMIT: usize = 255;

/// Mounts `layers` (lowest first) with `upper` on top at `target`.
pub(crate) fn mount(layers: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> Result<()> {
    let top = layers.last().context("the image has no layers")?;
    take_attributes(upper, top).with_context(|| format!("prepare {}", upper.display()))?;
    let stack = Stack::open(layers, Some((upper, work)))?;
    match stack.mount_new(target) {
        Err(Errno::INVAL | Errno::NOSYS) => stack.mount_old(target),
        other => other,
    }
    .with_context(|| format!("mount the overlay of {} layers on {}", layers.len(), target.display()))
}

/// What [`mount`] would show, to be read only, and nowhere to be seen but through this descriptor. `place` is
/// a folder that nothing is mounted on.
pub(crate) fn view(layers: &[PathBuf], upper: &Path, place: &Path) -> Result<OwnedFd> {
    let layers: Vec<PathBuf> = layers.iter().cloned().chain([upper.to_owned()]).collect();
    let stack = Stack::open(&layers, None)?;
    let root = match stack.mount_nowhere() {
        Err(Errno::INVAL | Errno::NOSYS) => std::thread::scope(|scope| {
            // The namespace goes with the thread, the mount with the last descriptor.
            let mounting = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNS)?;
                mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
                stack.mount_old(place)?;
                Ok(open(place, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
            });
            mounting.join().unwrap_or_else(|_| bail!("the thread that mounts it has died"))
        }),
        mounted => mounted.map_err(Into::into).and_then(|mount| {
            Ok(openat(mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
        }),
    };
    root.with_context(|| format!("mount the overlay of {} layers", layers.len()))
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
    /// The layer that is written to and the folder for work on it; without them all is read only.
    upper: Option<[(PathBuf, File); 2]>,
}

impl Stack {
    fn open(layers: &[PathBuf], upper: Option<(&Path, &Path)>) -> Result<Self> {
        ensure!(
            layers.len() <= LAYERS_LIMIT,
            "the image has {} layers, {LAYERS_LIMIT} can be mounted",
            layers.len()
        );
        let open = |path: &Path| {
            let file =
                OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path);
            Ok((path.to_owned(), file.with_context(|| format!("open layer {}", path.display()))?))
        };
        Ok(Self {
            layers: layers.iter().map(|layer| open(layer)).collect::<Result<_>>()?,
            upper: upper.map(|(upper, work)| anyhow::Ok([open(upper)?, open(work)?])).transpose()?,
        })
    }

    fn mount_new(&self, target: &Path) -> Result<(), Errno> {
        let mount = self.mount_nowhere()?;
        move_mount(mount.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    }

    /// A mount without a place. EINVAL: no `lowerdir+` before Linux 6.5. ENOSYS: a filter forbids fsopen.
    fn mount_nowhere(&self) -> Result<OwnedFd, Errno> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(context.as_fd(), "source", "overlay")?;
        for layer in self.layers.iter().rev() {
            fsconfig_set_string(context.as_fd(), "lowerdir+", name(layer))?;
        }
        if let Some([upper, work]) = &self.upper {
            fsconfig_set_string(context.as_fd(), "upperdir", name(upper))?;
            fsconfig_set_string(context.as_fd(), "workdir", name(work))?;
        }
        // Off whatever the kernel's default: the upper layer must stay a plain difference, and a
        // layer that carries such attributes must not be obeyed.
        for key in ["redirect_dir", "metacopy"] {
            fsconfig_set_string(context.as_fd(), key, "off")?;
        }
        fsconfig_create(context.as_fd())?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    fn mount_old(&self, target: &Path) -> Result<(), Errno> {
        // All options share one page; by descriptor a layer takes some 17 bytes.
        let by_descriptor = |(_, file): &(PathBuf, File)| format!("/proc/self/fd/{}", file.as_raw_fd());
        let lower: Vec<String> = self.layers.iter().rev().map(by_descriptor).collect();
        let mut options = format!("lowerdir={},redirect_dir=off,metacopy=off", lower.join(":"));
        if let Some([upper, work]) = &self.upper {
            options += &format!(",upperdir={},workdir={}", by_descriptor(upper), by_descriptor(work));
        }
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
            match way(&Stack::open(&layers, Some((&upper, &work))).unwrap(), &target) {
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
