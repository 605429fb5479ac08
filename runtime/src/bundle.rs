//! A bundle on disk: bundle.md. The only reader of `config.json`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use oci_spec::runtime::{Process, Spec};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::cgroup::resources;
use crate::container::cpu_list::CpuList;
use crate::container::{capabilities, memory_policy};
use crate::{log, property};

/// A bundle's folder and its configuration.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Absolute.
    pub(crate) dir: PathBuf,
    /// `config.json` to the byte: the container keeps a copy, so that later edits change nothing.
    pub(crate) text: Vec<u8>,
    pub(crate) spec: Spec,
}

/// Reads the bundle in `dir`, from the file `config` if that is given instead of `config.json`.
pub(crate) fn load(dir: &Path, config: Option<&Path>) -> Result<Bundle> {
    const MOST: u64 = 64 << 20;
    let dir = dir.canonicalize().with_context(|| format!("bundle {dir:?}"))?;
    let path = config.map_or_else(|| dir.join("config.json"), |config| dir.join(config));
    let size = match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(
                "JSON specification file {} not found in {dir:?}",
                path.file_name().unwrap_or_default().display()
            )
        }
        other => other.with_context(|| format!("open {path:?}"))?.len(),
    };
    if size > MOST {
        bail!("{path:?}: {size} bytes are more than any configuration has ({MOST} at most)");
    }
    let text = std::fs::read(&path).with_context(|| format!("read {path:?}"))?;
    let spec = parse(&text).with_context(|| format!("{path:?}"))?;
    Ok(Bundle { dir, text, spec })
}

/// Parses a configuration and checks its version.
pub(crate) fn parse(text: &[u8]) -> Result<Spec> {
    refuse_list(text)?;
    let mut spec: Spec = match serde_json::from_slice(text) {
        Ok(spec) => spec,
        Err(_) => parse_gently(text)?,
    };
    if let Some(resources) = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut()) {
        let json = resources_in(text)?;
        resources::mend(resources, json).context("linux.resources")?;
    }
    check_version(spec.version())?;
    Ok(spec)
}

/// `linux.resources` as it stands in a configuration that has one. Only where other members might have the
/// same name does this read all of the text again.
fn resources_in(text: &[u8]) -> Result<Value> {
    const NAME: &str = r#""resources""#;
    let mut found = str::from_utf8(text)?.split(NAME);
    if let (_, Some(after), None) = (found.next(), found.next(), found.next())
        && let Some(json) = after.trim_start().strip_prefix(':')
    {
        return Ok(Value::deserialize(&mut serde_json::Deserializer::from_str(json))?);
    }
    let OnlyResources { linux: OnlyLinux { resources } } = serde_json::from_slice(text)?;
    Ok(resources)
}

#[derive(Deserialize)]
struct OnlyResources {
    linux: OnlyLinux,
}

#[derive(Deserialize)]
struct OnlyLinux {
    resources: Value,
}

/// serde would take a list for an object's members in their order.
pub(crate) fn refuse_list(text: &[u8]) -> Result<()> {
    if text.trim_ascii_start().starts_with(b"[") {
        bail!("a list, where an object is expected")
    } else {
        Ok(())
    }
}

/// Parses a file that holds `process` alone, as `exec --process` takes it.
pub(crate) fn parse_process(text: &[u8]) -> Result<Process> {
    serde_json::from_slice(text).or_else(|_| {
        let mut whole = json!({"process": serde_json::from_slice::<Value>(text)?});
        mend(&mut whole)?;
        typed(&whole["process"], "process")
    })
}

/// oci-spec refuses some things whole that the specification wants taken otherwise. This second,
/// slower reading mends those, or says which property is wrong.
fn parse_gently(text: &[u8]) -> Result<Spec> {
    let mut value: Value = serde_json::from_slice(text)?;
    mend(&mut value)?;
    typed(&value, "")
}

/// Reads the specification's type out of JSON; an error tells the property, below `above`.
fn typed<T: DeserializeOwned>(value: &Value, above: &str) -> Result<T> {
    let text = serde_json::to_vec(value)?;
    serde_json::from_slice(&text).map_err(|error| {
        let name = property::at(&text, error.line(), error.column());
        let dot = if above.is_empty() || name.is_empty() || name.starts_with('[') { "" } else { "." };
        // The place is one in our own text.
        let what = error.to_string();
        let what = what.rsplit_once(" at line ").map_or(&*what, |(what, _)| what);
        match format!("{above}{dot}{name}") {
            name if name.is_empty() => anyhow!("{what}"),
            name => anyhow!("{name}: {what}"),
        }
    })
}

