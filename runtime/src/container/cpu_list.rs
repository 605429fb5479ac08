//! The list format of cpuset(7): `0-3,7`. CPUs and memory nodes, as a bit mask in the kernel's words.

use anyhow::{Result, bail};

/// More than any kernel is built for.
const MOST: usize = 8192;

/// A set of CPUs or memory nodes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct CpuList(Vec<usize>);

impl CpuList {
    /// Every number there may be.
    pub(crate) fn all() -> Self {
        Self(vec![usize::MAX; MOST / usize::BITS as usize])
    }

    /// Reads the format; an empty text is the empty set.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut list = Self::default();
        if text.is_empty() {
            return Ok(list);
        }
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first, part)?, number(last, part)?);
            if first > last {
                bail!("{part:?} ends before it begins");
            }
            list.insert(first, last);
        }
        Ok(list)
    }

    fn insert(&mut self, first: usize, last: usize) {
        const BITS: usize = usize::BITS as usize;
        if self.0.len() <= last / BITS {
            self.0.resize(last / BITS + 1, 0);
        }
        for n in first..=last {
            self.0[n / BITS] |= 1 << (n % BITS);
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// The mask, number 0 being the lowest bit of the first word.
    pub(crate) fn words(&self) -> &[usize] {
        &self.0
    }
}

fn number(text: &str, part: &str) -> Result<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && number < MOST => Ok(number),
        _ if digits => bail!("{part:?}: there is no number {text}, the highest is {}", MOST - 1),
        _ => bail!("{part:?} is not a number or a range (as in \"0-3,7\")"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges_become_bits() {
        for (text, mask) in [("0", 1), ("0-3,7", 0b1000_1111), ("63", 1 << 63), ("1,1,0-1", 3)] {
            assert_eq!(CpuList::parse(text).expect(text).words(), [mask], "{text}");
        }
        assert_eq!(CpuList::parse("64").expect("a number").words(), [0, 1]);
        assert_eq!(CpuList::parse("").expect("nothing").count(), 0);
        assert_eq!(CpuList::parse("0-8191").expect("everything"), CpuList::all());
    }

    #[test]
    fn what_is_not_a_list_is_refused() {
        for bad in
            ["a", "-1", "1-", "3-1", "1,,2", " 1", "+1", "8192", "0-9876543210", "99999999999999999999"]
        {
            assert!(CpuList::parse(bad).is_err(), "{bad}");
        }
    }
}
