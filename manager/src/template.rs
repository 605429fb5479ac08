//! `--format`: the part of Go's templates that people use on the command line.
//!
//! `{{.Field}}`, `{{.Field.Deeper}}`, `{{json .}}`, `{{json .Field}}` and text around them; `\t` and
//! `\n` in the text. Everything else is an error, not an empty string.
//! <https://docs.docker.com/engine/cli/formatting/>

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A template, parsed.
#[derive(Debug)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Field { path: Vec<String>, json: bool },
}

impl Template {
    /// Reads a template; `json` alone is short for `{{json .}}`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let text = if text == "json" { "{{json .}}" } else { text };
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            parts.push(Part::Text(unescape(&rest[..start])));
            let Some(end) = rest[start..].find("}}") else { bail!("format {text:?}: {{{{ is not closed") };
            let action = rest[start + 2..start + end].trim();
            parts.push(field(action).with_context(|| format!("format {text:?}"))?);
            rest = &rest[start + end + 2..];
        }
        parts.push(Part::Text(unescape(rest)));
        Ok(Self { parts })
    }

    /// Fills it in.
    pub(crate) fn render(&self, value: &Value) -> Result<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Field { path, json } => {
                    let found = lookup(value, path)?;
                    match found {
                        Value::String(found) if !json => text.push_str(found),
                        Value::Null if !json => text.push_str("<no value>"),
                        found => text.push_str(&found.to_string()),
                    }
                }
            }
        }
        Ok(text)
    }

    /// The names of its fields: the heading of a table.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field { path, .. } => path.last().map(String::as_str),
            Part::Text(_) => None,
        })
    }
}

fn field(action: &str) -> Result<Part> {
    let (json, name) = match action.strip_prefix("json ") {
        Some(name) => (true, name.trim()),
        None => (false, action),
    };
    let Some(path) = name.strip_prefix('.') else { bail!("{{{{{action}}}}} is not supported") };
    let path: Vec<String> = path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    if path.iter().any(|part| !part.chars().all(|letter| letter.is_alphanumeric() || letter == '_')) {
        bail!("{{{{{action}}}}} is not supported");
    }
    Ok(Part::Field { path, json })
}

fn lookup<'a>(value: &'a Value, path: &[String]) -> Result<&'a Value> {
    path.iter()
        .try_fold(value, |value, name| value.get(name).with_context(|| format!("there is no field .{name}")))
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_in_or_refused() {
        let value = serde_json::json!({"ID": "abc", "Config": {"Cmd": ["sh"]}, "None": null});
        let table = [
            ("{{.ID}}", "abc"),
            ("{{ .ID }}: {{json .ID}}", "abc: \"abc\""),
            ("a\\tb", "a\tb"),
            ("{{.Config.Cmd}}", "[\"sh\"]"),
            ("{{.None}}", "<no value>"),
        ];
        for (text, expected) in table {
            assert_eq!(Template::parse(text).unwrap().render(&value).unwrap(), expected, "{text}");
        }
        for bad in ["{{.ID", "{{range .ID}}", "{{len .ID}}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
        assert!(Template::parse("{{.Nothing}}").unwrap().render(&value).is_err());
    }
}