fn mend(value: &mut Value) -> Result<()> {
    // Callers of `exec` leave out what is 0.
    if let Some(Value::Object(process)) = value.pointer_mut("/process")
        && let Value::Object(user) = process.entry("user").or_insert_with(|| json!({}))
    {
        user.entry("uid").or_insert(json!(0));
        user.entry("gid").or_insert(json!(0));
    }
    // "Any value which cannot be mapped to a relevant kernel interface ... MUST be logged as a warning"
    if let Some(Value::Object(sets)) = value.pointer_mut("/process/capabilities") {
        for (set, names) in sets {
            if let Value::Array(names) = names {
                names.retain(|name| {
                    let known = name.as_str().is_none_or(|name| capabilities::bit(name).is_some());
                    if !known {
                        log::warn(&format!("process.capabilities.{set}: ignoring unknown capability {name}"));
                    }
                    known
                });
            }
        }
    }
    if let Some(Value::Array(limits)) = value.pointer("/process/rlimits") {
        for (n, limit) in limits.iter().enumerate() {
            let kind = limit.get("type").unwrap_or(&Value::Null);
            if serde_json::from_value::<oci_spec::runtime::PosixRlimitType>(kind.clone()).is_err() {
                bail!("process.rlimits[{n}].type: wrong rlimit value: {kind}");
            }
        }
    }
    if let Some(Value::Array(archs)) = value.pointer("/linux/seccomp/architectures") {
        for (n, arch) in archs.iter().enumerate() {
            if serde_json::from_value::<oci_spec::runtime::Arch>(arch.clone()).is_err() {
                bail!("linux.seccomp.architectures[{n}]: unknown architecture {arch}");
            }
        }
    }
    // Two names of the specification that oci-spec spells in its own way.
    if let Some(Value::Array(flags)) = value.pointer_mut("/process/scheduler/flags") {
        for flag in flags {
            match flag.as_str() {
                Some("SCHED_FLAG_RESET_ON_FORK") => *flag = json!("SCHED_RESET_ON_FORK"),
                Some("SCHED_FLAG_DL_OVERRUN") => *flag = json!("SCHED_FLAG_D_L_OVERRUN"),
                _ => {}
            }
        }
    }
    // "If omitted or empty": oci-spec takes no empty list.
    if let Some(Value::Object(affinity)) = value.pointer_mut("/process/execCPUAffinity") {
        affinity.retain(|_, list| list != "");
        for (name, list) in affinity.iter() {
            if let Some(list) = list.as_str() {
                CpuList::parse(list).with_context(|| format!("process.execCPUAffinity.{name}"))?;
            }
        }
    }
    if let Some(Value::Object(policy)) = value.pointer("/linux/memoryPolicy") {
        check_memory_policy(policy)?;
    }
    Ok(())
}

fn check_memory_policy(policy: &Map<String, Value>) -> Result<()> {
    let known = |names: &[&str], name: &Value| name.as_str().is_some_and(|name| names.contains(&name));
    let mode = policy.get("mode").unwrap_or(&Value::Null);
    if !known(&memory_policy::MODES, mode) {
        bail!("linux.memoryPolicy.mode: invalid memory policy mode {mode}");
    }
    for (n, flag) in policy.get("flags").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if !known(&memory_policy::FLAGS, flag) {
            bail!("linux.memoryPolicy.flags[{n}]: invalid memory policy flag {flag}");
        }
    }
    Ok(())
}

/// "ociVersion MUST be in SemVer v2.0.0 format": any 1.x is taken, since a newer minor version only adds.
fn check_version(version: &str) -> Result<()> {
    match major(version) {
        // Engines of 2016 still send 0.x.
        Some("0" | "1") => Ok(()),
        Some(_) => bail!("ociVersion: {version:?} is not supported: this runtime implements 1.3.0"),
        None => bail!("ociVersion: {version:?} is not a version (SemVer 2.0.0)"),
    }
}

