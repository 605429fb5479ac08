//! Every flag once: help comes from here. Engines call runc in Go's way of writing flags, so `-flag`,
//! `--flag=false` and flags after arguments are understood too. The tree of commands is only built as
//! deep as a call needs it: that is most of what a command line costs.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::cgroup::Manager;
use crate::commands::{self, Verb};
use crate::container::rootless;

/// The global options, as commands need them.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where the containers' state is kept.
    pub(crate) root: PathBuf,
    /// Whether that was asked for, by `--root`.
    pub(crate) root_given: bool,
    pub(crate) log: Option<PathBuf>,
    pub(crate) log_json: bool,
    pub(crate) debug: bool,
    /// To the letter of the specification where runc, and with it every engine, is laxer.
    pub(crate) strict: bool,
    /// Who makes the containers' cgroups.
    pub(crate) manager: Manager,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Call {
    /// A verb with its own matches.
    Verb(Context, &'static Verb, ArgMatches),
    /// Text to print, and the exit code.
    Print(String, u8),
    /// A command line that makes no sense; help goes to standard output, as with runc.
    Misused(Option<Context>, String, anyhow::Error),
}

/// `--flag VALUE`
pub(crate) fn value(name: &'static str, placeholder: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(placeholder).help(help).allow_hyphen_values(true)
}

/// `--flag PATH`
pub(crate) fn path(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("PATH").help(help).value_parser(clap::value_parser!(PathBuf))
}

/// `--flag`
pub(crate) fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

/// The container's id.
pub(crate) fn id() -> Arg {
    Arg::new("id").value_name("CONTAINER-ID").required(true).help("The container's name, unique on this host")
}

/// The text of a required or optional argument.
pub(crate) fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

/// As runc lays it out.
const HELP: &str = "NAME:\n   {name} - {about}\n\nUSAGE:\n   {usage}\n\n{all-args}";

/// The name that we were called by. Engines know runtimes by their name, and look for it in what they say:
/// installed as `runc`, this one speaks as `runc`.
pub(crate) fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let path = PathBuf::from(std::env::args_os().next().unwrap_or_default());
        let name = path.file_name().and_then(OsStr::to_str).filter(|name| !name.contains(char::is_control));
        name.unwrap_or("runtime").to_owned()
    })
}

fn globals() -> Command {
    Command::new("runtime")
        .about("Open Container Initiative runtime: makes containers of bundles, and runs them")
        .bin_name(name())
        .display_name(name())
        .help_template(HELP)
        .disable_version_flag(true)
        .arg(flag("debug", "Log warnings and what helps to find a fault too"))
        .arg(value("log", "PATH", "Append errors to this file; to the host's log with journald:NAME or syslog:NAME").value_parser(clap::value_parser!(PathBuf)))
        .arg(value("log-format", "FORMAT", "How: text or json").default_value("text"))
        .arg(value("log-level", "LEVEL", "error, warning or debug (as --debug)"))
        .arg(path(
            "root",
            "Where the containers' state is kept [default: /run/runtime, or $XDG_RUNTIME_DIR/runtime]",
        ))
        .arg(flag(
            "systemd-cgroup",
            "Let systemd make the cgroups: linux.cgroupsPath is slice:prefix:name then",
        ))
        .arg(value(
            "cgroup-manager",
            "NAME",
            "Who makes the cgroups: cgroupfs, systemd, or disabled for nobody: the container stays in the caller's",
        ))
        .arg(value(
            "rootless",
            "BOOL",
            "true, false or auto: accepted for callers of runc, and changes nothing",
        ))
        .arg(flag(
            "strict",
            "To the letter of the specification where runc is laxer: delete refuses a created container, \
             limits without effect are errors [also: RUNTIME_STRICT=true]",
        ))
        .arg(path("criu", "Accepted for old callers").hide(true))
        .arg(flag("version", "Print the version").short('v'))
}

