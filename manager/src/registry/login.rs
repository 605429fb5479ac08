//! Logging in and out: credentials are checked at the registry and kept where `credentials` finds them.
//!
//! <https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md>
//!
//! | kept by                                     | when                                            |
//! |---------------------------------------------|-------------------------------------------------|
//! | the first of `credential-helpers`           | registries.conf has that, and it is a helper    |
//! | a helper                                    | the file has it in `credHelpers` or `credsStore` |
//! | the file itself, as base64 of user:password | else                                            |
//!
//! The file is replaced by rename(2), so that nobody ever reads half of it, and is for its owner only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::credentials::{self, Credentials, FILES, names_of, normal_key, run_helper, server_name};
use super::registries::Registries;
use super::request::Request;
use super::server::Server;
use super::{Absent, RegistryArgs};
use crate::reference::Reference;

/// Whom to log in to: a registry, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// `docker.io`
    pub(crate) domain: String,
    /// `docker.io`, `quay.io/group`: as the files have it.
    pub(crate) key: String,
}

/// Where credentials are written.
#[derive(Debug, Clone)]
pub(crate) struct AuthFile {
    path: PathBuf,
    /// Its keys are to be read by docker.
    docker: bool,
}

impl Account {
    /// Reads what people type: a host, an address, a host and a path.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let key = normal_key(text);
        let (host, path) = key.split_once('/').map_or((key, ""), |(host, path)| (host, path));
        let host = if names_of("docker.io").contains(&host) { "docker.io" } else { host };
        let valid = !host.is_empty()
            && Reference::parse(&format!("{host}/x")).is_ok()
            && (path.is_empty() || Reference::parse(&format!("{host}/{path}")).is_ok());
        if !valid {
            bail!("{text:?} is not a registry");
        }
        let key = if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") };
        Ok(Self { domain: host.to_owned(), key })
    }

    /// Asks the registry whether it takes these.
    pub(crate) fn check(&self, user: &str, password: &str, args: &RegistryArgs) -> Result<()> {
        let (user, password) = (user.to_owned(), password.to_owned());
        self.check_given(Credentials::Password { user, password }, args)
    }

    fn check_given(&self, given: Credentials, args: &RegistryArgs) -> Result<()> {
        let insecure = Registries::load()?.insecure(&self.key)?;
        let mut server = Server::new(&self.domain, &self.key, args, insecure)?;
        server.given = Some(given);
        let answer = server.send(&Request::new(Method::GET, "/v2/"))?;
        match answer.status().as_u16() {
            200..300 => Ok(()),
            401 | 403 => {
                Err(Absent(format!("invalid username or password: {}", server.refusal(answer))).into())
            }
            _ => bail!("registry {}: {}", self.domain, server.refusal(answer)),
        }
    }

    /// The user that somebody has credentials of, and whether the registry still takes them.
    pub(crate) fn existing(&self, args: &RegistryArgs) -> Result<Option<(String, bool)>> {
        let Some(found) = self.kept(args.authfile.as_deref())? else { return Ok(None) };
        let user = user_of(&found);
        match self.check_given(found, args) {
            Ok(()) => Ok(Some((user, true))),
            Err(error) if error.is::<Absent>() => Ok(Some((user, false))),
            Err(error) => Err(error),
        }
    }

    /// The user that somebody has credentials of.
    pub(crate) fn user(&self, authfile: Option<&Path>) -> Result<Option<String>> {
        Ok(self.kept(authfile)?.map(|found| user_of(&found)))
    }

    fn kept(&self, authfile: Option<&Path>) -> Result<Option<Credentials>> {
        // A file that will be made is none yet.
        if authfile.is_some_and(|file| !file.exists()) {
            return Ok(None);
        }
        credentials::find(&self.domain, &self.key, authfile)
    }

    /// Who still has credentials for it.
    pub(crate) fn keeper(&self, authfile: Option<&Path>) -> Result<Option<PathBuf>> {
        if authfile.is_some_and(|file| !file.exists()) {
            return Ok(None);
        }
        Ok(credentials::located(&self.domain, &self.key, authfile)?.map(|(_, keeper)| keeper))
    }

    fn is(&self, key: &str) -> bool {
        let key = normal_key(key);
        key == self.key || (self.key == self.domain && names_of(&self.domain).contains(&key))
    }
}

fn user_of(credentials: &Credentials) -> String {
    match credentials {
        Credentials::Password { user, .. } => user.clone(),
        Credentials::IdentityToken(_) => "<token>".to_owned(),
    }
}

impl AuthFile {
    /// `--authfile`, `--compat-auth-file`, or the usual one.
    pub(crate) fn choose(authfile: Option<&Path>, compatible: Option<&Path>) -> Result<Self> {
        match (authfile, compatible) {
            (Some(_), Some(_)) => bail!("--authfile and --compat-auth-file cannot be used together"),
            (None, Some(path)) => Ok(Self { path: path.to_owned(), docker: true }),
            (Some(path), None) => Ok(Self { path: path.to_owned(), docker: false }),
            (None, None) => Ok(Self { path: credentials::usual_file(), docker: false }),
        }
    }

