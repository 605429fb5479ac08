//! Which property stands at a place of a JSON text, as `linux.namespaces[2].path`: the parser's own errors
//! tell line and column only.

/// The name of the innermost value at, or right behind, `line` and `column` (both from 1); empty for the
/// whole. The text has to be JSON up to there.
pub(crate) fn at(text: &[u8], line: usize, column: usize) -> String {
    let start: usize =
        text.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let mut scan = Scan { text, place: start + column.saturating_sub(1), at: 0, path: Vec::new() };
    // What has ended before the place has taken its names back with it.
    let _ = scan.value();
    scan.path.concat()
}

struct Scan<'a> {
    text: &'a [u8],
    place: usize,
    at: usize,
    path: Vec<String>,
}

/// The place is reached, or the text is at its end: `path` has the answer.
struct Reached;

impl Scan<'_> {
    fn value(&mut self) -> Result<(), Reached> {
        self.skip_space()?;
        match self.text[self.at] {
            b'{' => self.members(b'}', true),
            b'[' => self.members(b']', false),
            b'"' => self.string().map(drop),
            _ => {
                while self.text.get(self.at).is_some_and(|byte| !b",]} \t\r\n".contains(byte)) {
                    self.step()?;
                }
                Ok(())
            }
        }
    }

    /// An object's or an array's, from its first bracket to behind its last. The parser stands before a
    /// value when it says that this kind of value is not wanted, so what leads to a value counts to it.
    fn members(&mut self, end: u8, named: bool) -> Result<(), Reached> {
        for number in 0.. {
            if !named {
                self.path.push(format!("[{number}]"));
            }
            self.step()?; // the bracket or a comma
            self.skip_space()?;
            if self.text[self.at] == end {
                self.path.truncate(self.path.len() - usize::from(!named));
                break;
            }
            if named {
                let name = self.name()?;
                self.path.push(name);
                self.skip_space()?;
                self.step()?; // the colon
            }
            self.value()?;
            self.path.pop();
            self.skip_space()?;
            if self.text[self.at] == end {
                break;
            }
        }
        self.step()
    }

    fn name(&mut self) -> Result<String, Reached> {
        let dot = if self.path.is_empty() { "" } else { "." };
        let name = String::from_utf8_lossy(self.string()?).into_owned();
        let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        Ok(if plain { format!("{dot}{name}") } else { format!("[\"{name}\"]") })
    }

    /// Without the quotes, and as it is written.
    fn string(&mut self) -> Result<&[u8], Reached> {
        self.step()?;
        let start = self.at;
        while self.text.get(self.at).is_some_and(|byte| *byte != b'"') {
            if self.text[self.at] == b'\\' {
                self.step()?;
            }
            self.step()?;
        }
        let end = self.at;
        self.step()?;
        Ok(&self.text[start..end])
    }

    fn skip_space(&mut self) -> Result<(), Reached> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.step()?;
        }
        if self.at < self.text.len() { Ok(()) } else { Err(Reached) }
    }

    fn step(&mut self) -> Result<(), Reached> {
        if self.at >= self.place || self.at >= self.text.len() {
            return Err(Reached);
        }
        self.at += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::at;

    #[test]
    fn a_place_has_the_name_of_the_innermost_value() {
        let text = br#"{"a": {"b": [1, {"c d": "\"x"}, 23]}, "e": true}"#;
        let name = |part: &str| {
            let found = text.windows(part.len()).position(|window| window == part.as_bytes());
            at(text, 1, found.expect("a part of it") + 1)
        };
        for (part, expected) in [
            ("{\"a\"", ""),
            ("{\"b\"", "a"),
            (": [1", "a.b"),
            ("[1", "a.b[0]"),
            ("1,", "a.b[0]"),
            ("x\"}", "a.b[1][\"c d\"]"),
            ("}, 23", "a.b[1]"),
            ("3]", "a.b[2]"),
            ("]}", "a.b"),
            ("}, \"e\"", "a"),
            ("ue}", "e"),
        ] {
            assert_eq!(name(part), expected, "{part}");
        }
        assert_eq!(at(b"{\n \"a\": [\n  0,\n  5 ] }", 4, 3), "a[1]");
    }

    #[test]
    fn any_place_of_any_text_has_some_name() {
        for text in
            ["", "{", "[", "{\"", "{\"a", "{\"a\"", "{\"a\":", "\"\\", "[1,", "{,}", "]]", "{\"a\":1 2}"]
        {
            for column in 0..12 {
                let _ = at(text.as_bytes(), 1, column);
                let _ = at(text.as_bytes(), 7, column);
            }
        }
    }
}
