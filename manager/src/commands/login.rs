//! `login`: checks a name and password at a registry and keeps them, as docker and podman do.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use nix::sys::termios::{self, LocalFlags, SetArg, SpecialCharacterIndices, Termios};

use crate::cli::{Coded, Context};
use crate::output;
use crate::registry::RegistryArgs;
use crate::registry::login::{Account, AuthFile};
use crate::registry::registries::Registries;

/// Log in to a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The user's name; asked for on a terminal
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// The password, for everybody to see in the list of processes
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Take the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Print the name of the user who is logged in, and do nothing else
    #[arg(long)]
    get_login: bool,
    /// Keep the credentials in this file, in docker's way
    #[arg(long, value_name = "FILE")]
    compat_auth_file: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// HOST, HOST:PORT, or either with /PATH for a part of a registry; docker.io if not given
    #[arg(value_name = "REGISTRY")]
    server: Option<String>,
}

/// Logs in.
pub(crate) fn run(mut args: Args, _: &Context) -> Result<u8> {
    let account = account(args.server.as_deref())?;
    // An --authfile that is only in the environment gives way to the option.
    if args.compat_auth_file.is_some() && std::env::var_os("REGISTRY_AUTH_FILE").is_some() {
        args.registry.authfile = None;
    }
    let file = AuthFile::choose(args.registry.authfile.as_deref(), args.compat_auth_file.as_deref())?;
    if let Some(compatible) = &args.compat_auth_file {
        args.registry.authfile = Some(compatible.clone());
    }
    if args.get_login {
        let Some(user) = account.user(args.registry.authfile.as_deref())? else {
            bail!("not logged in to {}", account.key);
        };
        output::print(&format!("{user}\n"))?;
        return Ok(0);
    }
    let (user, password) = match credentials(&args, &account)? {
        Some(given) => given,
        None => {
            output::print("Login Succeeded\n")?;
            return Ok(0);
        }
    };
    account
        .check(&user, &password, &args.registry)
        .with_context(|| format!("log in to {}", account.domain))?;
    file.store(&account, &user, &password).with_context(|| format!("log in to {}", account.domain))?;
    output::print("Login Succeeded\n")?;
    Ok(0)
}

/// The registry that is meant: docker's, or the first that short names are searched in.
pub(super) fn account(server: Option<&str>) -> Result<Account> {
    match server {
        Some(server) => Account::parse(server),
        None => {
            let searched = Registries::load()?.searched();
            Account::parse(searched.first().map_or("docker.io", String::as_str))
        }
    }
}

/// A name and password from the options, standard input or the terminal; none when those that are kept
/// are still good and no others were given.
fn credentials(args: &Args, account: &Account) -> Result<Option<(String, String)>> {
    if args.password_stdin {
        let Some(user) = args.username.clone() else {
            bail!("--password-stdin needs --username");
        };
        let mut password = String::new();
        io::stdin().take(64 * 1024).read_to_string(&mut password).context("read the password")?;
        // As docker: a line's end is not of the password.
        let password = password.trim_end_matches(['\n', '\r']).to_owned();
        return Ok(Some((user, nonempty(password, "password")?)));
    }
    if args.password.is_some() {
        eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    if let (Some(user), Some(password)) = (&args.username, &args.password) {
        return Ok(Some((nonempty(user.clone(), "username")?, nonempty(password.clone(), "password")?)));
    }
    let mut known = None;
    if args.username.is_none() && args.password.is_none() {
        known = account.existing(&args.registry).with_context(|| format!("log in to {}", account.domain))?;
        if let Some((_, good)) = &known {
            eprintln!("Authenticating with existing credentials for {}", account.key);
            if *good {
                return Ok(None);
            }
            eprintln!("Existing credentials are invalid, please enter valid username and password");
        }
    }
    if !io::stdin().is_terminal() {
        bail!("cannot ask for a name and password without a terminal: use --username and --password-stdin");
    }
    let known = known.map(|(user, _)| user);
    let user = match &args.username {
        Some(user) => user.clone(),
        None => ask_name(known.as_deref())?,
    };
    let user = nonempty(user, "username")?;
    let password = match &args.password {
        Some(password) => password.clone(),
        None => ask_password()?,
    };
    Ok(Some((user, nonempty(password, "password")?)))
}

fn nonempty(text: String, what: &str) -> Result<String> {
    if text.is_empty() {
        bail!("the {what} is empty");
    }
    Ok(text)
}

fn ask_name(known: Option<&str>) -> Result<String> {
    let suggestion = known.map(|known| format!(" ({known})")).unwrap_or_default();
    prompt(&format!("Username{suggestion}: "))?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("read the username")?;
    let line = line.trim();
    Ok(if line.is_empty() { known.unwrap_or_default().to_owned() } else { line.to_owned() })
}

fn prompt(text: &str) -> Result<()> {
    let mut stderr = io::stderr();
    write!(stderr, "{text}").and_then(|()| stderr.flush()).context("write to the terminal")
}

/// The terminal as it was, once this goes.
struct Restored(Termios);

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// Reads a line without showing it. The terminal sends no signals meanwhile, so that it is always put
/// back as it was.
fn ask_password() -> Result<String> {
    let before = termios::tcgetattr(io::stdin()).context("look at the terminal")?;
    let mut quiet = before.clone();
    quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
    quiet.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
    quiet.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
    // Before anything is asked for: what was typed until now is thrown away, the answer must not be.
    termios::tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &quiet).context("hide the password")?;
    let restored = Restored(before);
    prompt("Password: ")?;
    let mut bytes = Vec::new();
    let mut interrupted = false;
    for byte in io::stdin().lock().bytes() {
        match byte.context("read the password")? {
            b'\n' | b'\r' | 0x04 => break,
            0x03 => {
                interrupted = true;
                break;
            }
            0x7f | 0x08 => {
                // A whole letter, of several bytes in UTF-8.
                while bytes.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {}
            }
            0x15 => bytes.clear(),
            other => bytes.push(other),
        }
    }
    drop(restored);
    prompt("\n")?;
    if interrupted {
        return Err(Coded { code: 130, error: anyhow::anyhow!("interrupted") }.into());
    }
    String::from_utf8(bytes).context("the password is not UTF-8")
}
