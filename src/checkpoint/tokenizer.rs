//! Text to token ids, by the checkpoint's own `tokenizer.json` or its vocabulary files.

use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;
use serde::de::IgnoredAny;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    EncodeInput, Encoding, PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy,
};

use super::vocabulary_files::{TOKENIZER, VocabularyFiles};
use super::{Error, Family, TokenTypes, vocabulary_tokenizer};
use crate::caught::caught;
use crate::ragged::Ragged;

/// A text as tokens, and where each comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokensWithSpans {
    /// The tokens, special ones included.
    pub ids: Vec<u32>,
    /// For each the bytes of the text that it stands for; none for a special token.
    pub spans: Vec<Range<usize>>,
    /// Whether there were more tokens than were wanted.
    pub cut: bool,
}

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
        let vocabulary_of = || {
            inner.encode_fast("a", true)?;
            Ok(inner.get_vocab(true))
        };
        let found = guarded(vocabulary_of).map_err(|source| Error::Tokenizer {
            path: path.to_owned(),
            source,
        })?;
        let largest = found.into_values().max().unwrap_or(0);
        if largest as usize >= vocabulary {
            return Err(Error::Vocabulary {
                path: path.to_owned(),
                id: largest,
                vocabulary,
            });
        }
        Ok(Self { inner })
    }

    /// It as the text of a `tokenizer.json`.
    pub fn to_json(&self) -> Result<String, Error> {
        guarded(|| self.inner.to_string(false)).map_err(Error::Tokenize)
    }

    /// As [`to_json`](Self::to_json), of a tokenizer whose [`encode`](Self::encode) is this one's
    /// [`encode_in_mode`](Self::encode_in_mode).
    pub fn to_json_in_mode(&self, mode: &str) -> Result<String, Error> {
        let [start, mode, end] = self.around(mode)?;
        let mut tokenizer = self.inner.clone();
        let special = [start, mode, end].map(|id| (self.token(id).unwrap_or_default(), id));
        let before: Vec<String> = special.iter().map(|(token, _)| token.clone()).collect();
        let template = format!("{} $A {}", before.join(" "), before[2]);
        let mut special = special.to_vec();
        special.dedup();
        let processor = TemplateProcessing::builder()
            .try_single(template)
            .map_err(|problem| Error::Tokenize(problem.into()))?
            .special_tokens(special)
            .build();
        let processor = processor.map_err(|problem| Error::Tokenize(problem.into()))?;
        tokenizer.with_post_processor(Some(processor));
        guarded(|| tokenizer.to_string(false)).map_err(Error::Tokenize)
    }

    /// The token with this id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The number of `token`, if it is one of its tokens.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Encodes `texts` with the model's special tokens, each cut to `max_length` tokens.
    pub fn encode(&self, texts: Vec<String>, max_length: usize) -> Result<Ragged<u32>, Error> {
        let encodings = self.encode_batch(texts, max_length, true, Spans::NotFound)?;
        let ids = encodings.iter().map(Encoding::get_ids);
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
        let before @ [_, _, end] = self.around(mode)?;
        let length = max_length.saturating_sub(before.len() + 1);
        let mut sequences = Ragged::new(1);
        for encoding in self.encode_batch(texts, length, false, Spans::NotFound)? {
            sequences.push(&[&before, encoding.get_ids(), &[end]].concat());
        }
        Ok(sequences)
    }

    /// As [`encode`](Self::encode), or [`encode_in_mode`](Self::encode_in_mode) if there is a `mode`,
    /// with the bytes of its text that each token stands for.
    pub fn encode_with_spans(
        &self,
        texts: Vec<String>,
        mode: Option<&str>,
        max_length: usize,
    ) -> Result<Vec<TokensWithSpans>, Error> {
        let around = mode.map(|mode| self.around(mode)).transpose()?;
        let length = match &around {
            Some(before) => max_length.saturating_sub(before.len() + 1),
            None => max_length,
        };
        let encodings = self.encode_batch(texts, length, around.is_none(), Spans::Found)?;
        let encodings = encodings.iter().map(|encoding| {
            let ids = encoding.get_ids();
            let spans = encoding.get_offsets().iter();
            let spans = spans.map(|&(start, end)| start..end);
            let cut = !encoding.get_overflowing().is_empty();
            let Some(before @ [_, _, end]) = around else {
                return TokensWithSpans {
                    ids: ids.to_vec(),
                    spans: spans.collect(),
                    cut,
                };
            };
            let special = |count| std::iter::repeat_n(0..0, count);
            TokensWithSpans {
                ids: [&before, ids, &[end]].concat(),
                spans: special(before.len())
                    .chain(spans)
                    .chain(special(1))
                    .collect(),
                cut,
            }
        });
        Ok(encodings.collect())
    }

    /// Encodes `texts` without any special token around them, whole.
    pub fn encode_plain(&self, texts: Vec<String>) -> Result<Vec<Vec<u32>>, Error> {
        let encodings = self.encode_batch(texts, usize::MAX, false, Spans::NotFound)?;
        Ok(encodings
            .iter()
            .map(|found| found.get_ids().to_vec())
            .collect())
    }

    /// What the tokenizer puts in front of every text, as Llama's.
    pub fn start_tokens(&self) -> Result<Vec<u32>, Error> {
        let encode = |special| guarded(|| self.inner.encode_fast("a", special));
        let plain = encode(false).map_err(Error::Tokenize)?;
        let whole = encode(true).map_err(Error::Tokenize)?;
        let (plain, whole) = (plain.get_ids(), whole.get_ids());
        let text = whole
            .windows(plain.len().max(1))
            .position(|part| part == plain);
        Ok(whole[..text.unwrap_or(0)].to_vec())
    }

    /// The text of `ids`, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        guarded(|| self.inner.decode(ids, true)).map_err(Error::Tokenize)
    }

    /// The tokens whose text has `part` in it.
    pub fn holding(&self, part: &str) -> Result<Vec<u32>, Error> {
        let tokens = guarded(|| Ok(self.inner.get_vocab(true))).map_err(Error::Tokenize)?;
        let mut found = Vec::new();
        for id in tokens.into_values() {
            if self.decode(&[id])?.contains(part) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// What stands before a text in `mode`; the last of it stands after the text too.
    pub fn around(&self, mode: &str) -> Result<[u32; 3], Error> {
        let unknown = || Error::Tokenize(format!("`{mode}` is no token of the vocabulary").into());
        let mode = self.id(mode).ok_or_else(unknown)?;
        let empty = guarded(|| self.inner.encode_fast("", true)).map_err(Error::Tokenize)?;
        let &[start, end] = empty.get_ids() else {
            let problem = "its special tokens are not one before and one after the text";
            return Err(Error::Tokenize(problem.into()));
        };
        Ok([start, mode, end])
    }

    /// Encodes each of `pairs` as one sequence, as the model's own template puts two texts together,
    /// cut to `max_length` tokens from the longer text on. With `types`, those must be the token types
    /// of each.
    pub(super) fn encode_pairs(
        &self,
        pairs: Vec<(String, String)>,
        max_length: usize,
        types: Option<TokenTypes>,
    ) -> Result<Ragged<u32>, Error> {
        let encodings = self.encode_batch(pairs, max_length, true, Spans::NotFound)?;
        let other = |encoding: &Encoding| {
            let found = encoding.get_type_ids().iter().copied();
            types.is_some_and(|types| !found.eq(types.of(encoding.get_ids())))
        };
        if let Some(pair) = encodings.iter().position(other) {
            let separator = first_text(&encodings[pair]).last().copied();
            return Err(Error::Separator {
                pair,
                token: separator.and_then(|id| self.token(id)).unwrap_or_default(),
            });
        }
        Ok(encodings.iter().map(Encoding::get_ids).collect())
    }

    /// What ends the first of two texts, of a tokenizer that gives the second another token type, as
    /// BERT's does; RoBERTa's does not.
    pub(super) fn pair_separator(&self) -> Result<Option<u32>, Error> {
        let pair = vec![("a".to_owned(), "a".to_owned())];
        let encodings = self.encode_batch(pair, usize::MAX, true, Spans::NotFound)?;
        let told_apart = |pair: &&Encoding| first_text(pair).len() < pair.len();
        let pair = encodings.first().filter(told_apart);
        Ok(pair.and_then(|pair| first_text(pair).last().copied()))
    }

    fn encode_batch<'s>(
        &self,
        texts: Vec<impl Into<EncodeInput<'s>> + Send>,
        max_length: usize,
        special: bool,
        spans: Spans,
    ) -> Result<Vec<Encoding>, Error> {
        let too_many = |found: usize| Error::SpecialTokens {
            found,
            most: max_length,
        };
        // The library subtracts them without a look.
        let processor = self.inner.get_post_processor();
        let added = processor.map_or(0, |processor| processor.added_tokens(false));
        if special && added > max_length {
            return Err(too_many(added));
        }
        let mut tokenizer = self.inner.clone();
        let truncation = TruncationParams {
            max_length,
            stride: 0,
            strategy: TruncationStrategy::LongestFirst,
            direction: TruncationDirection::Right,
        };
        guarded(|| tokenizer.with_truncation(Some(truncation)).map(drop))
            .map_err(Error::Tokenize)?;
        // Text by text, as the library's own batches do: a panic is caught on its own thread.
        let texts = texts.into_par_iter();
        let encodings = texts.map(|text| {
            guarded(|| match spans {
                Spans::NotFound => tokenizer.encode_fast(text, special),
                Spans::Found => tokenizer.encode(text, special),
            })
        });
        let encodings = encodings.collect::<tokenizers::Result<Vec<_>>>();
        let encodings = encodings.map_err(Error::Tokenize)?;
        match encodings.iter().find(|found| found.len() > max_length) {
            Some(found) => Err(too_many(found.len())),
            None => Ok(encodings),
        }
    }
}

