//! The user's own terminal: raw mode, its size, and the keys that leave a container running.
//! [termios(3)](https://man7.org/linux/man-pages/man3/termios.3.html)

use std::io::{IsTerminal, stdin, stdout};
use std::panic;
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use rustix::termios::tcgetwinsize;

/// ^P, then ^Q.
const DETACH_KEYS: [u8; 2] = [0x10, 0x11];

/// How the terminal was, for a panic, which in a release build runs no destructor.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Standard input in raw mode, until dropped.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Sets it; none when standard input is no terminal.
    pub(crate) fn set() -> Result<Option<Self>> {
        if !stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(stdin()).context("read the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        if let Ok(mut saved) = SAVED.lock() {
            *saved = Some(before);
        }
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            report(info);
        }));
        tcsetattr(stdin(), SetArg::TCSANOW, &raw).context("set the terminal to raw mode")?;
        Ok(Some(Self(())))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Ok(mut saved) = SAVED.lock()
        && let Some(before) = saved.take()
    {
        let _ = tcsetattr(stdin(), SetArg::TCSANOW, &before);
    }
}

/// Rows and columns of the user's terminal, none when there is none.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = if stdout().is_terminal() { tcgetwinsize(stdout()) } else { tcgetwinsize(stdin()) };
    size.ok().filter(|size| size.ws_row > 0).map(|size| (size.ws_row, size.ws_col))
}

/// Looks for the detach keys in what is typed.
#[derive(Debug, Default)]
pub(crate) struct DetachKeys {
    /// The first key was the last one typed.
    half: bool,
}

impl DetachKeys {
    /// What to pass on of `typed`; none when the user wants to leave.
    pub(crate) fn filter(&mut self, typed: &[u8]) -> Option<Vec<u8>> {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for &byte in typed {
            if self.half {
                self.half = false;
                if byte == DETACH_KEYS[1] {
                    return None;
                }
                passed.push(DETACH_KEYS[0]);
            }
            if byte == DETACH_KEYS[0] {
                self.half = true;
            } else {
                passed.push(byte);
            }
        }
        Some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::DetachKeys;

    #[test]
    fn only_both_keys_in_a_row_detach() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.filter(b"a\x10"), Some(b"a".to_vec()));
        assert_eq!(keys.filter(b"b"), Some(b"\x10b".to_vec()));
        assert_eq!(keys.filter(b"\x11\x10\x10"), Some(b"\x11\x10".to_vec()));
        assert_eq!(keys.filter(b"\x11"), None);
    }
}
