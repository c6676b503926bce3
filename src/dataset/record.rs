//! One record, and its fields by name.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Error;

/// One line of a data file.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its line in the file, from 1; its row in a Parquet file.
    pub line: usize,
    /// Its fields.
    pub fields: Map<String, Value>,
    /// Whether the file tells no numbers from words, as CSV: a label that reads as an integer is
    /// one.
    pub untyped: bool,
}

impl Record {
    /// A record at `line` of a file that tells numbers from words.
    pub fn new(line: usize, fields: Map<String, Value>) -> Self {
        Self {
            line,
            fields,
            untyped: false,
        }
    }

    /// Bytes of its texts.
    pub(super) fn text_bytes(&self) -> usize {
        fn of(value: &Value) -> usize {
            match value {
                Value::String(text) => text.len(),
                Value::Array(values) => values.iter().map(of).sum(),
                Value::Object(fields) => fields.values().map(of).sum(),
                Value::Null | Value::Bool(_) | Value::Number(_) => size_of::<Value>(),
            }
        }
        self.fields.values().map(of).sum()
    }
}

/// Which field of a record is meant: one named by the user, or the first of the usual names
/// that the record has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChoice {
    flag: &'static str,
    names: Vec<String>,
}

impl FieldChoice {
    /// `named` if given, else any of `usual`; `flag` names it otherwise.
    ///
    /// An empty `flag` says that none does.
    pub fn new(flag: &'static str, named: Option<&str>, usual: &[&str]) -> Self {
        let candidates = match named {
            Some(name) => vec![name.to_owned()],
            None => usual.iter().map(|&name| name.to_owned()).collect(),
        };
        Self {
            flag,
            names: candidates,
        }
    }

    /// The value in `record`, which stands in the file `path`.
    fn find<'a>(&self, record: &'a Record, path: &Path) -> Result<(&str, &'a Value), Error> {
        let there = || {
            let names = self.names.iter();
            names.filter_map(|name| record.fields.get(name).map(|value| (name.as_str(), value)))
        };
        // Of several names, one that says something: CoNaLa's `rewritten_intent` may be null.
        there()
            .find(|(_, value)| !value.is_null())
            .or_else(|| there().next())
            .ok_or_else(|| Error::MissingField {
                path: path.to_owned(),
                line: record.line,
                expected: self.names.clone(),
                found: record.fields.keys().cloned().collect(),
                flag: self.flag,
            })
    }

    /// Whether `record` has it.
    pub fn is_in(&self, record: &Record) -> bool {
        self.names
            .iter()
            .any(|name| record.fields.contains_key(name))
    }

    /// The text in `record`: a string, or a list of strings joined by spaces as CodeXGLUE's
    /// `code_tokens` are. Runs of white space become one space, as in the reference's recipes.
    pub fn text(&self, record: &Record, path: &Path) -> Result<String, Error> {
        let (name, value) = self.find(record, path)?;
        let words = match value {
            Value::String(text) => Some(text.split_whitespace().collect::<Vec<_>>()),
            Value::Array(parts) => parts
                .iter()
                .map(|part| part.as_str().map(str::split_whitespace))
                .collect::<Option<Vec<_>>>()
                .map(|parts| parts.into_iter().flatten().collect()),
            _ => None,
        };
        match words {
            Some(words) => Ok(words.join(" ")),
            None => Err(self.wrong_type(record, path, name, "a string or a list of strings")),
        }
    }

    /// The text in `record` as it stands: a string, or a list of strings joined by spaces.
    pub fn verbatim(&self, record: &Record, path: &Path) -> Result<String, Error> {
        let (name, value) = self.find(record, path)?;
        let text = match value {
            Value::String(text) => Some(text.clone()),
            Value::Array(parts) => {
                let parts: Option<Vec<&str>> = parts.iter().map(Value::as_str).collect();
                parts.map(|parts| parts.join(" "))
            }
            _ => None,
        };
        text.ok_or_else(|| self.wrong_type(record, path, name, "a string or a list of strings"))
    }

    /// The label in `record`: a string or an integer.
    pub fn label(&self, record: &Record, path: &Path) -> Result<Label, Error> {
        let (name, value) = self.find(record, path)?;
        match value {
            Value::String(text) if record.untyped => match text.trim() {
                "" => Err(self.wrong_type(record, path, name, "a word or an integer")),
                word => Ok(Label::read(word)),
            },
            Value::String(text) => Ok(Label::Text(text.clone())),
            Value::Bool(truth) => Ok(Label::Integer(i64::from(*truth))),
            Value::Number(number) if number.is_i64() => {
                Ok(Label::Integer(number.as_i64().unwrap_or_default()))
            }
            _ => Err(self.wrong_type(record, path, name, "a string or an integer")),
        }
    }

    /// The set of labels in `record`: a list of strings and integers.
    pub fn labels(&self, record: &Record, path: &Path) -> Result<Vec<Label>, Error> {
        let (name, value) = self.find(record, path)?;
        let labels = value.as_array().and_then(|values| {
            let labels = values.iter().map(|value| match value {
                Value::String(text) => Some(Label::Text(text.clone())),
                Value::Number(number) => number.as_i64().map(Label::Integer),
                _ => None,
            });
            labels.collect()
        });
        labels
            .ok_or_else(|| self.wrong_type(record, path, name, "a list of strings or of integers"))
    }

    /// The number in `record`; written as a string too, as some kinds of files have it.
    #[allow(clippy::cast_possible_truncation, reason = "numbers are learnt in f32")]
    pub fn number(&self, record: &Record, path: &Path) -> Result<f32, Error> {
        let (name, value) = self.find(record, path)?;
        let number = match value {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_f64(),
        };
        let number = number.map(|number: f64| number as f32);
        number
            .filter(|number| number.is_finite())
            .ok_or_else(|| self.wrong_type(record, path, name, "a number"))
    }

    fn wrong_type(
        &self,
        record: &Record,
        path: &Path,
        name: &str,
        expected: &'static str,
    ) -> Error {
        Error::FieldType {
            path: path.to_owned(),
            line: record.line,
            field: name.into(),
            found: shortened(&record.fields[name].to_string()),
            expected,
            flag: self.flag,
        }
    }
}

