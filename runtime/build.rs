//! Builds `init/`, the static program that each container's first process execs from a sealed memfd,
//! with the same compiler and for the same target; the runtime embeds it (`launch/last_steps.rs`).

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=init");
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("init");
    let mut rustc = Command::new(env::var_os("RUSTC").expect("cargo sets RUSTC"));
    rustc.args(["init/main.rs", "--edition", "2024", "--crate-name", "init", "--crate-type", "bin"]);
    rustc.args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "strip=symbols", "-C", "debuginfo=0"]);
    rustc.args(["-C", "relocation-model=static", "-C", "force-unwind-tables=no"]);
    rustc.args(["-C", "link-args=-nostartfiles -nostdlib -static -no-pie -Wl,--build-id=none"]);
    rustc.args(["-C", "link-args=-Wl,-z,noseparate-code -Wl,-z,norelro -Wl,--gc-sections"]);
    rustc.arg("--target").arg(env::var_os("TARGET").expect("cargo sets TARGET"));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut flag = std::ffi::OsString::from("linker=");
        flag.push(linker);
        rustc.arg("-C").arg(flag);
    }
    let status = rustc.arg("-o").arg(&output).status().expect("run rustc for init/");
    assert!(status.success(), "compiling init/ gave {status}");
}
