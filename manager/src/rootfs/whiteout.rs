//! Whiteouts: how a layer's tar says that something below is gone, and how overlayfs says it.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#whiteouts>,
//! <https://docs.kernel.org/filesystems/overlayfs.html#whiteouts-and-opaque-directories>
//!
//! | in the tar       | in the layer folder                                                     |
//! |------------------|-------------------------------------------------------------------------|
//! | `d/.wh.x`        | character device 0:0 `d/x`                                              |
//! | the same, and the layer has a folder `d/x` | `d/x` is opaque                               |
//! | the same, and the layer has a file `d/x`   | nothing: the file hides what is below already |
//! | `d/.wh..wh..opq` | `d` is opaque: `trusted.overlay.opaque` is `y`                          |
//! | `.wh..wh.*`      | nothing: AUFS's own files                                               |
//!
//! Whiteouts hide lower layers only, whatever the order in the tar. Below an opaque folder there
//! must be no device 0:0: readdir would show it.

use std::ffi::CStr;

use anyhow::{Result, bail};

/// What an entry's last name asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// It is an entry like any other.
    Plain,
    /// This name is gone.
    Gone(&'a [u8]),
    /// Everything below in this folder is gone.
    Opaque,
    /// AUFS's bookkeeping.
    Skip,
}

/// The attribute of an opaque folder, in a layer that root mounts.
pub(crate) const OPAQUE: &CStr = c"trusted.overlay.opaque";

const PREFIX: &[u8] = b".wh.";

/// Reads the name of an entry, given as its path's components.
pub(crate) fn read<'a>(components: &[&'a [u8]]) -> Result<Name<'a>> {
    let Some((last, parents)) = components.split_last() else { return Ok(Name::Plain) };
    for parent in parents {
        if parent.starts_with(b".wh..wh.") {
            return Ok(Name::Skip);
        }
        if parent.starts_with(PREFIX) {
            bail!("a whiteout is not a folder");
        }
    }
    let Some(gone) = last.strip_prefix(PREFIX) else { return Ok(Name::Plain) };
    match gone {
        b"" => bail!("a whiteout has no name"),
        b"." | b".." => bail!("a whiteout names {:?}", String::from_utf8_lossy(gone)),
        b".wh..opq" => Ok(Name::Opaque),
        _ if gone.starts_with(PREFIX) => Ok(Name::Skip),
        _ => Ok(Name::Gone(gone)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteout_names() {
        let read = |path: &'static str| read(&path.split('/').map(str::as_bytes).collect::<Vec<_>>());
        assert_eq!(read("a/b").unwrap(), Name::Plain);
        assert_eq!(read("a/.wh.b").unwrap(), Name::Gone(b"b"));
        assert_eq!(read(".wh..wh..opq").unwrap(), Name::Opaque);
        assert_eq!(read("a/.wh..wh.plnk").unwrap(), Name::Skip);
        assert_eq!(read(".wh..wh.plnk/7.8").unwrap(), Name::Skip);
        assert_eq!(read("a.wh.b").unwrap(), Name::Plain);
        for bad in ["a/.wh.", ".wh..", "x/.wh...", ".wh.a/b"] {
            assert!(read(bad).is_err(), "{bad:?} was taken");
        }
    }
}