/// `value` as an error shows it.
fn shortened(value: &str) -> String {
    const SHOWN: usize = 60;
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

/// A class label as it stands in the data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Label {
    /// A number.
    Integer(i64),
    /// A word.
    Text(String),
}

impl Label {
    /// The label that `text` means where numbers are not told from words: an integer if it is
    /// written as one, so not `01`, which is a name.
    pub fn read(text: &str) -> Self {
        match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => Self::Integer(number),
            _ => Self::Text(text.to_owned()),
        }
    }
}

impl fmt::Display for Label {
    /// As in JSON, so that `1` and `"1"` can be told apart.
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(formatter),
            Self::Text(text) => write!(formatter, "{text:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(json: &str) -> Record {
        Record::new(3, serde_json::from_str(json).expect("JSON"))
    }

    #[test]
    fn the_first_usual_name_wins_and_lists_are_joined() {
        let choice = FieldChoice::new("--code-field", None, &["code_tokens", "code"]);
        let text = |json| choice.text(&record(json), Path::new("f"));
        assert_eq!(
            text(r#"{"code": "b", "code_tokens": ["def", "f"]}"#).expect("text"),
            "def f"
        );
        assert_eq!(text(r#"{"code": " a \n\t b "}"#).expect("text"), "a b");
        assert!(matches!(
            text(r#"{"code": 3}"#),
            Err(Error::FieldType { line: 3, .. })
        ));
        assert!(matches!(
            text("{}"),
            Err(Error::MissingField { line: 3, .. })
        ));
    }

    #[test]
    fn labels_keep_their_type() {
        let choice = FieldChoice::new("--label-field", Some("y"), &["label"]);
        let label = |json| choice.label(&record(json), Path::new("f"));
        assert_eq!(label(r#"{"y": 1}"#).expect("label"), Label::Integer(1));
        assert_eq!(
            label(r#"{"y": "1"}"#).expect("label"),
            Label::Text("1".into())
        );
        assert!(label(r#"{"y": 1.5}"#).is_err());
        let untyped = |json| {
            let untyped = true;
            choice.label(
                &Record {
                    untyped,
                    ..record(json)
                },
                Path::new("f"),
            )
        };
        for (json, expected) in [
            (r#"{"y": " 1"}"#, Label::Integer(1)),
            (r#"{"y": "-7"}"#, Label::Integer(-7)),
            (r#"{"y": "01"}"#, Label::Text("01".into())),
            (r#"{"y": "1.0"}"#, Label::Text("1.0".into())),
            (r#"{"y": "yes "}"#, Label::Text("yes".into())),
        ] {
            assert_eq!(untyped(json).expect("label"), expected, "{json}");
        }
        assert!(untyped(r#"{"y": " "}"#).is_err());
    }
}
