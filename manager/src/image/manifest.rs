//! Manifests and indexes, read so that a document has one meaning only.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md>,
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md>

use anyhow::{Context, Result, bail};
use oci_spec::image::{ImageIndex, ImageManifest};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::MOST_LAYERS;
use super::media_type::{self, Kind};

/// What a reference can name.
#[derive(Debug)]
pub(crate) enum Document {
    /// One manifest a platform.
    Index(Box<ImageIndex>),
    /// One image.
    Manifest(Box<ImageManifest>),
}

/// The fields by which a document shows what it is. Keys that stand twice are an error here: two
/// readers could each take another one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

/// Reads an image's document: as [`read_any`], and a manifest must be one of a container image.
pub(crate) fn read(bytes: &[u8], declared: Option<&str>) -> Result<Document> {
    let document = read_any(bytes, declared)?;
    if let Document::Manifest(manifest) = &document {
        check(manifest)?;
    }
    Ok(document)
}

/// Reads a document that came with the media type `declared` (a header or a descriptor). It is
/// refused when it could be read as both kinds, or says it is something else than declared
/// (GHSA-5j5w-g665-5m35).
pub(crate) fn read_any(bytes: &[u8], declared: Option<&str>) -> Result<Document> {
    let shape: Shape = serde_json::from_slice(bytes).context("it is not a valid manifest")?;
    if shape.schema_version == Some(1) {
        bail!(media_type::SCHEMA1);
    }
    if shape.manifests.is_some() && (shape.config.is_some() || shape.layers.is_some()) {
        bail!("it has both the fields of an index and of a manifest");
    }
    let declared_kind = declared.map(media_type::kind).transpose()?.flatten();
    if let (Some(declared), Some(_), Some(own)) = (declared, declared_kind, &shape.media_type)
        && declared != own
    {
        bail!("it came as {declared:?} but says it is {own:?}");
    }
    let own_kind = shape.media_type.as_deref().map(media_type::kind).transpose()?.flatten();
    let shown = if shape.manifests.is_some() { Kind::Index } else { Kind::Manifest };
    if own_kind.or(declared_kind).is_some_and(|said| said != shown) {
        bail!("its fields are not those of its media type");
    }
    match shown {
        Kind::Index => {
            let index = serde_json::from_slice(bytes).context("it is not a valid index")?;
            Ok(Document::Index(Box::new(index)))
        }
        Kind::Manifest => {
            let manifest: ImageManifest =
                serde_json::from_slice(bytes).context("it is not a valid manifest")?;
            Ok(Document::Manifest(Box::new(manifest)))
        }
    }
}

fn check(manifest: &ImageManifest) -> Result<()> {
    let config_type = manifest.config().media_type().as_ref();
    let image = matches!(
        config_type,
        "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
    );
    if !image {
        bail!("it is not a container image: its configuration is a {config_type:?}");
    }
    if manifest.layers().len() > MOST_LAYERS {
        bail!(
            "it has {} layers, more than the {MOST_LAYERS} that overlayfs can stack",
            manifest.layers().len()
        );
    }
    for layer in manifest.layers() {
        media_type::check_layer(layer.media_type().as_ref())
            .with_context(|| format!("layer {}", layer.digest()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{DIGEST}","size":2}}"#)
    }

    fn config() -> String {
        descriptor("application/vnd.oci.image.config.v1+json")
    }

    #[test]
    fn honest_documents_are_read() {
        let manifest = format!(r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#, config());
        assert!(matches!(read(manifest.as_bytes(), None).unwrap(), Document::Manifest(_)));
        assert!(matches!(
            read(manifest.as_bytes(), Some(media_type::OCI_MANIFEST)).unwrap(),
            Document::Manifest(_)
        ));
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(read(index.as_bytes(), Some("application/json")).unwrap(), Document::Index(_)));
    }

    #[test]
    fn ambiguous_and_foreign_documents_are_refused() {
        let config = config();
        let layer = descriptor("application/x-executable");
        let artifact = descriptor("application/vnd.example.thing");
        let table: Vec<(String, Option<&str>, &str)> = vec![
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), None, "schema 1"),
            (
                r#"{"schemaVersion":2}"#.into(),
                Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
                "schema 1",
            ),
            (format!(r#"{{"schemaVersion":2,"manifests":[],"config":{config},"layers":[]}}"#), None, "both"),
            (
                format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#),
                Some(media_type::OCI_INDEX),
                "fields are not those",
            ),
            (
                format!(
                    r#"{{"schemaVersion":2,"mediaType":"{}","config":{config},"layers":[]}}"#,
                    media_type::OCI_INDEX
                ),
                Some(media_type::OCI_MANIFEST),
                "says it is",
            ),
            (
                format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"layers":[]}}"#),
                None,
                "duplicate field",
            ),
            (
                format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#),
                None,
                "not an image layer",
            ),
            (
                format!(r#"{{"schemaVersion":2,"config":{artifact},"layers":[]}}"#),
                None,
                "not a container image",
            ),
            ("[]".into(), None, "not a valid manifest"),
            ("{".into(), None, "not a valid manifest"),
        ];
        for (text, declared, expected) in table {
            let message = format!("{:#}", read(text.as_bytes(), declared).unwrap_err());
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
