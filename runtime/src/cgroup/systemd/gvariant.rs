//! Values as people write them, in annotations: [GVariant text format](https://docs.gtk.org/glib/gvariant-text-format.html).
//!
//! ```text
//! true   12   0x1f   -3   1.5        b, and numbers: i without a type, and d
//! 'text'   "text"                    s, with \n \t \\ \' \" \uXXXX and the like
//! uint64 12   byte 7   objectpath '/x'
//! ['a', 'b']   @as []   [uint64 1, 2]   (1, 'x')   <true>   b'bytes'
//! ```
//! No unit has a property that is a dictionary or may be absent: their syntax is refused.

use anyhow::{Context, Result, bail, ensure};

use super::message::Value;

/// Reads a value.
pub(super) fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser { rest: text, depth: 0 };
    let value = parser.value(None)?;
    parser.skip_space();
    ensure!(parser.rest.is_empty(), "what is {:?} behind the value?", parser.rest);
    Ok(value)
}

/// D-Bus allows 32 arrays in each other, and 32 structures.
const DEEPEST: u32 = 32;

const TYPES: [(&str, &str); 13] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
    ("handle", "h"),
];

struct Parser<'a> {
    rest: &'a str,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, word: &str) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(word);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// What stands before the first character that is none of these.
    fn take_while(&mut self, good: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !good(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// A value, of the type `wanted` if that is known.
    fn value(&mut self, wanted: Option<&str>) -> Result<Value> {
        self.depth += 1;
        ensure!(self.depth <= DEEPEST, "too many brackets in each other");
        self.skip_space();
        let value = match self.rest.chars().next() {
            None => bail!("the value is missing"),
            Some('\'' | '"') => text_of(self.string()?, wanted),
            Some('[') => self.array(wanted),
            Some('(') => self.members(wanted),
            Some('<') => {
                self.eat("<");
                let inner = self.value(None)?;
                ensure!(self.eat(">"), "a > is missing");
                fits(Value::Variant(Box::new(inner)), wanted)
            }
            Some('@') => {
                self.eat("@");
                let signature = self.take_while(|c| c.is_ascii_alphabetic() || "()".contains(c));
                ensure!(is_one_type(signature), "@{signature} is not a type");
                let value = self.value(Some(signature))?;
                fits(value, wanted)
            }
            Some(first) if first.is_ascii_digit() || "+-.".contains(first) => {
                let text = self.take_while(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
                number(text, wanted)
            }
            Some('b') if self.rest.starts_with("b'") || self.rest.starts_with("b\"") => {
                self.eat("b");
                let bytes = self.string()?.into_bytes().into_iter().chain([0]);
                fits(Value::Array("y".to_owned(), bytes.map(Value::Byte).collect()), wanted)
            }
            Some(_) => self.word(wanted),
        };
        self.depth -= 1;
        value
    }

    /// `true`, `false`, or a type before its value.
    fn word(&mut self, wanted: Option<&str>) -> Result<Value> {
        let word = self.take_while(|c| c.is_ascii_alphanumeric());
        match word {
            "true" => fits(Value::Bool(true), wanted),
            "false" => fits(Value::Bool(false), wanted),
            word => {
                let known = TYPES.iter().find(|(name, _)| *name == word);
                let (_, letter) =
                    known.with_context(|| format!("{:?} is not a value", format!("{word}{}", self.rest)))?;
                let value = self.value(Some(letter))?;
                fits(value, wanted)
            }
        }
    }

    fn array(&mut self, wanted: Option<&str>) -> Result<Value> {
        self.eat("[");
        let mut element = match wanted {
            Some(wanted) => {
                Some(wanted.strip_prefix('a').with_context(|| format!("[ is not a value of type {wanted}"))?)
            }
            None => None,
        }
        .map(str::to_owned);
        let mut values = Vec::new();
        while !self.eat("]") {
            ensure!(values.is_empty() || self.eat(","), "a , or ] is missing before {:?}", self.rest);
            let value = self.value(element.as_deref())?;
            element.get_or_insert_with(|| value.signature());
            values.push(value);
        }
        let element = element.context("the type of an empty array: write @as [] for one of strings")?;
        Ok(Value::Array(element, values))
    }

    fn members(&mut self, wanted: Option<&str>) -> Result<Value> {
        self.eat("(");
        let mut types = match wanted {
            Some(wanted) => {
                let inside = wanted.strip_prefix('(').and_then(|inside| inside.strip_suffix(')'));
                Some(inside.with_context(|| format!("( is not a value of type {wanted}"))?)
            }
            None => None,
        };
        let mut values = Vec::new();
        while !self.eat(")") {
            ensure!(values.is_empty() || self.eat(","), "a , or ) is missing before {:?}", self.rest);
            if !values.is_empty() && self.eat(")") {
                break; // a tuple of one has a comma at its end
            }
            let member = types.map(|types| types.split_at(one_type(types).unwrap_or(types.len())));
            values.push(self.value(member.map(|(first, _)| first))?);
            types = member.map(|(_, rest)| rest);
        }
        ensure!(!values.is_empty() && types.is_none_or(str::is_empty), "a structure lacks members");
        Ok(Value::Struct(values))
    }

    fn string(&mut self) -> Result<String> {
        let mut characters = self.rest.chars();
        let quote = characters.next();
        let mut text = String::new();
        loop {
            match characters.next() {
                None => bail!("the string {} has no end", self.rest),
                end if end == quote => break,
                Some('\\') => {
                    let code = |characters: &mut std::str::Chars, digits: usize| {
                        let digits: String = characters.by_ref().take(digits).collect();
                        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                        code.with_context(|| format!("\\u{digits} is not a character"))
                    };
                    text.push(match characters.next() {
                        Some('n') => '\n',
                        Some('t') => '\t',
                        Some('r') => '\r',
                        Some('a') => '\u{7}',
                        Some('b') => '\u{8}',
                        Some('f') => '\u{c}',
                        Some('v') => '\u{b}',
                        Some('u') => code(&mut characters, 4)?,
                        Some('U') => code(&mut characters, 8)?,
                        Some(other) => other,
                        None => bail!("the string {} has no end", self.rest),
                    });
                }
                Some(other) => text.push(other),
            }
        }
        self.rest = characters.as_str();
        ensure!(!text.contains('\0'), "{text:?} contains a zero byte");
        Ok(text)
    }
}

/// The length of the first type of a signature.
fn one_type(signature: &str) -> Option<usize> {
    match signature.as_bytes().first()? {
        b'a' => one_type(&signature[1..]).map(|length| 1 + length),
        b'(' => {
            let mut at = 1;
            while !signature[at..].starts_with(')') {
                at += one_type(signature.get(at..)?)?;
            }
            (at > 1).then_some(at + 1)
        }
        letter => b"bynqiuxtdsogv".contains(letter).then_some(1),
    }
}

fn is_one_type(signature: &str) -> bool {
    signature.len() <= 64 && one_type(signature) == Some(signature.len())
}

fn fits(value: Value, wanted: Option<&str>) -> Result<Value> {
    let signature = value.signature();
    ensure!(
        wanted.is_none_or(|wanted| wanted == signature),
        "{value} is not a value of type {}",
        wanted.unwrap_or_default()
    );
    Ok(value)
}

fn text_of(text: String, wanted: Option<&str>) -> Result<Value> {
    match wanted {
        Some("o") => {
            let part = |part: &str| {
                !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            };
            let good = text == "/" || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(part));
            ensure!(good, "{text:?} is not an object's path");
            Ok(Value::Path(text))
        }
        Some("g") => {
            ensure!(text.len() < 256, "{text:?} is too long for a signature");
            let mut rest = &*text;
            while !rest.is_empty() {
                rest = &rest[one_type(rest).with_context(|| format!("{text:?} is not a signature"))?..];
            }
            Ok(Value::Signature(text))
        }
        _ => fits(Value::Text(text), wanted),
    }
}

fn number(text: &str, wanted: Option<&str>) -> Result<Value> {
    let digits = text.trim_start_matches(['+', '-']);
    let hexadecimal = digits.strip_prefix("0x").or(digits.strip_prefix("0X"));
    if wanted == Some("d") || (hexadecimal.is_none() && digits.contains(['.', 'e', 'E'])) {
        let number = text.parse().with_context(|| format!("{text:?} is not a number"))?;
        return fits(Value::Double(number), wanted);
    }
    let magnitude = match hexadecimal {
        Some(digits) => i128::from_str_radix(digits, 16),
        None if digits.len() > 1 && digits.starts_with('0') => i128::from_str_radix(digits, 8),
        None => digits.parse(),
    };
    let magnitude = magnitude.ok().filter(|_| text.len() - digits.len() <= 1);
    let magnitude = magnitude.with_context(|| format!("{text:?} is not a number"))?;
    let number = if text.starts_with('-') { -magnitude } else { magnitude };
    let value = match wanted.unwrap_or("i") {
        "y" => number.try_into().ok().map(Value::Byte),
        "n" => number.try_into().ok().map(Value::Int16),
        "q" => number.try_into().ok().map(Value::Uint16),
        "i" => number.try_into().ok().map(Value::Int32),
        "u" => number.try_into().ok().map(Value::Uint32),
        "x" => number.try_into().ok().map(Value::Int64),
        "t" => number.try_into().ok().map(Value::Uint64),
        other => bail!("{text} is not a value of type {other}"),
    };
    value.with_context(|| match wanted {
        Some(wanted) => format!("{text} does not fit into type {wanted}"),
        None => format!("{text} does not fit into type i: write uint64 {text} if that is meant"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(element: &str, values: Vec<Value>) -> Value {
        Value::Array(element.to_owned(), values)
    }

    #[test]
    fn every_form_is_read() {
        let good = [
            ("true", Value::Bool(true)),
            (" false ", Value::Bool(false)),
            ("12", Value::Int32(12)),
            ("-3", Value::Int32(-3)),
            ("0x1f", Value::Int32(31)),
            ("010", Value::Int32(8)),
            ("0", Value::Int32(0)),
            ("1.5", Value::Double(1.5)),
            ("double 2", Value::Double(2.0)),
            ("uint64 18446744073709551615", Value::Uint64(u64::MAX)),
            ("@t 5", Value::Uint64(5)),
            ("byte 0xff", Value::Byte(255)),
            ("int64 -9", Value::Int64(-9)),
            ("'it''", Value::text("it")),
            (r#""a \"b\"\n""#, Value::text("a \"b\"\n")),
            (r"'\u00e4'", Value::text("ä")),
            ("objectpath '/a/b'", Value::Path("/a/b".to_owned())),
            ("signature 'a(sv)'", Value::Signature("a(sv)".to_owned())),
            ("['a', 'b']", Value::texts(["a", "b"])),
            ("@as []", Value::texts([])),
            ("[uint64 1, 2]", array("t", vec![Value::Uint64(1), Value::Uint64(2)])),
            ("@at [1]", array("t", vec![Value::Uint64(1)])),
            ("b'a'", array("y", vec![Value::Byte(97), Value::Byte(0)])),
            ("<12>", Value::Variant(Box::new(Value::Int32(12)))),
            (
                "@a(st) [('/dev/sda', 5)]",
                array("(st)", vec![Value::Struct(vec![Value::text("/dev/sda"), Value::Uint64(5)])]),
            ),
            ("('x',)", Value::Struct(vec![Value::text("x")])),
        ];
        for (text, value) in good {
            let text = text.replace("'it''", "'it'");
            match parse(&text) {
                Ok(read) => assert_eq!(read, value, "{text}"),
                Err(error) => panic!("{text}: {error:#}"),
            }
        }
    }

    #[test]
    fn everything_else_is_an_error() {
        let deep = "[".repeat(100);
        let bad = [
            "",
            "  ",
            "tru",
            "12 13",
            "4294967296",
            "byte 256",
            "uint32 -1",
            "--1",
            "0x",
            "1..2",
            "'open",
            "'a\\",
            "[1, 'a']",
            "[]",
            "[1",
            "(1",
            "()",
            "{'a': 1}",
            "<1",
            "@x 'a'",
            "@ 1",
            "@aa 1",
            "@(t 1",
            "@() (1)",
            "nothing",
            "just 1",
            "objectpath 'x'",
            "signature 'z'",
            "handle 1",
            "string 5",
            "boolean 1",
            r"'\u00'",
            r"'\ud800'",
            r"'\u0000'",
            "@(st) ('a')",
            "@(s) ('a', 'b')",
            &deep,
        ];
        for text in bad {
            assert!(parse(text).is_err(), "{text} is read as {:?}", parse(text));
        }
    }

    /// No text makes it stop, or go on for ever.
    #[test]
    fn texts_by_chance_are_values_or_errors() {
        let words = [
            "(",
            ")",
            "[",
            "]",
            "<",
            ">",
            ",",
            "@",
            "a",
            "(st)",
            "as",
            "'",
            "\"",
            "\\",
            "u00",
            "b'",
            "uint64 ",
            "signature ",
            "1",
            "0x",
            "-",
            ".",
            "e9",
            " ",
            "true",
            "ä",
            "objectpath ",
            "{",
            "/",
            "aaaaaaaa",
        ];
        let mut state = 1_u32;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..state % 12 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                text.push_str(words[(state >> 16) as usize % words.len()]);
            }
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) | 1;
            let _ = parse(&text);
        }
        let long = format!("signature '{}'", "a".repeat(1 << 20));
        assert!(parse(&long).is_err());
    }
}
