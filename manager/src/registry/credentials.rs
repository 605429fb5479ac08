//! Names and passwords for registries, from the files that docker and podman write.
//!
//! <https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md>
//!
//! | order | file                                                   |
//! |-------|--------------------------------------------------------|
//! | 1     | `--authfile` or `REGISTRY_AUTH_FILE`: then no other     |
//! | 2     | `$XDG_RUNTIME_DIR/containers/auth.json`, `/run/containers/0/auth.json` |
//! | 3     | `$XDG_CONFIG_HOME/containers/auth.json` (`~/.config`)  |
//! | 4     | `$DOCKER_CONFIG/config.json` (`~/.docker`)             |
//! | 5     | `~/.dockercfg`, which has the entries only             |
//!
//! `credential-helpers` in registries.conf names helpers to ask before, after or instead of them. In a
//! file the most specific key wins: `host/group/image`, `host/group`, `host`.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::registries::Registries;

/// How registries.conf calls the auth files among `credential-helpers`.
pub(super) const FILES: &str = "containers-auth.json";

const OLDEST: &str = ".dockercfg";

/// What a file or helper knows about us.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// To be exchanged for a token at the registry's token server.
    IdentityToken(String),
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AuthFile {
    auths: HashMap<String, Entry>,
    cred_helpers: HashMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// The credentials for `account`, a repository of `domain` or the domain itself; none when nobody has
/// any.
pub(super) fn find(domain: &str, account: &str, authfile: Option<&Path>) -> Result<Option<Credentials>> {
    Ok(located(domain, account, authfile)?.map(|(found, _)| found))
}

/// The credentials and who has them: a file, or a helper that registries.conf names.
pub(super) fn located(
    domain: &str,
    account: &str,
    authfile: Option<&Path>,
) -> Result<Option<(Credentials, PathBuf)>> {
    let Some(places) = &Registries::load()?.credential_helpers else {
        return in_files(domain, account, authfile);
    };
    for place in places {
        let found = if place == FILES {
            in_files(domain, account, authfile)?
        } else {
            ask_helper(place, server_name(domain))?.map(|found| (found, program(place).into()))
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn in_files(domain: &str, account: &str, authfile: Option<&Path>) -> Result<Option<(Credentials, PathBuf)>> {
    let (files, must_exist) = match authfile {
        Some(file) => (vec![file.to_owned()], true),
        None => (usual_files(), false),
    };
    for file in files {
        let about = || format!("read credentials from {}", file.display());
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => continue,
            Err(error) => return Err(error).with_context(about),
        };
        // Old clients made the file and wrote nothing.
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let parsed = if file.ends_with(OLDEST) {
            AuthFile { auths: serde_json::from_slice(&bytes).with_context(about)?, ..AuthFile::default() }
        } else {
            serde_json::from_slice(&bytes).with_context(about)?
        };
        if let Some(found) =
            in_file(&parsed, domain, account).with_context(|| format!("credentials in {}", file.display()))?
        {
            return Ok(Some((found, file)));
        }
    }
    Ok(None)
}

/// The file that `login` writes, unless it is told another one.
pub(super) fn usual_file() -> PathBuf {
    let run = env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()).map(PathBuf::from);
    let run = run.unwrap_or_else(|| format!("/run/containers/{}", nix::unistd::geteuid()).into());
    if run.starts_with("/run/containers") { run.join("auth.json") } else { run.join("containers/auth.json") }
}

fn usual_files() -> Vec<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = variable("HOME");
    let in_home = |folder: &str| home.as_ref().map(|home| home.join(folder));
    let mut files = vec![usual_file()];
    if nix::unistd::geteuid().is_root() {
        files.push("/run/containers/0/auth.json".into());
    }
    let config = variable("XDG_CONFIG_HOME").or_else(|| in_home(".config"));
    files.extend(config.map(|folder| folder.join("containers/auth.json")));
    let docker = variable("DOCKER_CONFIG").or_else(|| in_home(".docker"));
    files.extend(docker.map(|folder| folder.join("config.json")));
    files.extend(in_home(OLDEST));
    files
}

fn in_file(file: &AuthFile, domain: &str, account: &str) -> Result<Option<Credentials>> {
    let names = names_of(domain);
    for name in &names {
        if let Some(helper) = file.cred_helpers.get(*name) {
            return ask_helper(helper, name);
        }
    }
    // `host/group/image`, then its parents, then the host alone.
    let mut key = account;
    while key.len() > domain.len() {
        if let Some(entry) = file.auths.get(key) {
            return read(entry, key);
        }
        key = key.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    let of_host = |key: &str| names.contains(&normal_key(key));
    if let Some((key, entry)) = file.auths.iter().find(|(key, _)| of_host(key))
        && let Some(found) = read(entry, key)?
    {
        return Ok(Some(found));
    }
    if file.creds_store.is_empty() {
        return Ok(None);
    }
    ask_helper(&file.creds_store, server_name(domain))
}

/// What docker and its helpers call a registry.
pub(super) fn server_name(domain: &str) -> &str {
    if domain == "docker.io" { "https://index.docker.io/v1/" } else { domain }
}

/// The names under which people keep the same registry.
pub(super) fn names_of(domain: &str) -> Vec<&str> {
    match domain {
        "docker.io" => vec!["docker.io", "index.docker.io", "registry-1.docker.io"],
        other => vec![other],
    }
}

/// Old files have addresses for keys: `https://index.docker.io/v1/`.
pub(super) fn normal_key(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

fn read(entry: &Entry, key: &str) -> Result<Option<Credentials>> {
    if !entry.identitytoken.is_empty() {
        return Ok(Some(Credentials::IdentityToken(entry.identitytoken.clone())));
    }
    if entry.auth.is_empty() {
        if entry.username.is_empty() {
            // `{}`: the password is with a helper.
            return Ok(None);
        }
        return Ok(Some(Credentials::Password {
            user: entry.username.clone(),
            password: entry.password.clone(),
        }));
    }
    // Neither the text nor what it decodes to belongs into a message.
    let decoded = STANDARD.decode(entry.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let Some((user, password)) = decoded.as_deref().and_then(|text| text.split_once(':')) else {
        bail!("the entry {key:?} is not base64 of user:password");
    };
    // Some versions of docker padded the text with zero bytes.
    let password = password.trim_end_matches('\0').to_owned();
    Ok(Some(Credentials::Password { user: user.to_owned(), password }))
}

/// Asks a helper for what it keeps for a server.
fn ask_helper(helper: &str, server: &str) -> Result<Option<Credentials>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Said {
        username: String,
        secret: String,
    }
    let program = program(helper);
    let Some(output) = run_helper(helper, "get", server, server)? else { return Ok(None) };
    let said: Said = serde_json::from_slice(&output).with_context(|| format!("read what {program} says"))?;
    Ok(Some(match said.username.as_str() {
        "" => return Ok(None),
        "<token>" => Credentials::IdentityToken(said.secret),
        _ => Credentials::Password { user: said.username, password: said.secret },
    }))
}

fn program(helper: &str) -> String {
    format!("docker-credential-{helper}")
}

/// Runs `docker-credential-<helper> <verb>`; none when it has nothing for the server.
/// <https://github.com/docker/docker-credential-helpers#development>
pub(super) fn run_helper(helper: &str, verb: &str, server: &str, input: &str) -> Result<Option<Vec<u8>>> {
    if helper.contains('/') || helper.is_empty() {
        bail!("the credential helper {helper:?} has no plain name");
    }
    let program = program(helper);
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("run {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may answer, or fail, without reading all.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("run {program}"))?;
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    if said.contains("credentials not found") {
        return Ok(None);
    }
    bail!("{program} {verb} failed for {server}: {}", said.lines().next().unwrap_or("it says nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(file: &str, domain: &str, path: &str) -> Option<String> {
        let file: AuthFile = serde_json::from_str(file).unwrap();
        in_file(&file, domain, &format!("{domain}/{path}")).unwrap().map(|found| match found {
            Credentials::Password { user, .. } => user,
            Credentials::IdentityToken(token) => format!("token {token}"),
        })
    }

    #[test]
    fn the_most_specific_key_wins() {
        // u1:p, u2:p, u3:p, u4:p
        let file = r#"{"auths": {
            "r.example": {"auth": "dTE6cA=="},
            "r.example/group": {"auth": "dTI6cA=="},
            "r.example/group/image": {"auth": "dTM6cA=="},
            "https://index.docker.io/v1/": {"auth": "dTQ6cA=="},
            "t.example": {"identitytoken": "T"}
        }}"#;
        let table = [
            ("r.example", "group/image", Some("u3")),
            ("r.example", "group/other", Some("u2")),
            ("r.example", "groups", Some("u1")),
            ("docker.io", "library/busybox", Some("u4")),
            ("t.example", "x", Some("token T")),
            ("r.example.evil", "x", None),
            ("example", "x", None),
        ];
        for (domain, path, expected) in table {
            assert_eq!(lookup(file, domain, path).as_deref(), expected, "{domain}/{path}");
        }
    }

    #[test]
    fn a_damaged_entry_is_an_error_that_keeps_the_secret() {
        let file: AuthFile =
            serde_json::from_str(r#"{"auths": {"r.example": {"auth": "c2VjcmV0"}}}"#).unwrap();
        let error = in_file(&file, "r.example", "r.example/x").err().unwrap().to_string();
        assert!(
            error.contains("r.example") && !error.contains("secret") && !error.contains("c2VjcmV0"),
            "{error}"
        );
    }
}
