//! Profiles in docker's format: a list of rules, some only for an architecture, a kernel or a
//! capability. What a bundle needs is what remains of them here and now.
//! [config-linux.md#seccomp](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp)

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};

/// The default profile: everything an ordinary program calls, and nothing that reaches into the
/// kernel beyond its namespaces.
const DEFAULT: &str = include_str!("seccomp.json");

/// Where a profile is going to apply.
#[derive(Debug)]
pub(crate) struct Circumstances<'a> {
    /// `CAP_...` names that the container has.
    pub(crate) capabilities: &'a [String],
    /// Go's name of the processor architecture: profiles use it.
    pub(crate) architecture: &'a str,
    /// Major and minor version of the kernel.
    pub(crate) kernel: (u32, u32),
}

impl<'a> Circumstances<'a> {
    /// This host's.
    pub(crate) fn here(capabilities: &'a [String]) -> Self {
        Self { capabilities, architecture: architecture(), kernel: kernel_version() }
    }
}

/// `linux.seccomp` of the default profile.
pub(crate) fn default(at: &Circumstances<'_>) -> Result<Value> {
    convert(&serde_json::from_str(DEFAULT).context("the default seccomp profile")?, at)
}

/// `linux.seccomp` of a profile in docker's format.
pub(crate) fn convert(profile: &Value, at: &Circumstances<'_>) -> Result<Value> {
    let profile = profile.as_object().context("a seccomp profile is a JSON object")?;
    ensure!(profile.contains_key("defaultAction"), "the seccomp profile has no defaultAction");
    let mut seccomp = Map::new();
    for (key, value) in profile.iter().filter(|(_, value)| !value.is_null()) {
        match key.as_str() {
            "syscalls" => {
                let rules = value.as_array().context("seccomp profile: syscalls is not a list")?;
                let kept: Result<Vec<_>> =
                    rules.iter().filter_map(|rule| convert_rule(rule, at).transpose()).collect();
                seccomp.insert(key.clone(), kept?.into());
            }
            "archMap" => drop(seccomp.insert("architectures".into(), architectures(value, at.architecture)?)),
            "defaultAction" | "defaultErrnoRet" | "architectures" | "flags" | "listenerPath"
            | "listenerMetadata" => {
                seccomp.insert(key.clone(), value.clone());
            }
            "comment" => {}
            _ => bail!("seccomp profile: unknown property {key:?}"),
        }
    }
    Ok(seccomp.into())
}

/// One rule, none when it is not for these circumstances.
fn convert_rule(rule: &Value, at: &Circumstances<'_>) -> Result<Option<Value>> {
    let rule = rule.as_object().context("seccomp profile: a rule is not an object")?;
    let includes = rule.get("includes").unwrap_or(&Value::Null);
    let excludes = rule.get("excludes").unwrap_or(&Value::Null);
    if !included(includes, at)? || excluded(excludes, at) {
        return Ok(None);
    }
    let mut kept = Map::new();
    for (key, value) in rule.iter().filter(|(_, value)| !value.is_null()) {
        match key.as_str() {
            "names" | "action" | "errnoRet" => drop(kept.insert(key.clone(), value.clone())),
            // The old way to write a rule for one call.
            "name" => drop(kept.insert("names".into(), json!([value]))),
            "args" if value.as_array().is_some_and(Vec::is_empty) => {}
            "args" => drop(kept.insert(key.clone(), value.clone())),
            "includes" | "excludes" | "comment" => {}
            _ => bail!("seccomp profile: unknown property {key:?} of a rule"),
        }
    }
    ensure!(
        kept.contains_key("names") && kept.contains_key("action"),
        "seccomp profile: a rule lacks names or action"
    );
    Ok(Some(kept.into()))
}

/// Every condition of `includes` holds: one of the architectures, all capabilities, the kernel.
fn included(includes: &Value, at: &Circumstances<'_>) -> Result<bool> {
    let architectures = strings(&includes["arches"]);
    let capabilities = strings(&includes["caps"]);
    let kernel = match includes["minKernel"].as_str() {
        Some(text) => parse_version(text).with_context(|| format!("seccomp profile: minKernel {text:?}"))?,
        None => (0, 0),
    };
    Ok((architectures.is_empty() || architectures.contains(&at.architecture))
        && capabilities.iter().all(|&name| at.capabilities.iter().any(|had| had == name))
        && at.kernel >= kernel)
}

