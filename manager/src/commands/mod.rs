//! One file a verb. Each has its flags (`Args`) and `run`, which returns the exit code.

mod attach;
pub(crate) mod copy;
mod create;
mod exec;
mod export;
pub(crate) mod history;
pub(crate) mod image;
pub(crate) mod image_inspect;
pub(crate) mod images;
pub(crate) mod import;
mod inflate;
mod inspect;
mod kill;
pub(crate) mod load;
mod login;
mod logout;
mod logs;
mod monitor;
mod prune;
mod ps;
pub(crate) mod pull;
pub(crate) mod push;
mod referrers;
mod rm;
pub(crate) mod rmi;
mod run;
pub(crate) mod save;
mod search;
mod start;
mod stop;
mod system;
pub(crate) mod tag;
mod tags;
mod unpack;
mod volume;
mod wait;

use anyhow::{Result, bail};

use crate::cli::{Coded, Context};
use crate::location::Location;
use crate::reference::Reference;
use crate::registry::Absent;
use crate::registry::registries::Registries;

/// Every verb of the command line.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Image(image::Args),
    Images(images::Args),
    Login(login::Args),
    Logout(logout::Args),
    Pull(pull::Args),
    Push(push::Args),
    Copy(copy::Args),
    Save(save::Args),
    Load(load::Args),
    Import(import::Args),
    History(history::Args),
    Referrers(referrers::Args),
    Rmi(rmi::Args),
    Search(search::Args),
    Tag(tag::Args),
    Tags(tags::Args),
    // `-h` is docker's short for --hostname there.
    #[command(disable_help_flag = true)]
    Run(Box<run::Args>),
    #[command(disable_help_flag = true)]
    Create(Box<create::Args>),
    Start(start::Args),
    Ps(ps::Args),
    Logs(logs::Args),
    Exec(exec::Args),
    Attach(attach::Args),
    Export(export::Args),
    Stop(stop::Args),
    Kill(kill::Args),
    Volume(volume::Args),
    System(system::Args),
    Wait(wait::Args),
    Rm(rm::Args),
    Inspect(inspect::Args),
    #[command(hide = true)]
    Monitor(monitor::Args),
    #[command(hide = true)]
    Inflate(inflate::Args),
    #[command(hide = true)]
    Unpack(unpack::Args),
}

impl Command {
    /// The exit code when the manager itself fails: 125 where the container's own code is returned
    /// otherwise (docker's rule), 1 everywhere else.
    pub(crate) fn error_code(&self) -> u8 {
        match self {
            Self::Run(_) => 125,
            _ => 1,
        }
    }
}

/// Runs one verb.
pub(crate) fn run(command: Command, context: &Context) -> Result<u8> {
    let is_for_people = match &command {
        Command::Monitor(_) | Command::Inflate(_) | Command::Unpack(_) => false,
        Command::System(args) => !args.is_behind(),
        _ => true,
    };
    if is_for_people {
        // Containers can be stopped whatever has become of images; the next command looks again.
        if let Err(error) = crate::copy::recover(&context.root) {
            eprintln!("manager: {error:#}");
        }
    }
    match command {
        Command::Image(args) => image::run(args, context),
        Command::Images(args) => images::run(args, context),
        Command::Login(args) => login::run(args, context),
        Command::Logout(args) => logout::run(args, context),
        Command::Pull(args) => pull::run(args, context),
        Command::Push(args) => push::run(args, context),
        Command::Copy(args) => copy::run(args, context),
        Command::Save(args) => save::run(args, context),
        Command::Load(args) => load::run(args, context),
        Command::Import(args) => import::run(args, context),
        Command::History(args) => history::run(args, context),
        Command::Referrers(args) => referrers::run(args, context),
        Command::Rmi(args) => rmi::run(args, context),
        Command::Search(args) => search::run(args, context),
        Command::Tag(args) => tag::run(args, context),
        Command::Tags(args) => tags::run(args, context),
        Command::Run(args) => run::run(*args, context),
        Command::Create(args) => create::run(*args, context),
        Command::Start(args) => start::run(args, context),
        Command::Ps(args) => ps::run(args, context),
        Command::Logs(args) => logs::run(args, context),
        Command::Exec(args) => exec::run(args, context),
        Command::Attach(args) => attach::run(args, context),
        Command::Export(args) => export::run(args, context),
        Command::Stop(args) => stop::run(args, context),
        Command::Kill(args) => kill::run(args, context),
        Command::Volume(args) => volume::run(args, context),
        Command::System(args) => system::run(args, context),
        Command::Wait(args) => wait::run(args, context),
        Command::Rm(args) => rm::run(args, context),
        Command::Inspect(args) => inspect::run(args, context),
        Command::Monitor(args) => monitor::run(args, context),
        Command::Inflate(args) => inflate::run(&args),
        Command::Unpack(args) => unpack::run(&args),
    }
}

/// What a name at a registry may stand for.
fn at_registry(name: &str) -> Result<Vec<Reference>> {
    match Location::parse(name)? {
        Location::Plain(_) => Registries::load()?.to_pull(name),
        Location::Registry(reference) => Ok(vec![reference]),
        _ => bail!("{name}: it is at no registry: use load or copy"),
    }
}

/// Does something with the first of these that a registry has.
fn with_first<T>(candidates: &[Reference], act: impl Fn(&Reference) -> Result<T>) -> Result<(Reference, T)> {
    let mut absent = Vec::new();
    for reference in candidates {
        match act(reference) {
            Ok(done) => return Ok((reference.clone(), done)),
            // A registry that fails otherwise might have had it: another's image would be a surprise.
            Err(error) if error.is::<Absent>() && candidates.len() > 1 => absent.push(format!("{error:#}")),
            Err(error) => return Err(error),
        }
    }
    bail!("no registry has it: {}", absent.join("; "))
}

/// Does the same for each of several names. One that fails is reported and does not stop the
/// others; the code is 0 when all went well.
fn each(names: &[String], mut act: impl FnMut(&str) -> Result<u8>) -> Result<u8> {
    if let [only] = names {
        return act(only);
    }
    let mut code = 0;
    for name in names {
        match act(name) {
            Ok(own) => code = code.max(own),
            Err(error) => {
                eprintln!("manager: {error:#}");
                code = error.downcast_ref::<Coded>().map_or(1, |coded| coded.code);
            }
        }
    }
    Ok(code)
}
