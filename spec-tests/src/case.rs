//! A case: what it proves, what it needs, and the scene it plays in.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::bundle::Bundle;
use crate::container::Container;
use crate::probe::{Observation, Probe};
use crate::requirement::{Level, Requirement};
use crate::runtime::{Output, Runtime};

/// One test of a runtime.
#[derive(Debug)]
pub struct Case {
    /// A sentence with its topic before it, as `kill/sends_the_signal`.
    pub name: &'static str,
    /// The demands that it looks at. An error on the way counts against all of them.
    pub proves: &'static [&'static Requirement],
    /// What it cannot do without.
    pub needs: &'static [Need],
    /// Plays it, telling the scene what it found.
    pub run: fn(&Scene<'_>) -> Result<()>,
}

/// What a machine may lack.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// A kind of namespace, by its name in `/proc/self/ns`.
    Namespace(&'static str),
    /// A version of the kernel, major and minor.
    Kernel(u32, u32),
    /// A cgroup controller, in either version.
    Controller(&'static str),
}

impl Need {
    /// Why a case that needs this cannot run here.
    fn missing(self) -> Option<String> {
        match self {
            Self::Namespace(kind) => {
                let there = Path::new("/proc/self/ns").join(kind).exists();
                (!there).then(|| format!("the kernel has no {kind} namespaces"))
            }
            Self::Kernel(major, minor) => {
                let release = rustix::system::uname().release().to_string_lossy().into_owned();
                let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
                let here = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
                (here < (major, minor))
                    .then(|| format!("the kernel is {release}, older than {major}.{minor}"))
            }
            Self::Controller(name) => {
                let v1 = Path::new("/sys/fs/cgroup").join(name).join("tasks").exists();
                let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
                let there = v1 || v2.split_whitespace().any(|word| word == name);
                (!there).then(|| format!("there is no cgroup controller {name}"))
            }
        }
    }
}

/// A demand that was not met.
#[derive(Debug)]
pub struct Finding {
    /// Which.
    pub requirement: &'static Requirement,
    /// What was seen instead.
    pub message: String,
}

/// How a case ended.
#[derive(Debug)]
pub enum Outcome {
    /// All demands are met.
    Passed,
    /// Some are not.
    Failed(Vec<Finding>),
    /// It could not run here.
    Skipped(String),
}

impl Outcome {
    /// The strongest demand that was not met.
    pub fn broken(&self) -> Option<Level> {
        match self {
            Self::Failed(findings) => findings.iter().map(|finding| finding.requirement.level).max(),
            _ => None,
        }
    }
}

impl Case {
    /// Runs the case in a scene of its own.
    pub fn play(&self, runtime: &Runtime, probe: &Probe, stage: &Path) -> Outcome {
        if let Some(reason) = self.needs.iter().find_map(|need| need.missing()) {
            return Outcome::Skipped(reason);
        }
        let mut findings = Vec::new();
        let played = Scene::new(runtime, probe, stage).and_then(|scene| {
            let played = (self.run)(&scene);
            findings = scene.findings.take();
            played.map(|()| scene.skipped.take())
        });
        match played {
            Ok(Some(reason)) if findings.is_empty() => return Outcome::Skipped(reason),
            Ok(_) => {}
            Err(error) => {
                let message = format!("{error:#}");
                let all = self.proves.iter();
                findings.extend(all.map(|requirement| Finding { requirement, message: message.clone() }));
            }
        }
        if findings.is_empty() { Outcome::Passed } else { Outcome::Failed(findings) }
    }
}

/// Where a case plays: a runtime, and a folder for its bundles.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The runtime under test.
    pub runtime: &'a Runtime,
    probe: &'a Probe,
    stage: &'a Path,
    folder: TempDir,
    made: Cell<u32>,
    findings: RefCell<Vec<Finding>>,
    skipped: RefCell<Option<String>>,
}