/// The major version of a semantic version, `MAJOR.MINOR.PATCH[-PRE.RELEASE][+BUILD.DATA]`.
fn major(version: &str) -> Option<&str> {
    let (rest, build) = version.split_once('+').map_or((version, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let number = |part: &str| word(part) && digits(part) && (part == "0" || !part.starts_with('0'));
    let mut parts = core.split('.');
    let (major, minor, patch) = (parts.next()?, parts.next()?, parts.next()?);
    let good = [major, minor, patch].into_iter().all(number)
        && parts.next().is_none()
        && pre.is_none_or(|pre| pre.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|build| build.split('.').all(word));
    good.then_some(major)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(rest: &str) -> String {
        format!(r#"{{"ociVersion":"1.0.2","process":{{"user":{{"uid":0,"gid":0}},"cwd":"/",{rest}}}}}"#)
    }

    #[test]
    fn an_unknown_capability_is_left_out() {
        let text = spec(r#""capabilities":{"bounding":["CAP_KILL","CAP_FROM_THE_FUTURE"]}"#);
        let spec = parse(text.as_bytes()).expect("a good configuration");
        let sets = spec.process().as_ref().and_then(|p| p.capabilities().as_ref()).map(capabilities::plan);
        assert_eq!(sets.map(|sets| sets.bounding), Some(1 << 5));
    }

    #[test]
    fn an_unknown_rlimit_is_named() {
        let text = spec(r#""rlimits":[{"type":"RLIMIT_FOO","hard":1,"soft":1}]"#);
        let error = parse(text.as_bytes()).expect_err("no such limit").to_string();
        assert_eq!(error, r#"process.rlimits[0].type: wrong rlimit value: "RLIMIT_FOO""#);
    }

    #[test]
    fn an_empty_affinity_is_none() {
        let text = br#"{"user":{"uid":0,"gid":0},"cwd":"/","execCPUAffinity":{"initial":"","final":"1"}}"#;
        let process = parse_process(text).expect("a good process");
        let affinity = process.exec_cpu_affinity().as_ref().expect("an affinity");
        assert_eq!((affinity.initial(), affinity.cpu_affinity_final()), (&None, &Some("1".to_owned())));
        let error = parse(spec(r#""execCPUAffinity":{"initial":"x"}"#).as_bytes()).expect_err("no list");
        assert!(format!("{error:#}").starts_with("process.execCPUAffinity.initial: "), "{error:#}");
    }

    #[test]
    fn scheduler_flags_have_the_specifications_names() {
        for flag in ["RESET_ON_FORK", "RECLAIM", "DL_OVERRUN", "KEEP_POLICY", "KEEP_PARAMS", "UTIL_CLAMP_MIN"]
        {
            let scheduler =
                format!(r#""scheduler":{{"policy":"SCHED_OTHER","flags":["SCHED_FLAG_{flag}"]}}"#);
            parse(spec(&scheduler).as_bytes()).expect(flag);
        }
    }

    #[test]
    fn resources_are_found_in_the_text() {
        let linux = r#""linux":{"resources" : {"CPU":{"Shares":7}}}"#;
        for more in ["", r#","hostname":"resources""#, r#","annotations":{"resources":"1"}"#] {
            let spec = parse(format!(r#"{{"ociVersion":"1.3.0",{linux}{more}}}"#).as_bytes()).expect(more);
            let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
            let cpu = resources.and_then(|resources| resources.cpu().as_ref());
            assert_eq!(cpu.and_then(|cpu| cpu.shares()), Some(7), "{more}");
        }
    }

    #[test]
    fn a_wrong_memory_policy_is_named() {
        for (policy, wanted) in [
            ("{}", "linux.memoryPolicy.mode: invalid memory policy mode null"),
            (r#"{"mode":"BIND"}"#, r#"linux.memoryPolicy.mode: invalid memory policy mode "BIND""#),
            (
                r#"{"mode":"MPOL_BIND","flags":["x"]}"#,
                r#"linux.memoryPolicy.flags[0]: invalid memory policy flag "x""#,
            ),
        ] {
            let text = format!(r#"{{"ociVersion":"1.3.0","linux":{{"memoryPolicy":{policy}}}}}"#);
            assert_eq!(parse(text.as_bytes()).expect_err(policy).to_string(), wanted);
        }
    }

    #[test]
    fn versions_are_semver_of_major_1() {
        for good in ["1.0.0", "1.0.2-dev", "1.3.0", "1.99.0+x", "0.5.0", "1.0.0-rc.1-a.0b+001"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "abc",
            "9.9.9",
            "1.0",
            "1.0.0.0",
            "01.0.0",
            "1.0.-1",
            "1.+0.0",
            "1.0.0-",
            "1.0.0-a..b",
            "1.0.0-01",
            "1.0.0+",
            "1.0.0+a+b",
            " 1.0.0",
        ] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
    }
}
