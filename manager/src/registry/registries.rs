//! Which servers have an image: mirrors, other locations, blocked names and short names, from the
//! files that podman, buildah and skopeo read.
//!
//! <https://github.com/containers/image/blob/main/docs/containers-registries.conf.5.md> and
//! [containers-registries.conf.d](https://github.com/containers/image/blob/main/docs/containers-registries.conf.d.5.md)
//!
//! | order | file, and the folder whose `*.conf` are laid over it                              |
//! |-------|------------------------------------------------------------------------------------|
//! | 1     | `CONTAINERS_REGISTRIES_CONF`, with both folders below                              |
//! | 2     | `$XDG_CONFIG_HOME/containers/registries.conf` (`~/.config`), with its `.d` only    |
//! | 3     | `/etc/containers/registries.conf`, with its `.d` and then the user's               |
//!
//! Two rules are stricter than theirs. What a tag stands for is asked of a mirror only if its
//! `pull-from-mirror` says `all` or `tag-only`, or its registry has `mirror-by-digest-only = false`: a
//! public mirror must not decide that (containerd's rule). And a short name that is unknown to the files is docker's, if they name no registry to
//! search.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::reference::{Reference, is_host, is_short, without_suffix};

/// Everything that the files say.
#[derive(Debug, Default)]
pub(crate) struct Registries {
    /// By prefix.
    registries: BTreeMap<String, Registry>,
    /// Whom to ask for a short name, in order; `None` when no file says.
    search: Option<Vec<String>>,
    /// Each with the file that it came from.
    aliases: BTreeMap<String, (String, PathBuf)>,
    mode: ShortNames,
    /// Where credentials are looked for besides, or instead of, the auth files.
    pub(super) credential_helpers: Option<Vec<String>>,
}

/// One place where an image may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    /// The image as that place calls it.
    pub(super) reference: Reference,
    /// Plain HTTP and unknown certificates will do.
    pub(super) insecure: bool,
    /// May be asked what a tag stands for.
    pub(super) tags: bool,
    /// May be asked for what a digest names.
    pub(super) digests: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ShortNames {
    Enforcing,
    #[default]
    Permissive,
    Disabled,
}

/// A whole file.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    unqualified_search_registries: Option<Vec<String>>,
    #[serde(default)]
    registry: Vec<Registry>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    short_name_mode: Option<String>,
    credential_helpers: Option<Vec<String>>,
    #[serde(flatten)]
    other: toml::Table,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Registry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    mirror_by_digest_only: Option<bool>,
    #[serde(default)]
    mirror: Vec<Mirror>,
    #[serde(flatten)]
    other: toml::Table,
    #[serde(skip)]
    file: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<Pull>,
    #[serde(flatten)]
    other: toml::Table,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Pull {
    All,
    DigestOnly,
    TagOnly,
}

