//! `linux.intelRdt`: config-linux.md#intelrdt, Documentation/filesystems/resctrl.rst.
//!
//! ```text
//! /sys/fs/resctrl/            the default class of service, closID "/"
//! ├── info/last_cmd_status    why the last write failed
//! ├── schemata tasks
//! └── CLOS/                   closID, or the container's id: then ours, and removed with the container
//!     ├── schemata tasks
//!     └── mon_groups/ID/      enableMonitoring: always ours
//!         └── tasks
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::statfs::{FsType, statfs};
use nix::unistd::Pid;
use oci_spec::runtime::{Linux, LinuxIntelRdt};
use serde::{Deserialize, Serialize};

const PLACE: &str = "/sys/fs/resctrl";
const RDTGROUP_SUPER_MAGIC: FsType = FsType(0x0765_5821);

/// The container's groups. Kept in its state.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Groups {
    class: PathBuf,
    /// True if the class of service is made for this container.
    own: bool,
    monitor: Option<PathBuf>,
}

/// What to make.
#[derive(Clone, Debug)]
pub(crate) struct IntelRdt {
    pub(crate) groups: Groups,
    root: PathBuf,
    /// True if the class of service is not there yet.
    new: bool,
    /// Lines for `schemata`.
    schemata: String,
}

/// Checks the properties against each other and against what is there.
pub(crate) fn plan(linux: &Linux, id: &str) -> Result<Option<IntelRdt>> {
    let Some(wanted) = linux.intel_rdt() else { return Ok(None) };
    let root = find_root()?.context("linux.intelRdt: no resctrl file system is mounted here")?;
    plan_below(wanted, id, &root).map(Some)
}

/// The file system's usual place, or where it is mounted instead.
fn find_root() -> Result<Option<PathBuf>> {
    if statfs(PLACE).is_ok_and(|fs| fs.filesystem_type() == RDTGROUP_SUPER_MAGIC) {
        return Ok(Some(PLACE.into()));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    Ok(mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "resctrl").then(|| PathBuf::from(path))
    }))
}

fn plan_below(wanted: &LinuxIntelRdt, id: &str, root: &Path) -> Result<IntelRdt> {
    if wanted.enable_cmt() == &Some(true) || wanted.enable_mbm() == &Some(true) {
        bail!("linux.intelRdt: enableMonitoring has taken the place of enableCMT and enableMBM");
    }
    let mut lines: Vec<&str> = Vec::new();
    for (name, line) in [("l3CacheSchema", wanted.l3_cache_schema()), ("memBwSchema", wanted.mem_bw_schema())]
    {
        let Some(line) = line.as_deref().filter(|line| !line.is_empty()) else { continue };
        check_line(line).with_context(|| format!("linux.intelRdt.{name}"))?;
        if name == "memBwSchema" && !line.starts_with("MB:") {
            bail!("linux.intelRdt.memBwSchema: {line:?} does not start with \"MB:\"");
        }
        lines.push(line);
    }
    let compared = lines.len();
    for (n, line) in wanted.schemata().iter().flatten().enumerate() {
        check_line(line).with_context(|| format!("linux.intelRdt.schemata[{n}]"))?;
        lines.push(line);
    }
    let given = wanted.clos_id().as_deref().filter(|name| !name.is_empty());
    let class = class_of(given, id, root).with_context(|| format!("linux.intelRdt.closID: {given:?}"))?;
    let exists = class.is_dir();
    match given {
        None if exists => bail!("linux.intelRdt: {class:?} is there already, and is not this container's"),
        Some(_) if !exists && lines.is_empty() => bail!(
            "linux.intelRdt.closID: clos dir {class:?} not accessible (must be pre-created when schemata, l3CacheSchema and memBwSchema are empty)"
        ),
        Some(_) if exists => compare(&lines[..compared], &class)?,
        _ => {}
    }
    let monitor = (wanted.enable_monitoring() == &Some(true)).then(|| class.join("mon_groups").join(id));
    if let Some(monitor) = monitor.as_ref().filter(|monitor| monitor.exists()) {
        bail!("linux.intelRdt.enableMonitoring: {monitor:?} is there already, and is not this container's");
    }
    Ok(IntelRdt {
        groups: Groups { class, own: given.is_none(), monitor },
        root: root.to_owned(),
        new: !exists,
        schemata: lines.iter().fold(String::new(), |text, line| text + line + "\n"),
    })
}