/// Reads the command line.
pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Call> {
    let words = go_style(words.collect(), &globals(), true);
    let matches = match globals()
        .args_override_self(true)
        .allow_external_subcommands(true)
        .disable_help_subcommand(true)
        .try_get_matches_from(words)
    {
        Ok(matches) => matches,
        Err(error) if error.use_stderr() => {
            let help = format!("Incorrect Usage.\n\n{}", whole_tree().render_help());
            return Ok(Call::Misused(None, help, anyhow!(usage(&error, &globals()))));
        }
        Err(_) => return Ok(Call::Print(whole_tree().render_help().to_string(), 0)),
    };
    if matches.get_flag("version") {
        return Ok(Call::Print(version(), 0));
    }
    let Some((name, rest)) = matches.subcommand() else {
        return Ok(Call::Print(whole_tree().render_help().to_string(), 0));
    };
    let rest: Vec<OsString> = rest.get_many::<OsString>("").into_iter().flatten().cloned().collect();
    let context = context(&matches)?;
    let unknown = |word: &str| anyhow!("unknown command {word:?} (see {} --help)", self::name());
    if name == "help" || name == "h" {
        return Ok(help(&rest).unwrap_or_else(|error| Call::Misused(Some(context), String::new(), error)));
    }
    let Some(verb) = commands::ALL.iter().find(|verb| verb.name == name) else {
        let asks_for_help = rest.iter().any(|word| word == "-h" || word == "--help");
        let error = if asks_for_help { anyhow!(no_help_for(name)) } else { unknown(name) };
        return Ok(Call::Misused(Some(context), String::new(), error));
    };
    let mut command = command_of(verb).args_override_self(true);
    let words = std::iter::once(OsString::from(verb.name)).chain(rest).collect();
    let words = go_style(words, &command, verb.name == "exec" || verb.name == "ps");
    match command.try_get_matches_from_mut(words) {
        Ok(matches) => Ok(Call::Verb(context, verb, matches)),
        Err(error) if error.use_stderr() => {
            let help = format!("Incorrect Usage.\n\n{}", command.render_help());
            Ok(Call::Misused(Some(context), help, anyhow!(usage(&error, &command))))
        }
        Err(help) => Ok(Call::Print(help.to_string(), 0)),
    }
}

/// Help with everything or with one command; the error is a name that there is not.
fn help(rest: &[OsString]) -> Result<Call> {
    let mut tree = whole_tree();
    let Some(name) = rest.first() else { return Ok(Call::Print(tree.render_help().to_string(), 0)) };
    let name = name.to_string_lossy();
    let command = tree.find_subcommand_mut(&*name).with_context(|| no_help_for(&name))?;
    Ok(Call::Print(command.render_help().to_string(), 0))
}

fn no_help_for(name: &str) -> String {
    format!("No help topic for '{name}'")
}

/// Every command with every flag: what help, man pages and completion are made of.
pub(crate) fn whole_tree() -> Command {
    commands::ALL.iter().fold(globals(), |tree, verb| tree.subcommand(command_of(verb)))
}

fn command_of(verb: &Verb) -> Command {
    let both = format!("{} {}", name(), verb.name);
    let command = Command::new(verb.name).bin_name(&both).display_name(both).help_template(HELP);
    (verb.flags)(command)
}

fn context(matches: &ArgMatches) -> Result<Context> {
    let root = match matches.get_one::<PathBuf>("root") {
        Some(root) if root.as_os_str() == "/" => bail!("Option --root argument should not be set to /"),
        Some(root) => std::path::absolute(root).with_context(|| format!("--root {root:?}"))?,
        None => default_root(),
    };
    let format = text(matches, "log-format");
    if !["text", "json"].contains(&format) {
        bail!("invalid log-format: {format}");
    }
    let manager = match text(matches, "cgroup-manager") {
        "systemd" => Manager::Systemd,
        "" if matches.get_flag("systemd-cgroup") => Manager::Systemd,
        "" | "cgroupfs" => Manager::Files,
        "disabled" => Manager::Nobody,
        other => bail!("--cgroup-manager: unknown manager {other:?}"),
    };
    Ok(Context {
        root,
        root_given: matches.contains_id("root"),
        log: matches.get_one("log").cloned(),
        log_json: format == "json",
        debug: matches.get_flag("debug") || matches!(text(matches, "log-level"), "debug" | "warning"),
        strict: matches.get_flag("strict") || strict_by_environment()?,
        manager,
    })
}

/// For engines that let an operator set the environment of a runtime, but not its options.
fn strict_by_environment() -> Result<bool> {
    match std::env::var_os("RUNTIME_STRICT") {
        None => Ok(false),
        Some(value) => match value.to_str() {
            Some("true" | "1") => Ok(true),
            Some("false" | "0" | "") => Ok(false),
            _ => bail!("RUNTIME_STRICT: {value:?} is neither true nor false"),
        },
    }
}

fn is_called_root() -> bool {
    std::env::var_os("USER").is_some_and(|name| name == "root")
}

fn default_root() -> PathBuf {
    // Root of a user namespace is nobody in /run, unless it says that it is root all the same.
    let own = || !nix::unistd::geteuid().is_root() || (rootless::in_user_namespace() && !is_called_root());
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if own() => PathBuf::from(dir).join("runtime"),
        _ => PathBuf::from("/run/runtime"),
    }
}

/// Engines look for lines with `version`, `commit:` and `spec:`.
fn version() -> String {
    format!(
        "{} version {}\ncommit: {}\nspec: 1.3.0\n",
        name(),
        env!("CARGO_PKG_VERSION"),
        option_env!("RUNTIME_COMMIT").unwrap_or("unknown")
    )
}

