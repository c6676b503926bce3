//! How `search` encodes records: queries and codes side by side, hard negatives, and a code base
//! in a file of its own.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::texts::{Rows, TextEncoder};
use super::{EncodedSplit, Error, Role};
use crate::dataset::{Dataset, FieldChoice, Label, Record, Records};
use crate::targets::Targets;

/// How `search` encodes records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchEncoding {
    /// Where the query is; the usual names when absent.
    pub query_field: Option<String>,
    /// Where the code is; the usual names when absent.
    pub code_field: Option<String>,
    /// Where a training query's hard negatives are; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_field: Option<String>,
    /// Where the key is that a query and its code in the code base share; the usual names when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_field: Option<String>,
    /// Most tokens of a query, special tokens included.
    pub max_query_length: usize,
    /// Most tokens of a code, special tokens included.
    pub max_code_length: usize,
    /// Put before each text, as `UniXcoder`'s `<encoder-only>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_token: Option<String>,
}

/// The keys of a code base.
pub struct CodeBase {
    path: PathBuf,
    /// Places, with lines.
    places: HashMap<Label, (usize, usize)>,
}

impl SearchEncoding {
    /// `--query-field`: CodeSearchNet's names, and `CoSQA`'s.
    fn query_field(&self) -> FieldChoice {
        let usual = ["docstring_tokens", "docstring", "query", "doc"];
        FieldChoice::new("--query-field", self.query_field.as_deref(), &usual)
    }

    /// `--code-field`: CodeSearchNet's names, and `AdvTest`'s.
    pub(super) fn code_field(&self) -> FieldChoice {
        let usual = ["code_tokens", "function_tokens", "code", "function"];
        FieldChoice::new("--code-field", self.code_field.as_deref(), &usual)
    }

    /// `--key-field`: CodeSearchNet's name, and `AdvTest`'s.
    fn key_field(&self) -> FieldChoice {
        FieldChoice::new("--key-field", self.key_field.as_deref(), &["url", "idx"])
    }

    /// The keys of the code base `records`, which must differ.
    pub fn code_base(&self, mut records: Records) -> Result<CodeBase, Error> {
        let field = self.key_field();
        let path = records.path().to_owned();
        let mut places = HashMap::new();
        while let Some(record) = records.next().transpose()? {
            let key = field.label(&record, records.path())?;
            let place = places.len();
            if let Some((_, first)) = places.insert(key.clone(), (place, record.line)) {
                return Err(Error::SameKey {
                    path: records.path().to_owned(),
                    line: record.line,
                    key,
                    first,
                });
            }
        }
        Ok(CodeBase { path, places })
    }

    /// Encodes `data` for `role`: query, code and hard negatives a row in training; query and code
    /// in evaluation, or the query alone and its code's place in the code base; the code alone of
    /// the code base.
    pub(super) fn encode(
        &self,
        data: &Dataset,
        encoder: TextEncoder,
        role: Role,
        code_base: Option<&CodeBase>,
    ) -> Result<EncodedSplit, Error> {
        match (role, code_base) {
            (Role::CodeBase, _) => self.encode_codes(data, encoder),
            (Role::Evaluation, Some(code_base)) => {
                let mut split = self.encode_queries(data, encoder)?;
                split.targets = self.places(data, code_base)?;
                Ok(split)
            }
            (Role::Training, _) => {
                let negatives = self.negatives(std::slice::from_ref(data))?;
                self.encode_rows(data, encoder, negatives.into_iter().flatten().collect())
            }
            (Role::Evaluation, None) => self.encode_rows(data, encoder, Vec::new()),
        }
    }

    /// The queries alone.
    pub(super) fn encode_queries(
        &self,
        data: &Dataset,
        encoder: TextEncoder,
    ) -> Result<EncodedSplit, Error> {
        encoder.encode_field(data, &self.query_field(), self.max_query_length)
    }

    /// The codes alone.
    pub(super) fn encode_codes(
        &self,
        data: &Dataset,
        encoder: TextEncoder,
    ) -> Result<EncodedSplit, Error> {
        encoder.encode_field(data, &self.code_field(), self.max_code_length)
    }

    /// Query, code and `negatives` a row.
    pub(super) fn encode_rows(
        &self,
        data: &Dataset,
        encoder: TextEncoder,
        negatives: Vec<Vec<String>>,
    ) -> Result<EncodedSplit, Error> {
        let (query, code) = (self.query_field(), self.code_field());
        let mut rows = Rows::new(2 + negatives.first().map_or(0, Vec::len));
        let mut negatives = negatives.into_iter();
        for record in &data.records {
            rows.push(query.text(record, &data.path)?, self.max_query_length);
            rows.push(code.text(record, &data.path)?, self.max_code_length);
            for negative in negatives.next().unwrap_or_default() {
                rows.push(negative, self.max_code_length);
            }
        }
        rows.encode(encoder, Targets::None)
    }

    /// The hard negatives of each row of each of `chunks`, the whole split: as many as the row with the
    /// fewest has.
    pub(super) fn negatives(&self, chunks: &[Dataset]) -> Result<Vec<Vec<Vec<String>>>, Error> {
        let Some(name) = &self.negative_field else {
            return Ok(Vec::new());
        };
        let field = FieldChoice::new("--negative-field", Some(name), &[]);
        let of_chunk = |data: &Dataset| {
            let rows = data.records.iter().map(|record| {
                let texts = texts(record, name, &field, data)?;
                if texts.is_empty() {
                    return Err(Error::NoNegative {
                        path: data.path.clone(),
                        line: record.line,
                        field: name.clone(),
                    });
                }
                Ok(texts)
            });
            rows.collect::<Result<Vec<_>, Error>>()
        };
        let mut negatives = chunks
            .iter()
            .map(of_chunk)
            .collect::<Result<Vec<_>, Error>>()?;
        let rows = negatives.iter().flatten();
        let fewest = rows.map(Vec::len).min().unwrap_or(0);
        for row in negatives.iter_mut().flatten() {
            row.truncate(fewest);
        }
        Ok(negatives)
    }

    /// The place of each query's code in the code base.
    fn places(&self, data: &Dataset, code_base: &CodeBase) -> Result<Targets, Error> {
        let field = self.key_field();
        let places = data.records.iter().map(|record| {
            let key = field.label(record, &data.path)?;
            match code_base.places.get(&key) {
                Some(&(place, _)) => Ok(place as i64),
                None => Err(Error::NotInCodeBase {
                    path: data.path.clone(),
                    line: record.line,
                    key,
                    code_base: code_base.path.clone(),
                }),
            }
        });
        Ok(Targets::Classes(places.collect::<Result<_, Error>>()?))
    }
}

/// The texts in the field `name` of `record`: a string is one, a list holds one each. A text of a
/// list may be a list of tokens itself.
fn texts(
    record: &Record,
    name: &str,
    field: &FieldChoice,
    data: &Dataset,
) -> Result<Vec<String>, Error> {
    let Some(Value::Array(values)) = record.fields.get(name) else {
        return Ok(vec![field.text(record, &data.path)?]);
    };
    let texts = values.iter().map(|value| {
        // Each as if it stood in the field alone, so that errors say the same.
        let mut alone = record.clone();
        alone.fields.clear();
        alone.fields.insert(name.to_owned(), value.clone());
        Ok(field.text(&alone, &data.path)?)
    });
    texts.collect()
}
