//! Layers that go through a symbolic link of a lower layer: `lib/x` without `lib/`, where `lib` is a link to
//! `usr/lib` further down. Applied one after the other, as image-spec means layers, `x` comes to `usr/lib`; under
//! overlayfs a folder `lib` with nothing but `x` would take the link's place. So such a layer is unpacked once
//! more for the layers that it stands on, with its entries where the links lead. The links are looked up before
//! that, and those that lead outside lead to the root, as after chroot(2).

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, readlinkat};
use serde::{Deserialize, Serialize};

use super::entry::{components, join, normal_path, open_beneath, parent_of, show};
use super::parents::{Layer, link_below};

/// As many links on one way as the kernel follows.
const MOST_LINKS: u32 = 40;

/// Where the folders are that a layer reaches through links: theirs and the real path.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(Vec<u8>, Vec<u8>)>", into = "Vec<(Vec<u8>, Vec<u8>)>")]
pub(crate) struct Routes(BTreeMap<Vec<u8>, Vec<u8>>);

impl From<Vec<(Vec<u8>, Vec<u8>)>> for Routes {
    fn from(list: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        Self(list.into_iter().collect())
    }
}

impl From<Routes> for Vec<(Vec<u8>, Vec<u8>)> {
    fn from(routes: Routes) -> Self {
        routes.0.into_iter().collect()
    }
}

impl Routes {
    /// Those of one of the layers (lowest first) on the ones below it.
    pub(crate) fn find(layers: &[Layer], index: usize) -> Result<Self> {
        let mut routes = Self::default();
        // Parents come first: what is behind a link is looked for where that leads.
        for path in layers[index].implicit() {
            let here = routes.apply(path).unwrap_or_else(|| path.clone());
            if link_below(layers, index, &here)?.is_some() {
                let real = resolve(layers, index, &here).with_context(|| format!("folder {}", show(path)))?;
                routes.0.insert(path.clone(), real);
            }
        }
        Ok(routes)
    }

    /// True if every entry is where its path says.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The real path of an entry; none if that is its own.
    pub(crate) fn real(&self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        if self.is_empty() { Ok(None) } else { Ok(self.apply(&normal_path(path)?)) }
    }

    /// The same for a path without what [`normal_path`] takes away.
    fn apply(&self, path: &[u8]) -> Option<Vec<u8>> {
        let mut folder = path;
        while !folder.is_empty() {
            folder = parent_of(folder);
            if let Some(real) = self.0.get(folder) {
                let rest = &path[folder.len()..];
                return Some(join(real, rest.strip_prefix(b"/").unwrap_or(rest)));
            }
        }
        None
    }
}

/// The folder that a path means which is a link in the layers below the one at `index`.
fn resolve(layers: &[Layer], index: usize, path: &[u8]) -> Result<Vec<u8>> {
    let mut at = parent_of(path).to_vec();
    let mut ahead = VecDeque::from([path[at.len()..].strip_prefix(b"/").unwrap_or(path).to_vec()]);
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        match &part[..] {
            b"." => continue,
            b".." => {
                at = parent_of(&at).to_vec();
                continue;
            }
            _ => {}
        }
        let next = join(&at, &part);
        let Some(lower) = link_below(layers, index, &next)? else {
            at = next;
            continue;
        };
        links += 1;
        if links > MOST_LINKS {
            bail!("more than {MOST_LINKS} symbolic links lead on from it in the layers below");
        }
        let target =
            target(&layers[lower], &next).with_context(|| format!("read the link {}", show(&next)))?;
        if target.starts_with(b"/") {
            at.clear();
        }
        components(&target).rev().for_each(|part| ahead.push_front(part.to_vec()));
    }
    Ok(at)
}

fn target(layer: &Layer, path: &[u8]) -> Result<Vec<u8>> {
    let link = open_beneath(layer.root(), path, OFlag::O_PATH)?;
    let nothing: &CStr = c"";
    Ok(readlinkat(&link, nothing)?.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(list: &[(&str, &str)]) -> Routes {
        Routes(list.iter().map(|(from, to)| (from.as_bytes().to_vec(), to.as_bytes().to_vec())).collect())
    }

    #[test]
    fn an_entry_goes_by_the_longest_way_that_is_known() {
        let routes = routes(&[("lib", "usr/lib"), ("lib/x", "opt"), ("top", "")]);
        let real =
            |path: &str| routes.real(path.as_bytes()).unwrap().map(|path| String::from_utf8(path).unwrap());
        assert_eq!(real("lib/a"), Some("usr/lib/a".to_owned()));
        assert_eq!(real("./lib//a/b/"), Some("usr/lib/a/b".to_owned()));
        assert_eq!(real("lib/x/a"), Some("opt/a".to_owned()));
        assert_eq!(real("top/a"), Some("a".to_owned()));
        assert_eq!((real("lib"), real("liba/a"), real("a/lib/b")), (None, None, None));
        assert!(routes.real(b"lib/../x").is_err());
    }
}
