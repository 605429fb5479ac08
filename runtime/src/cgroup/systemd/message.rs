//! The messages of D-Bus, of which systemd's interface needs a part:
//! [D-Bus specification: message protocol](https://dbus.freedesktop.org/doc/dbus-specification.html#message-protocol).
//!
//! ```text
//! byte order, kind, flags, version 1     4 bytes
//! length of the body, serial number      2 × 4 bytes
//! fields: array of (code, variant)       who and what; padded to 8 bytes
//! body                                   values of the types that the field "signature" lists
//! ```
//! Each number stands at a multiple of its size. All is in this machine's byte order, in which systemd
//! answers.

use std::fmt::{self, Display};

use anyhow::{Context, Result, bail, ensure};

/// A value with its type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Byte(u8),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    Text(String),
    Path(String),
    Signature(String),
    Variant(Box<Value>),
    /// The type of its elements, which may be none.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
}

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A list of strings.
    pub(super) fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Array("s".to_owned(), texts.into_iter().map(Self::text).collect())
    }

    /// Its type: a letter, or `a` before the elements' type, or the members' types in parentheses.
    pub(super) fn signature(&self) -> String {
        let letter = match self {
            Self::Byte(_) => "y",
            Self::Bool(_) => "b",
            Self::Int16(_) => "n",
            Self::Uint16(_) => "q",
            Self::Int32(_) => "i",
            Self::Uint32(_) => "u",
            Self::Int64(_) => "x",
            Self::Uint64(_) => "t",
            Self::Double(_) => "d",
            Self::Text(_) => "s",
            Self::Path(_) => "o",
            Self::Signature(_) => "g",
            Self::Variant(_) => "v",
            Self::Array(element, _) => return format!("a{element}"),
            Self::Struct(members) => {
                return format!("({})", members.iter().map(Self::signature).collect::<String>());
            }
        };
        letter.to_owned()
    }
}

/// As GVariant's text has it, roughly: for messages.
impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Path(text) | Self::Signature(text) => write!(f, "{text:?}"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// Where a type's values may begin.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(') => 8,
        _ => 1,
    }
}

/// Bytes on their way out.
#[derive(Debug, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.0.extend_from_slice(&bytes);
    }

    fn length(&mut self, length: usize) -> Result<()> {
        self.number(u32::try_from(length).context("too long for D-Bus")?.to_ne_bytes());
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<()> {
        ensure!(!text.contains('\0'), "{text:?} contains a zero byte");
        self.length(text.len())?;
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        Ok(())
    }

    fn signature(&mut self, text: &str) -> Result<()> {
        self.0.push(u8::try_from(text.len()).context("the type is too long for D-Bus")?);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        Ok(())
    }

    fn value(&mut self, value: &Value) -> Result<()> {
        match value {
            Value::Byte(byte) => self.0.push(*byte),
            Value::Bool(yes) => self.number(u32::from(*yes).to_ne_bytes()),
            Value::Int16(number) => self.number(number.to_ne_bytes()),
            Value::Uint16(number) => self.number(number.to_ne_bytes()),
            Value::Int32(number) => self.number(number.to_ne_bytes()),
            Value::Uint32(number) => self.number(number.to_ne_bytes()),
            Value::Int64(number) => self.number(number.to_ne_bytes()),
            Value::Uint64(number) => self.number(number.to_ne_bytes()),
            Value::Double(number) => self.number(number.to_ne_bytes()),
            Value::Text(text) | Value::Path(text) => self.string(text)?,
            Value::Signature(text) => self.signature(text)?,
            Value::Variant(inner) => {
                self.signature(&inner.signature())?;
                self.value(inner)?;
            }
            Value::Array(element, values) => {
                self.length(0)?;
                let length_at = self.0.len() - 4;
                self.align(alignment(element)); // not counted in the length
                let begin = self.0.len();
                values.iter().try_for_each(|value| self.value(value))?;
                let length = u32::try_from(self.0.len() - begin).context("too long for D-Bus")?;
                self.0[length_at..length_at + 4].copy_from_slice(&length.to_ne_bytes());
            }
            Value::Struct(members) => {
                self.align(8);
                members.iter().try_for_each(|member| self.value(member))?;
            }
        }
        Ok(())
    }
}

const BYTE_ORDER: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };
/// The longest message that is read; systemd's answers have some hundred bytes.
const MOST: usize = 16 << 20;

