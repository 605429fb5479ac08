//! Compiles the few lines of C between us and ISA-L, Intel's library for inflating, where it is installed
//! (Debian: libisal-dev). Without it the manager inflates with zlib-rs, which is slower.

fn main() {
    println!("cargo:rerun-if-changed=src/sys/isal.c");
    println!("cargo:rustc-check-cfg=cfg(isal)");
    if pkg_config::Config::new().atleast_version("2.30").probe("libisal").is_err() {
        return;
    }
    cc::Build::new().file("src/sys/isal.c").warnings_into_errors(true).compile("manager_isal");
    println!("cargo:rustc-cfg=isal");
}
