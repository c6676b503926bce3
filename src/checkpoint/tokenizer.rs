//! Text to token ids, by the checkpoint's own `tokenizer.json`.

use std::path::Path;

use tokenizers::{TruncationDirection, TruncationParams, TruncationStrategy};

use super::Error;
use crate::ragged::Ragged;

/// A checkpoint's tokenizer, without padding.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Loads `tokenizer.json` for a model with `vocabulary` embeddings.
    pub fn open(path: &Path, vocabulary: usize) -> Result<Self, Error> {
        // Read first: the library's own error for a missing file does not name it.
        let bytes = fs_err::read(path).map_err(Error::Read)?;
        let mut inner =
            tokenizers::Tokenizer::from_bytes(bytes).map_err(|source| Error::Tokenizer {
                path: path.to_owned(),
                source,
            })?;
        inner.with_padding(None);
        let largest = inner.get_vocab(true).into_values().max().unwrap_or(0);
        if largest as usize >= vocabulary {
            return Err(Error::Vocabulary {
                path: path.to_owned(),
                id: largest,
                vocabulary,
            });
        }
        Ok(Self { inner })
    }

    /// Encodes `texts` with the model's special tokens, each cut to `max_length` tokens.
    pub fn encode(&self, texts: Vec<String>, max_length: usize) -> Result<Ragged<u32>, Error> {
        let mut tokenizer = self.inner.clone();
        tokenizer
            .with_truncation(Some(TruncationParams {
                max_length,
                stride: 0,
                strategy: TruncationStrategy::LongestFirst,
                direction: TruncationDirection::Right,
            }))
            .map_err(Error::Tokenize)?;
        let encodings = tokenizer
            .encode_batch_fast(texts, true)
            .map_err(Error::Tokenize)?;
        Ok(encodings
            .iter()
            .map(tokenizers::Encoding::get_ids)
            .collect())
    }
}