impl Registries {
    /// What the files of this machine and user say, read once.
    pub(crate) fn load() -> Result<&'static Self> {
        static READ: OnceLock<Registries> = OnceLock::new();
        if let Some(read) = READ.get() {
            return Ok(read);
        }
        let (registries, unknown) = Self::read(&files()?)?;
        for warning in unknown {
            eprintln!("manager: {warning}");
        }
        Ok(READ.get_or_init(|| registries))
    }

    /// Reads files, each laid over those before it; and what in them has no effect.
    fn read(files: &[PathBuf]) -> Result<(Self, Vec<String>)> {
        let mut all = Self::default();
        let mut unknown = Vec::new();
        for file in files {
            let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            all.lay_over(&text, file, &mut unknown).with_context(|| format!("read {}", file.display()))?;
        }
        Ok((all, unknown))
    }

    fn lay_over(&mut self, text: &str, file: &Path, unknown: &mut Vec<String>) -> Result<()> {
        let config: Config = toml::from_str(text).map_err(|error| anyhow::anyhow!(one_line(&error)))?;
        if config.other.contains_key("registries") {
            bail!("version 1 of the format ([registries.search] and the like) is not supported");
        }
        let mut tell = |place: &str, table: &toml::Table| {
            unknown.extend(table.keys().map(|key| {
                format!("warning: {}: {key:?}{place} is not supported and has no effect", file.display())
            }));
        };
        tell("", &config.other);
        let mut own = BTreeMap::new();
        for mut registry in config.registry {
            tell(" in [[registry]]", &registry.other);
            registry.mirror.iter().for_each(|mirror| tell(" in [[registry.mirror]]", &mirror.other));
            registry.check()?;
            file.clone_into(&mut registry.file);
            let prefix = registry.prefix.clone();
            if own.insert(prefix.clone(), registry).is_some() {
                bail!("there are two [[registry]] with the prefix {prefix:?}");
            }
        }
        self.registries.extend(own);
        let search = config.unqualified_search_registries.iter().flatten();
        if let Some(other) = search.into_iter().find(|registry| !is_host(registry) || registry.contains('/'))
        {
            bail!("unqualified-search-registries has {other:?}, which is no host");
        }
        self.search = config.unqualified_search_registries.or(self.search.take());
        self.credential_helpers = config.credential_helpers.or(self.credential_helpers.take());
        match config.short_name_mode.as_deref() {
            None | Some("") => {}
            Some("enforcing") => self.mode = ShortNames::Enforcing,
            Some("permissive") => self.mode = ShortNames::Permissive,
            Some("disabled") => self.mode = ShortNames::Disabled,
            Some(other) => bail!("short-name-mode {other:?} is not enforcing, permissive or disabled"),
        }
        for (name, value) in config.aliases {
            if !is_short(&name) || without_suffix(&name) != name {
                bail!("the alias {name:?} is not a short name without a tag");
            }
            if value.is_empty() {
                self.aliases.remove(&name);
                continue;
            }
            if is_short(&value) || without_suffix(&value) != value {
                bail!("the alias {name:?} stands for {value:?}, which is not a whole name without a tag");
            }
            Reference::parse(&value)?;
            self.aliases.insert(name, (value, file.to_owned()));
        }
        Ok(())
    }

    /// Where to look for an image, mirrors first, the registry itself last.
    pub(super) fn locations(&self, wanted: &Reference) -> Result<Vec<Location>> {
        let itself = |reference| Location { reference, insecure: false, tags: true, digests: true };
        let name = wanted.to_string();
        let matching = self.registries.values().filter_map(|one| Some((matched(&one.prefix, &name)?, one)));
        let Some((length, registry)) = matching.max_by_key(|(length, _)| *length) else {
            return Ok(vec![itself(wanted.clone())]);
        };
        let file = registry.file.display();
        if registry.blocked {
            bail!("{file} blocks the registry {}", registry.prefix);
        }
        let moved = |location: &str| {
            moved(location, &name[length..]).with_context(|| format!("{file}: location {location:?}"))
        };
        let mut locations = Vec::new();
        // Only an outright `false` says of all mirrors that they may be asked for tags.
        let usual = if registry.mirror_by_digest_only == Some(false) { Pull::All } else { Pull::DigestOnly };
        for mirror in &registry.mirror {
            let pull = mirror.pull_from_mirror.unwrap_or(usual);
            locations.push(Location {
                reference: moved(&mirror.location)?,
                insecure: mirror.insecure,
                tags: pull != Pull::DigestOnly,
                digests: pull != Pull::TagOnly,
            });
        }
        let primary = if registry.location.is_empty() { wanted.clone() } else { moved(&registry.location)? };
        locations.push(Location { insecure: registry.insecure, ..itself(primary) });
        Ok(locations)
    }

    /// Refuses what is blocked, and says whether the registry is one without valid certificates: what
    /// counts for pushes, which go to the registry itself.
    pub(super) fn insecure(&self, name: &str) -> Result<bool> {
        let matching = self.registries.values().filter_map(|one| Some((matched(&one.prefix, name)?, one)));
        let Some((_, registry)) = matching.max_by_key(|(length, _)| *length) else { return Ok(false) };
        if registry.blocked {
            bail!("{} blocks the registry {}", registry.file.display(), registry.prefix);
        }
        Ok(registry.insecure)
    }

    /// What a name may stand for, the first that exists. A whole name is itself.
    pub(crate) fn candidates(&self, name: &str) -> Result<Vec<Reference>> {
        if !is_short(name) {
            return Ok(vec![Reference::parse(name)?]);
        }
        let short = without_suffix(name);
        let suffix = &name[short.len()..];
        if let Some((whole, _)) = self.aliases.get(short) {
            return Ok(vec![Reference::parse(&format!("{whole}{suffix}"))?]);
        }
        match self.search.as_deref() {
            None | Some([]) => Ok(vec![Reference::parse(name)?]),
            Some(registries) => {
                registries.iter().map(|registry| Reference::parse(&format!("{registry}/{name}"))).collect()
            }
        }
    }

    /// What to pull for a name: its candidates, unless there are several and the files forbid to
    /// choose. Nobody is asked, also where podman would.
    pub(crate) fn to_pull(&self, name: &str) -> Result<Vec<Reference>> {
        let candidates = self.candidates(name)?;
        if candidates.len() > 1 && self.mode == ShortNames::Enforcing {
            let names: Vec<String> = candidates.iter().map(Reference::repository).collect();
            bail!("the short name {name:?} may be {}: give the whole one", names.join(" or "));
        }
        Ok(candidates)
    }

    /// The file that says what a short name stands for.
    pub(crate) fn alias_file(&self, name: &str) -> Option<&Path> {
        if !is_short(name) {
            return None;
        }
        self.aliases.get(without_suffix(name)).map(|(_, file)| file.as_path())
    }

    /// The registries that are searched, docker's if no file says.
    pub(crate) fn searched(&self) -> Vec<String> {
        match self.search.as_deref() {
            None | Some([]) => vec!["docker.io".to_owned()],
            Some(registries) => registries.to_vec(),
        }
    }
}

