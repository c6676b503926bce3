//! What the user sees: results on stdout, everything else on stderr.

use std::error::Error as _;
use std::io::Write;

use serde_json::{Map, Value};

use crate::cache::Freshness;
use crate::error::{Error, Explain};

/// A line on stderr. A closed stderr is no reason to stop working.
pub(super) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Whether there is the cache that is wanted, in a line on stderr.
pub(super) fn freshness(freshness: &Freshness) {
    say(&format!("cache: {freshness}"));
}

/// A line on stdout.
pub(super) fn print(line: &str) -> Result<(), Error> {
    match writeln!(std::io::stdout(), "{line}") {
        // A reader that has seen enough, as `head`, is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Error::Output),
    }
}

/// The result: one line of JSON with `--json`, else an aligned table.
pub(super) fn result(json: bool, object: &Map<String, Value>) -> Result<(), Error> {
    if json {
        return print(&Value::Object(object.clone()).to_string());
    }
    let mut rows = Vec::new();
    flatten("", object, &mut rows);
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        print(&format!("{name:width$}  {value}"))?;
    }
    Ok(())
}

/// Rows of texts, each column as wide as its widest; the first is a heading.
pub(super) fn table(rows: &[Vec<String>]) -> Result<(), Error> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        print(cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// Nested names are joined by a space: `valid accuracy`.
fn flatten(prefix: &str, object: &Map<String, Value>, rows: &mut Vec<(String, String)>) {
    for (name, value) in object {
        let name = format!("{prefix}{name}");
        match value {
            Value::Object(inner) => flatten(&format!("{name} "), inner, rows),
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for (place, item) in items.iter().enumerate() {
                    if let Value::Object(inner) = item {
                        flatten(&format!("{name} {place} "), inner, rows);
                    }
                }
            }
            Value::String(text) => rows.push((name, text.clone())),
            Value::Number(number) if number.is_f64() => {
                rows.push((name, format!("{:.4}", number.as_f64().unwrap_or_default())));
            }
            other => rows.push((name, other.to_string())),
        }
    }
}

/// An error, its causes, and what to do about it.
pub(super) fn error(error: &Error) {
    let mut text = format!("error: {error}");
    let mut last = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // A transparent error repeats the message of its source.
        if message != last {
            text.push_str(": ");
            text.push_str(&message);
        }
        last = message;
        cause = error.source();
    }
    say(&text);
    if let Some(hint) = error.hint() {
        say(&format!("hint: {hint}"));
    }
}
