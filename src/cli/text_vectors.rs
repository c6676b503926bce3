//! One vector a text at every layer of a model: what `telly precompute --pooled` keeps and `telly rsa`
//! compares.

use super::chunks::Chunks;
use super::options::RuntimeOptions;
use super::studied::Studied;
use crate::dataset::{Dataset, Source};
use crate::error::Error;
use crate::frozen::FrozenEncoder;
use crate::study::{
    self, LEAST_TEXTS, LayerVectors, MOST_TEXTS, TextHash, TextPooling, layer_vectors, text_hash,
};
use crate::task::{Known, Role};

/// What a model is given of texts, and what becomes of it.
pub(super) struct TextVectors {
    pub(super) text_field: Option<String>,
    pub(super) max_length: usize,
    pub(super) pooling: TextPooling,
}

/// The first `limit` records of `source`, all without one; refuses too few to compare by and too many.
pub(super) fn texts(source: &Source, limit: Option<usize>) -> Result<Dataset, Error> {
    let limit = limit.unwrap_or(usize::MAX).min(MOST_TEXTS + 1);
    let data = Chunks::open(source, limit)?.next()?;
    let found = data.as_ref().map_or(0, |data| data.records.len());
    match data {
        Some(data) if (LEAST_TEXTS..=MOST_TEXTS).contains(&found) => Ok(data),
        _ => Err(study::Error::Texts { found }.into()),
    }
}

impl TextVectors {
    /// Which texts `data` has for `studied`.
    pub(super) fn hashes(&self, studied: &Studied, data: &Dataset) -> Result<Vec<TextHash>, Error> {
        let encoding = studied.text_encoding(self.text_field.clone(), self.max_length)?;
        let (field, _) = encoding.studied_text();
        let records = data.records.iter();
        let hashes = records.map(|record| Ok(text_hash(&field.text(record, &data.path)?)));
        hashes.collect()
    }

    /// `studied` in ONNX Runtime, as its vectors take it.
    pub(super) fn frozen(
        &self,
        studied: &Studied,
        runtime: &RuntimeOptions,
    ) -> Result<FrozenEncoder, Error> {
        let frozen = studied.frozen(runtime, self.max_length)?;
        Ok(match self.pooling {
            TextPooling::Masked => frozen,
            TextPooling::Unmasked => frozen.padded_to(self.max_length),
        })
    }

    /// What `studied`, run by `frozen`, makes of the texts of `data` at every layer.
    pub(super) fn compute(
        &self,
        studied: &Studied,
        data: &Dataset,
        frozen: &mut FrozenEncoder,
    ) -> Result<LayerVectors, Error> {
        let checkpoint = &studied.checkpoint;
        let encoding = studied.text_encoding(self.text_field.clone(), self.max_length)?;
        let encoded = encoding.encode(data, checkpoint, Role::Evaluation, Known::default())?;
        Ok(layer_vectors(
            frozen,
            &encoded.sequences,
            &encoded.rows,
            self.pooling,
            &studied.path.display().to_string(),
        )?)
    }
}