impl Registry {
    fn check(&mut self) -> Result<()> {
        self.location = plain(&self.location)?;
        if self.prefix.is_empty() {
            if self.location.is_empty() {
                bail!("a [[registry]] has neither a prefix nor a location");
            }
            self.prefix.clone_from(&self.location);
        }
        self.prefix = plain(&self.prefix)?;
        let stars = self.prefix.matches('*').count();
        if stars > usize::from(self.prefix.starts_with("*.")) {
            bail!("the prefix {:?} has a * that does not stand for the first part of a host", self.prefix);
        }
        for mirror in &mut self.mirror {
            mirror.location = plain(&mirror.location)?;
            if mirror.location.is_empty() {
                bail!("a mirror of {:?} has no location", self.prefix);
            }
            if self.mirror_by_digest_only == Some(true) && mirror.pull_from_mirror.is_some() {
                bail!(
                    "{:?} has mirror-by-digest-only, and its mirror {:?} pull-from-mirror: only one may be set",
                    self.prefix,
                    mirror.location
                );
            }
        }
        Ok(())
    }
}

/// The files to read, in order.
fn files() -> Result<Vec<PathBuf>> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    let user = config.map(|folder| folder.join("containers"));
    let system = Path::new("/etc/containers");
    let mut files = Vec::new();
    let mut folders = vec![system.join("registries.conf.d")];
    folders.extend(user.as_ref().map(|folder| folder.join("registries.conf.d")));
    let of_user = user.map(|folder| folder.join("registries.conf")).filter(|file| file.exists());
    if let Some(file) = variable("CONTAINERS_REGISTRIES_CONF") {
        files.push(file);
    } else if let Some(file) = of_user {
        folders.remove(0);
        files.push(file);
    } else {
        files.extend(Some(system.join("registries.conf")).filter(|file| file.exists()));
    }
    for folder in folders {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("read {}", folder.display())),
        };
        let mut more = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| format!("read {}", folder.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "conf") && path.is_file() {
                more.push(path);
            }
        }
        more.sort();
        files.extend(more);
    }
    Ok(files)
}