fn check_line(line: &str) -> Result<()> {
    if line.contains(['\n', '\0']) {
        bail!("{line:?} is more than a line");
    }
    Ok(())
}

fn class_of(given: Option<&str>, id: &str, root: &Path) -> Result<PathBuf> {
    /// What is no class of service at the file system's top.
    const OTHERS: [&str; 3] = ["info", "mon_groups", "mon_data"];
    let name = given.unwrap_or(id);
    if name == "/" {
        return Ok(root.to_owned());
    }
    if name.contains(['/', '\0', '\n']) || matches!(name, "." | "..") || OTHERS.contains(&name) {
        bail!("{name:?} cannot name a class of service");
    }
    Ok(root.join(name))
}

/// "MUST compare l3CacheSchema and/or memBwSchema value with schemata file, and generate an error if doesn't
/// match": each domain that is asked for, by number, since zeroes in front and the order may differ.
fn compare(wanted: &[&str], class: &Path) -> Result<()> {
    let path = class.join("schemata");
    if wanted.is_empty() {
        return Ok(());
    }
    let text = fs::read_to_string(&path).with_context(|| format!("linux.intelRdt: read {path:?}"))?;
    let found: Vec<(&str, BTreeMap<&str, u64>)> = text.lines().filter_map(parse).collect();
    for line in wanted {
        let same = parse(line).is_some_and(|(resource, domains)| {
            let there = found.iter().find(|(other, _)| *other == resource);
            there.is_some_and(|(_, there)| domains.iter().all(|(id, value)| there.get(id) == Some(value)))
        });
        if !same {
            bail!("linux.intelRdt: {line:?} is not what {path:?} has: {:?}", text.trim());
        }
    }
    Ok(())
}

/// `L3:0=ff;1=c0`: masks are hexadecimal, bandwidths decimal.
fn parse(line: &str) -> Option<(&str, BTreeMap<&str, u64>)> {
    let (resource, domains) = line.trim().split_once(':')?;
    let base = if resource.starts_with("MB") { 10 } else { 16 };
    let domains = domains.split(';').map(|domain| {
        let (id, value) = domain.split_once('=')?;
        Some((id.trim(), u64::from_str_radix(value.trim(), base).ok()?))
    });
    Some((resource.trim(), domains.collect::<Option<_>>()?))
}

impl IntelRdt {
    /// Makes the groups; undone if a step fails.
    pub(crate) fn create(&self) -> Result<()> {
        let class = &self.groups.class;
        if self.new {
            self.told(fs::create_dir(class)).with_context(|| format!("linux.intelRdt: make {class:?}"))?;
        }
        self.fill().inspect_err(|_| {
            if self.new {
                let _ = fs::remove_dir(class); // the error that is on its way says more
            }
        })
    }

    fn fill(&self) -> Result<()> {
        if !self.schemata.is_empty() {
            let path = self.groups.class.join("schemata");
            self.told(fs::write(&path, &self.schemata))
                .with_context(|| format!("linux.intelRdt: write {:?} to {path:?}", self.schemata))?;
        }
        if let Some(monitor) = &self.groups.monitor {
            self.told(fs::create_dir(monitor))
                .with_context(|| format!("linux.intelRdt.enableMonitoring: make {monitor:?}"))?;
        }
        Ok(())
    }

    fn told(&self, done: std::io::Result<()>) -> Result<()> {
        told(done, &self.root)
    }
}

