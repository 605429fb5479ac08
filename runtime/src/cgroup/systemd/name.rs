//! What `linux.cgroupsPath` means for systemd: `slice:prefix:name`, and where the cgroup of a unit is.
//! [systemd.slice(5)](https://www.freedesktop.org/software/systemd/man/systemd.slice.html).

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

/// A unit and the slice that it is in.
#[derive(Debug, PartialEq)]
pub(super) struct Name {
    pub(super) slice: String,
    pub(super) unit: String,
}

/// The parts of `linux.cgroupsPath`, with what empty ones stand for.
pub(super) fn parse(path: Option<&Path>, id: &str, user: bool) -> Result<Name> {
    let path = path.map(Path::to_string_lossy).unwrap_or_default();
    let parts: Vec<&str> = path.split(':').collect();
    let (slice, prefix, name) = match parts[..] {
        [""] => ("", "runtime", id),
        [slice, prefix, name] => (slice, prefix, name),
        _ => bail!(
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
        ),
    };
    ensure!(!name.is_empty(), "{path:?}: the name behind the second colon is missing");
    let slice = match slice {
        "" if user => "user.slice",
        "" => "system.slice",
        given => given,
    };
    let unit = match (name.ends_with(".slice"), prefix) {
        (true, _) => name.to_owned(),
        (false, "") => format!("{name}.scope"),
        (false, prefix) => format!("{prefix}-{name}.scope"),
    };
    // systemd.unit(5)
    let good = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    ensure!(
        unit.chars().all(good) && unit.len() < 256,
        "{unit:?} cannot be the name of a unit: letters, digits and : - _ . \\ @ are allowed, 255 at most"
    );
    Ok(Name { slice: slice.to_owned(), unit })
}

/// Below the cgroup of systemd itself.
pub(super) fn cgroup(slice: &str, unit: &str) -> Result<PathBuf> {
    match unit.ends_with(".slice") {
        true => expand(unit),
        false => Ok(expand(slice)?.join(unit)),
    }
}

/// `a-b.slice` is in `a.slice`; `-.slice` is where all begins.
fn expand(slice: &str) -> Result<PathBuf> {
    let invalid = || format!("invalid slice name: {slice:?}");
    let Some(name) = slice.strip_suffix(".slice").filter(|_| !slice.contains('/')) else { bail!(invalid()) };
    if name == "-" {
        return Ok(PathBuf::new());
    }
    ensure!(name.split('-').all(|part| !part.is_empty()), invalid());
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    Ok(ends.map(|end| format!("{}.slice", &name[..end])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_parts_become_a_unit() {
        let cases = [
            (None, false, "system.slice", "runtime-web.scope"),
            (Some(""), true, "user.slice", "runtime-web.scope"),
            (Some("machine.slice:libpod:web"), false, "machine.slice", "libpod-web.scope"),
            (Some(":docker:web"), false, "system.slice", "docker-web.scope"),
            (Some("::web"), false, "system.slice", "web.scope"),
            (Some("::web.slice"), false, "system.slice", "web.slice"),
            (Some("-.slice:x:y"), false, "-.slice", "x-y.scope"),
        ];
        for (path, user, slice, unit) in cases {
            let name = parse(path.map(Path::new), "web", user).expect("a good path");
            assert_eq!((&*name.slice, &*name.unit), (slice, unit), "{path:?}");
        }
    }

    #[test]
    fn other_paths_are_errors() {
        let message =
            |path: &str| format!("{:#}", parse(Some(Path::new(path)), "web", false).expect_err(path));
        assert_eq!(
            message("/web"),
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/web\" instead"
        );
        assert_eq!(message("a:b:c:d"), message("/web").replace("/web", "a:b:c:d"));
        assert!(message("a.slice:b:").contains("name behind the second colon"));
        assert!(message("a.slice:b:c/d").contains("cannot be the name of a unit"));
    }

    #[test]
    fn slices_are_in_each_other() {
        let good = [
            ("system.slice", "system.slice"),
            ("a-b-c.slice", "a.slice/a-b.slice/a-b-c.slice"),
            ("-.slice", ""),
        ];
        for (slice, path) in good {
            assert_eq!(expand(slice).expect(slice), Path::new(path));
        }
        for bad in
            ["", ".slice", "a", "a.scope", "-a.slice", "a-.slice", "a--b.slice", "a/b.slice", "../a.slice"]
        {
            assert_eq!(expand(bad).expect_err(bad).to_string(), format!("invalid slice name: {bad:?}"));
        }
        assert_eq!(cgroup("a.slice", "a-b.slice").expect("good"), Path::new("a.slice/a-b.slice"));
    }
}
