//! systemd makes and removes the container's cgroup, as a unit of its own: `--systemd-cgroup`.
//! [The systemd D-Bus interface](https://www.freedesktop.org/software/systemd/man/org.freedesktop.systemd1.html),
//! [control group APIs and delegation](https://systemd.io/CGROUP_DELEGATION/).
//!
//! ```text
//! runtime                              systemd                            init
//! clone3 ───────────────────────────────────────────────────────────────▶ waits
//! StartTransientUnit(NAME.scope,  ───▶ folder, limits that it knows,
//!   Delegate, PIDs=[init], limits)     moves init there
//!                                 ◀─── JobRemoved "done"
//! all limits, device program ─────────▶ (in the cgroup's files)
//! go ───────────────────────────────────────────────────────────────────▶ goes on
//! ```
//! A unit without a process is none, so init comes first, and does nothing before it is in its cgroup.
//! systemd is told the limits that it has properties for, since it writes its own view of them into the
//! cgroup whenever it is reloaded. What it has none for, and their exact values, are written after it.
//!
//! systemd is asked through its own socket, and only if there is none through the bus: one hop less, no
//! signals to subscribe to, and neither a broker nor its limits in the way. systemctl does the same.

mod bus;
mod gvariant;
mod message;
mod name;
mod place;
mod properties;

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Pid, geteuid};
use serde::{Deserialize, Serialize};

use self::bus::{Bus, TIMEOUT, is_hung_up, refusal};
use self::message::{Method, Value};
use self::properties::Properties;
pub(super) use self::properties::per_second;
use crate::container::rootless;

/// A container's unit. Kept in the container's state.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Unit {
    name: String,
    /// True if the systemd of an ordinary user has it.
    user: bool,
    /// The slice that it is in, and what annotations want.
    #[serde(skip)]
    wanted: Wanted,
    /// True if the name belongs to a unit of somebody else.
    #[serde(skip)]
    foreign: Rc<Cell<bool>>,
    #[serde(skip)]
    systemd: Link,
}

#[derive(Clone, Debug, Default)]
struct Wanted {
    slice: String,
    description: String,
    properties: Properties,
}

/// The connection, made when it is needed first.
#[derive(Clone, Debug, Default)]
struct Link(Rc<RefCell<Option<Bus>>>);

/// What is asked of systemd itself.
#[derive(Clone, Copy, Debug)]
struct Version(u32);

const SERVICE: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

impl Unit {
    /// Finds the unit that `linux.cgroupsPath` and the annotations ask for, and the path that its cgroup will
    /// have in each hierarchy.
    fn find<'a>(
        path: Option<&Path>,
        id: &str,
        annotations: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<(Self, PathBuf)> {
        let user = rootless::is_rootless();
        let name = name::parse(path, id, user).context("linux.cgroupsPath")?;
        let mut unit = Self {
            name: name.unit,
            user,
            wanted: Wanted { description: format!("container {id}"), ..Wanted::default() },
            foreign: Rc::default(),
            systemd: Link::default(),
        };
        unit.wanted.properties = properties::of_annotations(annotations)?;
        let cgroup = name::cgroup(&name.slice, &unit.name).context("linux.cgroupsPath")?;
        let ours = unit.get("ControlGroup")?;
        unit.wanted.slice = name.slice;
        Ok((unit, Path::new("/").join(ours.trim_start_matches('/')).join(cgroup)))
    }

    /// True if a systemd has it that may do less than the host's.
    fn is_users(&self) -> bool {
        self.user
    }

    /// Slices hold units and have no processes when they are made.
    fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    /// True if it has turned out that another container, or a service, has this name.
    fn is_foreign(&self) -> bool {
        self.foreign.get()
    }

    /// What this systemd understands.
    fn version(&self) -> Result<Version> {
        let text = self.get("Version")?; // "252.39-1~deb12u2", "v255"
        let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let number = digits[..end].parse();
        number.map(Version).with_context(|| format!("systemd's version {text:?} is not a number"))
    }

    /// Makes the unit around a process. `is_in` tells whether the process is in its cgroup.
    fn start(&self, pid: Pid, limits: Properties, is_in: &dyn Fn() -> bool) -> Result<()> {
        let properties = self.properties(pid, limits)?;
        let arguments = [
            Value::text(&*self.name),
            Value::text("replace"),
            properties.value(),
            Value::Array("(sa(sv))".to_owned(), Vec::new()),
        ];
        let mut retried = false;
        loop {
            let error = match self.run_job("StartTransientUnit", &arguments) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match refusal(&error) {
                // systemd has been executed anew, perhaps after it had done all.
                None if is_hung_up(&error) && is_in() => return Ok(()),
                None if is_hung_up(&error) && !retried => {}
                Some(UNIT_EXISTS) if is_in() => return Ok(()),
                // What is left of one that failed.
                Some(UNIT_EXISTS) if !retried => {
                    drop(self.call("ResetFailedUnit", &[Value::text(&*self.name)]))
                }
                Some(UNIT_EXISTS) => {
                    self.foreign.set(true);
                    bail!("linux.cgroupsPath: the unit {} exists already", self.name);
                }
                _ => return Err(self.explain(error)),
            }
            retried = true;
        }
    }

