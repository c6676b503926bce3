//! The files that a tokenizer is built from where there is no `tokenizer.json`, as older
//! checkpoints have them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::Error;

pub(super) const TOKENIZER: &str = "tokenizer.json";
const VOCABULARY_JSON: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const VOCABULARY_TEXT: &str = "vocab.txt";
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const ADDED_TOKENS: &str = "added_tokens.json";
/// Besides the vocabulary's own.
const SETTINGS: [&str; 3] = [CONFIG, SPECIAL_TOKENS, ADDED_TOKENS];

/// Every file that says something about a tokenizer, for whoever brings a checkpoint's files; in
/// the order in which they are looked for.
pub(super) const ALL: [&str; 7] = [
    TOKENIZER,
    CONFIG,
    SPECIAL_TOKENS,
    ADDED_TOKENS,
    VOCABULARY_JSON,
    MERGES,
    VOCABULARY_TEXT,
];

/// The pieces of a vocabulary.
pub(super) enum Pieces {
    /// Byte-level BPE.
    Bytes {
        vocabulary: HashMap<String, u32>,
        merges: Vec<(String, String)>,
    },
    /// `WordPiece`.
    Words { vocabulary: HashMap<String, u32> },
}

/// What the vocabulary files of a folder hold.
pub(super) struct VocabularyFiles {
    /// The vocabulary itself, for messages.
    pub(super) path: PathBuf,
    pub(super) pieces: Pieces,
    /// `tokenizer_config.json`.
    pub(super) config: Map<String, Value>,
    /// `special_tokens_map.json`.
    pub(super) special: Map<String, Value>,
    /// `added_tokens.json`.
    pub(super) added: Map<String, Value>,
}

/// The files of `folder` that make its tokenizer: `tokenizer.json` alone where there is one.
pub(super) fn found(folder: &Path) -> Result<Vec<&'static str>, Error> {
    let there = |name: &&str| folder.join(name).is_file();
    if there(&TOKENIZER) {
        return Ok(vec![TOKENIZER]);
    }
    let mut names = if there(&VOCABULARY_JSON) && there(&MERGES) {
        vec![VOCABULARY_JSON, MERGES]
    } else if there(&VOCABULARY_TEXT) {
        vec![VOCABULARY_TEXT]
    } else {
        return Err(Error::NoTokenizer {
            folder: folder.to_owned(),
        });
    };
    names.extend(SETTINGS.iter().filter(|name| there(name)));
    Ok(names)
}

/// BLAKE3 of the tokenizer's files, hexadecimal: of the bytes of `tokenizer.json`, else of each
/// file's name, length and bytes.
pub(super) fn hash(folder: &Path) -> Result<String, Error> {
    let names = found(folder)?;
    let mut hasher = blake3::Hasher::new();
    for name in &names {
        let bytes = fs_err::read(folder.join(name)).map_err(Error::Read)?;
        if *name != TOKENIZER {
            hasher.update(format!("{name} {}\n", bytes.len()).as_bytes());
        }
        hasher.update(&bytes);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

impl VocabularyFiles {
    /// Reads the files of `folder`, which has no `tokenizer.json`.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let names = found(folder)?;
        let settings = |name: &str| {
            let path = folder.join(name);
            if names.contains(&name) {
                object(&path)
            } else {
                Ok(Map::new())
            }
        };
        let (path, pieces) = if names.contains(&VOCABULARY_JSON) {
            let path = folder.join(VOCABULARY_JSON);
            let vocabulary = serde_json::from_str(&text(&path)?).map_err(|source| Error::Json {
                path: path.clone(),
                source,
            })?;
            let merges = merges(&folder.join(MERGES))?;
            (path, Pieces::Bytes { vocabulary, merges })
        } else {
            let path = folder.join(VOCABULARY_TEXT);
            let vocabulary = lines(&text(&path)?);
            (path, Pieces::Words { vocabulary })
        };
        Ok(Self {
            path,
            pieces,
            config: settings(CONFIG)?,
            special: settings(SPECIAL_TOKENS)?,
            added: settings(ADDED_TOKENS)?,
        })
    }
}

fn text(path: &Path) -> Result<String, Error> {
    fs_err::read_to_string(path).map_err(Error::Read)
}

fn object(path: &Path) -> Result<Map<String, Value>, Error> {
    serde_json::from_str(&text(path)?).map_err(|source| Error::Json {
        path: path.to_owned(),
        source,
    })
}

/// One token a line; of equal ones the last counts.
fn lines(text: &str) -> HashMap<String, u32> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let lines = text.split('\n').zip(0..);
    let token = |line: &str| line.strip_suffix('\r').unwrap_or(line).to_owned();
    lines.map(|(line, id)| (token(line), id)).collect()
}

/// Pairs of pieces, the first to be merged first; a line that begins with `#version` says nothing.
fn merges(path: &Path) -> Result<Vec<(String, String)>, Error> {
    let text = text(path)?;
    let lines = text.lines().enumerate();
    let said = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"));
    let pair = |(index, line): (usize, &str)| match line.split(' ').collect::<Vec<_>>()[..] {
        [left, right] => Ok((left.to_owned(), right.to_owned())),
        _ => Err(Error::Vocabularies {
            path: path.to_owned(),
            problem: format!(
                "line {} is not two pieces with a space between them",
                index + 1
            ),
        }),
    };
    said.map(pair).collect()
}
