//! `exec --cgroup [CONTROLLER[,CONTROLLER...]:]PATH`: a cgroup below the container's, for one more process.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};

use super::Place;

/// Paths below the container's cgroups; that of the controller `""` is for all of them.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Below(BTreeMap<String, PathBuf>);

impl Below {
    /// Reads what stands behind each `--cgroup`.
    pub(crate) fn parse<'a>(arguments: impl ExactSizeIterator<Item = &'a str>) -> Result<Self> {
        let mut paths = BTreeMap::new();
        let only = arguments.len() == 1;
        for text in arguments {
            let (controllers, path) = match text.split_once(':') {
                None if only => ("", text),
                None => bail!("invalid --cgroup argument: {text} (missing <controller>: prefix)"),
                Some((controllers, _)) if controllers.split(',').any(str::is_empty) => {
                    bail!("invalid --cgroup argument: {text} (empty <controller> prefix)")
                }
                Some(parts) => parts,
            };
            if Path::new(path).components().any(|part| part == Component::ParentDir) {
                bail!("--cgroup: bad sub cgroup path: {path} leads out of the container's");
            }
            let path = Path::new(path.trim_start_matches('/'));
            for controller in controllers.split(',') {
                if paths.insert(controller.to_owned(), path.to_owned()).is_some() {
                    bail!("invalid --cgroup argument(s): controller {controller} specified multiple times");
                }
            }
        }
        Ok(Self(paths))
    }

    /// None without any `--cgroup`: then the process goes where the container's others are.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The path below the container's cgroup in the unified hierarchy.
    pub(super) fn unified(&self) -> Option<&Path> {
        self.0.get("").map(PathBuf::as_path)
    }
}

impl Place {
    /// The cgroups below that are asked for. They have to be there already.
    pub(super) fn below(&self, below: &Below) -> Result<Self> {
        let mut place = self.clone();
        for (controller, path) in &below.0 {
            if controller.is_empty() {
                place.v1.iter_mut().for_each(|group| group.dir.push(path));
                place.v2.iter_mut().for_each(|group| group.dir.push(path));
                continue;
            }
            match place.v1.iter_mut().find(|group| group.has(controller)) {
                Some(group) => group.dir.push(path),
                None => bail!("--cgroup: unknown controller {controller} in SubCgroupPaths"),
            }
        }
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_for_all_controllers_or_for_those_named() {
        let parse = |list: &[&str]| Below::parse(list.iter().copied());
        let of =
            |list: &[(&str, &str)]| Below(list.iter().map(|(a, b)| ((*a).to_owned(), b.into())).collect());
        assert_eq!(parse(&["a/b"]).ok(), Some(of(&[("", "a/b")])));
        assert_eq!(
            parse(&["cpu,memory:/a", "pids:b"]).ok(),
            Some(of(&[("cpu", "a"), ("memory", "a"), ("pids", "b")]))
        );
        for bad in [&["a", "b"][..], &[":a"], &["cpu,:a"], &["cpu:a", "cpu:b"], &["../a"], &["cpu:a/../.."]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
