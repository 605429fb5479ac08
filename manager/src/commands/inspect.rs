//! `inspect`: all about containers, under docker's names.

use anyhow::Result;
use serde_json::{Value, json};

use super::image_inspect;
use crate::bundle::config::{MASKED_PATHS, READONLY_PATHS};
use crate::cli::Context;
use crate::container::Container;
use crate::container::record::{Mount, Record, Root, Source};
use crate::container::state::State;
use crate::container::volume;
use crate::store::Store;
use crate::{output, template};

/// What Go prints for a time that has not come.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Print all about containers or images, in JSON
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print with a template: '{{.State.Pid}}', '{{json .Config}}'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Names or ids
    #[arg(required = true)]
    names: Vec<String>,
}

/// Prints a JSON list, or a line for each with a template.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let mut found = Vec::new();
    let code = super::each(&args.names, |wanted| {
        let value = find(context, wanted)?;
        match &args.format {
            Some(format) => output::print(&(template::render(format, &value)? + "\n"))?,
            None => found.push(value),
        }
        Ok(0)
    })?;
    if args.format.is_none() {
        output::print(&(serde_json::to_string_pretty(&Value::from(found))? + "\n"))?;
    }
    Ok(code)
}

/// A container by this name or id, or else an image.
fn find(context: &Context, wanted: &str) -> Result<Value> {
    match Container::find(context, wanted) {
        Ok(container) => json(&container),
        Err(error) => image_inspect::json(&Store::open(&context.root)?, wanted).ok().flatten().ok_or(error),
    }
}

/// One container.
fn json(container: &Container) -> Result<Value> {
    let record = &container.record;
    let process = &record.process;
    let (image, image_name, reference, manifest) = match &record.root {
        Root::Image { id, name, reference, manifest, .. } => {
            (id.as_str(), name.clone(), reference.as_ref(), Some(manifest))
        }
        Root::Folder(path) => ("", path.display().to_string(), None, None),
    };
    let file = |name: &str| container.folder.join(name);
    Ok(json!({
        "Id": record.id,
        "Created": record.created,
        "Path": process.args.first(),
        "Args": process.args.get(1..),
        "State": state(&container.state()?),
        "Image": image,
        "ImageName": reference,
        "ImageManifestDescriptor": manifest,
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": container.log_path(),
        "Name": format!("/{}", record.name),
        "RestartCount": 0,
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": host_config(container),
        "GraphDriver": graph_driver(container),
        "Mounts": record.mounts.iter().enumerate().map(|(number, mount)| mount_json(container, number, mount)).collect::<Vec<_>>(),
        "Config": config(record, &image_name),
        "NetworkSettings": network_settings(record.network.name()),
    }))
}

/// What the container's process was made of.
fn config(record: &Record, image_name: &str) -> Value {
    let process = &record.process;
    json!({
        "Hostname": record.hostname,
        "Domainname": "",
        "User": process.user,
        "AttachStdin": process.stdin_once,
        "AttachStdout": process.stdin_once,
        "AttachStderr": process.stdin_once,
        "Tty": process.terminal,
        "OpenStdin": process.open_stdin,
        "StdinOnce": process.stdin_once,
        "Env": process.env,
        "Cmd": process.command,
        "Image": image_name,
        "Volumes": null,
        "WorkingDir": process.cwd,
        "Entrypoint": Some(&process.entrypoint).filter(|words| !words.is_empty()),
        "OnBuild": null,
        "Labels": record.labels,
        "StopSignal": record.stop_signal.to_string(),
        "StopTimeout": record.stop_timeout,
    })
}

fn state(state: &State) -> Value {
    let (mut pid, mut code, mut oom, mut error) = (0, 0, false, String::new());
    let (mut started_at, mut finished_at) = (NEVER.to_owned(), NEVER.to_owned());
    match state {
        State::Created(None) => {}
        State::Created(Some(exit)) | State::Exited(exit) => {
            (code, oom) = (exit.code, exit.oom_killed);
            error = exit.error.clone().unwrap_or_default();
            if let Some(at) = &exit.started_at {
                started_at.clone_from(at);
                finished_at.clone_from(&exit.finished_at);
            }
        }
        State::Running { started, .. } => {
            pid = started.process.pid;
            started_at.clone_from(&started.at);
        }
    }
    json!({
        "Status": state.name(),
        "Running": state.running().is_some(),
        "Paused": false,
        "Restarting": false,
        "OOMKilled": oom,
        "Dead": false,
        "Pid": pid,
        "ExitCode": code,
        "Error": error,
        "StartedAt": started_at,
        "FinishedAt": finished_at,
    })
}

