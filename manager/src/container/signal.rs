//! Signals by number, name or short name: `9`, `SIGKILL`, `kill`, `RTMIN+3`.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

/// The number of a signal.
pub(crate) fn parse(text: &str) -> Result<i32> {
    let unknown = || format!("invalid signal: {text}");
    if let Ok(number) = text.parse::<i32>() {
        ensure!((1..=libc::SIGRTMAX()).contains(&number), unknown());
        return Ok(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(rest) = name.strip_prefix("RTM") {
        return real_time(rest).with_context(unknown);
    }
    let signal: Signal = format!("SIG{name}").parse().ok().with_context(unknown)?;
    Ok(signal as i32)
}

/// `IN`, `IN+n`, `AX`, `AX-n`: what follows `RTM`.
fn real_time(rest: &str) -> Option<i32> {
    let number = if let Some(offset) = rest.strip_prefix("IN") {
        let offset = offset.strip_prefix('+').or(offset.is_empty().then_some("0"))?;
        libc::SIGRTMIN().checked_add(offset.parse::<u8>().ok()?.into())?
    } else {
        let offset = rest.strip_prefix("AX")?;
        let offset = offset.strip_prefix('-').or(offset.is_empty().then_some("0"))?;
        libc::SIGRTMAX() - i32::from(offset.parse::<u8>().ok()?)
    };
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [("9", 9), ("SIGTERM", 15), ("hup", 1), ("sigrtmin+3", 37), ("RTMAX", 64)] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "65", "-1", "SIG", "NOPE", "RTMIN+31", "RTMAX-99"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