/// What runc says, where callers may know it; else one sentence out of clap's several lines.
fn usage(error: &clap::Error, command: &Command) -> String {
    let about = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let (given, value) = (about(ContextKind::InvalidArg), about(ContextKind::InvalidValue));
    let flag = given.split(['=', ' ']).next().unwrap_or_default().trim_start_matches('-');
    match error.kind() {
        ErrorKind::MissingRequiredArgument if !given.starts_with('-') => number_of_arguments(command, false),
        ErrorKind::UnknownArgument if !given.starts_with('-') => number_of_arguments(command, true),
        ErrorKind::UnknownArgument => format!("flag provided but not defined: -{flag}"),
        ErrorKind::InvalidValue if value.is_empty() => format!("flag needs an argument: -{flag}"),
        ErrorKind::TooManyValues => format!("invalid boolean value {value:?} for -{flag}: parse error"),
        ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            format!("invalid value {value:?} for flag -{flag}: {why}")
        }
        _ => {
            let text = error.to_string();
            let lines = text.trim_start_matches("error: ").lines().map(str::trim);
            let lines = lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
            lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
        }
    }
}

/// How many arguments the command takes, of which there are too many or too few.
fn number_of_arguments(command: &Command, too_many: bool) -> String {
    let name = command.get_name();
    let (all, least) = (
        command.get_positionals().count(),
        command.get_positionals().filter(|arg| arg.is_required_set()).count(),
    );
    let open =
        command.get_positionals().any(|arg| arg.get_num_args().is_some_and(|count| count.max_values() > 1));
    match least {
        _ if least == all && !open => format!("{name:?} requires exactly {all} argument(s)"),
        _ if too_many => format!("{name:?} requires a maximum of {all} argument(s)"),
        _ => format!("{name:?} requires a minimum of {least} argument(s)"),
    }
}

/// Go's flags to ours: `-flag` to `--flag`, `--flag=true` to `--flag`, `--flag=false` to nothing. With
/// `stop`, words from the first argument on belong to somebody else.
fn go_style(words: Vec<OsString>, command: &Command, stop: bool) -> Vec<OsString> {
    let known = |name: &str| {
        let short = name.chars().next().filter(|_| name.chars().count() == 1);
        let is_meant =
            |arg: &&Arg| arg.get_long() == Some(name) || short.is_some() && arg.get_short() == short;
        command.get_arguments().find(is_meant).and_then(|arg| Some((arg, arg.get_long()?)))
    };
    let mut result = Vec::with_capacity(words.len());
    let mut words = words.into_iter();
    result.extend(words.next());
    while let Some(word) = words.next() {
        let Some(text) = word.to_str().filter(|text| text.len() > 1 && text.starts_with('-')) else {
            result.push(word);
            if stop {
                break;
            }
            continue;
        };
        if text == "--" {
            result.push(word);
            break;
        }
        let bare = text.trim_start_matches('-');
        let (name, given) = bare.split_once('=').map_or((bare, None), |(name, value)| (name, Some(value)));
        let Some((arg, name)) = known(name) else {
            result.push(word);
            continue;
        };
        let takes_value = arg.get_action().takes_values();
        match given {
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") if !takes_value => {}
            Some("true" | "1" | "t" | "T" | "TRUE" | "True") | None if !takes_value => {
                result.push(format!("--{name}").into());
            }
            Some(value) => result.push(format!("--{name}={value}").into()),
            None => {
                result.push(format!("--{name}").into());
                result.extend(words.next());
            }
        }
    }
    result.extend(words);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Call {
        parse(line.split(' ').map(OsString::from)).expect("a good command line")
    }

    #[test]
    fn flags_in_go_style_are_understood() {
        let Call::Verb(context, verb, matches) = parsed("runtime -root /x --debug=false kill -all=true c1 9")
        else {
            panic!("no verb")
        };
        assert_eq!((context.root.to_str(), context.debug, verb.name), (Some("/x"), false, "kill"));
        assert!(matches.get_flag("all"));
        assert_eq!((text(&matches, "id"), text(&matches, "signal")), ("c1", "9"));
    }

    #[test]
    fn flags_may_follow_arguments() {
        let Call::Verb(_, _, matches) = parsed("runtime delete c1 --force") else { panic!("no verb") };
        assert!(matches.get_flag("force"));
    }

    #[test]
    fn what_follows_the_id_of_exec_is_the_payloads() {
        let Call::Verb(_, _, matches) = parsed("runtime exec -tty c1 ls --tty=false -la") else {
            panic!("no verb")
        };
        let words: Vec<&String> = matches.get_many("args").into_iter().flatten().collect();
        assert_eq!(words, ["ls", "--tty=false", "-la"]);
    }

    #[test]
    fn every_command_is_well_formed() {
        whole_tree().debug_assert();
    }
}