/// Kinds of messages.
pub(super) mod kind {
    pub(in super::super) const CALL: u8 = 1;
    pub(in super::super) const REPLY: u8 = 2;
    pub(in super::super) const ERROR: u8 = 3;
    pub(in super::super) const SIGNAL: u8 = 4;
}

/// What is called, and whose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method<'a> {
    /// Not needed where there is nobody but systemd at the other end.
    pub(super) destination: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

impl Method<'_> {
    /// The bytes of a call.
    pub(super) fn call(&self, serial: u32, arguments: &[Value]) -> Result<Vec<u8>> {
        let signature: String = arguments.iter().map(Value::signature).collect();
        let mut fields = vec![
            field(1, Value::Path(self.path.to_owned())),
            field(2, Value::text(self.interface)),
            field(3, Value::text(self.member)),
        ];
        fields.extend(self.destination.map(|name| field(6, Value::text(name))));
        fields.extend((!signature.is_empty()).then(|| field(8, Value::Signature(signature))));
        encode(kind::CALL, serial, fields, arguments)
    }
}

fn field(code: u8, value: Value) -> Value {
    Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))])
}

fn encode(kind: u8, serial: u32, fields: Vec<Value>, arguments: &[Value]) -> Result<Vec<u8>> {
    let mut body = Writer::default();
    arguments.iter().try_for_each(|value| body.value(value))?;
    let mut message = Writer(vec![BYTE_ORDER, kind, 0, 1]);
    message.length(body.0.len())?;
    message.number(serial.to_ne_bytes());
    message.value(&Value::Array("(yv)".to_owned(), fields))?;
    message.align(8);
    message.0.extend(body.0);
    Ok(message.0)
}

/// A message that has come in.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) kind: u8,
    /// The serial number of the call that this answers.
    pub(super) reply_to: u32,
    pub(super) interface: String,
    pub(super) member: String,
    /// The error's name.
    pub(super) error: String,
    signature: String,
    body: Vec<u8>,
}

impl Message {
    /// The first message in `bytes` and its length, if it is there as a whole.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>> {
        let Some(start) = bytes.get(..16) else { return Ok(None) };
        ensure!(start[0] == BYTE_ORDER && start[3] == 1, "this is not D-Bus: {start:?}");
        let mut reader = Reader { bytes, at: 4 };
        let body_length = reader.u32()? as usize;
        reader.u32()?;
        let fields_length = reader.u32()? as usize;
        ensure!(body_length <= MOST && fields_length <= MOST, "a message is too long");
        let end_of_fields = 16 + fields_length;
        let body_at = end_of_fields.next_multiple_of(8);
        let Some(whole) = bytes.get(..body_at + body_length) else { return Ok(None) };
        let mut message = Self { kind: start[1], body: whole[body_at..].to_vec(), ..Self::default() };
        let mut reader = Reader { bytes: &whole[..end_of_fields], at: 16 };
        while reader.at < end_of_fields {
            reader.align(8)?;
            let code = reader.take(1)?[0];
            match (code, reader.variant()?) {
                (2, Value::Text(text)) => message.interface = text,
                (3, Value::Text(text)) => message.member = text,
                (4, Value::Text(text)) => message.error = text,
                (5, Value::Uint32(serial)) => message.reply_to = serial,
                (8, Value::Signature(text)) => message.signature = text,
                _ => {} // sender, path and what newer versions may add
            }
        }
        Ok(Some((message, body_at + body_length)))
    }

    /// The values in the body.
    pub(super) fn values(&self) -> Result<Vec<Value>> {
        let mut reader = Reader { bytes: &self.body, at: 0 };
        self.signature.chars().map(|letter| reader.value(letter)).collect()
    }
}

