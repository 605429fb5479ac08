//! Logging in and out: what is asked, what is kept, and by whom.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::image::image;
use crate::support::registry::Registry;
use crate::support::server::{Reply, Server};
use crate::support::tar::Tar;
use crate::support::{Manager, Ran, has};

// tester:secret
const SECRET: &str = "dGVzdGVyOnNlY3JldA==";

/// A user with folders of their own.
struct User {
    manager: Manager,
    folder: TempDir,
}

impl User {
    fn new() -> Self {
        Self { manager: Manager::new(), folder: tempfile::tempdir().unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.manager.command(arguments);
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        command.env("XDG_RUNTIME_DIR", self.folder.path()).env("PATH", path);
        command
    }

    fn run(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    fn ok(&self, arguments: &[&str], input: &str) -> String {
        let ran = self.run(arguments, input);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
        ran.stdout
    }

    fn fails(&self, arguments: &[&str], input: &str) -> String {
        let ran = self.run(arguments, input);
        assert_eq!(ran.code, Some(1), "{arguments:?}: {ran:?}");
        ran.stderr
    }

    fn login(&self, host: &str) -> String {
        self.ok(&["login", "-u", "tester", "--password-stdin", host], "secret\n")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("containers/auth.json")
    }

    /// Puts a helper into the search path which keeps one password in a file.
    fn helper(&self) -> PathBuf {
        let kept = self.folder.path().join("kept");
        let script = format!(
            "#!/bin/sh\nkept={}\ncase $1 in\nstore) cat >$kept;;\n\
             get) read server; [ -e $kept ] || {{ echo credentials not found in native keychain; exit 1; }}; cat $kept;;\n\
             erase) read server; echo \"$server\" >$kept.erased; rm $kept 2>/dev/null || {{ echo credentials not found; exit 1; }};;\n\
             esac\n",
            kept.display()
        );
        let helper = self.folder.path().join("docker-credential-test");
        std::fs::write(&helper, script).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        kept
    }
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// Takes tester:secret.
fn basic() -> Server {
    Server::start(|request| {
        if request.headers.get("authorization").map(String::as_str) == Some(&format!("Basic {SECRET}")) {
            return Reply::new(200, "{}");
        }
        let error = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        Reply::new(401, error).header("WWW-Authenticate", "Basic realm=test")
    })
}

#[test]
fn who_is_logged_in_can_pull_until_logging_out() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = Registry::start_private();
    let name = registry.push(&image(&[Tar::new().file("x", "x").finish()]), "x:1");
    let host = registry.host.as_str();
    let user = User::new();
    let error = user.fails(&["login", "-u", "tester", "--password-stdin", host], "wrong\n");
    assert_eq!(
        error,
        format!("manager: log in to {host}: invalid username or password: authentication required\n")
    );
    assert!(!user.file().exists());
    assert_eq!(user.login(host), "Login Succeeded\n");
    let text = std::fs::read_to_string(user.file()).unwrap();
    assert_eq!(
        text,
        format!("{{\n\t\"auths\": {{\n\t\t\"{host}\": {{\n\t\t\t\"auth\": \"{SECRET}\"\n\t\t}}\n\t}}\n}}\n")
    );
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&user.file()), mode(user.file().parent().unwrap())), (0o600, 0o700));
    assert_eq!(user.ok(&["login", "--get-login", host], ""), "tester\n");
    user.ok(&["pull", "-q", &name], "");
    // Skopeo understands the file.
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "--tls-verify=false", "--raw", &format!("docker://{name}"), "--authfile"]);
    assert!(skopeo.arg(user.file()).output().unwrap().status.success());
    // Again, with what is known.
    let ran = user.run(&["login", host], "");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "Login Succeeded\n"), "{ran:?}");
    assert_eq!(ran.stderr, format!("Authenticating with existing credentials for {host}\n"));

    assert_eq!(user.ok(&["logout", host], ""), format!("Removing login credentials for {host}\n"));
    assert_eq!(user.ok(&["logout", host], ""), format!("Not logged in to {host}\n"));
    assert_eq!(read(&user.file()), json!({"auths": {}}));
    let error = user.fails(&["login", "--get-login", host], "");
    assert_eq!(error, format!("manager: not logged in to {host}\n"));
    let error = user.fails(&["login", host], "");
    assert!(error.contains("without a terminal"), "{error}");
}

