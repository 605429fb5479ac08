//! Tables and times for people, as docker prints them.

use jiff::Timestamp;

/// Columns of left-aligned text, three blanks between them, none narrower than ten.
pub(crate) fn render(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        (cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + 3).max(10)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                text.extend(std::iter::repeat_n(' ', widths[column].saturating_sub(cell.chars().count())));
            }
        }
        text.push('\n');
    }
    text
}

/// How long ago an RFC 3339 time was: `4 seconds`, `About an hour`.
pub(crate) fn age(time: &str) -> String {
    let Ok(then) = time.parse::<Timestamp>() else { return "unknown".into() };
    duration(Timestamp::now().as_second() - then.as_second())
}

/// A number of seconds in the largest unit that is not too coarse.
fn duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    // Hours are rounded, everything else is cut off.
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// Text cut to `limit` characters, the last of them an ellipsis.
pub(crate) fn ellipsis(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_docker() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (119, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (50 * 3600, "2 days"),
            (15 * 86400, "2 weeks"),
            (70 * 86400, "2 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn columns_are_three_blanks_apart_and_at_least_ten_wide() {
        let rows = [["PORTS", "IMAGE", "NAMES"], ["", "127.0.0.1:5000/x", "web"]];
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect();
        assert_eq!(render(&rows), "PORTS     IMAGE              NAMES\n          127.0.0.1:5000/x   web\n");
    }

    #[test]
    fn long_text_ends_in_an_ellipsis() {
        assert_eq!(ellipsis("0123456789", 10), "0123456789");
        assert_eq!(ellipsis("0123456789a", 10), "012345678…");
    }
}
