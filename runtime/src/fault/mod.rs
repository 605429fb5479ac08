//! Points, one a step, at which `tests/crash.rs` kills the runtime or the process that it makes. Only with
//! the feature `fault-points`; else nothing of it is in the program.

mod points;

pub(crate) use points::Point;

/// Passes the point, unless `RUNTIME_FAULT` names it: then this process ends here. With `@runtime` behind
/// the name it says so and stands still, for the runtime to be killed meanwhile.
#[cfg(feature = "fault-points")]
pub(crate) fn point(point: Point) {
    let Ok(wanted) = std::env::var("RUNTIME_FAULT") else { return };
    let name = format!("{point:?}");
    if wanted == name {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        crate::sys::process::exit_now(137); // the first process of a pid namespace is deaf to itself
    }
    if wanted.strip_suffix("@runtime") == Some(&name) {
        eprintln!("at {name}");
        // Whoever dies with the runtime does so now; who does not yet has to find out by himself.
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub(crate) const fn point(_: Point) {}
