//! `spec`: writes a configuration to start from.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{ArgMatches, Command};
use nix::unistd::{getegid, geteuid};

use crate::cgroup;
use crate::cli::{self, Context};

const DEFAULT: &str = include_str!("spec.json");

pub(super) fn flags(command: Command) -> Command {
    command
        .about("Write a default config.json")
        .arg(cli::path("bundle", "The folder to write it to").short('b').default_value("."))
        .arg(cli::flag("rootless", "For a user without privileges"))
}

pub(super) fn run(_: &Context, matches: &ArgMatches) -> Result<u8> {
    let folder = matches.get_one::<PathBuf>("bundle").cloned().unwrap_or_default();
    let path = folder.join("config.json");
    let mut text = if matches.get_flag("rootless") { rootless() } else { DEFAULT.to_owned() };
    if cgroup::is_version_2() {
        text = with_cgroup_namespace(&text);
    }
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    if matches!(&file, Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists) {
        bail!("File config.json exists. Remove it first");
    }
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| format!("write {path:?}"))?;
    Ok(0)
}

/// A user namespace of one id, no network namespace (nobody could connect it), the host's sysfs.
fn rootless() -> String {
    let (uid, gid) = (geteuid(), getegid());
    let map = |kind, id| {
        let line = |name, number| format!("\n\t\t\t\t\"{name}\": {number}");
        let lines = [line("containerID", 0), line("hostID", id), line("size", 1)].join(",");
        format!("\t\t\"{kind}Mappings\": [\n\t\t\t{{{lines}\n\t\t\t}}\n\t\t],\n")
    };
    let maps = map("uid", uid.as_raw()) + &map("gid", gid.as_raw());
    let network = "\t\t\t{\n\t\t\t\t\"type\": \"network\"\n\t\t\t},\n";
    let user = "\t\t\t{\n\t\t\t\t\"type\": \"user\"\n\t\t\t},\n";
    let sysfs =
        "\t\t\t\"type\": \"sysfs\",\n\t\t\t\"source\": \"sysfs\",\n\t\t\t\"options\": [\n\t\t\t\t\"nosuid\",";
    let bound = "\t\t\t\"type\": \"none\",\n\t\t\t\"source\": \"/sys\",\n\t\t\t\"options\": [\n\t\t\t\t\"rbind\",\n\t\t\t\t\"nosuid\",";
    DEFAULT
        .replace(network, user)
        .replace(sysfs, bound)
        .replace(",\n\t\t\t\t\"gid=5\"", "")
        .replace("\t\t\"resources\": {\n\t\t\t\"devices\": [\n\t\t\t\t{\n\t\t\t\t\t\"allow\": false,\n\t\t\t\t\t\"access\": \"rwm\"\n\t\t\t\t}\n\t\t\t]\n\t\t},\n", &maps)
}

/// On version 2, where a container's view of its cgroups is worth having, as with runc.
fn with_cgroup_namespace(text: &str) -> String {
    let mount = "\t\t\t{\n\t\t\t\t\"type\": \"mount\"\n\t\t\t}";
    text.replace(mount, &format!("{mount},\n{}", mount.replace("mount", "cgroup")))
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxNamespaceType;

    use super::*;
    use crate::bundle;

    #[test]
    fn both_defaults_are_good_configurations() {
        bundle::parse(DEFAULT.as_bytes()).expect("the default");
        let rootless = rootless();
        let spec = bundle::parse(rootless.as_bytes()).expect("the rootless default");
        let linux = spec.linux().as_ref().expect("linux");
        assert_eq!(linux.uid_mappings().as_ref().map(Vec::len), Some(1));
        assert!(linux.resources().is_none());
        assert!(
            rootless.contains("\"rbind\"") && rootless.contains("\"user\"") && !rootless.contains("gid=5")
        );
        assert!(!rootless.contains("\"network\""));
        for text in [DEFAULT, &rootless] {
            let spec = bundle::parse(with_cgroup_namespace(text).as_bytes()).expect("a configuration");
            let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().clone());
            let kinds: Vec<_> = namespaces.iter().flatten().map(|namespace| namespace.typ()).collect();
            assert!(kinds.contains(&LinuxNamespaceType::Cgroup), "{kinds:?}");
        }
    }
}