    fn properties(&self, pid: Pid, limits: Properties) -> Result<Properties> {
        let mut all = Properties::default();
        all.set("Description", Value::text(&*self.wanted.description));
        // Neither stopped before anything else at shutdown, nor a reason to wait for anything.
        all.set("DefaultDependencies", Value::Bool(false));
        if self.is_slice() {
            all.set("Wants", Value::texts([&*self.wanted.slice]));
        } else {
            all.set("Slice", Value::text(&*self.wanted.slice));
            all.set("Delegate", Value::Bool(true));
            let pid = u32::try_from(pid.as_raw()).context("a process id")?;
            all.set("PIDs", Value::Array("u".to_owned(), vec![Value::Uint32(pid)]));
        }
        for controller in ["CPU", "Memory", "Tasks", "IO"] {
            all.set(&format!("{controller}Accounting"), Value::Bool(true));
        }
        all.extend(self.wanted.properties.clone());
        all.extend(limits); // which the configuration may say twice: its limits count
        Ok(all)
    }

    /// Ends the connection, in the new process too. systemd tells everybody connected of everything, and
    /// keeps what is not read: nobody who lives on may stay connected.
    fn hang_up(&self) {
        if let Some(bus) = self.systemd.0.take() {
            bus.hang_up();
        }
    }

    /// Tells systemd of other limits.
    fn set(&self, limits: &Properties) -> Result<()> {
        if limits.is_empty() {
            return Ok(());
        }
        // true: until the unit ends, and not in a file in /etc
        let arguments = [Value::text(&*self.name), Value::Bool(true), limits.value()];
        self.call("SetUnitProperties", &arguments).map(drop).map_err(|error| self.explain(error))
    }

    /// Has systemd move a process into the unit's cgroup, or one below it, where we may not do that.
    fn attach(&self, pid: Pid, below: &Path) -> Result<()> {
        let pid = u32::try_from(pid.as_raw()).context("a process id")?;
        let arguments = [
            Value::text(&*self.name),
            Value::text(below.to_string_lossy()),
            Value::Array("u".to_owned(), vec![Value::Uint32(pid)]),
        ];
        self.call("AttachProcessesToUnit", &arguments).map(drop).map_err(|error| self.explain(error))
    }

    /// Stops the unit, so that nothing of it is left; one that is gone is as good.
    fn stop(&self) -> Result<()> {
        let name = Value::text(&*self.name);
        match self.run_job("StopUnit", &[name.clone(), Value::text("replace")]) {
            Err(error) if refusal(&error) == Some(NO_SUCH_UNIT) => return Ok(()),
            Err(error) if is_hung_up(&error) => {
                self.run_job("StopUnit", &[name.clone(), Value::text("replace")])
            }
            other => other,
        }
        .or_else(|error| {
            if refusal(&error) == Some(NO_SUCH_UNIT) { Ok(()) } else { Err(self.explain(error)) }
        })?;
        // One that has failed stays until then, for those who want to know why.
        drop(self.call("ResetFailedUnit", &[name]));
        Ok(())
    }