/// Any condition of `excludes` holds.
fn excluded(excludes: &Value, at: &Circumstances<'_>) -> bool {
    strings(&excludes["arches"]).contains(&at.architecture)
        || strings(&excludes["caps"]).iter().any(|&name| at.capabilities.iter().any(|had| had == name))
        || excludes["minKernel"].as_str().and_then(parse_version).is_some_and(|kernel| at.kernel >= kernel)
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The native architecture and those whose programs it runs, too.
fn architectures(map: &Value, native: &str) -> Result<Value> {
    let wanted = match native {
        "amd64" => "SCMP_ARCH_X86_64",
        "386" => "SCMP_ARCH_X86",
        "arm64" => "SCMP_ARCH_AARCH64",
        "arm" => "SCMP_ARCH_ARM",
        "ppc64le" => "SCMP_ARCH_PPC64LE",
        "s390x" => "SCMP_ARCH_S390X",
        "riscv64" => "SCMP_ARCH_RISCV64",
        other => bail!("no seccomp architecture is known for {other}"),
    };
    let entries = map.as_array().context("seccomp profile: archMap is not a list")?;
    let entry = entries.iter().find(|entry| entry["architecture"] == wanted);
    let mut all = vec![json!(wanted)];
    all.extend(entry.and_then(|entry| entry["subArchitectures"].as_array()).into_iter().flatten().cloned());
    Ok(all.into())
}

/// Go's name for this processor.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    parse_version(release.trim()).unwrap_or((0, 0))
}

/// `6.1`, `6.1.0-18-amd64`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(capabilities: &[&str], architecture: &str) -> Vec<String> {
        let capabilities: Vec<String> = capabilities.iter().map(|&name| name.to_owned()).collect();
        let at = Circumstances { capabilities: &capabilities, architecture, kernel: (6, 1) };
        let seccomp = default(&at).unwrap();
        let rules = seccomp["syscalls"].as_array().unwrap();
        let allowing = rules.iter().filter(|rule| rule["action"] == "SCMP_ACT_ALLOW");
        allowing.flat_map(|rule| strings(&rule["names"])).map(str::to_owned).collect()
    }

    #[test]
    fn the_default_profile_follows_capability_and_architecture() {
        let has = |list: &[String], name: &str| list.iter().any(|other| other == name);
        let plain = allowed(&[], "amd64");
        assert!(has(&plain, "openat2") && has(&plain, "arch_prctl") && has(&plain, "clone"));
        for name in [
            "mount",
            "unshare",
            "setns",
            "bpf",
            "keyctl",
            "add_key",
            "io_uring_setup",
            "userfaultfd",
            "clone3",
        ] {
            assert!(!has(&plain, name), "{name}");
        }
        let admin = allowed(&["CAP_SYS_ADMIN"], "amd64");
        assert!(has(&admin, "mount") && has(&admin, "clone3"));
        assert!(has(&allowed(&["CAP_SYS_TIME"], "arm64"), "clock_settime"));
        assert!(!has(&allowed(&[], "arm64"), "arch_prctl"));
    }

    #[test]
    fn a_profile_with_an_unknown_property_is_refused_by_its_name() {
        let at = Circumstances { capabilities: &[], architecture: "amd64", kernel: (6, 1) };
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "bogus": 1});
        assert!(convert(&profile, &at).unwrap_err().to_string().contains("bogus"));
        assert!(convert(&json!({}), &at).is_err());
    }

    #[test]
    fn no_call_stands_twice_in_the_default_profile() {
        let mut plain = allowed(&[], "amd64");
        plain.retain(|name| name != "socket" && name != "personality");
        let all = plain.len();
        plain.sort();
        plain.dedup();
        assert_eq!(plain.len(), all);
    }
}
