//! A file system that the kernel makes: `mounts[].type` that is no bind mount. Each option becomes a
//! parameter of fsconfig(2).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, fchmod};

use super::lsm::MountLabel;
use super::mount_options::MountOptions;
use crate::sys::mount::{Change, NewFs, attr, clone_tree, set_attributes, text};

/// One value of fsconfig(2) has at most 255 bytes.
const LONGEST_VALUE: usize = 255;

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileSystem<'a> {
    pub(crate) kind: &'a str,
    pub(crate) source: &'a str,
    pub(crate) options: &'a MountOptions,
    pub(crate) label: Option<&'a MountLabel>,
}

impl FileSystem<'_> {
    /// The file system, mounted nowhere yet. `mode` is its top folder's, if it is a tmpfs.
    pub(crate) fn make(&self, attributes: u64, mode: Option<u32>) -> Result<OwnedFd> {
        let kind = self.kind;
        let fs = NewFs::open(&text(kind)?).with_context(|| format!("open file system type {kind:?}"))?;
        let set_mode = || mode.map_or(Ok(()), |mode| fs.set(c"mode", &text(&format!("{mode:o}"))?));
        match self.configure(&fs).and_then(|()| Ok(set_mode().and_then(|()| fs.mount(attributes))?)) {
            Err(error) if kind == "sysfs" && error.downcast_ref() == Some(&Errno::EPERM) => {
                host_sysfs(attributes).with_context(|| format!("{error:#}; bind mount /sys instead"))
            }
            Err(error) => match fs.complaint() {
                Some(words) => Err(error.context(words)),
                None => Err(error),
            },
            made => made,
        }
    }

    fn configure(&self, fs: &NewFs) -> Result<()> {
        if !self.source.is_empty() {
            fs.set(c"source", &text(self.source)?)?;
        }
        for option in &self.options.data {
            let done = match option.split_once('=') {
                Some(("lowerdir", layers)) if self.has_long_layers() => {
                    split_layers(layers).iter().try_for_each(|(key, layer)| set(fs, key, layer))
                }
                Some((key, value)) => set(fs, key, unquoted(value)),
                None => text(option).and_then(|option| fs.set_flag(&option)),
            };
            done.with_context(|| format!("option {option:?}"))?;
        }
        self.set_super_flags(fs)?;
        // A block device or an image is opened read-only; the kernel's own file systems share one super
        // block with everybody else, which must stay as it is.
        const KERNELS_OWN: [&str; 7] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup2", "overlay"];
        if self.options.set & attr::RDONLY != 0 && !KERNELS_OWN.contains(&self.kind) {
            fs.set_flag(c"ro")?;
        }
        if let Some(MountLabel { option, label }) = self.label
            && matches!(self.kind, "tmpfs" | "mqueue" | "devpts" | "overlay")
            && !self.options.data.iter().any(|data| data.starts_with("context="))
        {
            fs.set(option, label).with_context(|| format!("linux.mountLabel {label:?}"))?;
        }
        Ok(())
    }

    fn set_super_flags(&self, fs: &NewFs) -> Result<()> {
        for flag in &self.options.super_flags {
            match fs.set_flag(&text(flag)?) {
                // A file system without a counter of versions, as mount(2) has always let pass.
                Err(Errno::EINVAL) if *flag == "iversion" => {}
                other => other.with_context(|| format!("option {flag:?}"))?,
            }
        }
        Ok(())
    }

    /// True if the layers of an overlay have to be given one by one.
    fn has_long_layers(&self) -> bool {
        let long = |option: &String| {
            option.strip_prefix("lowerdir=").is_some_and(|layers| layers.len() > LONGEST_VALUE)
        };
        self.kind == "overlay" && self.options.data.iter().any(long)
    }

    /// True if `error` of [`Self::make`] may only mean that this kernel cannot take layers one by one: it
    /// is older than 6.7.
    pub(crate) fn needs_old_mount(&self, error: &anyhow::Error) -> bool {
        self.has_long_layers() && error.downcast_ref() == Some(&Errno::EINVAL)
    }

    /// Mounts it on `target` by mount(2), whose data may fill a page.
    pub(crate) fn mount_on(&self, target: &OwnedFd) -> Result<()> {
        const PAGE: usize = 4096;
        let data = self.options.data.join(",");
        if data.len() >= PAGE {
            bail!(
                "option \"lowerdir\": {} bytes of options are more than a page, which is all that this kernel takes",
                data.len()
            );
        }
        // The host's /proc, still: the container's comes into sight with pivot_root.
        let target = format!("/proc/self/fd/{}", target.as_raw_fd());
        let mounted = nix::mount::mount(
            Some(self.source),
            target.as_str(),
            Some(self.kind),
            MsFlags::empty(),
            Some(data.as_str()),
        );
        mounted.context("mount(2)")
    }

    /// Other options for one that is mounted already.
    pub(crate) fn reconfigure(options: &MountOptions, mount: impl AsFd) -> Result<()> {
        if options.data.is_empty() && options.super_flags.is_empty() {
            return Ok(());
        }
        let fs = NewFs::pick(mount).context("pick the file system")?;
        let this = FileSystem { kind: "", source: "", options, label: None };
        let done = this.configure(&fs).and_then(|()| Ok(fs.reconfigure()?));
        done.map_err(|error| match fs.complaint() {
            Some(words) => error.context(words),
            None => error,
        })
    }
}

