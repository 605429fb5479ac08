//! The tags of a repository: endpoints end-8a and end-8b.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-tags>

use anyhow::{Result, bail};
use serde::Deserialize;

use super::Repository;
use super::server::foreign;

/// More is not a repository but a way to keep us busy.
const MOST_TAGS: usize = 1_000_000;

#[derive(Deserialize)]
struct Page {
    /// `null` in repositories without any.
    tags: Option<Vec<String>>,
}

impl Repository {
    /// All tags, or the first of them, in the registry's order. Mirrors are not asked.
    pub(crate) fn tags(&self, limit: Option<usize>) -> Result<Vec<String>> {
        // Registries have their own largest page, and some refuse more.
        let size = limit.filter(|limit| *limit <= 100).map(|limit| format!("?n={limit}")).unwrap_or_default();
        let limit = limit.unwrap_or(MOST_TAGS + 1);
        let mut tags = Vec::new();
        let address = format!("/v2/{}/tags/list{size}", self.path);
        let take = |page: Page, _: &_| {
            tags.extend(page.tags.unwrap_or_default());
            tags.len() < limit
        };
        let refused = |answer| Err(self.refused(answer));
        self.server.pages(&address, &self.scope, "application/json", take, refused)?;
        tags.truncate(limit);
        if tags.len() > MOST_TAGS {
            bail!("registry {}: it has more than {MOST_TAGS} tags", self.server.domain);
        }
        Ok(tags.iter().map(|tag| foreign(tag)).collect())
    }
}