impl<'a> Scene<'a> {
    fn new(runtime: &'a Runtime, probe: &'a Probe, stage: &'a Path) -> Result<Self> {
        // Beside the stage, since bundles link to it; open to all, since a container's root in a user
        // namespace is nobody here.
        let folder = tempfile::Builder::new()
            .prefix("case-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(stage.parent().context("the stage's folder")?)
            .context("make a folder for bundles")?;
        Ok(Self {
            runtime,
            probe,
            stage,
            folder,
            made: Cell::new(0),
            findings: RefCell::default(),
            skipped: RefCell::default(),
        })
    }

    /// Notes a demand that is not met, with what was seen instead.
    pub fn expect(&self, requirement: &'static Requirement, met: bool, seen: impl Display) {
        if !met {
            self.findings.borrow_mut().push(Finding { requirement, message: seen.to_string() });
        }
    }

    /// Like `expect` for two values that have to be the same.
    pub fn expect_same<T: PartialEq + std::fmt::Debug>(
        &self,
        requirement: &'static Requirement,
        what: &str,
        seen: T,
        asked: T,
    ) {
        self.expect(requirement, seen == asked, format_args!("{what} is {seen:?} and not {asked:?}"));
    }

    /// Ends as skipped: the machine lacks something that only running could tell.
    pub fn skip(&self, reason: impl Display) {
        *self.skipped.borrow_mut() = Some(reason.to_string());
    }

    fn next(&self) -> u32 {
        self.made.set(self.made.get() + 1);
        self.made.get()
    }

    /// A new bundle with the default configuration.
    pub fn bundle(&self) -> Result<Bundle> {
        let folder = self.folder.path().join(format!("bundle-{}", self.next()));
        fs::create_dir(&folder).context("make a bundle")?;
        Bundle::new(folder, self.stage, self.probe.path())
    }

    /// An id that no other container has.
    pub fn id(&self) -> String {
        let folder = self.folder.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        format!("spec-{}-{}", folder.trim_start_matches("case-").trim_start_matches('.'), self.next())
    }

    /// Creates a container, which has to work.
    pub fn create(&self, bundle: &Bundle) -> Result<Container<'a>> {
        self.create_with(bundle, &[])
    }

    /// The same with further options for `create`.
    pub fn create_with(&self, bundle: &Bundle, extra: &[&str]) -> Result<Container<'a>> {
        let (container, output) = Container::create(self.runtime, bundle, self.id(), extra)?;
        if !output.ok() {
            bail!("create: {}", output.complaint());
        }
        Ok(container)
    }

    /// Tries to create a container and tells what the runtime said.
    pub fn try_create(&self, bundle: &Bundle) -> Result<(Container<'a>, Output)> {
        Container::create(self.runtime, bundle, self.id(), &[])
    }

    /// The same with an id, and the `config.json` that is there.
    pub fn try_create_as(&self, bundle: &Bundle, id: &str) -> Result<(Container<'a>, Output)> {
        Container::create_unwritten(self.runtime, bundle, id.to_owned(), &[])
    }

    /// The configuration has to be refused, and no container may be left.
    pub fn expect_refused(
        &self,
        requirement: &'static Requirement,
        what: &str,
        bundle: &Bundle,
    ) -> Result<()> {
        let (container, output) = self.try_create(bundle)?;
        self.expect(requirement, !output.ok(), format_args!("create accepted {what}"));
        if !output.ok() {
            let status = container.status()?;
            self.expect(
                &crate::requirement::ERROR_LEAVES_NOTHING,
                status == "none",
                format_args!("after create refused {what} there is a container, {status}"),
            );
        }
        Ok(())
    }

    /// Runs the bundle's process to its end.
    pub fn run(&self, bundle: &Bundle) -> Result<Container<'a>> {
        let mut container = self.create(bundle)?;
        container.start()?;
        container.wait()?;
        Ok(container)
    }

    /// Runs the probe to its end and reads its report, with what is at `paths`.
    pub fn observe(&self, bundle: &mut Bundle, paths: &[&str]) -> Result<Observation> {
        let words: Vec<&str> = ["report"].into_iter().chain(paths.iter().copied()).collect();
        bundle.probe(&words);
        self.run(bundle)?.report()
    }
}
