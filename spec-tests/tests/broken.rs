//! A test that cannot fail proves nothing: runtimes that are wrong in one way each, and the case that
//! has to notice. They are runc behind a few lines of shell.

mod suite;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use suite::{folder, needs, report_within, with_outcome};

/// Stands before each: finds the verb, the id and the bundle of the command line, and the runtime.
/// `real` runs it. `edit` applies a sed script to the configuration before create.
const HEAD: &str = r#"#!/bin/sh
verb=; bundle=; id=
expect=
for word; do
  case $expect in
    value) expect= ; continue ;;
    bundle) bundle=$word; expect= ; continue ;;
  esac
  case $word in
    --root|--pid-file|--console-socket) expect=value ;;
    --bundle) expect=bundle ;;
    --force) verb=forced ;;
    -*) ;;
    *) if [ -z "$verb" ]; then verb=$word; elif [ -z "$id" ]; then id=$word; fi ;;
  esac
done
real() { "$RUNC" "$@"; }
edit() { [ "$verb" != create ] || [ ! -f "$bundle/config.json" ] || sed -i "$1" "$bundle/config.json"; }
# What state prints, through sed. Not a pipe for the others: a container would keep it open.
told() {
  script=$1; shift
  [ "$verb" = state ] || { real "$@"; exit; }
  out=$(real "$@") || exit; echo "$out" | sed "$script"
}
# The same command line with another verb.
instead() { old=$1 new=$2; shift 2; for word; do shift; [ "$word" != "$old" ] || word=$new; set -- "$@" "$word"; done; real "$@"; }
"#;

