//! ISA-L's inflate: [igzip_lib.h](https://github.com/intel/isa-l/blob/master/include/igzip_lib.h), by the few
//! functions of `isal.c`.

use std::ffi::c_int;
use std::io::{self, BufRead, Read};
use std::ptr::NonNull;

/// `struct inflate_state`
#[repr(C)]
struct State {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn manager_isal_new() -> *mut State;
    fn manager_isal_reset(state: *mut State);
    fn manager_isal_free(state: *mut State);
    fn manager_isal_step(
        state: *mut State,
        input: *const u8,
        input_length: *mut u32,
        output: *mut u8,
        output_length: *mut u32,
        ended: *mut c_int,
    ) -> c_int;
}

/// A gzip stream (RFC 1952) of one or more members, read as what is in it.
#[derive(Debug)]
pub(crate) struct Gunzip<R> {
    input: R,
    state: NonNull<State>,
    /// A member has begun and not ended.
    inside: bool,
}

impl<R: BufRead> Gunzip<R> {
    /// Reads nothing yet.
    pub(crate) fn new(input: R) -> io::Result<Self> {
        // SAFETY: no arguments; the result is null or a state that only `manager_isal_free` ends.
        let state = NonNull::new(unsafe { manager_isal_new() });
        let state = state.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self { input, state, inside: false })
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let input = self.input.fill_buf()?;
            let at_end = input.is_empty();
            if at_end && !self.inside {
                return Ok(0);
            }
            let mut taken = u32::try_from(input.len()).unwrap_or(u32::MAX);
            let mut given = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            let mut ended = 0;
            // SAFETY: the state lives as long as self; both pointers are valid for the lengths that go with
            // them, and ISA-L keeps neither beyond the call.
            let code = unsafe {
                manager_isal_step(
                    self.state.as_ptr(),
                    input.as_ptr(),
                    &raw mut taken,
                    buffer.as_mut_ptr(),
                    &raw mut given,
                    &raw mut ended,
                )
            };
            self.input.consume(taken as usize);
            if code < 0 {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("inflate: code {code} of ISA-L"),
                ));
            }
            self.inside = ended == 0;
            if ended != 0 {
                // SAFETY: the state lives as long as self.
                unsafe { manager_isal_reset(self.state.as_ptr()) };
            }
            if given > 0 {
                return Ok(given as usize);
            }
            if at_end && self.inside {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl<R> Drop for Gunzip<R> {
    fn drop(&mut self) {
        // SAFETY: nobody uses the state any more.
        unsafe { manager_isal_free(self.state.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// In pieces of `size`, as a network gives them.
    fn gunzip(packed: &[u8], size: usize) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Gunzip::new(io::BufReader::with_capacity(size, packed))?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    fn sample(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n * n / 7 % 251) as u8 ^ (n / 4096) as u8).collect()
    }

    #[test]
    fn what_was_packed_comes_out_in_pieces_of_any_size() {
        for length in [0, 1, 100, 70_000, 1_000_000] {
            for level in [0, 1, 6, 9] {
                let plain = sample(length);
                let packed = gzip(&plain, level);
                for size in [1, 7, 4096, 1 << 20] {
                    assert!(
                        gunzip(&packed, size).unwrap() == plain,
                        "{length} bytes, level {level}, pieces of {size}"
                    );
                }
            }
        }
    }

    #[test]
    fn members_follow_each_other() {
        let packed = [gzip(b"one", 6), gzip(b"", 6), gzip(&sample(100_000), 6), gzip(b"two", 1)].concat();
        let plain = [&b"one"[..], &sample(100_000), b"two"].concat();
        for size in [1, 64, 1 << 20] {
            assert!(gunzip(&packed, size).unwrap() == plain, "pieces of {size}");
        }
    }

    #[test]
    fn damage_is_seen() {
        let packed = gzip(&sample(10_000), 6);
        for end in [1, 5, 10, packed.len() / 2, packed.len() - 8, packed.len() - 1] {
            let error = gunzip(&packed[..end], 100).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {end}");
        }
        for place in [0, 2, packed.len() / 2, packed.len() - 6, packed.len() - 2] {
            let mut damaged = packed.clone();
            damaged[place] ^= 0x10;
            assert!(gunzip(&damaged, 4096).is_err(), "damaged at {place}");
        }
        assert!(gunzip(&[&packed[..], b"garbage"].concat(), 4096).is_err());
    }
}