/// What was asked for. Fields that no flag of ours sets have docker's "nothing".
fn host_config(container: &Container) -> Value {
    let record = &container.record;
    let some = |list: &[String]| if list.is_empty() { Value::Null } else { list.into() };
    let binds: Vec<String> = record.mounts.iter().filter_map(bind).collect();
    let swap = record.resources.memory_swap.or(record.resources.memory.map(|bytes| bytes.saturating_mul(2)));
    let hidden = if record.security.privileged { Value::Null } else { MASKED_PATHS.as_slice().into() };
    let fixed = if record.security.privileged { Value::Null } else { READONLY_PATHS.as_slice().into() };
    let mut config = json!({
        "Binds": some(&binds),
        "ContainerIDFile": record.cidfile.clone().unwrap_or_default(),
        "LogConfig": { "Type": "json-file", "Config": { "max-size": "10m", "max-file": "3" } },
        "NetworkMode": record.network.name(),
        "PortBindings": {},
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
        "AutoRemove": record.auto_remove,
        "CapAdd": some(&record.security.cap_add),
        "CapDrop": some(&record.security.cap_drop),
        "CgroupnsMode": "private",
        "Dns": [], "DnsOptions": [], "DnsSearch": [],
        "IpcMode": "private",
        "Privileged": record.security.privileged,
        "ReadonlyRootfs": record.read_only,
        "SecurityOpt": some(&record.security.options),
        "ShmSize": 67_108_864,
        "Runtime": record.runtime,
        "ConsoleSize": [0, 0],
        "Memory": record.resources.memory.unwrap_or(0),
        "MemorySwap": swap.unwrap_or(0),
        "NanoCpus": record.resources.nano_cpus.unwrap_or(0),
        "PidsLimit": record.resources.pids,
        "BlkioWeightDevice": [], "Devices": [],
        "MaskedPaths": hidden,
        "ReadonlyPaths": fixed,
    });
    for name in [
        "VolumeDriver",
        "Cgroup",
        "PidMode",
        "UTSMode",
        "UsernsMode",
        "Isolation",
        "CgroupParent",
        "CpusetCpus",
        "CpusetMems",
    ] {
        config[name] = "".into();
    }
    for name in [
        "VolumesFrom",
        "ExtraHosts",
        "GroupAdd",
        "Links",
        "BlkioDeviceReadBps",
        "BlkioDeviceWriteBps",
        "BlkioDeviceReadIOps",
        "BlkioDeviceWriteIOps",
        "DeviceCgroupRules",
        "DeviceRequests",
        "MemorySwappiness",
        "Ulimits",
    ] {
        config[name] = Value::Null;
    }
    for name in [
        "OomScoreAdj",
        "CpuShares",
        "BlkioWeight",
        "CpuPeriod",
        "CpuQuota",
        "CpuRealtimePeriod",
        "CpuRealtimeRuntime",
        "KernelMemory",
        "KernelMemoryTCP",
        "MemoryReservation",
        "CpuCount",
        "CpuPercent",
        "IOMaximumIOps",
        "IOMaximumBandwidth",
    ] {
        config[name] = 0.into();
    }
    for name in ["PublishAllPorts", "OomKillDisable"] {
        config[name] = false.into();
    }
    config
}

/// A mount as `-v` writes it; none for what is not a bind or a named volume.
fn bind(mount: &Mount) -> Option<String> {
    let source = match &mount.source {
        Source::Bind(path) => path.display().to_string(),
        Source::Volume { name, .. } => name.clone(),
        Source::Anonymous | Source::Tmpfs => return None,
    };
    let option = if mount.read_only { ":ro" } else { "" };
    Some(format!("{source}:{}{option}", mount.destination))
}

fn mount_json(container: &Container, number: usize, mount: &Mount) -> Value {
    let (kind, name, source) = match &mount.source {
        Source::Bind(path) => ("bind", None, path.clone()),
        Source::Volume { name, .. } => {
            ("volume", Some(name.clone()), volume::folder(&container.root, name).join("_data"))
        }
        Source::Anonymous => (
            "volume",
            Some(number.to_string()),
            container.folder.join("volumes").join(number.to_string()).join("_data"),
        ),
        Source::Tmpfs => ("tmpfs", None, Default::default()),
    };
    let propagation =
        mount.options.iter().find(|option| option.contains("private") || option.contains("slave"));
    let mut value = json!({
        "Type": kind,
        "Source": source,
        "Destination": mount.destination,
        "Mode": if mount.read_only { "ro" } else { "" },
        "RW": !mount.read_only,
        "Propagation": propagation.cloned().unwrap_or_default(),
    });
    if let Some(name) = name {
        value["Name"] = name.into();
        value["Driver"] = "local".into();
    }
    value
}

fn graph_driver(container: &Container) -> Value {
    let Root::Image { layers, .. } = &container.record.root else {
        return json!({ "Name": "rootfs", "Data": {} });
    };
    let lower: Vec<String> = layers.iter().rev().map(|layer| layer.display().to_string()).collect();
    json!({
        "Name": "overlay",
        "Data": {
            "LowerDir": lower.join(":"),
            "MergedDir": container.folder.join("rootfs"),
            "UpperDir": container.folder.join("upper"),
            "WorkDir": container.folder.join("work"),
        },
    })
}

fn network_settings(network: &str) -> Value {
    let endpoint = json!({
        "IPAMConfig": null, "Links": null, "Aliases": null, "NetworkID": "", "EndpointID": "", "Gateway": "",
        "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
        "MacAddress": "", "DriverOpts": null,
    });
    json!({
        "Bridge": "", "SandboxID": "", "HairpinMode": false, "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0, "Ports": {}, "SandboxKey": "", "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null, "EndpointID": "", "Gateway": "", "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0, "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "MacAddress": "",
        "Networks": { network: endpoint },
    })
}