/// Whether it is found which bytes of a text each token stands for, which takes longer.
#[derive(Clone, Copy)]
enum Spans {
    Found,
    NotFound,
}

/// The ids of `pair` up to the first that is of another token type than 0.
fn first_text(pair: &Encoding) -> &[u32] {
    let types = pair.get_type_ids().iter();
    &pair.get_ids()[..types.take_while(|kind| **kind == 0).count()]
}

/// What `call` of the library returns; an error too if it panics, as it does at some files.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    // Nothing that `call` changes is used after a panic.
    caught(call).unwrap_or_else(|problem| Err(problem.into()))
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

    /// The library subtracts them from the length without a look.
    #[test]
    fn too_many_special_tokens_are_an_error() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/bert-tiny");
        let text = fs_err::read_to_string(golden.join("tokenizer.json")).expect("text");
        let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let single = &mut json["post_processor"]["single"];
        let first = single[0].clone();
        let items = single.as_array_mut().expect("a list");
        items.extend(vec![first; 20]);
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(json.to_string().as_bytes())
            .expect("written");
        let tokenizer = Tokenizer::open(file.path(), 400).expect("a tokenizer");
        let texts = || vec!["return".to_owned(), "a".to_owned()];
        assert!(tokenizer.encode(texts(), 64).is_ok());
        let found = tokenizer.encode(texts(), 16);
        assert!(
            matches!(
                found,
                Err(Error::SpecialTokens {
                    found: 22,
                    most: 16
                })
            ),
            "{found:?}"
        );
    }

    /// What is exported of a run with a mode token: a tokenizer that puts it there by itself.
    #[test]
    fn a_mode_can_be_built_in() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/roberta-tiny");
        let tokenizer = Tokenizer::open(&golden.join("tokenizer.json"), 400).expect("a tokenizer");
        let text = tokenizer.to_json_in_mode("<mask>").expect("text");
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        let built_in = Tokenizer::open(file.path(), 400).expect("a tokenizer");
        let texts = || {
            ["", "a", "return the number of words in it"]
                .map(String::from)
                .to_vec()
        };
        let found = built_in.encode(texts(), 9).expect("ids");
        let expected = tokenizer.encode_in_mode(texts(), "<mask>", 9);
        assert_eq!(found, expected.expect("ids"));
        assert_eq!((found.length(0), found.length(2)), (4, 9));
    }

    /// UniXcoder has ten token types and a tokenizer that uses one.
    #[test]
    fn two_texts_are_told_apart_as_the_template_says() {
        for (model, expected) in [("bert-tiny", Some("[SEP]")), ("roberta-tiny", None)] {
            let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
            let path = golden.join(model).join("tokenizer.json");
            let tokenizer = Tokenizer::open(&path, 400).expect("a tokenizer");
            let separator = tokenizer.pair_separator().expect("two texts");
            let token = separator.and_then(|id| tokenizer.token(id));
            assert_eq!(token.as_deref(), expected);
            let pair = |first: &str| vec![(first.to_owned(), "b".to_owned())];
            let types = separator.map_or(TokenTypes::Zero, TokenTypes::OneAfter);
            let encode = |first, types| tokenizer.encode_pairs(pair(first), 24, Some(types));
            let separated = encode("a [SEP] a", types);
            match expected {
                None => assert!(separated.is_ok()),
                Some(_) => assert!(matches!(separated, Err(Error::Separator { pair: 0, .. }))),
            }
            assert!(encode("a", types).is_ok());
            // A model that was not made one for pairs.
            assert_eq!(encode("a", TokenTypes::Zero).is_ok(), expected.is_none());
        }
    }

    #[test]
    fn spans_are_the_bytes_that_tokens_stand_for() {
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
        // WordPiece, and byte-level BPE, whose tokens may begin with a space.
        for name in ["bert-tiny", "roberta-tiny", "unixcoder-tiny"] {
            let tokenizer = goldens.join(name).join("tokenizer.json");
            let tokenizer = Tokenizer::open(&tokenizer, 400).expect("a tokenizer");
            let text = "return sum(values) + 12";
            let texts = || vec![text.to_owned(), "a né".to_owned()];
            let found = tokenizer
                .encode_with_spans(texts(), None, 64)
                .expect("tokens");
            let plain = tokenizer.encode(texts(), 64).expect("tokens");
            for (number, found) in found.iter().enumerate() {
                assert_eq!(found.ids, plain.sequence(number), "{name}");
                assert_eq!(found.ids.len(), found.spans.len());
                assert!(found.spans[0].is_empty() && found.spans[found.ids.len() - 1].is_empty());
            }
            // All of the text but its spaces, in order.
            let pieces = found[0].spans.iter().map(|span| text[span.clone()].trim());
            assert_eq!(pieces.collect::<String>(), text.replace(' ', ""), "{name}");
            // Bytes, not letters.
            let ends = found[1].spans.iter().map(|span| span.end);
            assert_eq!(ends.max(), Some("a né".len()), "{name}");
            let cut = tokenizer
                .encode_with_spans(texts(), None, 5)
                .expect("tokens");
            assert_eq!(cut[0].ids.len(), 5, "{name}");
            let whole = found[0].ids.len();
            let exact = tokenizer
                .encode_with_spans(texts(), None, whole)
                .expect("tokens");
            assert!(cut[0].cut && !exact[0].cut, "{name}");
            assert_eq!(cut[0].spans[..4], found[0].spans[..4], "{name}");
        }
    }

    #[test]
    fn a_mode_stands_for_no_text() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/unixcoder-tiny");
        let tokenizer = Tokenizer::open(&golden.join("tokenizer.json"), 400).expect("a tokenizer");
        let mode = "<encoder-only>";
        let texts = || vec!["return sum(values) + 12".to_owned()];
        let found = tokenizer
            .encode_with_spans(texts(), Some(mode), 8)
            .expect("tokens");
        let plain = tokenizer.encode_in_mode(texts(), mode, 8).expect("tokens");
        assert_eq!(found[0].ids, plain.sequence(0));
        let spans = &found[0].spans;
        assert!(spans[..3].iter().chain(&spans[7..]).all(Range::is_empty));
        assert_eq!((spans.len(), spans[3].start), (8, 0));
    }
}