/// A parser's message, which draws the line it is about.
fn one_line(error: &toml::de::Error) -> String {
    error.message().lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// A prefix or location without a slash at its end.
fn plain(location: &str) -> Result<String> {
    if location.contains("://") {
        bail!("the location {location:?} is an address: leave out its scheme");
    }
    Ok(location.trim_end_matches('/').to_owned())
}

/// How much of a name a prefix covers, if it is one: up to the end of a part of the name.
fn matched(prefix: &str, name: &str) -> Option<usize> {
    let ends = |rest: &str| rest.is_empty() || rest.starts_with(['/', ':', '@']);
    let Some(parent) = prefix.strip_prefix('*') else {
        let rest = name.strip_prefix(prefix)?;
        // What follows a host and a colon is a port, and so another host.
        let port = rest.starts_with(':') && !prefix.contains('/');
        return (ends(rest) && !port).then_some(prefix.len());
    };
    // `*.example.com` covers `a.example.com` and `a.b.example.com`, but not `example.com`.
    let host_end = name.find('/').unwrap_or(name.len());
    let (host, path) = parent.split_once('/').map_or((parent, ""), |(host, path)| (host, path));
    name[..host_end].strip_suffix(host).filter(|start| !start.is_empty())?;
    if path.is_empty() {
        return Some(host_end);
    }
    let rest = name[host_end..].strip_prefix('/')?.strip_prefix(path)?;
    ends(rest).then(|| name.len() - rest.len())
}

/// The rest of a name at another location.
fn moved(location: &str, rest: &str) -> Result<Reference> {
    if !is_host(location.split('/').next().unwrap_or_default()) {
        bail!("it names no host");
    }
    Reference::parse(&format!("{location}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<(Registries, Vec<String>)> {
        let mut all = Registries::default();
        let mut unknown = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            all.lay_over(text, Path::new(&format!("{index}.conf")), &mut unknown)?;
        }
        Ok((all, unknown))
    }

    fn told(registries: &Registries, name: &str) -> Vec<String> {
        let locations = registries.locations(&Reference::parse(name).unwrap()).unwrap();
        let mark = |one: &Location| {
            let marks = [(one.insecure, "insecure"), (!one.tags, "no tags"), (!one.digests, "no digests")];
            let marks: Vec<&str> = marks.iter().filter(|(set, _)| *set).map(|(_, text)| *text).collect();
            if marks.is_empty() {
                one.reference.to_string()
            } else {
                format!("{} {}", one.reference, marks.join(" "))
            }
        };
        locations.iter().map(mark).collect()
    }

    #[test]
    fn the_longest_prefix_says_where_an_image_is() {
        let (registries, unknown) = parse(&[r#"
            [[registry]]
            prefix = "example.com/foo"
            location = "internal.example/bar"
            [[registry.mirror]]
            location = "m0.example/for-foo/"
            [[registry.mirror]]
            location = "m1.example:5000"
            insecure = true
            pull-from-mirror = "all"
            [[registry.mirror]]
            location = "m2.example"
            pull-from-mirror = "tag-only"
            [[registry]]
            location = "example.com"
            insecure = true
            [[registry]]
            prefix = "*.wild.example"
            location = "one.example/all"
            [[registry]]
            prefix = "x.wild.example"
            [[registry]]
            prefix = "docker.io"
            location = "mirror.example"
            [[registry]]
            prefix = "pinned.example/a:1"
            location = "other.example/b:2"
        "#])
        .unwrap();
        assert_eq!(unknown, Vec::<String>::new());
        let table: &[(&str, &[&str])] = &[
            ("other.example/x", &["other.example/x:latest"]),
            (
                "example.com/foo/image:1",
                &[
                    "m0.example/for-foo/image:1 no tags",
                    "m1.example:5000/image:1 insecure",
                    "m2.example/image:1 no digests",
                    "internal.example/bar/image:1",
                ],
            ),
            ("example.com/foot", &["example.com/foot:latest insecure"]),
            ("example.com:80/foo/x", &["example.com:80/foo/x:latest"]),
            ("a.wild.example/x", &["one.example/all/x:latest"]),
            ("a.b.wild.example:1/x", &["a.b.wild.example:1/x:latest"]),
            ("a.b.wild.example/x", &["one.example/all/x:latest"]),
            ("wild.example/x", &["wild.example/x:latest"]),
            ("x.wild.example/x", &["one.example/all/x:latest"]),
            ("busybox", &["mirror.example/library/busybox:latest"]),
            ("pinned.example/a:1", &["other.example/b:2"]),
            ("pinned.example/a:12", &["pinned.example/a:12"]),
        ];
        for (name, expected) in table {
            if *name == "x.wild.example/x" {
                // As long a match: the one without the star is meant.
                assert_eq!(told(&registries, name), ["x.wild.example/x:latest"]);
            } else {
                assert_eq!(told(&registries, name), *expected, "{name}");
            }
        }
    }

    #[test]
    fn drop_ins_are_laid_over() {
        let (registries, _) = parse(&[
            "unqualified-search-registries = ['a.example']\n[[registry]]\nlocation = 'r.example'\nblocked = true\n\
             [aliases]\none = 'x.example/one'\ntwo = 'x.example/two'\n",
            "[[registry]]\nprefix = 'r.example'\n[aliases]\none = ''\nthree = 'x.example/three'\n",
        ])
        .unwrap();
        assert_eq!(told(&registries, "r.example/x"), ["r.example/x:latest"]);
        let candidates = |name: &str| -> Vec<String> {
            registries.candidates(name).unwrap().iter().map(ToString::to_string).collect()
        };
        assert_eq!(candidates("one"), ["a.example/one:latest"]);
        assert_eq!(candidates("two:5"), ["x.example/two:5"]);
        assert_eq!(candidates("three"), ["x.example/three:latest"]);
        assert_eq!(candidates("b.example/two"), ["b.example/two:latest"]);
    }

    #[test]
    fn short_names_are_dockers_unless_somebody_says_otherwise() {
        let (none, _) = parse(&["unqualified-search-registries = []"]).unwrap();
        assert_eq!(none.to_pull("x").unwrap()[0].to_string(), "docker.io/library/x:latest");
        let text = "unqualified-search-registries = ['a.example', 'docker.io']\nshort-name-mode = 'MODE'\n";
        let (permissive, _) = parse(&[&text.replace("MODE", "permissive")]).unwrap();
        let names: Vec<String> = permissive.to_pull("x").unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a.example/x:latest", "docker.io/library/x:latest"]);
        let (enforcing, _) = parse(&[&text.replace("MODE", "enforcing")]).unwrap();
        let error = enforcing.to_pull("x").unwrap_err().to_string();
        assert_eq!(
            error,
            "the short name \"x\" may be a.example/x or docker.io/library/x: give the whole one"
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let table = [
            ("[registries.search]\nregistries = ['a']", "version 1"),
            ("short-name-mode = 'maybe'", "maybe"),
            ("[[registry]]\n", "neither a prefix nor a location"),
            ("[[registry]]\nlocation = 'https://a.example'", "leave out its scheme"),
            ("[[registry]]\nprefix = 'a.*.example'", "has a *"),
            ("[[registry]]\nprefix = 'a'\nblocked = 'yes'", "invalid type"),
            ("[[registry]]\nprefix = 'a.example'\n[[registry]]\nlocation = 'a.example'", "two [[registry]]"),
            ("[[registry]]\nprefix = 'a'\n[[registry.mirror]]\ninsecure = true", "has no location"),
            (
                "[[registry]]\nprefix = 'a'\nmirror-by-digest-only = true\n[[registry.mirror]]\n\
                 location = 'b.example'\npull-from-mirror = 'all'",
                "only one may be set",
            ),
            ("[aliases]\n'a.example/x' = 'b.example/x'", "not a short name"),
            ("[aliases]\n'x' = 'y'", "not a whole name"),
            ("[aliases]\n'x' = 'b.example/y:1'", "without a tag"),
            ("[aliases", "aliases"),
        ];
        for (text, part) in table {
            let error = format!("{:#}", parse(&[text]).unwrap_err());
            assert!(error.contains(part) || part == "aliases", "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let (registries, unknown) = parse(&[
            "additional-layer-store-auth-helper = 'x'\n[[registry]]\nprefix = 'a.example'\nlocation = 'a'\ncolour = 1\n",
        ])
        .unwrap();
        assert_eq!(
            unknown,
            [
                "warning: 0.conf: \"additional-layer-store-auth-helper\" is not supported and has no effect",
                "warning: 0.conf: \"colour\" in [[registry]] is not supported and has no effect"
            ]
        );
        let error = registries.locations(&Reference::parse("a.example/x").unwrap()).unwrap_err();
        assert_eq!(format!("{error:#}"), "0.conf: location \"a\": it names no host");
    }
}
