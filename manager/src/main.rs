//! A daemonless image manager: pulls images, keeps them in an OCI image layout, makes bundles of
//! them and has an OCI runtime run them. Arguments in, one command, at most one error out.

mod bundle;
mod cli;
mod commands;
mod container;
mod copy;
mod digest;
mod human;
mod image;
mod location;
mod monitor;
mod output;
mod platform;
mod progress;
mod reference;
mod registry;
mod rootfs;
mod store;
mod sys;
mod table;
mod template;

use std::process::ExitCode;

fn main() -> ExitCode {
    let (context, command) = match cli::parse() {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let fallback = command.error_code();
    match commands::run(command, &context) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Printing fails only when stderr is gone; the exit code still tells.
            eprintln!("manager: {error:#}");
            ExitCode::from(error.downcast_ref::<cli::Coded>().map_or(fallback, |coded| coded.code))
        }
    }
}