/// What is wrong, the shell that does it, and the case that has to fail.
const BROKEN: &[(&str, &str, &str)] = &[
    // state
    ("calls a created container running", r##"told 's/"created",/"running",/' "$@""##, "state/tells_what"),
    ("calls a stopped container running", r##"told 's/"stopped"/"running"/' "$@""##, "state/follows"),
    ("knows no annotations", r##"told 's/"annotations"/"notes"/' "$@""##, "state/tells_what"),
    ("tells a wrong id", r##"told 's/"id": "/"id": "x/' "$@""##, "state/tells_what"),
    ("tells a relative bundle", r##"told 's#"bundle": "/#"bundle": "#' "$@""##, "state/tells_what"),
    ("tells no version", r##"told 's/"ociVersion"/"version"/' "$@""##, "state/tells_what"),
    ("tells its own pid", r##"told "s/\"pid\": [1-9][0-9]*/\"pid\": $$/" "$@""##, "state/pid_is"),
    ("has a state of anything", r##"real "$@" || echo '{"status": "stopped"}'"##, "state/of_an_unknown"),
    ("needs no id for state", r##"real "$@"; [ "$verb" = state ] && [ -z "$id" ]"##, "state/without_an_id"),
    // create
    ("takes an id again", r##"real "$@" || [ "$verb" = create ]"##, "create/refuses_an_id_in_use"),
    ("takes any id", r##"real "$@" || [ "$verb" = create ]"##, "create/refuses_an_id_that_is_a_path"),
    ("needs no bundle", r##"real "$@" || [ "$verb" = create ]"##, "create/needs_an_id"),
    (
        "ends the pid file's line",
        r##"real "$@"; c=$?; [ "$verb" != create ] || echo >>"$bundle/pid"; exit $c"##,
        "create/writes_the_pid",
    ),
    (
        "takes a root that is not there",
        r##"edit 's#"path": "nowhere"#"path": "rootfs"#'; real "$@""##,
        "create/refuses_a_missing_root",
    ),
    ("takes a mount that fails", r##"edit 's#/nowhere/at/all#/tmp#'; real "$@""##, "create/refuses_a_mount"),
    (
        "starts what it creates",
        r##"real "$@"; c=$?; [ "$verb" != create ] || instead create start --root "$2" start "$id" >/dev/null 2>&1; exit $c"##,
        "start/runs_the_program",
    ),
    // start
    ("does not start", r##"[ "$verb" = start ] || real "$@""##, "start/runs_the_program"),
    ("starts twice", r##"real "$@" || [ "$verb" = start ]"##, "start/of_a_running"),
    ("starts the dead", r##"real "$@" || [ "$verb" = start ]"##, "start/of_a_stopped"),
    ("starts nothing", r##"real "$@" || [ "$verb" = start ]"##, "start/of_nothing"),
    // kill
    ("ignores the signal", r##"[ "$verb" = kill ] || real "$@""##, "kill/sends_the_signal"),
    (
        "always sends KILL",
        r##"[ "$verb" != kill ] || set -- "$1" "$2" kill "$id" KILL; real "$@""##,
        "kill/sends_the_signal",
    ),
    (
        "mixes up two signals",
        r##"[ "$verb" != kill ] || case $* in *SIGUSR1) set -- "$1" "$2" kill "$id" USR2;; esac; real "$@""##,
        "kill/sends_the_signal",
    ),
    (
        "does not kill what is only created",
        r##"[ "$verb" != kill ] || "$RUNC" "$1" "$2" state "$id" | grep -q running || exit 0; real "$@""##,
        "kill/ends_a_created",
    ),
    ("kills the dead", r##"real "$@" || [ "$verb" = kill ]"##, "kill/of_a_stopped"),
    ("kills nothing", r##"real "$@" || [ "$verb" = kill ]"##, "kill/of_nothing"),
    ("takes any signal", r##"real "$@" || [ "$verb" = kill ]"##, "kill/with_an_unknown"),
    // delete
    ("does not delete", r##"[ "$verb" = delete ] || real "$@""##, "delete/undoes_create"),
    ("does not free the id", r##"[ "$verb" = delete ] || real "$@""##, "delete/frees_the_id"),
    (
        "deletes the running",
        r##"[ "$verb" != delete ] || set -- "$@" --force; real "$@""##,
        "delete/of_a_running",
    ),
    ("deletes nothing", r##"real "$@" || [ "$verb" = delete ]"##, "delete/of_nothing"),
    (
        "deletes the configuration too",
        r##"b=$("$RUNC" "$1" "$2" state "$id" 2>&1 | sed -n 's/.*"bundle": "\(.*\)",/\1/p'); real "$@"; c=$?; [ "$verb" != delete ] || rm -f "$b/config.json"; exit $c"##,
        "delete/undoes_create",
    ),
    // hooks
    ("calls no prestart hooks", r##"edit 's/"prestart": \[/"x": [/'; real "$@""##, "hooks/get_their"),
    (
        "calls no createRuntime hooks",
        r##"edit 's/"createRuntime": \[/"x": [/'; real "$@""##,
        "hooks/get_their",
    ),
    (
        "calls no createContainer hooks",
        r##"edit 's/"createContainer": \[/"x": [/'; real "$@""##,
        "hooks/get_their",
    ),
    (
        "calls no startContainer hooks",
        r##"edit 's/"startContainer": \[/"x": [/'; real "$@""##,
        "hooks/get_their",
    ),
    ("calls no poststart hooks", r##"edit 's/"poststart": \[/"x": [/'; real "$@""##, "hooks/get_their"),
    ("calls no poststop hooks", r##"edit 's/"poststop": \[/"x": [/'; real "$@""##, "hooks/get_their"),
    (
        "calls createContainer hooks outside",
        r##"edit 's/"createContainer": \[/"createRuntime": [/'; real "$@""##,
        "hooks/run_in_their",
    ),
    ("gives hooks no environment", r##"edit 's/"env": \[$/"x": [/'; real "$@""##, "hooks/get_their"),
    ("lets hooks fail", r##"real "$@" || [ "$verb" = create ]"##, "hooks/failing_before"),
    ("knows no timeout", r##"edit 's/"timeout"/"x"/'; real "$@""##, "hooks/past_their"),
    // root and mounts
    ("knows no readonly root", r##"edit 's/"readonly"/"x"/'; real "$@""##, "rootfs/is_read_only"),
    (
        "makes every root read-only",
        r##"edit 's/"root": {/"root": {"readonly": true,/'; real "$@""##,
        "rootfs/is_the_bundles",
    ),
    ("mounts read-only for writing", r##"edit 's/"ro"/"rw"/'; real "$@""##, "mounts/read_only"),
    ("mounts writable read-only", r##"edit 's/"rw"/"ro"/'; real "$@""##, "mounts/read_only"),
    ("forgets nosuid", r##"edit 's/"nosuid"/"suid"/'; real "$@""##, "mounts/options_of_tmpfs"),
    ("forgets nodev", r##"edit 's/"nodev"/"dev"/'; real "$@""##, "mounts/options_of_a_bind"),
    ("forgets noexec", r##"edit 's/"noexec"/"exec"/'; real "$@""##, "mounts/options_of_tmpfs"),
    ("always binds recursively", r##"edit 's/"bind"/"rbind"/'; real "$@""##, "mounts/bind_is_recursive"),
    ("never binds recursively", r##"edit 's/"rbind"/"bind"/'; real "$@""##, "mounts/bind_is_recursive"),
    ("makes all mounts private", r##"edit 's/"r\?shared"/"private"/'; real "$@""##, "mounts/propagate"),
    ("knows no size", r##"edit 's/"size=[^"]*"/"ro"/'; real "$@""##, "mounts/other_options"),
    ("ignores idmap", r##"edit 's/"r\?idmap"/"ro"/'; real "$@""##, "mounts/refuses_an_id_map"),
    ("reaches no submounts", r##"edit 's/"rro"/"ro"/'; real "$@""##, "mounts/recursive_options"),
    (
        "binds something else",
        r##"edit 's#"source": "\(.*\)/shared/file"#"source": "\1/config.json"#'; real "$@""##,
        "mounts/bind_shows",
    ),
    (
        "mounts in another order",
        r##"edit 's#"/mnt/below"#"/unused"#; s#"/mnt"#"/mnt/below"#; s#"/unused"#"/mnt"#'; real "$@""##,
        "mounts/are_made",
    ),
    (
        "mounts no devpts",
        r##"edit 's#"destination": "/dev/pts"#"destination": "/dev/other"#'; real "$@""##,
        "mounts/of_the_kernels",
    ),
    // process
    (
        "splits arguments",
        r##"edit 's/"two words"/"two", "words"/'; real "$@""##,
        "process/gets_its_arguments",
    ),
    (
        "has an environment of its own",
        r##"edit 's/"EMPTY=",/"EMPTY=", "MORE=1",/'; real "$@""##,
        "process/gets_its_environment",
    ),
    ("starts in /", r##"edit 's#"cwd": "/tmp"#"cwd": "/"#'; real "$@""##, "process/starts_in"),
    (
        "leaves a descriptor open",
        r##"[ "$verb" != create ] || exec 3</etc/passwd; [ "$verb" != create ] || set -- "$1" "$2" create --preserve-fds 1 --bundle "$bundle" --pid-file "$bundle/pid" "$id"; real "$@""##,
        "process/has_only",
    ),
    ("lets privileges grow", r##"edit 's/"noNewPrivileges"/"x"/'; real "$@""##, "process/gains_no"),
    (
        "never lets privileges grow",
        r##"edit 's/"noNewPrivileges": false/"noNewPrivileges": true/'; real "$@""##,
        "process/gains_no",
    ),
    ("knows no oom score", r##"edit 's/"oomScoreAdj"/"x"/'; real "$@""##, "process/has_its_oom"),
    ("takes what is not there", r##"edit 's#/nowhere/at/all#/probe#'; real "$@""##, "process/that_is_not"),
    ("always exits with 1", r##"edit 's/"42"/"1"/'; real "$@""##, "process/exit_code"),
    // user, limits, capabilities
    ("runs all as root", r##"edit 's/"uid"/"x"/'; real "$@""##, "user/has_its_ids"),
    ("runs all in group root", r##"edit 's/"gid"/"x"/'; real "$@""##, "user/has_its_ids"),
    ("forgets the groups", r##"edit 's/"additionalGids"/"x"/'; real "$@""##, "user/has_its_ids"),
    (
        "adds a group",
        r##"edit 's/"user": {/"user": {"additionalGids": [4],/'; real "$@""##,
        "user/has_no_other",
    ),
    ("knows no umask", r##"edit 's/"umask"/"x"/'; real "$@""##, "user/has_its_umask"),
    ("knows no limits", r##"edit 's/"rlimits"/"x"/'; real "$@""##, "rlimits/are_soft"),
    (
        "sets another soft limit",
        r##"edit '/"soft"/{N;/CORE/s/"soft": [0-9]*/"soft": 1/}'; real "$@""##,
        "rlimits/are_soft",
    ),
    (
        "drops a capability",
        r##"edit 's/"CAP_AUDIT_WRITE"/"CAP_CHOWN"/'; real "$@""##,
        "capabilities/are_the_five_sets_of_root",
    ),
    (
        "knows no inheritable set",
        r##"edit 's/"inheritable": \[/"x": [/'; real "$@""##,
        "capabilities/are_the_five_sets_of_root",
    ),
    (
        "knows no ambient set",
        r##"edit 's/"ambient": \[/"x": [/'; real "$@""##,
        "capabilities/are_the_five_sets_of_a_user",
    ),
    (
        "drops a capability of a user",
        r##"edit 's/"CAP_SYS_CHROOT"/"CAP_KILL"/'; real "$@""##,
        "capabilities/are_the_five_sets_of_a_user",
    ),
    // terminal, names
    (
        "makes no terminal of this size",
        r##"edit 's/"width": 113/"width": 80/'; real "$@""##,
        "terminal/is_sent",
    ),
    ("knows no host name", r##"edit 's/"hostname"/"x"/'; real "$@""##, "hostname/is_seen"),
    // namespaces
    (
        "makes no network namespace",
        r##"edit 's#"type": "network"#"type": "network", "path": "/proc/self/ns/net"#'; real "$@""##,
        "namespaces/without_a_path",
    ),
    (
        "makes no ipc namespace",
        r##"edit 's#"type": "ipc"#"type": "ipc", "path": "/proc/self/ns/ipc"#'; real "$@""##,
        "namespaces/without_a_path",
    ),
    ("joins no namespaces", r##"edit 's#"path": "/proc/.*"#"x": ""#'; real "$@""##, "namespaces/with_a_path"),
    (
        "joins no pid namespace",
        r##"edit 's#"path": "/proc/.*"#"x": ""#'; real "$@""##,
        "namespaces/of_processes",
    ),
    (
        "makes namespaces that nobody asked for",
        r##"edit 's/"namespaces": \[/"namespaces": [{"type": "cgroup"},/'; real "$@""##,
        "namespaces/not_listed",
    ),
    ("maps users elsewhere", r##"edit 's/100000/110000/'; real "$@""##, "namespaces/of_users"),
    // devices, cgroup, sysctl, seccomp, paths
    ("makes no devices", r##"edit 's/"devices"/"x"/'; real "$@""##, "devices/listed"),
    ("gives devices to root", r##"edit 's/"uid": 11/"uid": 0/'; real "$@""##, "devices/listed"),
    (
        "makes devices of any mode",
        r##"edit 's/"fileMode": [0-9]*/"fileMode": 511/'; real "$@""##,
        "devices/listed",
    ),
    (
        "takes a device for another",
        r##"edit 's/"minor": 3$/"minor": 5/'; real "$@""##,
        "devices/refuse_a_path",
    ),
    (
        "denies what is allowed",
        r##"edit 's/"allow": true/"allow": false/'; real "$@""##,
        "devices/can_be_used",
    ),
    ("knows no sets of CPUs", r##"edit 's/"cpus"/"x"/'; real "$@""##, "cgroup/refuses_a_limit"),
    ("knows no unified files", r##"edit 's/"unified"/"x"/'; real "$@""##, "cgroup/refuses_a_controller"),
    ("has no place for cgroups", r##"edit 's/"cgroupsPath"/"x"/'; real "$@""##, "cgroup/is_at_its_path"),
    ("knows no limit of processes", r##"edit 's/"pids"/"x"/'; real "$@""##, "cgroup/has_its_limit"),
    ("sets no parameters", r##"edit 's/"sysctl"/"x"/'; real "$@""##, "sysctl/sets"),
    ("loads no filter", r##"edit 's/"seccomp"/"x"/'; real "$@""##, "seccomp/refuses_the_listed"),
    ("knows no errno", r##"edit 's/"errnoRet"/"x"/'; real "$@""##, "seccomp/refuses_the_listed"),
    ("masks nothing", r##"edit 's/"maskedPaths"/"x"/'; real "$@""##, "masked_paths/cannot"),
    ("masks no folders", r##"edit 's#"/secret/folder"#"/nowhere"#'; real "$@""##, "masked_paths/cannot"),
    ("makes nothing read-only", r##"edit 's/"readonlyPaths"/"x"/'; real "$@""##, "readonly_paths/cannot"),
];

#[test]
fn every_broken_runtime_is_noticed() {
    let Some(runc) = needs("runc") else { return };
    let folder = folder();
    let next = AtomicUsize::new(0);
    let unnoticed: Vec<String> = std::thread::scope(|scope| {
        let worker = || {
            let mut unnoticed = Vec::new();
            while let Some((number, row)) = {
                let number = next.fetch_add(1, Ordering::Relaxed);
                BROKEN.get(number).map(|row| (number, row))
            } {
                unnoticed.extend(play(folder.path(), &runc, number, *row).err());
            }
            unnoticed
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("worker")).collect()
    });
    assert!(unnoticed.is_empty(), "{}", unnoticed.join("\n"));
}

/// Runs the case against the broken runtime: it fails, and it passes with the same runtime whole.
fn play(folder: &Path, runc: &Path, number: usize, row: (&str, &str, &str)) -> Result<(), String> {
    let (what, body, case) = row;
    let script = folder.join(format!("broken-{number}"));
    let text = format!("{HEAD}RUNC='{}'\n{body}\n", runc.display());
    fs::write(&script, text).expect("write the script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("permissions of the script");
    let report = report_within(folder, &script.to_string_lossy(), case, "3");
    // For a look with --nocapture: noticed for the right reason?
    println!("{what}: {}", report["cases"]);
    if with_outcome(&report, "failed").is_empty() && with_outcome(&report, "skipped").is_empty() {
        return Err(format!("a runtime that {what} passes {case}"));
    }
    Ok(())
}
