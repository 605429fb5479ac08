//! Debian's docker-registry on a free port of loopback.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::image::Image;
use super::tool;

/// A running registry; stopped and removed with the value.
pub(crate) struct Registry {
    child: Child,
    #[expect(dead_code, reason = "held for its Drop")]
    folder: TempDir,
    pub(crate) host: String,
}

/// Of `password` in every registry that asks for one; a bcrypt hash of "secret".
const HTPASSWD: &str = "tester:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

impl Registry {
    /// An open one.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// One that knows `tester` with the password `secret` and nobody else.
    pub(crate) fn start_private() -> Self {
        Self::start_with("auth:\n  htpasswd:\n    realm: test\n    path: PASSWORDS\n")
    }

    /// One that speaks TLS with this certificate and key (PEM files).
    pub(crate) fn start_tls(certificate: &Path, key: &Path) -> Self {
        let tls = format!("  tls: {{certificate: {}, key: {}}}\n", certificate.display(), key.display());
        Self::start_with(&tls)
    }

    /// The same, and with a certificate for who wants to talk to it; it cannot be pushed to from here.
    pub(crate) fn start_tls_for(certificate: &Path, key: &Path, clients: &Path) -> Self {
        let files = [certificate, key, clients].map(|path| path.display().to_string());
        let [certificate, key, clients] = files;
        let tls = format!("  tls: {{certificate: {certificate}, key: {key}, clientcas: [{clients}]}}\n");
        Self::start_with(&tls)
    }

    /// `more` goes on in the `http` section of the configuration.
    fn start_with(more: &str) -> Self {
        // The port is free when it is looked for; somebody may be quicker, hence the loop.
        for _ in 0..10 {
            let folder = tempfile::tempdir().expect("make a temporary folder");
            let passwords = folder.path().join("htpasswd");
            std::fs::write(&passwords, HTPASSWD).expect("write htpasswd");
            let host = format!("127.0.0.1:{}", free_port());
            let config = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
                 http:\n  addr: '{host}'\n{}",
                folder.path().join("data").display(),
                more.replace("PASSWORDS", &passwords.display().to_string())
            );
            let file = folder.path().join("config.yml");
            std::fs::write(&file, config).expect("write the registry's configuration");
            let child = Command::new("docker-registry")
                .arg("serve")
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("start docker-registry");
            let mut registry = Self { child, folder, host };
            if registry.answers() {
                return registry;
            }
        }
        panic!("docker-registry does not start");
    }

    fn answers(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            if self.child.try_wait().expect("look at docker-registry").is_some() {
                return false;
            }
            if TcpStream::connect(&self.host).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Pushes an image with skopeo.
    pub(crate) fn push(&self, image: &Image, name: &str) -> String {
        let folder = tempfile::tempdir().expect("make a temporary folder");
        image.write_layout(folder.path(), "image");
        let source = format!("oci:{}:image", folder.path().display());
        let reference = format!("{}/{name}", self.host);
        tool(
            "skopeo",
            &[
                "copy",
                "--quiet",
                "--dest-tls-verify=false",
                "--dest-creds=tester:secret",
                "--preserve-digests",
                &source,
                &format!("docker://{reference}"),
            ],
        );
        reference
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("find a free port");
    listener.local_addr().expect("find a free port").port()
}
