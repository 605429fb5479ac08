//! `logs`: docker's file format, and the ways to read it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{one_runtime, unique};

#[test]
fn the_file_is_dockers_and_the_flags_choose_lines() {
    one_runtime(|host, runtime| {
        let name = unique("logs");
        let script = "echo one; echo two >&2; printf 'no newline'";
        let printed = host.manager(runtime, &["run", "--name", &name, &host.image, "sh", "-c", script]);
        assert_eq!(printed.code, 0);
        let logs = |flags: &[&str]| host.plain(&[&["logs"], flags, &[&name]].concat());
        let all = logs(&[]);
        assert_eq!((all.out.as_str(), all.err.as_str()), ("one\nno newline", "two\n"));
        assert_eq!(logs(&["--tail", "1"]).out, "no newline");
        assert_eq!(logs(&["--since", "2000-01-01T00:00:00Z", "--tail", "all"]).out, "one\nno newline");
        assert_eq!(logs(&["--until", "2000-01-01T00:00:00Z"]).out, "");
        assert_eq!(logs(&["--since", "0s"]).code, 0);
        let stamped = logs(&["-t"]).out;
        assert!(stamped.lines().next().unwrap().ends_with("Z one"), "{stamped}");
        let path = host.inspect(&name)["LogPath"].as_str().unwrap().to_owned();
        assert!(path.ends_with("-json.log"));
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let entry: Value = serde_json::from_str(line).unwrap();
            let keys: Vec<&String> = entry.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["log", "stream", "time"]);
        }
        host.manager(runtime, &["rm", &name]).ok();
    });
}

#[test]
fn follow_prints_what_comes_and_ends_with_the_container() {
    one_runtime(|host, runtime| {
        let name = unique("follow");
        let script = "for i in 1 2 3 4; do echo $i; sleep 0.2; done; echo end";
        host.manager(runtime, &["run", "-d", "--name", &name, &host.image, "sh", "-c", script]).ok();
        let begun = Instant::now();
        let child = host.command(runtime, &["logs", "-f", &name]).stdout(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n2\n3\n4\nend\n");
        assert!(begun.elapsed() < Duration::from_secs(8));
        host.manager(runtime, &["rm", &name]).ok();
    });
}

#[test]
fn old_lines_go_when_there_are_many() {
    one_runtime(|host, runtime| {
        let name = unique("rotate");
        // Some 45 MiB of log; 30 MiB are kept.
        let script = "i=0; while [ $i -lt 22 ]; do seq 1000000 1030000; i=$((i+1)); done; echo last";
        let mut command = host.command(runtime, &["run", "--name", &name, &host.image, "sh", "-c", script]);
        assert!(command.stdout(Stdio::null()).status().unwrap().success());
        let path = host.inspect(&name)["LogPath"].as_str().unwrap().to_owned();
        let size = |path: &str| std::fs::metadata(path).map_or(0, |data| data.len());
        for file in [path.clone(), format!("{path}.1"), format!("{path}.2")] {
            assert!((1..=10 * 1024 * 1024).contains(&size(&file)), "{file}: {}", size(&file));
        }
        assert_eq!(size(&format!("{path}.3")), 0);
        assert_eq!(host.plain(&["logs", "--tail", "2", &name]).ok(), "1030000\nlast\n");
        host.manager(runtime, &["rm", &name]).ok();
    });
}
