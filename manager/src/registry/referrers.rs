//! What refers to an image, as signatures and bills of materials do: endpoints end-12a and end-12b.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers>

use anyhow::{Context, Result, bail};
use oci_spec::image::{Descriptor, ImageIndex};
use ureq::http::Method;

use super::Repository;
use super::pages::{document, encode};
use super::server::{Answer, header};
use crate::digest::Digest;
use crate::image::media_type::OCI_INDEX;

/// More is a way to keep us busy.
const MOST_REFERRERS: usize = 100_000;

impl Repository {
    /// The manifests that have `digest` as their subject, of one type if that is given. Registries that
    /// do not know the question keep the answer under a tag.
    pub(crate) fn referrers(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        let mut found = Vec::new();
        let mut unknown = false;
        let query = artifact_type.map(|kind| format!("?artifactType={}", encode(kind))).unwrap_or_default();
        let address = format!("/v2/{}/referrers/{digest}{query}", self.path);
        let take = |page: ImageIndex, _: &_| {
            found.extend(page.manifests().iter().cloned());
            found.len() <= MOST_REFERRERS
        };
        let refused = |answer: Answer| {
            unknown = answer.status() == 404;
            if unknown { Ok(()) } else { Err(self.refused(answer)) }
        };
        self.server.pages(&address, &self.scope, OCI_INDEX, take, refused)?;
        if unknown {
            found = self.tagged_referrers(digest)?;
        }
        if found.len() > MOST_REFERRERS {
            bail!("registry {}: {digest} has more than {MOST_REFERRERS} referrers", self.server.domain);
        }
        // A registry says by `OCI-Filters-Applied` that it has filtered; it does no harm to do it again.
        if let Some(wanted) = artifact_type {
            found.retain(|one| one.artifact_type().as_ref().is_some_and(|kind| kind.as_ref() == wanted));
        }
        Ok(found)
    }

    /// <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#referrers-tag-schema>
    fn tagged_referrers(&self, digest: &Digest) -> Result<Vec<Descriptor>> {
        let tag = fallback_tag(digest);
        let request = self.request(Method::GET, &format!("manifests/{tag}")).header("Accept", OCI_INDEX);
        let mut answer = self.send(&request)?;
        match answer.status().as_u16() {
            404 => return Ok(Vec::new()),
            200 => {}
            _ => return Err(self.refused(answer)),
        }
        let about = || format!("registry {}: the tag {tag}", self.server.domain);
        let media_type = header(&answer, "content-type").unwrap_or_default().to_owned();
        let index: ImageIndex = document(&mut answer).with_context(about)?;
        let declared = index.media_type().as_ref().map_or(media_type, ToString::to_string);
        if crate::image::media_type::without_parameters(&declared) != OCI_INDEX {
            bail!("{}: it is {declared:?}, not an index of referrers", about());
        }
        Ok(index.manifests().clone())
    }
}

/// `sha256-<hex>`, of algorithms of at most 32 and hashes of at most 64 letters.
fn fallback_tag(digest: &Digest) -> String {
    let hex: String = digest.hex().chars().take(64).collect();
    format!("{}-{hex}", digest.algorithm().name())
}
