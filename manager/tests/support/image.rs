//! Images made in memory.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// How a layer is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Packed {
    Plain,
    Gzip,
    Zstd,
}

/// An image: documents and layers by their digests.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) manifest_type: String,
    pub(crate) layers: Vec<String>,
    pub(crate) config: String,
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

pub(crate) fn pack(tar: &[u8], packed: Packed) -> Vec<u8> {
    match packed {
        Packed::Plain => tar.to_vec(),
        Packed::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(tar).expect("gzip");
            encoder.finish().expect("gzip")
        }
        Packed::Zstd => zstd::encode_all(tar, 1).expect("zstd"),
    }
}

/// An image for this machine with gzip layers.
pub(crate) fn image(tars: &[Vec<u8>]) -> Image {
    let layers: Vec<(Vec<u8>, Packed)> = tars.iter().map(|tar| (tar.clone(), Packed::Gzip)).collect();
    image_with(&layers, architecture(), false)
}

pub(crate) fn image_with(tars: &[(Vec<u8>, Packed)], architecture: &str, docker: bool) -> Image {
    let blobs: Vec<(Vec<u8>, Packed)> =
        tars.iter().map(|(tar, packed)| (pack(tar, *packed), *packed)).collect();
    let diff_ids: Vec<String> = tars.iter().map(|(tar, _)| digest(tar)).collect();
    image_of(&blobs, &diff_ids, architecture, docker)
}

/// An image of these very blobs, which may not be what they are said to be.
pub(crate) fn image_of(
    layers: &[(Vec<u8>, Packed)],
    diff_ids: &[String],
    architecture: &str,
    docker: bool,
) -> Image {
    let config = json!({
        "created": "2020-01-01T00:00:00Z", "architecture": architecture, "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"comment": "made by a test"}],
    })
    .to_string()
    .into_bytes();
    let mut blobs = BTreeMap::new();
    let layer_type = |packed: Packed| match (docker, packed) {
        (true, Packed::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        (true, _) => "application/vnd.docker.image.rootfs.diff.tar",
        (false, Packed::Plain) => "application/vnd.oci.image.layer.v1.tar",
        (false, Packed::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
        (false, Packed::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
    };
    let mut descriptors = Vec::new();
    for (blob, packed) in layers {
        descriptors
            .push(json!({"mediaType": layer_type(*packed), "digest": digest(blob), "size": blob.len()}));
        blobs.insert(digest(blob), blob.clone());
    }
    let (manifest_type, config_type) = if docker {
        (DOCKER_MANIFEST, "application/vnd.docker.container.image.v1+json")
    } else {
        (MANIFEST, "application/vnd.oci.image.config.v1+json")
    };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest_type,
        "config": {"mediaType": config_type, "digest": digest(&config), "size": config.len()},
        "layers": descriptors,
    })
    .to_string()
    .into_bytes();
    let config_digest = digest(&config);
    blobs.insert(config_digest.clone(), config);
    let layers = descriptors.iter().filter_map(|layer| layer["digest"].as_str().map(str::to_owned)).collect();
    Image { blobs, manifest, manifest_type: manifest_type.to_owned(), layers, config: config_digest }
}

/// The name of this machine's architecture in images.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Image {
    pub(crate) fn digest(&self) -> String {
        digest(&self.manifest)
    }

    pub(crate) fn descriptor(&self) -> Value {
        json!({"mediaType": self.manifest_type, "digest": self.digest(), "size": self.manifest.len()})
    }

    /// Writes it as an OCI image layout with one name.
    pub(crate) fn write_layout(&self, folder: &Path, name: &str) {
        let blobs = folder.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).expect("make a layout");
        let mut all = self.blobs.clone();
        all.insert(self.digest(), self.manifest.clone());
        for (digest, bytes) in all {
            std::fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).expect("write a blob");
        }
        let mut entry = self.descriptor();
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
        std::fs::write(folder.join("index.json"), index).expect("write index.json");
        std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("write oci-layout");
    }
}
