//! Sizes as docker writes them, to the letter: scripts read its tables.

/// `1.98MB`: decimal units, `digits` significant digits.
pub(crate) fn size(bytes: u64, digits: usize) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), UNITS[unit])
}

/// C's `%.<digits>g` for what is below 1000.
fn significant(value: f64, digits: usize) -> String {
    let whole = if value < 1.0 { 1 } else { value.log10().floor() as usize + 1 };
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        let table = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_982_354, "1.98MB"),
            (73_914_000, "73.9MB"),
            (123_456_789, "123MB"),
            (1_100_000_000, "1.1GB"),
        ];
        for (bytes, expected) in table {
            assert_eq!(size(bytes, 3), expected);
        }
        assert_eq!(size(1_982_354, 4), "1.982MB");
    }
}