/// Adds the file system's own words to an error.
fn told(done: std::io::Result<()>, root: &Path) -> Result<()> {
    done.map_err(|error| {
        let words = fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
        let error = anyhow::Error::from(error);
        if words.trim().is_empty() { error } else { error.context(words.trim().to_owned()) }
    })
}

/// Lines for `schemata` in place of those for the same resources, for `update`.
pub(crate) fn plan_update(l3_cache: &str, memory_bandwidth: &str) -> Result<String> {
    let mut text = String::new();
    for (flag, start, line) in
        [("l3-cache-schema", "L3", l3_cache), ("mem-bw-schema", "MB:", memory_bandwidth)]
    {
        if line.is_empty() {
            continue;
        }
        check_line(line).with_context(|| format!("--{flag}"))?;
        if !line.starts_with(start) {
            bail!("--{flag}: {line:?} does not start with {start:?}");
        }
        text += line;
        text += "\n";
    }
    Ok(text)
}

impl Groups {
    /// Puts a process in; those that it makes follow.
    pub(crate) fn add(&self, pid: Pid) -> Result<()> {
        for group in std::iter::once(&self.class).chain(&self.monitor) {
            let path = group.join("tasks");
            fs::write(&path, pid.to_string())
                .with_context(|| format!("linux.intelRdt: write {pid} to {path:?}"))?;
        }
        Ok(())
    }

    /// Writes lines of `schemata`. Returns what was there before, to be written if another step fails.
    pub(crate) fn update(&self, lines: &str) -> Result<String> {
        let path = self.class.join("schemata");
        let before = fs::read_to_string(&path).with_context(|| format!("read {path:?}"))?;
        let root = self.class.parent().unwrap_or(&self.class);
        told(fs::write(&path, lines), root).with_context(|| format!("write {lines:?} to {path:?}"))?;
        Ok(before)
    }

    /// Removes what was made for the container alone.
    pub(crate) fn remove(&self) -> Result<()> {
        let own = self.own.then_some(&self.class);
        for group in self.monitor.iter().chain(own) {
            match fs::remove_dir(group) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.with_context(|| format!("linux.intelRdt: remove {group:?}"))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like the file system, but for the files that come with a new folder there.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("resctrl-{}-{name}", std::process::id()));
            fs::create_dir_all(root.join("info")).expect("make a folder");
            fs::create_dir_all(root.join("gold/mon_groups")).expect("make a folder");
            fs::write(root.join("gold/schemata"), "    MB:0= 20;1= 70\n    L3:0=0ff;1=c0\n").expect("write");
            Self(root)
        }

        fn plan(&self, json: &str) -> Result<IntelRdt> {
            plan_below(&serde_json::from_str(json).expect("a section"), "web", &self.0)
        }

        fn refused(&self, json: &str) -> String {
            format!("{:#}", self.plan(json).expect_err(json))
        }

