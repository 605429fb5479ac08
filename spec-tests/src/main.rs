//! Chooses the cases, runs them one after the other against a runtime, reports.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use spec_tests::case::Case;
use spec_tests::probe::Probe;
use spec_tests::report::{Format, Report};
use spec_tests::runtime::Runtime;
use spec_tests::suite;

/// Tests any OCI runtime against the runtime specification, as a black box. Needs root.
///
/// Exits with 1 when a MUST of the specification is not met, with 2 when the suite could not run.
#[derive(Debug, Parser)]
#[command(name = "spec-tests", version, max_term_width = 100)]
struct Cli {
    /// The runtime: a path, or a name on PATH
    #[arg(long, value_name = "PATH", required_unless_present = "list")]
    runtime: Option<PathBuf>,
    /// How to tell the outcome
    #[arg(long, value_enum, default_value = "lines")]
    format: Format,
    /// Only cases whose name contains this; may be given several times
    #[arg(long, value_name = "NAME")]
    filter: Vec<String>,
    /// Print the cases with the demands they prove, and run nothing
    #[arg(long)]
    list: bool,
    /// The longest that one step may take
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
    /// The program to observe with; by default the one beside this program
    #[arg(long, value_name = "PATH")]
    probe: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell when printing fails.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("spec-tests: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether every MUST was met.
fn run(cli: &Cli) -> Result<bool> {
    let chosen = choose(&cli.filter)?;
    if cli.list {
        list(&chosen);
        return Ok(true);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("run as root: containers are made without a user namespace");
    }
    // ^C and the like end the current step, so that its containers are deleted; then the run.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("catch signals")?;
    }
    // As engines do: the container's process becomes our child when the runtime has ended.
    nix::sys::prctl::set_child_subreaper(true).context("become the parent of containers")?;

    let folder = tempfile::Builder::new()
        .prefix("spec-tests-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .context("make a temporary folder")?;
    let stage = folder.path().join("stage");
    fs::create_dir(&stage).context("make a temporary folder")?;
    let probe = Probe::find(cli.probe.as_deref())?;
    probe.stage(&stage)?;

    let name = cli.runtime.as_deref().context("no runtime")?;
    // In a folder of its own: a runtime that takes ".." for an id deletes the folder above its root.
    let state = folder.path().join("state");
    fs::create_dir(&state).context("make a temporary folder")?;
    let root = state.join("root");
    let runtime = Runtime::new(name, root, Duration::from_secs(cli.timeout), interrupted)?;
    let mut report = Report::new(cli.format, std::io::stdout().lock(), chosen.len()).context("report")?;
    for case in chosen {
        let outcome = case.play(&runtime, &probe, &stage);
        if runtime.interrupted() {
            bail!("interrupted in {}", case.name);
        }
        report.add(case, &outcome).context("report")?;
    }
    report.close(&runtime.program().to_string_lossy()).context("report")
}

fn choose(filters: &[String]) -> Result<Vec<&'static Case>> {
    let wanted = |case: &&Case| filters.is_empty() || filters.iter().any(|word| case.name.contains(word));
    let chosen: Vec<&Case> = suite::cases().filter(wanted).collect();
    if chosen.is_empty() {
        bail!("no case has {} in its name", filters.join(" or "));
    }
    Ok(chosen)
}

fn list(cases: &[&Case]) {
    for case in cases {
        println!("{}", case.name);
        for requirement in case.proves {
            println!("    {} {}: {}", requirement.level, requirement.id, requirement.sentence);
        }
    }
}
