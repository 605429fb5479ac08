//! Looking for repositories by a word: what docker's registry can, and the catalogue of others.
//!
//! - `GET /v1/search?q=WORD&n=25`, of docker's first interface, which outlived it
//! - `GET /v2/_catalog`: all names, to be filtered here; many registries keep it to themselves
//!
//! <https://distribution.github.io/distribution/spec/api/#catalog>

use anyhow::Result;
use serde::Deserialize;
use ureq::http::Method;

use super::pages::{document, encode};
use super::registries::Registries;
use super::request::Request;
use super::server::{Server, foreign};
use super::{RegistryArgs, refused};

/// Docker's registry is searched at another name than it is pulled from.
const DOCKER_INDEX: &str = "https://index.docker.io";

/// Docker's names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Found {
    /// With the registry, but for docker's.
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) star_count: u64,
    pub(crate) is_official: bool,
    pub(crate) is_automated: bool,
}

#[derive(Deserialize)]
struct Results {
    results: Vec<Found>,
}

#[derive(Deserialize)]
struct Catalogue {
    repositories: Option<Vec<String>>,
}

/// At most `limit` repositories of the registry `domain` that match.
pub(crate) fn search(domain: &str, word: &str, limit: usize, args: &RegistryArgs) -> Result<Vec<Found>> {
    let insecure = Registries::load()?.insecure(domain)?;
    let server = Server::new(domain, domain, args, insecure)?;
    let docker = domain == "docker.io";
    // Without a word only a catalogue answers.
    if docker || !word.is_empty() {
        let base = if docker { DOCKER_INDEX } else { "" };
        let address = format!("{base}/v1/search?q={}&n={limit}", encode(word));
        let mut answer = server.send(&Request::new(Method::GET, address))?;
        let found = if answer.status() == 200 { document::<Results>(&mut answer).ok() } else { None };
        match found {
            Some(found) => return Ok(cleaned(found.results, domain, limit)),
            None if docker => return Err(refused(&server, answer)),
            None => {}
        }
    }
    let mut found = Vec::new();
    let take = |page: Catalogue, _: &_| {
        let names = page.repositories.unwrap_or_default().into_iter();
        let matching = names.filter(|name| name.contains(word));
        found.extend(matching.map(|name| Found { name, ..Found::default() }));
        found.len() < limit
    };
    let scope = "registry:catalog:*";
    server.pages("/v2/_catalog", scope, "application/json", take, |answer| Err(refused(&server, answer)))?;
    Ok(cleaned(found, domain, limit))
}

/// Words of strangers, and whole names.
fn cleaned(mut found: Vec<Found>, domain: &str, limit: usize) -> Vec<Found> {
    found.truncate(limit);
    for one in &mut found {
        let name = foreign(&one.name);
        one.name = if domain == "docker.io" { name } else { format!("{domain}/{name}") };
        one.description = foreign(&one.description.replace(['\n', '\r', '\t'], " "));
    }
    found
}