/// Sets the mode of the top folder of a file system that is made already.
pub(crate) fn set_mode(mount: &OwnedFd, mode: u32) -> Result<()> {
    let top = openat(mount, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    fchmod(top, Mode::from_bits_truncate(mode)).context("set the mode of its top folder")
}

fn set(fs: &NewFs, key: &str, value: &str) -> nix::Result<()> {
    fs.set(&text(key)?, &text(value)?)
}

/// The layers of `lowerdir=A:B::DATA`, each with the parameter that adds it. `\` guards the next sign; in
/// a parameter of its own no layer needs that.
fn split_layers(text: &str) -> Vec<(&'static str, String)> {
    let mut layers = Vec::new();
    let (mut key, mut layer) = ("lowerdir+", String::new());
    let mut signs = text.chars();
    while let Some(sign) = signs.next() {
        match sign {
            '\\' => layer.extend(signs.next()),
            ':' if layer.is_empty() => key = "datadir+", // the second of two colons
            ':' => layers.push((std::mem::replace(&mut key, "lowerdir+"), std::mem::take(&mut layer))),
            _ => layer.push(sign),
        }
    }
    if !layer.is_empty() {
        layers.push((key, layer));
    }
    layers
}

/// Quotes keep the commas of a SELinux label together; fsconfig(2) wants the label alone.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// A user namespace without a network namespace of its own may not mount sysfs: the host's, then.
fn host_sysfs(attributes: u64) -> Result<OwnedFd> {
    let tree = clone_tree(AT_FDCWD, c"/sys", true, true)?;
    set_attributes(&tree, &Change { set: attributes, ..Change::default() }, true)?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_end_at_colons_that_no_backslash_guards() {
        let split = |text| {
            split_layers(text).into_iter().map(|(key, layer)| format!("{key}{layer}")).collect::<Vec<_>>()
        };
        assert_eq!(split("/a:/b"), ["lowerdir+/a", "lowerdir+/b"]);
        assert_eq!(split(r"/a\:b\\:/c\,d"), [r"lowerdir+/a:b\", "lowerdir+/c,d"]);
        assert_eq!(split("/a:/b::/c::/d"), ["lowerdir+/a", "lowerdir+/b", "datadir+/c", "datadir+/d"]);
    }

    #[test]
    fn a_quoted_label_loses_its_quotes() {
        assert_eq!(unquoted("\"a:b,c\""), "a:b,c");
        assert_eq!(unquoted("\"a"), "\"a");
    }
}
