//! A low-level OCI runtime for Linux: runtime-spec 1.3.0 with runc's command line. Arguments in, one
//! command, at most one error out.
#![deny(unsafe_code)]
// `sys/entry.rs` has it.
#![cfg_attr(not(test), no_main)]

mod bundle;
mod cgroup;
mod cli;
mod commands;
mod container;
mod fault;
mod launch;
mod log;
mod property;
mod state_dir;
mod sys;
mod time;

use std::io::Write;

/// The whole program; returns its exit code.
#[cfg_attr(test, expect(dead_code, reason = "tests have a beginning of their own"))]
fn run() -> u8 {
    // A caller that ignores SIGCHLD hands that down, and then no child could be waited for.
    let _ = sys::process::default_signal(libc::SIGCHLD);
    match cli::parse(std::env::args_os()) {
        Ok(cli::Call::Print(text, code)) => {
            print(&text);
            code
        }
        Ok(cli::Call::Misused(context, help, error)) => {
            let opened = context.as_ref().map_or(Ok(()), open_log);
            print(&help);
            fail(&opened.err().unwrap_or(error), 1)
        }
        Ok(cli::Call::Verb(context, verb, matches)) => {
            match open_log(&context).and_then(|()| (verb.run)(&context, &matches)) {
                Ok(code) => {
                    print(""); // nobody else writes what has no line end
                    code
                }
                Err(error) => fail(&error, verb.failure),
            }
        }
        Err(error) => fail(&error, 1),
    }
}

fn open_log(context: &cli::Context) -> anyhow::Result<()> {
    log::open(context.log.as_deref(), context.log_json, context.debug)
}

fn print(text: &str) {
    let mut output = std::io::stdout();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush()); // a closed pipe is no error here
}

/// To the log and to standard error: some engines read the one, some the other.
fn fail(error: &anyhow::Error, code: u8) -> u8 {
    let message = format!("{error:#}");
    log::error(&message);
    let _ = writeln!(std::io::stderr(), "{}: {message}", cli::name()); // nobody left to tell
    code
}