    /// Calls what makes a job, and waits until the job is done.
    fn run_job(&self, member: &str, arguments: &[Value]) -> Result<()> {
        let answer = self.call(member, arguments)?;
        let Some(Value::Path(job)) = answer.into_iter().next() else {
            bail!("{member}: the answer is no job")
        };
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let signal = self.systemd.with(self.user, |bus| bus.signal(deadline))?;
            if (&*signal.interface, &*signal.member) != (MANAGER, "JobRemoved") {
                continue;
            }
            match signal.values()?.as_slice() {
                [_, Value::Path(path), _, Value::Text(result)] if *path == job => {
                    ensure!(
                        result == "done",
                        "{member} {}: the job has ended as {result:?} (see: journalctl{} -u {})",
                        self.name,
                        if self.user { " --user" } else { "" },
                        self.name
                    );
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    fn call(&self, member: &str, arguments: &[Value]) -> Result<Vec<Value>> {
        self.systemd.call(self.user, OBJECT, MANAGER, member, arguments)
    }

    /// A property of systemd itself that is text.
    fn get(&self, name: &str) -> Result<String> {
        let arguments = [Value::text(MANAGER), Value::text(name)];
        let interface = "org.freedesktop.DBus.Properties";
        let answer = self.systemd.call(self.user, OBJECT, interface, "Get", &arguments);
        match answer.with_context(|| format!("ask systemd for its {name}"))?.into_iter().next() {
            Some(Value::Text(text)) => Ok(text),
            other => Err(anyhow!("ask systemd for its {name}: the answer {other:?} is no text")),
        }
    }

    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let denied = refusal(&error).is_some_and(|name| {
            name.ends_with(".AccessDenied") || name.ends_with(".InteractiveAuthorizationRequired")
        });
        if denied && !self.user {
            return error.context(format!("unit {}: systemd lets only root make one", self.name));
        }
        error.context(format!("unit {}", self.name))
    }
}

impl Link {
    fn call(
        &self,
        user: bool,
        path: &str,
        interface: &str,
        member: &str,
        arguments: &[Value],
    ) -> Result<Vec<Value>> {
        let method = Method { destination: Some(SERVICE), path, interface, member };
        self.with(user, |bus| bus.call(&method, arguments))
    }

    /// Uses the connection; one that has ended is made anew the next time.
    fn with<T>(&self, user: bool, what: impl FnOnce(&mut Bus) -> Result<T>) -> Result<T> {
        let mut place = self.0.borrow_mut();
        let bus = match &mut *place {
            Some(bus) => bus,
            none => none.insert(connect(user)?),
        };
        let result = what(bus);
        if result.as_ref().is_err_and(|error| refusal(error).is_none()) {
            *place = None;
        }
        result
    }
}

fn connect(user: bool) -> Result<Bus> {
    if user { connect_to_users() } else { connect_to_system() }
}

fn connect_to_system() -> Result<Bus> {
    ensure!(
        Path::new("/run/systemd/system").is_dir(),
        "systemd not running on this host, cannot use systemd cgroups manager: leave out --systemd-cgroup"
    );
    match open(Path::new("/run/systemd/private"), None) {
        Ok(bus) => Ok(bus),
        Err(_) => open_bus(Path::new("/run/dbus/system_bus_socket"), None).context("connect to systemd"),
    }
}

/// The systemd of the user that we are, outside of user namespaces.
fn connect_to_users() -> Result<Bus> {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let address = std::env::var("DBUS_SESSION_BUS_ADDRESS").ok().filter(|address| !address.is_empty());
    let owner = geteuid().as_raw();
    if let Some(folder) = &folder
        && let Ok(bus) = open(&folder.join("systemd/private"), Some(owner))
    {
        return Ok(bus);
    }
    let socket = match (&address, &folder) {
        (Some(address), _) => path_in(address).with_context(|| {
            format!("DBUS_SESSION_BUS_ADDRESS: {address:?} is not the address of a socket: unix:path=...")
        })?,
        (None, Some(folder)) => folder.join("bus"),
        (None, None) => bail!(
            "rootless containers get their cgroups from the systemd of their user, and neither \
             DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR says where it is: log in as this user (not by su), \
             or have the host's root call `loginctl enable-linger USER` and set XDG_RUNTIME_DIR=/run/user/UID"
        ),
    };
    open_bus(&socket, Some(owner)).with_context(|| {
        format!(
            "connect to the systemd of this user at {socket:?} (does it run? `systemctl --user status` tells, \
             `loginctl enable-linger` starts it)"
        )
    })
}

/// The first path in an address such as `unix:path=/run/user/1000/bus,guid=0123;unix:...`.
fn path_in(address: &str) -> Option<PathBuf> {
    let unix = address.split(';').find_map(|one| one.strip_prefix("unix:"))?;
    let path = unix.split(',').find_map(|pair| pair.strip_prefix("path="))?;
    // %2f and the like
    let mut parts = path.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(PathBuf::from(String::from_utf8(bytes).ok()?))
}

/// Who listens in the user's folder must be the user (or root): what we ask for is to hold.
fn open(socket: &Path, owner: Option<u32>) -> Result<Bus> {
    let stream = UnixStream::connect(socket)?;
    if let Some(owner) = owner {
        let peer = getsockopt(&stream, PeerCredentials).context("ask who listens")?.uid();
        ensure!(peer == owner || peer == 0, "the one who listens at {socket:?} is user {peer}, not {owner}");
    }
    Bus::new(stream)
}

/// Through a message bus: it wants to be greeted, and signals to be asked for.
fn open_bus(socket: &Path, owner: Option<u32>) -> Result<Bus> {
    let mut bus = open(socket, owner)?;
    let broker = |member| Method {
        destination: Some("org.freedesktop.DBus"),
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member,
    };
    let signals = format!("type='signal',path='{OBJECT}',interface='{MANAGER}',member='JobRemoved'");
    let subscribe =
        Method { destination: Some(SERVICE), path: OBJECT, interface: MANAGER, member: "Subscribe" };
    let sent = [
        bus.send(&broker("Hello"), &[])?,
        bus.send(&broker("AddMatch"), &[Value::text(signals)])?,
        bus.send(&subscribe, &[])?,
    ];
    for serial in sent {
        bus.answer(serial)?;
    }
    Ok(bus)
}

impl Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::bus::tests::fake;
    use super::message::kind;
    use super::*;

    fn unit(script: impl Fn(&str) -> Vec<(u8, &'static str, Vec<Value>)> + Send + 'static) -> Unit {
        let bus = Bus::new(fake(script)).expect("authenticate");
        Unit {
            name: "test.scope".to_owned(),
            user: false,
            wanted: Wanted { slice: "system.slice".to_owned(), ..Wanted::default() },
            foreign: Rc::default(),
            systemd: Link(Rc::new(RefCell::new(Some(bus)))),
        }
    }

    fn job(path: &str) -> (u8, &'static str, Vec<Value>) {
        (kind::REPLY, "", vec![Value::Path(path.to_owned())])
    }

    fn removed(path: &str, result: &str) -> (u8, &'static str, Vec<Value>) {
        let values = vec![
            Value::Uint32(1),
            Value::Path(path.to_owned()),
            Value::text("test.scope"),
            Value::text(result),
        ];
        (kind::SIGNAL, "JobRemoved", values)
    }

    fn start(unit: &Unit, is_in: bool) -> Result<()> {
        unit.start(Pid::from_raw(1), Properties::default(), &|| is_in)
    }

    #[test]
    fn a_unit_has_started_when_its_own_job_is_done() {
        // The signal of another job, and ours before its own answer.
        let unit = unit(|_| vec![removed("/job/8", "failed"), removed("/job/9", "done"), job("/job/9")]);
        start(&unit, false).expect("started");
    }

    #[test]
    fn a_job_that_fails_says_where_to_look() {
        let unit = unit(|_| vec![job("/job/9"), removed("/job/9", "failed")]);
        let error = format!("{:#}", start(&unit, false).expect_err("failed"));
        let expected = "unit test.scope: StartTransientUnit test.scope: the job has ended as \"failed\" (see: journalctl -u test.scope)";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_unit_that_exists_is_reset_once_and_then_somebody_elses() {
        let calls = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = calls.clone();
        let unit = unit(move |member| {
            seen.lock().expect("lock").push(member.to_owned());
            match member {
                "StartTransientUnit" => vec![(kind::ERROR, UNIT_EXISTS, vec![Value::text("it exists")])],
                _ => vec![(kind::REPLY, "", vec![])],
            }
        });
        let error = format!("{:#}", start(&unit, false).expect_err("exists"));
        assert_eq!(error, "linux.cgroupsPath: the unit test.scope exists already");
        assert!(unit.is_foreign());
        let expected = ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"];
        assert_eq!(*calls.lock().expect("lock"), expected);
        // The answer to an earlier request, of which the end was lost.
        start(&unit, true).expect("it is ours");
    }

    #[test]
    fn a_connection_that_ends_after_all_was_done_is_no_error() {
        start(&unit(|_| vec![(0, "hang up", vec![])]), true).expect("it is there");
    }

    #[test]
    fn a_unit_that_is_gone_is_stopped() {
        unit(|_| vec![(kind::ERROR, NO_SUCH_UNIT, vec![Value::text("not loaded")])]).stop().expect("gone");
    }

    #[test]
    fn versions_are_numbers_with_something_around() {
        for (text, number) in [("252.39-1~deb12u2", 252), ("v255", 255), ("239", 239)] {
            let unit =
                unit(move |_| vec![(kind::REPLY, "", vec![Value::Variant(Box::new(Value::text(text)))])]);
            assert_eq!(unit.version().expect("a version").0, number);
        }
    }

    #[test]
    fn addresses_are_paths() {
        let good = [
            ("unix:path=/run/user/1000/bus", "/run/user/1000/bus"),
            ("unix:path=/tmp/a%20b%2c,guid=12", "/tmp/a b,"),
            ("tcp:host=x;unix:guid=1,path=/b", "/b"),
        ];
        for (address, path) in good {
            assert_eq!(path_in(address).as_deref(), Some(Path::new(path)), "{address}");
        }
        for bad in ["", "unix:abstract=/x", "tcp:host=x", "unix:path=/%2", "unix:path=/%zz"] {
            assert_eq!(path_in(bad), None, "{bad}");
        }
    }
}
