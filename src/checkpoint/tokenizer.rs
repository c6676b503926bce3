//! Text to token ids, by the checkpoint's own `tokenizer.json` or its vocabulary files.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde::de::IgnoredAny;
use tokenizers::{TruncationDirection, TruncationParams, TruncationStrategy};

use super::vocabulary_files::{TOKENIZER, VocabularyFiles};
use super::{Error, Family, vocabulary_tokenizer};
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
        let inner = guarded(|| tokenizers::Tokenizer::from_bytes(bytes));
        let inner = inner.map_err(|source| Error::Tokenizer {
            path: path.to_owned(),
            source,
        })?;
        Self::checked(inner, path, vocabulary)
    }

    /// Loads the tokenizer of the checkpoint in `folder`, a model of `family` with `vocabulary`
    /// embeddings: `tokenizer.json`, else one built from the vocabulary files.
    pub fn of_folder(folder: &Path, family: Family, vocabulary: usize) -> Result<Self, Error> {
        let path = folder.join(TOKENIZER);
        if path.is_file() {
            return Self::open(&path, vocabulary);
        }
        let files = VocabularyFiles::read(folder)?;
        let path = files.path.clone();
        let mut inner = Err(Error::NoTokenizer {
            folder: folder.to_owned(),
        });
        let built = guarded(|| {
            inner = vocabulary_tokenizer::build(files, family);
            Ok(())
        });
        built.map_err(|source| Error::Tokenizer {
            path: path.clone(),
            source,
        })?;
        Self::checked(inner?, &path, vocabulary)
    }

    /// `inner`, which was made from `path`, ready for use.
    fn checked(
        mut inner: tokenizers::Tokenizer,
        path: &Path,
        vocabulary: usize,
    ) -> Result<Self, Error> {
        inner.with_padding(None);
        // What some broken files break comes to light with the first text.
        guarded(|| inner.encode_fast("a", true)).map_err(|source| Error::Tokenizer {
            path: path.to_owned(),
            source,
        })?;
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
        let encodings = guarded(|| tokenizer.encode_batch_fast(texts, true));
        let encodings = encodings.map_err(Error::Tokenize)?;
        Ok(encodings
            .iter()
            .map(tokenizers::Encoding::get_ids)
            .collect())
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