/// Bytes that have come in.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(count).context("a length is too large")?;
        let taken = self.bytes.get(self.at..end).context("the message is too short")?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<()> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.align(N)?;
        Ok(self.take(N)?.try_into()?)
    }

    fn u32(&mut self) -> Result<u32> {
        self.number().map(u32::from_ne_bytes)
    }

    /// Text of this length, and the zero byte behind it.
    fn text(&mut self, length: usize) -> Result<String> {
        let text = std::str::from_utf8(self.take(length)?)?.to_owned();
        self.take(1)?;
        Ok(text)
    }

    fn variant(&mut self) -> Result<Value> {
        let length = self.take(1)?[0];
        let signature = self.text(length.into())?;
        let mut letters = signature.chars();
        match (letters.next(), letters.next()) {
            // One in another would be read in a call of its own; nothing here sends that.
            (Some(letter), None) if letter != 'v' => self.value(letter),
            _ => bail!("a variant of type {signature:?}"),
        }
    }

    /// Of the types that systemd answers with where we ask.
    fn value(&mut self, letter: char) -> Result<Value> {
        Ok(match letter {
            'y' => Value::Byte(self.take(1)?[0]),
            'b' => Value::Bool(self.u32()? != 0),
            'u' => Value::Uint32(self.u32()?),
            'i' => Value::Int32(self.number().map(i32::from_ne_bytes)?),
            't' => Value::Uint64(self.number().map(u64::from_ne_bytes)?),
            's' | 'o' => {
                let length = self.u32()? as usize;
                let text = self.text(length)?;
                if letter == 's' { Value::Text(text) } else { Value::Path(text) }
            }
            'g' => {
                let length = self.take(1)?[0];
                Value::Signature(self.text(length.into())?)
            }
            'v' => self.variant()?,
            other => bail!("a value of type {other:?}"),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A message that answers a call, or says that something has happened.
    pub(in super::super) fn answer(kind: u8, reply_to: u32, name: &str, values: &[Value]) -> Vec<u8> {
        let signature: String = values.iter().map(Value::signature).collect();
        let mut fields = vec![field(5, Value::Uint32(reply_to)), field(8, Value::Signature(signature))];
        match kind {
            kind::ERROR => fields.push(field(4, Value::text(name))),
            kind::SIGNAL => {
                fields.push(field(2, Value::text("org.freedesktop.systemd1.Manager")));
                fields.push(field(3, Value::text(name)));
            }
            _ => {}
        }
        encode(kind, 77, fields, values).expect("encode an answer")
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_call_is_the_bytes_that_the_specification_says() {
        let method = Method { destination: None, path: "/a", interface: "b.c", member: "D" };
        let bytes = method.call(7, &[Value::text("x"), Value::Uint64(5)]).expect("encode");
        let expected: &[u8] = &[
            b'l', 1, 0, 1, 16, 0, 0, 0, 7, 0, 0, 0, 56, 0, 0, 0, // start, length of the fields
            1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'a', 0, 0, 0, 0, 0, 0, // path
            2, 1, b's', 0, 3, 0, 0, 0, b'b', b'.', b'c', 0, 0, 0, 0, 0, // interface
            3, 1, b's', 0, 1, 0, 0, 0, b'D', 0, 0, 0, 0, 0, 0, 0, // member
            8, 1, b'g', 0, 2, b's', b't', 0, // signature
            1, 0, 0, 0, b'x', 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, // body
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn an_array_of_structures_is_aligned_and_its_length_counts_no_padding() {
        let property =
            Value::Struct(vec![Value::text("Delegate"), Value::Variant(Box::new(Value::Bool(true)))]);
        let mut writer = Writer(vec![]);
        writer.value(&Value::Byte(1)).expect("write");
        writer.value(&Value::Array("(sv)".to_owned(), vec![property])).expect("write");
        let mut expected = vec![1, 0, 0, 0];
        expected.extend(20_u32.to_ne_bytes());
        expected.extend(8_u32.to_ne_bytes());
        expected.extend(b"Delegate\0");
        expected.extend([1, b'b', 0]);
        expected.extend(1_u32.to_ne_bytes());
        assert_eq!(writer.0, expected);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let values =
            [Value::Uint32(9), Value::Path("/job/1".to_owned()), Value::text("a.scope"), Value::text("done")];
        let bytes = answer(kind::SIGNAL, 0, "JobRemoved", &values);
        for short in 0..bytes.len() {
            assert!(Message::decode(&bytes[..short]).expect("a part").is_none(), "{short} bytes");
        }
        let (message, length) = Message::decode(&bytes).expect("good").expect("whole");
        assert_eq!((message.kind, &*message.member, length), (kind::SIGNAL, "JobRemoved", bytes.len()));
        assert_eq!(message.values().expect("values"), values);
    }

    #[test]
    fn lengths_that_lie_are_errors() {
        let good = answer(kind::REPLY, 1, "", &[Value::text("abc")]);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        assert!(Message::decode(&with(0, b'x')).is_err(), "byte order");
        assert!(Message::decode(&with(7, 0xff)).is_err(), "body of 4 GiB");
        let length_at = good.len() - 8;
        let (message, _) = Message::decode(&with(length_at, 200)).expect("good").expect("whole");
        assert!(message.values().is_err(), "a string that is longer than its message");
    }
}
