//! `--format`: the part of Go's templates that people use: `{{.Field.Inner}}`, `{{json .Field}}`,
//! text around them, `\t` and `\n`. [text/template](https://pkg.go.dev/text/template)

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Fills a template with the fields of a JSON object.
pub(crate) fn render(template: &str, value: &Value) -> Result<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, tail)) = rest.split_once("{{") {
        let (action, after) =
            tail.split_once("}}").with_context(|| format!("template {template:?}: unclosed action"))?;
        text.push_str(&unescape(before));
        text.push_str(&evaluate(action.trim(), value).with_context(|| format!("template {template:?}"))?);
        rest = after;
    }
    text.push_str(&unescape(rest));
    Ok(text)
}

/// The header of a `table` template: the field names in capitals, in docker's words.
pub(crate) fn header(template: &str, words: &[(&str, &str)]) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, tail)) = rest.split_once("{{") {
        let (action, after) = tail.split_once("}}").unwrap_or((tail, ""));
        let field = action.trim().trim_start_matches("json ").trim_start_matches('.');
        let word = words.iter().find(|(name, _)| *name == field).map(|(_, word)| (*word).to_owned());
        text.push_str(&unescape(before));
        text.push_str(&word.unwrap_or_else(|| field.to_uppercase()));
        rest = after;
    }
    text + &unescape(rest)
}

/// A list in a format: `json`, a template for each row, or `table ` and a template for its columns.
pub(crate) fn rows(format: &str, rows: &[Value], words: &[(&str, &str)]) -> Result<String> {
    let format = if format == "json" { "{{json .}}" } else { format };
    let Some(template) = format.strip_prefix("table ") else {
        return rows.iter().map(|row| Ok(render(format, row)? + "\n")).collect();
    };
    let lines = rows.iter().map(|row| render(template, row)).collect::<Result<Vec<_>>>()?;
    let lines = std::iter::once(header(template, words)).chain(lines);
    let cells: Vec<Vec<String>> = lines.map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    Ok(crate::table::render(&cells))
}

/// Shells pass `\t` on as it is typed.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn evaluate(action: &str, value: &Value) -> Result<String> {
    let (json, path) = action.strip_prefix("json ").map_or((false, action), |path| (true, path.trim()));
    let names = path.strip_prefix('.').with_context(|| format!("{{{{{action}}}}} is not supported"))?;
    let mut found = value;
    for name in names.split('.').filter(|name| !name.is_empty()) {
        if name.contains(|c: char| !c.is_alphanumeric() && c != '_') {
            bail!("{{{{{action}}}}} is not supported");
        }
        found = found.get(name).with_context(|| format!("there is no field {name:?}"))?;
    }
    Ok(if json { found.to_string() } else { plain(found) })
}

/// As Go prints a value: text without quotes, lists in brackets.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<no value>".into(),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name}:{}", plain(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_filled_in() {
        let value = json!({"ID": "1", "State": {"Pid": 7}, "Args": ["a", "b"]});
        assert_eq!(render("{{.ID}}\\t{{ .State.Pid }}!", &value).unwrap(), "1\t7!");
        assert_eq!(render("{{json .State}} {{.Args}}", &value).unwrap(), "{\"Pid\":7} [a b]");
        assert_eq!(header("{{.ID}}\\t{{.Foo}}", &[("ID", "CONTAINER ID")]), "CONTAINER ID\tFOO");
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (template, part) in [("{{.Nope}}", "Nope"), ("{{range .}}", "range"), ("{{.ID", "unclosed")] {
            let error = format!("{:#}", render(template, &json!({"ID": 1})).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }
}
