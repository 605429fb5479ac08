//! The OCI image layout that the store keeps, so that other tools can read it.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>
//!
//! ```text
//! oci-layout            {"imageLayoutVersion":"1.0.0"}
//! index.json            one descriptor a name, the name in org.opencontainers.image.ref.name
//! blobs/sha256/<hex>    manifests, configurations, layers, exactly as they came
//! ```

use anyhow::Result;
use oci_spec::image::Descriptor;
use serde_json::{Value, json};

/// The file that marks a folder as a layout.
pub(crate) const MARKER: (&str, &str) = ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);

/// The text of `index.json` for these names and manifests.
pub(crate) fn index(images: &[(String, Descriptor)]) -> Result<String> {
    let mut manifests = Vec::with_capacity(images.len());
    for (name, manifest) in images {
        let mut entry = serde_json::to_value(manifest)?;
        // The annotations of an index entry belong to the index we are writing.
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        manifests.push(entry);
    }
    let index: Value = json!({
        "schemaVersion": 2,
        "mediaType": super::media_type::OCI_INDEX,
        "manifests": manifests,
    });
    Ok(index.to_string())
}
