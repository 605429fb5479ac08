//! `-v` and `--tmpfs`, and the folders behind named volumes.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use super::check_name;
use super::record::{Mount, Source};

/// The options of `-v SOURCE:DESTINATION:OPTIONS`.
const PROPAGATION: [&str; 4] = ["private", "rprivate", "slave", "rslave"];

/// Reads `[SOURCE:]DESTINATION[:OPTIONS]`: an absolute source is a path of the host, any other is
/// the name of a volume.
pub(crate) fn parse(text: &str) -> Result<Mount> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, options) = match parts[..] {
        [destination] => (None, destination, ""),
        [source, destination] => (Some(source), destination, ""),
        [source, destination, options] => (Some(source), destination, options),
        _ => bail!("invalid volume {text:?}: it has too many colons"),
    };
    check_destination(destination, text)?;
    let mut mount = Mount {
        source: match source {
            None => Source::Anonymous,
            Some(path) if path.starts_with('/') => bind(path, text)?,
            Some(name) => volume(name)?,
        },
        destination: destination.to_owned(),
        read_only: false,
        options: Vec::new(),
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        apply(&mut mount, option, text)?;
    }
    if matches!(mount.source, Source::Bind(_)) && mount.options.is_empty() {
        mount.options.push("rprivate".into());
    }
    Ok(mount)
}

/// An image's VOLUME: a path and nothing else. It is a stranger's word, so it has no source on this host
/// and no options: a colon is a part of the path (the grammar of `-v` would bind any folder of the host).
pub(crate) fn of_image(destination: &str) -> Result<Mount> {
    check_destination(destination, destination)?;
    Ok(Mount {
        source: Source::Anonymous,
        destination: destination.to_owned(),
        read_only: false,
        options: Vec::new(),
    })
}

/// Reads `DESTINATION[:OPTIONS]`; what the options mean is for the kernel to say.
pub(crate) fn parse_tmpfs(text: &str) -> Result<Mount> {
    let (destination, options) = text.split_once(':').unwrap_or((text, ""));
    check_destination(destination, text)?;
    // Docker's defaults, which a later option overrides.
    let mut all: Vec<String> = ["noexec", "nosuid", "nodev"].map(Into::into).into();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let opposite = option.strip_prefix("no").map_or_else(|| format!("no{option}"), str::to_owned);
        all.retain(|other| *other != opposite && other != option);
        all.push(option.to_owned());
    }
    let read_only = all.iter().any(|option| option == "ro");
    all.retain(|option| option != "ro" && option != "rw");
    Ok(Mount { source: Source::Tmpfs, destination: destination.to_owned(), read_only, options: all })
}

/// The folder of a named volume; what containers see is `_data` in it.
pub(crate) fn folder(root: &Path, name: &str) -> PathBuf {
    root.join("volumes").join(name)
}

fn check_destination(destination: &str, text: &str) -> Result<()> {
    ensure!(destination.starts_with('/'), "invalid volume {text:?}: {destination:?} is not an absolute path");
    let root = Path::new(destination).components().count() < 2;
    ensure!(!root, "invalid volume {text:?}: the destination cannot be \"/\"");
    let up = destination.split('/').any(|part| part == "..");
    ensure!(!up, "invalid volume {text:?}: the destination has \"..\" in it");
    Ok(())
}

fn bind(path: &str, text: &str) -> Result<Source> {
    // Docker makes a missing source, owned by root, and a typing error becomes an empty folder.
    ensure!(Path::new(path).exists(), "invalid volume {text:?}: {path} does not exist");
    Ok(Source::Bind(path.into()))
}

fn volume(name: &str) -> Result<Source> {
    if let Err(error) = check_name(name, "volume") {
        bail!("{error}; a folder of the host needs an absolute path");
    }
    Ok(Source::Volume { name: name.to_owned(), copy: true })
}

fn apply(mount: &mut Mount, option: &str, text: &str) -> Result<()> {
    match (option, &mut mount.source) {
        ("ro" | "readonly", _) => mount.read_only = true,
        ("rw", _) => mount.read_only = false,
        ("nocopy", Source::Volume { copy, .. }) => *copy = false,
        ("shared" | "rshared", _) => {
            bail!("invalid volume {text:?}: {option} is not supported: mounts made in a container stay in it")
        }
        (option, Source::Bind(_)) if PROPAGATION.contains(&option) => mount.options.push(option.to_owned()),
        _ => bail!("invalid volume {text:?}: option {option} is not supported"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_images_volume_has_no_source_on_the_host() {
        for place in ["/etc:/hostetc", "/:/h", "othervolume:/d"] {
            match super::of_image(place) {
                Ok(mount) => {
                    assert!(matches!(mount.source, super::Source::Anonymous), "{place}: {mount:?}");
                    assert_eq!(mount.destination, place);
                }
                Err(_) => assert!(!place.starts_with('/')),
            }
        }
    }

    #[test]
    fn volumes_are_paths_names_or_anonymous() {
        let mount = parse("/tmp:/a:ro").unwrap();
        assert_eq!((mount.source, mount.read_only), (Source::Bind("/tmp".into()), true));
        assert_eq!(mount.options, ["rprivate"]);
        let mount = parse("data:/a:nocopy").unwrap();
        assert_eq!(mount.source, Source::Volume { name: "data".into(), copy: false });
        assert_eq!(parse("/a").unwrap().source, Source::Anonymous);
    }

    #[test]
    fn bad_volumes_name_what_is_wrong() {
        for (text, part) in [
            ("relative/../x:/y", "absolute path"),
            ("/tmp:y", "\"y\" is not an absolute path"),
            ("/tmp:/", "cannot be \"/\""),
            ("/tmp:/a/../..", ".."),
            ("/nonexistent-source:/y", "does not exist"),
            ("/tmp:/y:rshared", "rshared"),
            ("/tmp:/y:bogus", "bogus"),
            ("a:b:c:d", "colons"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn tmpfs_options_override_the_defaults() {
        assert_eq!(parse_tmpfs("/t:exec,size=1m").unwrap().options, ["nosuid", "nodev", "exec", "size=1m"]);
        assert!(parse_tmpfs("/t:ro").unwrap().read_only);
    }
}
