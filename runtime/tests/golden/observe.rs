//! One runtime and its bundle: makes calls, and keeps what was seen without what cannot be the same:
//! the program's name, folders, ids, pids and times.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{self, Bundle, runtime, wait_until};

/// A call that takes longer is killed, and seen with the exit code -1.
const HANGS: Duration = Duration::from_secs(20);

/// How a runtime is told to log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Log {
    /// To standard error.
    None,
    Text,
    Json,
}

pub(crate) struct Actor {
    pub(crate) bundle: Bundle,
    /// "CALL: exit code", "CALL: stdout" and so on, each with what was seen.
    pub(crate) seen: Vec<(String, String)>,
    /// What we said that no engine could read.
    pub(crate) unreadable: Vec<String>,
    program: PathBuf,
    log: Log,
}

impl Actor {
    pub(crate) fn new(program: PathBuf, log: Log) -> Self {
        Self { bundle: Bundle::of(&["true"]), seen: Vec::new(), unreadable: Vec::new(), program, log }
    }

    fn is_ours(&self) -> bool {
        self.program == runtime()
    }

    /// The runtime with arguments, in which `ID` stands for the container's id.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.bundle.dir.join("state")).current_dir(&self.bundle.dir);
        match self.log {
            Log::None => {}
            Log::Text => drop(command.args(["--log", "log"])),
            Log::Json => drop(command.args(["--log", "log", "--log-format", "json"])),
        }
        command.args(args.iter().map(|arg| arg.replace("ID", &self.bundle.id)));
        command.stdin(Stdio::null());
        command
    }

    /// Calls, and keeps all that is seen.
    pub(crate) fn call(&mut self, args: &[&str]) {
        let command = self.command(args);
        self.keep(&args.join(" "), command);
    }

    /// The same with something on standard input.
    pub(crate) fn call_with(&mut self, args: &[&str], input: &str) {
        fs::write(self.bundle.dir.join("input"), input).expect("write the input");
        let mut command = self.command(args);
        command.stdin(File::open(self.bundle.dir.join("input")).expect("open the input"));
        self.keep(&format!("{} <<<{input:?}", args.join(" ")), command);
    }

    /// Calls to get somewhere: it must succeed.
    pub(crate) fn must(&mut self, args: &[&str]) {
        let (code, out, errors) = self.run(self.command(args));
        assert_eq!(code, 0, "{:?} {args:?}: {out}{errors}", self.program);
        drop(fs::remove_file(self.bundle.dir.join("log")));
    }

    /// Keeps something else that was seen.
    pub(crate) fn note(&mut self, what: &str, seen: &str) {
        self.seen.push((what.to_owned(), self.neutral(seen)));
    }

    /// Waits until `state` says so.
    pub(crate) fn wait_for(&self, status: &str) {
        wait_until(&format!("the container is {status}"), || {
            let (_, out, _) = self.run(self.command(&["state", "ID"]));
            out.contains(&format!("\"status\": \"{status}\""))
        });
        drop(fs::remove_file(self.bundle.dir.join("log")));
    }

    /// Not through pipes, which a container would keep open.
    fn run(&self, mut command: Command) -> (i32, String, String) {
        let path = |name| self.bundle.dir.join(name);
        let [out, errors] = ["stdout", "stderr"].map(|name| File::create(path(name)).expect("make a file"));
        let mut child = command.stdout(out).stderr(errors).spawn().expect("run the runtime");
        let begin = Instant::now();
        while child.try_wait().expect("look for its end").is_none() {
            if begin.elapsed() > HANGS {
                child.kill().expect("kill the runtime");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let status = child.wait().expect("wait for the runtime");
        let read = |name| String::from_utf8_lossy(&fs::read(path(name)).expect("read a file")).into_owned();
        (status.code().unwrap_or(-1), read("stdout"), read("stderr"))
    }

    fn keep(&mut self, call: &str, command: Command) {
        let (code, out, errors) = self.run(command);
        let log = self.bundle.dir.join("log");
        let logged = fs::read_to_string(&log).unwrap_or_default();
        drop(fs::remove_file(log));
        let (said, logged) = (self.messages(&errors), self.logged(&logged));
        if self.is_ours() {
            self.check_our_form(call, code, &errors, &said, &logged);
        }
        let all = if self.log == Log::None { &said } else { &logged };
        let is_warning = |line: &&String| line.starts_with("warning: ");
        let warnings: Vec<String> = all.iter().filter(is_warning).cloned().collect();
        let errors = |lines: Vec<String>| {
            lines.into_iter().filter(|line| !is_warning(&line)).collect::<Vec<_>>().join("\n")
        };
        for (part, seen) in [
            ("exit code", code.to_string()),
            ("stdout", self.output(&out)),
            ("stderr", errors(said)),
            ("log", errors(logged)),
            ("warnings", warnings.join("\n")),
        ] {
            self.note(&format!("{call}: {part}"), &seen);
        }
    }

    /// What engines count on, whatever runc does: success is silent where standard error is read with
    /// standard output; a failure is one line, and in the log one object.
    fn check_our_form(&mut self, call: &str, code: i32, errors: &str, said: &[String], logged: &[String]) {
        let verb = call.split(' ').next().unwrap_or_default();
        let quiet = ["state", "ps", "start", "kill", "delete", "pause", "resume", "update", "create"];
        let payloads = ["run", "exec"].contains(&verb) && (code == 0 || !errors.starts_with("runtime: "));
        let misused = call.is_empty() || call.starts_with("--") || call == "-h";
        let good = match code {
            _ if payloads => logged.is_empty(),
            // Without a log a person is looking, whom a warning may reach.
            0 => logged.is_empty() && (errors.is_empty() || !quiet.contains(&verb) || self.log == Log::None),
            _ => {
                said.len() == 1
                    && errors.starts_with("runtime: ")
                    && (self.log == Log::None || misused || logged == said)
            }
        };
        if !good {
            self.unreadable.push(format!("{call}: {code}, {errors:?}, log {logged:?}"));
        }
    }

    /// Messages on standard error, whatever their form. All but errors have their level before them.
    fn messages(&self, text: &str) -> Vec<String> {
        if let Some(rest) = text.strip_prefix("runtime: ") {
            return rest.split("\nruntime: ").map(|message| message.trim_end().to_owned()).collect();
        }
        let lines = text.trim_end().lines();
        lines
            .map(|line| text_line(line).or_else(|| json_line(line)).unwrap_or_else(|| line.to_owned()))
            .collect()
    }

    /// Messages in the log, each in the form that was asked for.
    fn logged(&self, text: &str) -> Vec<String> {
        let read = if self.log == Log::Json { json_line } else { text_line };
        text.lines().map(|line| read(line).unwrap_or_else(|| panic!("not a line of a log: {line}"))).collect()
    }

    /// Standard output: help is a program's own; JSON without what differs from one container to the next.
    fn output(&self, text: &str) -> String {
        let is_help = |text: &str| {
            text.starts_with("NAME:\n") || text.starts_with("Usage: ") || text.contains("\n\nUsage: ")
        };
        if is_help(text) || text.starts_with("Incorrect Usage") {
            return "HELP".to_owned();
        }
        match serde_json::from_str::<Value>(text) {
            Ok(value) if text.starts_with(['{', '[']) => {
                let end = if text.ends_with('\n') { "\n" } else { "" };
                let form = if text.trim_end().contains('\n') { "lines" } else { "line" };
                format!("JSON in {form}: {:#}{end}", neutral_json(value))
            }
            _ => text.to_owned(),
        }
    }

    /// Without names, folders and ids.
    fn neutral(&self, text: &str) -> String {
        let dir = self.bundle.dir.to_string_lossy();
        let text =
            text.replace(&*dir, "BUNDLE").replace(&self.bundle.id, "ID").replace(&"x".repeat(300), "LONG");
        if self.is_ours() {
            return text;
        }
        // runc has its name before what failed, we before everything.
        let name = format!("{}: \"", self.program.display());
        let text = text
            .replace(&name, "\"")
            .replace("runc create failed: ", "create failed: ")
            .replace("runc run failed: ", "run failed: ");
        text.replace("runc", "runtime")
    }
}

/// By its own program: another's state is nothing that the bundle could clear.
impl Drop for Actor {
    fn drop(&mut self) {
        let ids = fs::read_dir(self.bundle.dir.join("state")).into_iter().flatten().flatten();
        for id in ids.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
            let _ = self.command(&["delete", "--force", &id]).output();
        }
        // runc leaves the one in the unified hierarchy of a machine with both.
        for dir in harness::cgroups_named(&self.bundle.id) {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// A line of the log in text form.
fn text_line(line: &str) -> Option<String> {
    let (time, rest) = line.strip_prefix("time=\"")?.split_once("\" level=")?;
    let (level, message) = rest.split_once(" msg=")?;
    // One word without anything special stands without quotation marks.
    let message = serde_json::from_str(message).unwrap_or_else(|_| message.to_owned());
    is_time(time).then(|| with_level(level, message))
}

/// The same as JSON.
fn json_line(line: &str) -> Option<String> {
    let object: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| object[key].as_str();
    is_time(text("time")?).then_some(with_level(text("level")?, text("msg")?.to_owned()))
}

fn with_level(level: &str, message: String) -> String {
    let message = message.trim_end();
    if level == "error" { message.to_owned() } else { format!("{level}: {message}") }
}

fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape.starts_with("0000-00-00T00:00:00")
}

fn neutral_json(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (key, field) in fields.iter_mut() {
                *field = match (key.as_str(), field.take()) {
                    ("pid", Value::Number(pid)) if pid.as_i64() > Some(0) => "PID".into(),
                    ("ociVersion", Value::String(_)) => "VERSION".into(), // runc shows its own, we the bundle's
                    ("created", Value::String(time)) if is_time(&time) => "TIME".into(),
                    (_, other) => neutral_json(other),
                };
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|one| *one = neutral_json(one.take())),
        _ => {}
    }
    value
}
