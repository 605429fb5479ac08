//! `import`: a root filesystem in a tar becomes an image of one layer.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use oci_spec::image::{Descriptor, MediaType};
use serde_json::{Map, Value, json};

use crate::cli::Context;
use crate::copy::{self, Source, Wanted};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::image::archive;
use crate::image::layout::{self, Layout, MARKER};
use crate::output;
use crate::platform;
use crate::progress::{Output, Progress};
use crate::reference::Reference;
use crate::store::Store;

/// Make an image of a root filesystem in a tar
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A line of a Dockerfile for the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER,
    /// VOLUME or WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// What `history` is to say
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// What it is for, if not this machine
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// A tar, plain, gzip or zstd; `-` is standard input
    #[arg(value_name = "FILE")]
    file: String,
    /// NAME or NAME:TAG
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Imports.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let name = args.name.as_deref().map(Reference::parse).transpose()?;
    let platform = args.platform.as_deref().map_or_else(|| Ok(platform::host()), platform::parse)?;
    let mut config = Map::new();
    for change in &args.change {
        apply(&mut config, change).with_context(|| format!("--change {change:?}"))?;
    }
    let store = Store::open(&context.root)?;
    let _hold = store.hold()?;
    let scratch = store.scratch()?;
    let blobs = scratch.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).context("make a layout")?;
    let tar = open(&args.file, &store.path("tmp")).with_context(|| format!("read {}", args.file))?;
    let (layer, diff_id) = pack(tar, &blobs).with_context(|| format!("read {}", args.file))?;
    let now = jiff::Timestamp::now().to_string();
    let image = json!({
        "created": now, "os": platform.os(), "architecture": platform.architecture(), "variant": platform.variant(),
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{
            "created": now,
            "comment": args.message.unwrap_or_else(|| format!("Imported from {}", args.file)),
        }],
    });
    let config = keep(&blobs, MediaType::ImageConfig, &without_null(image))?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": [layer],
    });
    let manifest = keep(&blobs, MediaType::ImageManifest, &manifest)?;
    let full = match &name {
        Some(name) => name.to_string(),
        None => format!("localhost/untagged@{}", manifest.digest()),
    };
    let (marker, text) = MARKER;
    std::fs::write(scratch.path().join(marker), text).context("make a layout")?;
    let index = layout::index(&[(full.clone(), manifest.clone())])?;
    std::fs::write(scratch.path().join("index.json"), index).context("make a layout")?;

    let source = Source::Layout(Layout::open(scratch.path())?);
    let top = source.described(&manifest)?;
    let wanted = Wanted { top, name: full, platform: &platform, all_platforms: false };
    let kept = copy::keep(&store, &source, wanted, &Progress::new(Output::Nowhere)).context("import")?;
    output::print(&format!("{}\n", kept.record.config))?;
    Ok(0)
}

fn open(file: &str, spool: &Path) -> Result<File> {
    if file == "-" {
        return archive::plain(io::stdin().as_fd().try_clone_to_owned()?.into(), spool);
    }
    if file.starts_with("http://") || file.starts_with("https://") {
        bail!("addresses are not supported: fetch it first");
    }
    archive::plain(File::open(file)?, spool)
}

/// Packs the tar into the folder of blobs: its descriptor and its diffID.
fn pack(tar: File, blobs: &Path) -> Result<(Descriptor, Digest)> {
    let draft = blobs.join("layer");
    let mut plain = Hashing { reader: tar, hasher: Hasher::new(Algorithm::Sha256) };
    let mut input = BufReader::with_capacity(1 << 18, &mut plain);
    let (digest, size) = copy::pack(&mut input, &File::create(&draft)?, copy::FAST)?;
    std::fs::rename(&draft, blobs.join(digest.hex()))?;
    Ok((digest.describe(MediaType::ImageLayerGzip, size)?, plain.hasher.finish()))
}

struct Hashing {
    reader: File,
    hasher: Hasher,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

fn keep(blobs: &Path, media_type: MediaType, document: &Value) -> Result<Descriptor> {
    let bytes = document.to_string().into_bytes();
    let digest = Digest::sha256(&bytes);
    std::fs::write(blobs.join(digest.hex()), &bytes).context("make a layout")?;
    digest.describe(media_type, bytes.len() as u64)
}

fn without_null(mut document: Value) -> Value {
    if let Value::Object(fields) = &mut document {
        fields.retain(|_, value| !value.is_null());
    }
    document
}

/// One instruction: <https://docs.docker.com/reference/dockerfile/>, without variables.
fn apply(config: &mut Map<String, Value>, change: &str) -> Result<()> {
    let (instruction, rest) =
        change.trim().split_once(char::is_whitespace).context("an instruction without a value")?;
    let rest = rest.trim();
    let words = || serde_json::from_str::<Vec<String>>(rest).ok();
    let command = || json!(words().unwrap_or_else(|| ["/bin/sh", "-c", rest].map(str::to_owned).to_vec()));
    let mut put = |field: &str, key: String, value: Value| {
        config.entry(field).or_insert_with(|| json!({}))[key] = value;
    };
    match instruction.to_ascii_uppercase().as_str() {
        "CMD" => drop(config.insert("Cmd".to_owned(), command())),
        "ENTRYPOINT" => drop(config.insert("Entrypoint".to_owned(), command())),
        "ENV" => {
            let entry =
                if rest.contains('=') { rest.to_owned() } else { rest.replacen(char::is_whitespace, "=", 1) };
            let list = config.entry("Env").or_insert_with(|| json!([]));
            list.as_array_mut().context("a list")?.push(json!(entry.replace('"', "")));
        }
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let port = if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") };
                put("ExposedPorts", port, json!({}));
            }
        }
        "LABEL" => {
            let (key, value) = rest.split_once('=').context("LABEL wants KEY=VALUE")?;
            put("Labels", key.trim_matches('"').to_owned(), json!(value.trim_matches('"')));
        }
        "VOLUME" => {
            let paths = words().unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
            paths.into_iter().for_each(|path| put("Volumes", path, json!({})));
        }
        "STOPSIGNAL" => drop(config.insert("StopSignal".to_owned(), json!(rest))),
        "USER" => drop(config.insert("User".to_owned(), json!(rest))),
        "WORKDIR" => drop(config.insert("WorkingDir".to_owned(), json!(rest))),
        other => bail!("{other} is not supported here"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_become_configuration() {
        let mut config = Map::new();
        for change in [
            r#"CMD ["a", "b"]"#,
            "entrypoint run it",
            "ENV A=1",
            "ENV B two",
            "EXPOSE 80 53/udp",
            "LABEL x.y=\"z\"",
            "USER 1000",
            "VOLUME /data",
            "WORKDIR /w",
            "STOPSIGNAL SIGINT",
        ] {
            apply(&mut config, change).unwrap();
        }
        let expected = json!({
            "Cmd": ["a", "b"], "Entrypoint": ["/bin/sh", "-c", "run it"], "Env": ["A=1", "B=two"],
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Labels": {"x.y": "z"}, "User": "1000",
            "Volumes": {"/data": {}}, "WorkingDir": "/w", "StopSignal": "SIGINT",
        });
        assert_eq!(Value::Object(config), expected);
        for bad in ["CMD", "RUN x", "LABEL x", ""] {
            assert!(apply(&mut Map::new(), bad).is_err(), "{bad}");
        }
    }
}
