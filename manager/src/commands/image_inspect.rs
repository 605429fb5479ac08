//! `image inspect`: everything about an image, under docker's keys.

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use super::images;
use crate::cli::Context;
use crate::image::config;
use crate::output;
use crate::store::Store;
use crate::template;

/// Show everything about images, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A template as '{{.Id}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// NAME, NAME:TAG, NAME@DIGEST, or an image id
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Shows those that exist; the missing ones are the error.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let store = Store::open(&context.root)?;
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for image in &args.images {
        match json(&store, image)? {
            Some(value) => found.push(value),
            None => missing.push(image.as_str()),
        }
    }
    match &args.format {
        Some(format) => {
            for value in &found {
                output::print(&(template::render(format, value)? + "\n"))?;
            }
        }
        None => output::print(&(serde_json::to_string_pretty(&found)? + "\n"))?,
    }
    if !missing.is_empty() {
        bail!("no such image: {}", missing.join(", "));
    }
    Ok(0)
}

/// One image by name or id; none when there is no such image.
pub(crate) fn json(store: &Store, name: &str) -> Result<Option<Value>> {
    let Some((record, _)) = store.find_record(name)? else { return Ok(None) };
    let inspect = || -> Result<Value> {
        let bytes = store.read_blob(&record.config)?;
        let config = config::read(&bytes)?;
        // The types know less than docker writes (Healthcheck, Shell, ...): its own words, then.
        let raw: Value = serde_json::from_slice(&bytes)?;
        let text = |key: &str| raw.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let mut tags = Vec::new();
        let mut digests = Vec::new();
        let mut tagged_at = record.tagged_at.clone();
        for other in store.records()?.into_iter().filter(|other| other.config == record.config) {
            let reference = other.reference()?;
            if reference.tag().is_some() {
                tags.push(reference.familiar());
            }
            let digest = reference.with_digest(&other.target).familiar();
            if !digests.contains(&digest) {
                digests.push(digest);
            }
            tagged_at = tagged_at.max(other.tagged_at);
        }
        let size = images::size(store, &config)?;
        let lower: Vec<String> = store
            .lower_folders(&config::diff_ids(&config)?)?
            .iter()
            .rev()
            .map(|folder| folder.display().to_string())
            .collect();
        let last_comment = || {
            let comment = raw.get("history")?.as_array()?.last()?.get("comment")?;
            comment.as_str().map(str::to_owned)
        };
        let mut value = json!({
            "Id": record.config,
            "RepoTags": tags,
            "RepoDigests": digests,
            "Parent": "",
            "Comment": last_comment().unwrap_or_default(),
            "Created": text("created"),
            "Container": text("container"),
            "DockerVersion": text("docker_version"),
            "Author": text("author"),
            "Config": container_config(raw.get("config")),
            "Architecture": config.architecture(),
            "Os": config.os(),
            "Size": size,
            "VirtualSize": size,
            "GraphDriver": {"Name": "overlay2", "Data": {"LowerDir": lower.join(":")}},
            "RootFS": {"Type": "layers", "Layers": config.rootfs().diff_ids()},
            "Metadata": {"LastTagTime": tagged_at},
        });
        if let Some(variant) = config.variant() {
            value["Variant"] = variant.clone().into();
        }
        Ok(value)
    };
    inspect().with_context(|| format!("image {}", record.familiar())).map(Some)
}

/// Docker shows every key, also those that an image leaves out.
fn container_config(raw: Option<&Value>) -> Value {
    let mut config = json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
        "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null,
        "Image": "", "Volumes": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null,
    });
    let empty = Map::new();
    let own = raw.and_then(Value::as_object).unwrap_or(&empty);
    for (key, value) in own {
        config[key.as_str()] = value.clone();
    }
    config
}
