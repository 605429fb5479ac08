//! Where an image is, as people write it: [containers-transports(5)](https://github.com/containers/image/blob/main/docs/containers-transports.5.md).
//!
//! | text                           | an image ...                                         |
//! |--------------------------------|------------------------------------------------------|
//! | `NAME[:TAG][@DIGEST]`          | of the store, or of a registry: the command says     |
//! | `docker://NAME[:TAG][@DIGEST]` | at its registry                                      |
//! | `store:NAME[:TAG][@DIGEST]`    | in the store                                         |
//! | `oci:FOLDER[:NAME]`            | in an image layout                                   |
//! | `oci-archive:FILE[:NAME]`      | in an image layout in a tar                          |
//! | `docker-archive:FILE[:NAME]`   | in what `docker save` writes                         |

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::reference::Reference;

/// A place and a name in it.
#[derive(Debug, PartialEq)]
pub(crate) enum Location {
    /// Neither place was named.
    Plain(Reference),
    Registry(Reference),
    Store(String),
    Layout {
        folder: PathBuf,
        name: Option<String>,
    },
    Archive {
        file: PathBuf,
        name: Option<String>,
        docker: bool,
    },
}

impl Location {
    /// Reads one.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if let Some(reference) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(Reference::parse(reference)?));
        }
        if let Some(reference) = text.strip_prefix("store:") {
            return Ok(Self::Store(reference.to_owned()));
        }
        for (prefix, docker) in [("oci-archive:", false), ("docker-archive:", true)] {
            if let Some(rest) = text.strip_prefix(prefix) {
                let (file, name) = split(text, rest)?;
                return Ok(Self::Archive { file, name, docker });
            }
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            let (folder, name) = split(text, rest)?;
            return Ok(Self::Layout { folder, name });
        }
        // Known to skopeo, with other meanings than a registry of that name.
        for prefix in ["dir:", "docker-daemon:", "containers-storage:", "ostree:", "sif:", "tarball:"] {
            if text.starts_with(prefix) {
                bail!("{text:?}: images of {prefix} are not supported");
            }
        }
        Ok(Self::Plain(Reference::parse(text)?))
    }
}

/// A path ends at the first colon, as for skopeo: the name may have more.
fn split(text: &str, rest: &str) -> Result<(PathBuf, Option<String>)> {
    let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name)));
    if path.is_empty() {
        bail!("{text:?} names no path");
    }
    Ok((PathBuf::from(path), name.filter(|name| !name.is_empty()).map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        let reference = |text| Reference::parse(text).unwrap();
        let name = |text: &str| Some(text.to_owned());
        let table = [
            ("busybox", Location::Plain(reference("busybox"))),
            ("localhost:5000/a", Location::Plain(reference("localhost:5000/a"))),
            ("docker://r.example/a:b", Location::Registry(reference("r.example/a:b"))),
            ("store:a", Location::Store("a".to_owned())),
            ("oci:/l", Location::Layout { folder: "/l".into(), name: None }),
            (
                "oci:l:r.example:5000/a:b",
                Location::Layout { folder: "l".into(), name: name("r.example:5000/a:b") },
            ),
            (
                "oci-archive:f.tar:a",
                Location::Archive { file: "f.tar".into(), name: name("a"), docker: false },
            ),
            ("docker-archive:f.tar:", Location::Archive { file: "f.tar".into(), name: None, docker: true }),
        ];
        for (text, expected) in table {
            assert_eq!(Location::parse(text).unwrap(), expected, "{text}");
        }
        for bad in ["oci:", "docker://", "dir:/x", "containers-storage:a", ""] {
            assert!(Location::parse(bad).is_err(), "{bad}");
        }
    }
}