#[test]
fn what_others_keep_in_the_file_stays() {
    let server = basic();
    let user = User::new();
    let file = user.folder.path().join("config.json");
    let before = json!({
        "auths": {"other.example": {"auth": "eA=="}, format!("https://{}/v2/", server.host): {"auth": "eDp5"}},
        "HttpHeaders": {"User-Agent": "x"},
    });
    std::fs::write(&file, before.to_string()).unwrap();
    let link = user.folder.path().join("link.json");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let link = link.to_str().unwrap();
    user.ok(&["login", "-u", "tester", "-p", "secret", "--authfile", link, &server.host], "");
    let expected = json!({
        "auths": {"other.example": {"auth": "eA=="}, server.host.as_str(): {"auth": SECRET}},
        "HttpHeaders": {"User-Agent": "x"},
    });
    assert_eq!(read(&file), expected);
    assert!(std::fs::symlink_metadata(link).unwrap().is_symlink());
    // Nothing but the file is left.
    let left = std::fs::read_dir(user.folder.path()).unwrap().count();
    assert_eq!(left, 2);
    user.ok(&["logout", "--all", "--authfile", link], "");
    assert_eq!(read(&file), json!({"auths": {}, "HttpHeaders": {"User-Agent": "x"}}));
    std::fs::write(&file, "junk").unwrap();
    let error = user.fails(&["login", "-u", "tester", "-p", "secret", "--authfile", link, &server.host], "");
    assert!(error.contains("change ") && error.contains("link.json"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "junk");
}

#[test]
fn a_part_of_a_registry_has_credentials_of_its_own() {
    let server = basic();
    let user = User::new();
    let part = format!("{}/group", server.host);
    user.login(&part);
    assert_eq!(read(&user.file())["auths"], json!({part.as_str(): {"auth": SECRET}}));
    let error = user.fails(&["login", "--get-login", &server.host], "");
    assert!(error.contains("not logged in"), "{error}");
    let compatible = user.folder.path().join("config.json");
    let compatible = compatible.to_str().unwrap();
    let arguments = ["login", "-u", "tester", "-p", "secret", "--compat-auth-file", compatible, &part];
    let error = user.fails(&arguments, "");
    assert!(error.contains("docker does not know credentials for a part of a registry"), "{error}");
}

#[test]
fn helpers_keep_and_erase() {
    let server = basic();
    for config in [json!({"credsStore": "test"}), json!({"credHelpers": {server.host.as_str(): "test"}})] {
        let user = User::new();
        let kept = user.helper();
        let file = user.folder.path().join("config.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let file = file.to_str().unwrap();
        let arguments =
            ["login", "-u", "tester", "--password-stdin", "--compat-auth-file", file, &server.host];
        user.ok(&arguments, "secret");
        let stored = json!({"ServerURL": server.host, "Username": "tester", "Secret": "secret"});
        assert_eq!(read(&kept), stored);
        assert_eq!(read(Path::new(file))["auths"], json!({server.host.as_str(): {}}));
        let known = user.ok(&["login", "--get-login", "--authfile", file, &server.host], "");
        assert_eq!(known, "tester\n");
        let told = user.ok(&["logout", "--compat-auth-file", file, &server.host], "");
        assert_eq!(told, format!("Removing login credentials for {}\n", server.host));
        assert!(!kept.exists());
        let erased = std::fs::read_to_string(kept.with_extension("erased")).unwrap();
        assert_eq!(erased, format!("{}\n", server.host));
    }
}

#[test]
fn registries_conf_may_name_helpers_for_all() {
    let server = basic();
    let user = User::new();
    let kept = user.helper();
    let config = user.folder.path().join("registries.conf");
    std::fs::write(&config, "credential-helpers = [\"test\", \"containers-auth.json\"]\n").unwrap();
    let run = |arguments: &[&str]| {
        let output = user.command(arguments).env("CONTAINERS_REGISTRIES_CONF", &config).output().unwrap();
        Ran::of(output)
    };
    let ran = run(&["login", "-u", "tester", "-p", "secret", &server.host]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("--password via the CLI is insecure"), "{}", ran.stderr);
    assert!(kept.exists() && !user.file().exists());
    assert_eq!(run(&["login", "--get-login", &server.host]).stdout, "tester\n");
    assert!(run(&["logout", &server.host]).stdout.starts_with("Removing login credentials"));
    assert!(!kept.exists());
}

#[test]
fn a_token_server_is_asked_with_the_new_password() {
    let server = Server::start(|request| {
        let authorization = request.headers.get("authorization").map(String::as_str);
        if request.path.starts_with("/token") {
            let known =
                authorization == Some(&format!("Basic {SECRET}")) && request.path.contains("account=tester");
            return if known {
                Reply::new(200, r#"{"token":"good"}"#)
            } else {
                Reply::new(401, r#"{"details":"incorrect username or password"}"#)
            };
        }
        if authorization == Some("Bearer good") {
            return Reply::new(200, "{}");
        }
        let realm = format!("Bearer realm=\"http://{}/token\",service=\"test\"", request.headers["host"]);
        Reply::new(401, "").header("WWW-Authenticate", realm)
    });
    let user = User::new();
    assert_eq!(user.login(&server.host), "Login Succeeded\n");
    let error = user.fails(&["login", "-u", "tester", "-p", "wrong", &server.host], "");
    assert!(error.contains(&format!("log in to {}: ", server.host)) && error.contains("401"), "{error}");
    assert_eq!(read(&user.file())["auths"][&server.host]["auth"], SECRET);
}

#[test]
fn names_and_passwords_are_asked_for_on_a_terminal_and_not_shown() {
    if !has("script") {
        return;
    }
    let server = basic();
    let user = User::new();
    let command = user.command(&["login", &server.host]);
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let line = format!("{} {}; stty -a", command.get_program().to_string_lossy(), words.join(" "));
    // Who waits for ever for a word on the screen learns at the end of it what stood there.
    let mut script = Command::new("timeout");
    script.args(["60", "script", "-qec", &line, "/dev/null"]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut seen = Vec::new();
    let mut until = |wanted: &str| {
        let mut byte = [0];
        while !String::from_utf8_lossy(&seen).ends_with(wanted) {
            assert_eq!(screen.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&seen));
            seen.push(byte[0]);
        }
    };
    until("Username: ");
    keys.write_all(b"tester\n").unwrap();
    until("Password: ");
    // A mistake, taken back.
    keys.write_all(b"x\x15secre\xc3\xa9\x7ft\r").unwrap();
    until("Login Succeeded\r\n");
    until(" echo ");
    drop(keys);
    drop(screen);
    child.wait().unwrap();
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(!seen.contains("secre"), "{seen}");
    assert_eq!(read(&user.file())["auths"][&server.host]["auth"], SECRET);
}
