//! The filter compiler: whatever a profile says, the program is one that the kernel takes, or an error.

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use crate::container::seccomp;

#[path = "../../src/container/seccomp/tests/interpreter.rs"]
mod interpreter;

/// Makes a profile of the input, compiles it and checks the program.
pub fn run(input: &[u8]) {
    let Ok(profile) = profile(&mut Unstructured::new(input)) else { return };
    let profile: LinuxSeccomp = serde_json::from_value(profile).expect("made of valid parts");
    if let Ok(filter) = seccomp::plan(&profile) {
        interpreter::check(&filter.program);
    }
}

fn profile(input: &mut Unstructured) -> Result<Value> {
    let action = *input.choose(&["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"])?;
    Ok(json!({"defaultAction": action, "architectures": [], "syscalls": []}))
}