    /// Keeps credentials.
    pub(crate) fn store(&self, account: &Account, user: &str, password: &str) -> Result<()> {
        if self.docker && account.key != account.domain {
            bail!("docker does not know credentials for a part of a registry, {}", account.key);
        }
        let server = server_name(&account.domain);
        let handed = json!({"ServerURL": server, "Username": user, "Secret": password}).to_string();
        if let Some(helper) = first_helper()? {
            run_helper(helper, "store", server, &handed)?;
            return Ok(());
        }
        self.change(|file| {
            let key = if self.docker { server } else { &account.key };
            let entry = match helper(file, account) {
                Some((helper, server)) => {
                    let handed = json!({"ServerURL": server, "Username": user, "Secret": password});
                    run_helper(&helper, "store", &server, &handed.to_string())?;
                    // As docker does it: the key without the secret.
                    json!({})
                }
                None => json!({"auth": STANDARD.encode(format!("{user}:{password}"))}),
            };
            let auths = entries(file)?;
            // An older spelling of the key would be found first.
            auths.retain(|other, _| !account.is(other));
            auths.insert(key.to_owned(), entry);
            Ok(())
        })
    }

    /// Forgets credentials; false when there were none.
    pub(crate) fn erase(&self, account: &Account) -> Result<bool> {
        if let Some(helper) = first_helper()? {
            let server = server_name(&account.domain);
            return Ok(run_helper(helper, "erase", server, server)?.is_some());
        }
        if !self.path.exists() {
            return Ok(false);
        }
        let mut found = false;
        self.change(|file| {
            if let Some((helper, server)) = helper(file, account) {
                found |= run_helper(&helper, "erase", &server, &server)?.is_some();
            }
            let auths = entries(file)?;
            let before = auths.len();
            auths.retain(|key, _| !account.is(key));
            found |= auths.len() < before;
            Ok(())
        })?;
        Ok(found)
    }

    /// Forgets all that the file knows of.
    pub(crate) fn erase_all(&self) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        self.change(|file| {
            let keys: Vec<String> = entries(file)?.keys().cloned().collect();
            let hosts = file.get("credHelpers").and_then(Value::as_object).into_iter().flat_map(Map::keys);
            let keys: Vec<String> = keys.into_iter().chain(hosts.cloned()).collect();
            for account in keys.iter().filter_map(|key| Account::parse(key).ok()) {
                if let Some((helper, server)) = helper(file, &account) {
                    run_helper(&helper, "erase", &server, &server)?;
                }
            }
            entries(file)?.clear();
            Ok(())
        })
    }

    /// Reads the file, changes it, and puts it back whole. What others keep in it stays.
    fn change(&self, change: impl FnOnce(&mut Map<String, Value>) -> Result<()>) -> Result<()> {
        self.changed(change).with_context(|| format!("change {}", self.path.display()))
    }

    fn changed(&self, change: impl FnOnce(&mut Map<String, Value>) -> Result<()>) -> Result<()> {
        // A link to it stays one.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let open = File::open(folder)?;
        // Two logins at once: the second one reads what the first one wrote.
        let lock = Flock::lock(open, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
        let mut file: Map<String, Value> = match fs::read(&path) {
            Ok(bytes) if bytes.trim_ascii().is_empty() => Map::new(),
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(error.into()),
        };
        change(&mut file)?;
        let mut text = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        Value::Object(file).serialize(&mut serde_json::Serializer::with_formatter(&mut text, tabs))?;
        text.push(b'\n');
        let name = path.file_name().context("it has no name")?.to_string_lossy();
        let fresh = folder.join(format!(".{name}.{}", std::process::id()));
        let write = || -> io::Result<()> {
            let _ = fs::remove_file(&fresh);
            let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
            out.write_all(&text)?;
            out.sync_all()?;
            fs::rename(&fresh, &path)
        };
        let written = write();
        if written.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        written?;
        lock.sync_all()?;
        Ok(())
    }
}

/// The helper that registries.conf wants credentials to be kept by.
fn first_helper() -> Result<Option<&'static str>> {
    let places = Registries::load()?.credential_helpers.as_deref().unwrap_or_default();
    Ok(places.first().map(String::as_str).filter(|place| *place != FILES))
}

/// The helper of a file, and what it calls the registry.
fn helper(file: &Map<String, Value>, account: &Account) -> Option<(String, String)> {
    let helpers = file.get("credHelpers").and_then(Value::as_object);
    let own =
        names_of(&account.domain).into_iter().find_map(|name| Some((name, helpers?.get(name)?.as_str()?)));
    if let Some((name, helper)) = own {
        return Some((helper.to_owned(), name.to_owned()));
    }
    // A store knows whole registries only.
    let store = file.get("credsStore").and_then(Value::as_str).filter(|store| !store.is_empty())?;
    (account.key == account.domain).then(|| (store.to_owned(), server_name(&account.domain).to_owned()))
}

fn entries(file: &mut Map<String, Value>) -> Result<&mut Map<String, Value>> {
    let auths = file.entry("auths").or_insert_with(|| json!({}));
    if auths.is_null() {
        *auths = json!({});
    }
    auths.as_object_mut().context("its \"auths\" is not an object")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_as_people_type_them() {
        let table = [
            ("docker.io", "docker.io", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io", "docker.io"),
            ("registry-1.docker.io", "docker.io", "docker.io"),
            ("https://r.example:5000/", "r.example:5000", "r.example:5000"),
            ("localhost:5000", "localhost:5000", "localhost:5000"),
            ("quay.io/group", "quay.io", "quay.io/group"),
            ("quay.io/group/image/", "quay.io", "quay.io/group/image"),
        ];
        for (text, domain, key) in table {
            let account = Account::parse(text).unwrap();
            assert_eq!((account.domain.as_str(), account.key.as_str()), (domain, key), "{text}");
        }
        for text in ["", "https://", "a b", "r.example/UPPER", "-x.example"] {
            assert!(Account::parse(text).is_err(), "{text:?}");
        }
    }
}