        fn read(&self, path: &str) -> String {
            fs::read_to_string(self.0.join(path)).expect(path)
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn without_a_class_the_container_has_its_own() {
        let fake = Fake::new("own");
        let rdt = fake
            .plan(r#"{"memBwSchema":"MB:0=5","l3CacheSchema":"L3:0=f","schemata":["L2:0=3","L3:0=1"]}"#)
            .expect("a plan");
        rdt.create().expect("create");
        assert_eq!(fake.read("web/schemata"), "L3:0=f\nMB:0=5\nL2:0=3\nL3:0=1\n");
        rdt.groups.add(Pid::from_raw(42)).expect("add");
        assert_eq!(fake.read("web/tasks"), "42");
        assert!(fake.refused("{}").contains("is there already"));
        for file in ["tasks", "schemata"] {
            fs::remove_file(fake.0.join("web").join(file)).expect("remove"); // the kernel does that
        }
        rdt.groups.remove().expect("remove");
        assert!(!fake.0.join("web").exists());
        rdt.groups.remove().expect("remove again");
    }

    #[test]
    fn schemata_can_be_updated() {
        let fake = Fake::new("update");
        let rdt = fake.plan(r#"{"closID":"gold"}"#).expect("a plan");
        let lines = plan_update("L3:0=f", "MB:0=50").expect("good lines");
        let before = rdt.groups.update(&lines).expect("update");
        assert_eq!(fake.read("gold/schemata"), "L3:0=f\nMB:0=50\n");
        assert_eq!(before, "    MB:0= 20;1= 70\n    L3:0=0ff;1=c0\n");
        assert_eq!(plan_update("", "").expect("nothing"), "");
        for (l3, bandwidth) in [("MB:0=1", ""), ("", "L3:0=1"), ("L3:0=1\nMB:0=1", "")] {
            plan_update(l3, bandwidth).expect_err(l3);
        }
    }

    #[test]
    fn a_class_that_is_named_stays() {
        let fake = Fake::new("named");
        assert!(fake.refused(r#"{"closID":"silver"}"#).contains("must be pre-created"));
        let made = fake.plan(r#"{"closID":"silver","schemata":["L3:0=1"]}"#).expect("a plan");
        made.create().expect("create");
        made.groups.remove().expect("remove");
        assert_eq!(fake.read("silver/schemata"), "L3:0=1\n");
        let root = fake.plan(r#"{"closID":"/"}"#).expect("a plan");
        assert_eq!(root.groups, Groups { class: fake.0.clone(), own: false, monitor: None });
    }

    #[test]
    fn a_class_that_exists_must_be_as_asked() {
        let fake = Fake::new("compare");
        for good in
            [r#""l3CacheSchema":"L3:1=C0;0=ff""#, r#""memBwSchema":"MB:1=70""#, r#""schemata":["L3:0=1"]"#]
        {
            fake.plan(&format!(r#"{{"closID":"gold",{good}}}"#)).expect(good);
        }
        for bad in [r#""l3CacheSchema":"L3:0=fe""#, r#""memBwSchema":"MB:2=20""#, r#""l3CacheSchema":"L3:x""#]
        {
            let error = fake.refused(&format!(r#"{{"closID":"gold",{bad}}}"#));
            assert!(error.contains("is not what"), "{error}");
        }
    }

    #[test]
    fn the_monitoring_group_is_the_containers() {
        let fake = Fake::new("monitor");
        let rdt = fake.plan(r#"{"closID":"gold","enableMonitoring":true}"#).expect("a plan");
        let before = fake.read("gold/schemata");
        rdt.create().expect("create");
        rdt.groups.add(Pid::from_raw(7)).expect("add");
        assert_eq!(fake.read("gold/mon_groups/web/tasks"), "7");
        assert_eq!(fake.read("gold/tasks"), "7");
        assert_eq!(fake.read("gold/schemata"), before);
        fs::remove_file(fake.0.join("gold/mon_groups/web/tasks")).expect("remove");
        rdt.groups.remove().expect("remove");
        assert!(fake.0.join("gold").exists() && !fake.0.join("gold/mon_groups/web").exists());
    }

    #[test]
    fn what_cannot_be_is_named() {
        let fake = Fake::new("bad");
        for (json, wanted) in [
            (r#"{"closID":"../x"}"#, "cannot name a class"),
            (r#"{"closID":"info"}"#, "cannot name a class"),
            (r#"{"memBwSchema":"L3:0=1"}"#, "linux.intelRdt.memBwSchema"),
            (r#"{"schemata":["a\nb"]}"#, "linux.intelRdt.schemata[0]"),
            (r#"{"enableCmt":true}"#, "enableMonitoring has taken the place"),
        ] {
            let error = fake.refused(json);
            assert!(error.contains(wanted), "{json}: {error}");
        }
        let rdt = fake.plan(r#"{"enableMonitoring":true}"#).expect("a plan");
        fs::write(fake.0.join("info/last_cmd_status"), "too many groups\n").expect("write");
        let error = format!("{:#}", rdt.create().expect_err("nothing makes mon_groups here"));
        assert!(error.contains("too many groups"), "{error}");
        assert!(!fake.0.join("web").exists());
    }
}
