//! Texts to token sequences.

use std::collections::HashMap;

use super::{EncodedSplit, Error};
use crate::checkpoint::{self, Checkpoint};
use crate::dataset::{Dataset, FieldChoice};
use crate::distinct::Distinct;
use crate::ragged::Ragged;
use crate::targets::Targets;

/// A checkpoint's tokenizer, and the mode token that its texts are to begin with.
#[derive(Clone, Copy)]
pub(super) struct TextEncoder<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) mode_token: Option<&'a str>,
}

impl TextEncoder<'_> {
    /// One sequence a text, of at most `max_length` tokens, special ones included.
    pub(super) fn encode(
        self,
        texts: Vec<String>,
        max_length: usize,
    ) -> Result<Ragged<u32>, Error> {
        let tokenizer = &self.checkpoint.tokenizer;
        Ok(match self.mode_token {
            None => tokenizer.encode(texts, max_length)?,
            Some(token) => tokenizer.encode_in_mode(texts, token, max_length)?,
        })
    }

    /// The texts in `fields` of each record of `data` as one sequence a row.
    pub(super) fn encode_pairs(
        self,
        data: &Dataset,
        fields: [&FieldChoice; 2],
        max_length: usize,
        targets: Targets,
    ) -> Result<EncodedSplit, Error> {
        let pairs = data.records.iter().map(|record| {
            let [first, second] = fields.map(|field| field.text(record, &data.path));
            Ok((first?, second?))
        });
        let pairs = pairs.collect::<Result<_, Error>>()?;
        let encoded = self.checkpoint.encode_pairs(pairs, max_length);
        let all = encoded.map_err(|error| match error {
            checkpoint::Error::Separator { pair, token } => Error::SeparatorInText {
                path: data.path.clone(),
                line: data.records.get(pair).map_or(0, |record| record.line),
                token,
            },
            other => other.into(),
        })?;
        let mut sequences = Ragged::new(1);
        let mut known: HashMap<&[u32], u32> = HashMap::new();
        let rows = all.iter().map(|ids| {
            let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
            *known.entry(ids).or_insert_with(|| {
                sequences.push(ids);
                next
            })
        });
        Ok(EncodedSplit {
            rows: rows.collect(),
            sequences,
            columns: 1,
            targets,
            notice: None,
        })
    }

    /// The texts in `field` of `data`, one sequence a row.
    pub(super) fn encode_field(
        self,
        data: &Dataset,
        field: &FieldChoice,
        max_length: usize,
    ) -> Result<EncodedSplit, Error> {
        let mut rows = Rows::new(1);
        for record in &data.records {
            rows.push(field.text(record, &data.path)?, max_length);
        }
        rows.encode(self, Targets::None)
    }
}

/// Rows of texts being collected. Each distinct text is encoded once: in pairs of functions most
/// functions come many times.
pub(super) struct Rows {
    columns: usize,
    texts: Vec<u32>,
    numbers: HashMap<(String, usize), u32>,
}

impl Rows {
    /// Of `columns` texts each.
    pub(super) fn new(columns: usize) -> Self {
        Self {
            columns,
            texts: Vec::new(),
            numbers: HashMap::new(),
        }
    }

    /// The next text of the row that is being filled, to be cut to `max_length` tokens.
    pub(super) fn push(&mut self, text: String, max_length: usize) {
        let next = u32::try_from(self.numbers.len())
            .unwrap_or_else(|_| unreachable!("four thousand million texts do not fit in memory"));
        let number = *self.numbers.entry((text, max_length)).or_insert(next);
        self.texts.push(number);
    }

    /// Encodes what was collected.
    pub(super) fn encode(
        self,
        encoder: TextEncoder,
        targets: Targets,
    ) -> Result<EncodedSplit, Error> {
        // By length: each is encoded in one call, on every core.
        let mut by_length: HashMap<usize, Vec<(u32, String)>> = HashMap::new();
        let count = self.numbers.len();
        for ((text, max_length), number) in self.numbers {
            by_length
                .entry(max_length)
                .or_default()
                .push((number, text));
        }
        let mut parts = Vec::new();
        let mut places = vec![(0, 0); count];
        for (max_length, mut texts) in by_length {
            texts.sort_unstable_by_key(|&(number, _)| number);
            for (place, &(number, _)) in texts.iter().enumerate() {
                places[number as usize] = (parts.len(), place);
            }
            let texts = texts.into_iter().map(|(_, text)| text).collect();
            parts.push(encoder.encode(texts, max_length)?);
        }
        // Different texts may be the same tokens.
        let mut distinct = Distinct::default();
        let numbers = places.into_iter();
        let numbers = numbers.map(|(part, place)| distinct.index(parts[part].sequence(place)));
        let numbers: Vec<u32> = numbers.collect();
        let texts = self.texts.into_iter();
        Ok(EncodedSplit {
            rows: texts.map(|text| numbers[text as usize]).collect(),
            sequences: distinct.sequences,
            columns: self.columns,
            targets,
            notice: None,
        })
    }
}
