//! The suite against real runtimes: runc of Debian, and the runtime of this workspace.

mod suite;

use serde_json::Value;
use suite::{folder, needs, report, report_with, with_outcome};

/// What runc 1.1.5 (Debian 12) does otherwise than the specification, case by case. Later versions may
/// pass some of these; no version fails any other.
const RUNC: &[(&str, &str)] = &[
    ("create/refuses_a_version_that_is_none", "it never looks at ociVersion"),
    ("create/refuses_an_empty_annotation_key", "config.md#annotations: keys must not be empty"),
    ("start/without_a_process_is_an_error", "config.md#process: it wants process at create already"),
    ("delete/of_a_created_container_is_an_error", "runtime.md#delete: it kills and deletes it"),
    ("hooks/run_in_the_order_of_the_lifecycle", "runtime.md#lifecycle: poststart hooks run in create"),
    ("hooks/get_the_state", "poststart hooks run in create, so their status is created"),
    ("hooks/failing_start_container_fails_start", "start has returned before the hook runs"),
    ("hooks/failing_poststart_destroys_the_container", "poststart hooks run in create"),
    ("hooks/failing_poststop_is_only_a_warning", "runtime.md#lifecycle 13: the rest is not called"),
    ("hooks/refuses_a_timeout_of_nothing", "config.md#posix-platform-hooks: timeout > 0"),
    ("hooks/refuses_a_relative_path", "config.md#posix-platform-hooks: path is absolute"),
    ("mounts/knows_the_option_defaults", "config.md#linux-mount-options: handed to the file system"),
    ("mounts/refuses_an_id_map_without_a_mapping", "config.md#linux-mount-options: ignored"),
    ("process/has_its_personality", "newer than 1.1"),
    ("rlimits/refuse_the_same_twice", "config.md#posix-process: the last one wins"),
    ("hostname/of_the_domain_is_seen_inside", "newer than 1.1"),
    ("namespaces/of_time_have_their_offsets", "newer than 1.1"),
    ("devices/refuse_a_path_with_something_else", "config-linux.md#devices: accepted as it is"),
    ("devices/cannot_be_used_when_denied", "config-linux.md#allowed-device-list: it always allows 10:200"),
    ("seccomp/refuses_an_errno_that_an_action_does_not_take", "config-linux.md#seccomp: ignored"),
    ("masked_paths/refuses_a_relative_one", "config-linux.md#masked-paths: accepted"),
    ("readonly_paths/refuses_a_relative_one", "config-linux.md#readonly-paths: accepted"),
];

/// Where the runtime of this workspace does as runc does, and not as the specification says, since
/// callers rely on it. With `--strict` it does as the specification says.
const OURS: &[(&str, &str)] = &[
    (
        "delete/of_a_created_container_is_an_error",
        "runc and crun delete what was created and never started, and engines that give up call it so",
    ),
    ("cgroup/refuses_a_limit_that_it_cannot_set", "a swappiness is a warning on cgroup version 2"),
];

#[test]
fn runc_fails_only_where_it_is_known_to() {
    let Some(runc) = needs("runc") else { return };
    let folder = folder();
    let report = report(folder.path(), &runc.to_string_lossy(), "");
    let unknown = unknown_failures(&report, RUNC);
    assert!(unknown.is_empty(), "runc fails {unknown:?}: {report:#}");
    assert!(with_outcome(&report, "passed").len() > 60, "{report:#}");
}

#[test]
fn our_runtime_meets_everything_when_strict() {
    let Some(runtime) = our_runtime() else { return };
    let folder = folder();
    // By the environment, as an operator would set it for an engine.
    let report = report_with(folder.path(), &runtime, "", &[("RUNTIME_STRICT", "true")]);
    let failed = unknown_failures(&report, &[]);
    assert!(failed.is_empty(), "it fails {failed:?}: {report:#}");
}

#[test]
fn our_runtime_is_laxer_only_where_it_means_to() {
    let Some(runtime) = our_runtime() else { return };
    let folder = folder();
    let report = report_with(folder.path(), &runtime, "", &[("RUNTIME_STRICT", "")]);
    let unknown = unknown_failures(&report, OURS);
    assert!(unknown.is_empty(), "it fails {unknown:?}: {report:#}");
}

fn our_runtime() -> Option<String> {
    let runtime = std::env::var("RUNTIME_BIN").ok();
    if runtime.is_none() {
        println!("SKIP: RUNTIME_BIN does not name the runtime");
    }
    runtime.filter(|_| needs("sh").is_some())
}

/// The failed cases that are not in the table, whose rows have to be cases.
fn unknown_failures<'a>(report: &'a Value, known: &[(&str, &str)]) -> Vec<&'a str> {
    let cases = report["cases"].as_array().expect("cases");
    for (name, _) in known {
        assert!(cases.iter().any(|case| case["name"] == *name), "there is no case {name}");
    }
    let failed = with_outcome(report, "failed").into_iter();
    failed.filter(|name| !known.iter().any(|(known, _)| known == name)).collect()
}
