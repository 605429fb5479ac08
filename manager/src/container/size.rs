//! Sizes as docker reads them (`512m`, `1.5g`, `64k`, `1024`, `100b`) and numbers of processors.

use anyhow::{Context as _, Result, ensure};

/// Bytes.
pub(crate) fn parse_bytes(text: &str) -> Result<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match lower[digits.len()..].trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => anyhow::bail!("invalid size: {text:?}"),
    };
    scaled(digits, 1i64 << shift).with_context(|| format!("invalid size: {text:?}"))
}

/// Billionths of a processor.
pub(crate) fn parse_cpus(text: &str) -> Result<i64> {
    let cpus = scaled(text, 1_000_000_000).with_context(|| format!("invalid number of CPUs: {text:?}"))?;
    ensure!(cpus >= 10_000_000, "invalid number of CPUs: {text:?}: the least is 0.01");
    Ok(cpus)
}

/// A decimal number times a unit, without the rounding of floating point.
fn scaled(digits: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let valid = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !valid(whole) || !valid(fraction) || whole.len() + fraction.len() == 0 || fraction.len() > 9 {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()? };
    let parts = 10i128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<i128>().ok()? };
    whole.checked_mul(unit)?.checked_add(i64::try_from(fraction * i128::from(unit) / parts).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, bytes) in
            [("0", 0), ("100b", 100), ("4k", 4096), ("6M", 6 << 20), ("1.5g", 3 << 29), ("2GiB", 2 << 30)]
        {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "m", "-1", "1x", "1..5m", "9999999999g", "1.m.2"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(parse_cpus("1.5").unwrap(), 1_500_000_000);
        assert!(parse_cpus("0").is_err());
    }
}
