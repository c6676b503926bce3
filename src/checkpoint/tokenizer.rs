//! Text to token ids, by the checkpoint's own `tokenizer.json`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde::de::IgnoredAny;
use tokenizers::{EncodeInput, TruncationDirection, TruncationParams, TruncationStrategy};

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
        // The library panics at some of what is no JSON.
        serde_json::from_slice::<IgnoredAny>(&bytes).map_err(|source| Error::Json {
            path: path.to_owned(),
            source,
        })?;
        let broken = |source| Error::Tokenizer {
            path: path.to_owned(),
            source,
        };
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(broken)?;
        inner.with_padding(None);
        // What some broken files break comes to light with the first text.
        guarded(|| inner.encode_fast("a", true)).map_err(broken)?;
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

    /// The number of `token`, if it is one of its tokens.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Encodes `texts` with the model's special tokens, each cut to `max_length` tokens.
    pub fn encode(&self, texts: Vec<String>, max_length: usize) -> Result<Ragged<u32>, Error> {
        let encodings = self.encode_batch(texts, max_length, true)?;
        let ids = encodings.iter().map(tokenizers::Encoding::get_ids);
        Ok(ids.collect())
    }

    /// Encodes `texts` as `UniXcoder` wants them: `<s> mode </s> text </s>`, with the text cut so
    /// that all are `max_length` tokens at most. `mode` is one of its tokens.
    pub fn encode_in_mode(
        &self,
        texts: Vec<String>,
        mode: &str,
        max_length: usize,
    ) -> Result<Ragged<u32>, Error> {
        let unknown = || Error::Tokenize(format!("`{mode}` is no token of the vocabulary").into());
        let mode = self.id(mode).ok_or_else(unknown)?;
        let empty = guarded(|| self.inner.encode_fast("", true)).map_err(Error::Tokenize)?;
        let &[start, end] = empty.get_ids() else {
            let problem = "its special tokens are not one before and one after the text";
            return Err(Error::Tokenize(problem.into()));
        };
        let before = [start, mode, end];
        let length = max_length.saturating_sub(before.len() + 1);
        let mut sequences = Ragged::new(1);
        for encoding in self.encode_batch(texts, length, false)? {
            sequences.push(&[&before, encoding.get_ids(), &[end]].concat());
        }
        Ok(sequences)
    }

    /// Encodes each of `pairs` as one sequence, as the model's own template puts two texts together,
    /// cut to `max_length` tokens from the longer text on.
    pub fn encode_pairs(
        &self,
        pairs: Vec<(String, String)>,
        max_length: usize,
    ) -> Result<Ragged<u32>, Error> {
        let encodings = self.encode_batch(pairs, max_length, true)?;
        let ids = encodings.iter().map(tokenizers::Encoding::get_ids);
        Ok(ids.collect())
    }

    fn encode_batch<'s>(
        &self,
        texts: Vec<impl Into<EncodeInput<'s>> + Send>,
        max_length: usize,
        special: bool,
    ) -> Result<Vec<tokenizers::Encoding>, Error> {
        let mut tokenizer = self.inner.clone();
        tokenizer
            .with_truncation(Some(TruncationParams {
                max_length,
                stride: 0,
                strategy: TruncationStrategy::LongestFirst,
                direction: TruncationDirection::Right,
            }))
            .map_err(Error::Tokenize)?;
        guarded(|| tokenizer.encode_batch_fast(texts, special)).map_err(Error::Tokenize)
    }
}

/// What `call` of the library returns; an error too if it panics, as it does at some files.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    // Nothing that `call` changes is used after a panic.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or(panic.downcast_ref::<&str>().copied());
        Err(message.unwrap_or("the tokenizers library panicked").into())
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The golden tokenizer with `from` replaced by `to`.
    fn open(from: &str, to: &str) -> Result<Tokenizer, Error> {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/bert-tiny");
        let text = fs_err::read_to_string(golden.join("tokenizer.json")).expect("text");
        assert!(text.contains(from), "{from}");
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let text = text.replace(from, to);
        file.write_all(text.as_bytes()).expect("written");
        Tokenizer::open(file.path(), 400)
    }

    /// The library panics at each of these.
    #[test]
    fn broken_files_are_errors() {
        assert!(open("[CLS]", "[CLS]").is_ok());
        let no_json = open("\"decoder\": {", "\"decoder\": { x").err();
        assert!(matches!(no_json, Some(Error::Json { .. })), "{no_json:?}");
        // The template names a special token that is not listed.
        let text = "\"special_tokens\": {\n      \"[CLS]\"";
        let unknown = open(text, "\"special_tokens\": {\n      \"[CLT]\"").err();
        assert!(
            matches!(unknown, Some(Error::Tokenizer { .. })),
            "{unknown:?}"
        );
    }
}
