//! `manifest.json`: what a cache holds. Its fields follow `docs/cache-format.md`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, Fingerprint, Precision};

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
const FORMAT: &str = "telly-activation-cache";
const VERSION: u64 = 2;
/// Version 1 has no checksum of the manifest, and knows fp16 and fp32 only.
const OLDEST_VERSION: u64 = 1;
/// What stands before and after the manifest's own checksum, the last thing in the file.
const CHECKSUM_START: &str = ",\n  \"blake3\": \"";
const CHECKSUM_END: &str = "\"\n}\n";

/// What a cache holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    format: String,
    version: u64,
    /// Whether every shard is written.
    pub complete: bool,
    /// What the cache was made from.
    pub fingerprint: Fingerprint,
    /// How records were encoded; the task's own words, opaque to the cache.
    pub encoding: Value,
    /// The classes, or null; opaque to the cache.
    pub labels: Value,
    /// The checkpoint's folder when the cache was made.
    pub model: String,
    /// Where the data file of each split lay when the cache was made, for a repair; null in caches
    /// of before it was kept. Opaque to the cache.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
    /// The most bytes of a shard; absent where `data` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_bytes: Option<u64>,
    /// Type of the stored activations; null when the cache holds token ids alone.
    pub precision: Option<Precision>,
    /// Numbers a token; 0 when the cache holds token ids alone.
    pub width: usize,
    /// How far a sample of the activations is from fp32, measured before the first shard; null
    /// when the cache holds token ids alone, absent in caches of before it was measured.
    #[serde(default)]
    pub parity: Option<Parity>,
    /// Distinct sequences.
    pub sequences: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Bytes of all shards.
    pub bytes: u64,
    /// The splits, in order.
    pub splits: Vec<SplitEntry>,
    /// The shards, in order of their sequences.
    pub shards: Vec<ShardEntry>,
}

/// A sample of hidden states compared with the same layers in fp32.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Parity {
    /// Sequences compared.
    pub sequences: usize,
    /// Their tokens.
    pub tokens: usize,
    /// The largest absolute difference of two numbers.
    pub max_absolute_error: f64,
    /// The same, of a token whose numbers are large in parts of their root mean square: where that is
    /// above 1. Decoders have tokens with numbers in the thousands (Sun et al., 2024). Absent in older
    /// caches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_scaled_error: Option<f64>,
    /// The mean of the absolute differences.
    pub mean_absolute_error: f64,
    /// The mean over tokens of the cosine between the two hidden states.
    pub mean_cosine: f64,
    /// The lowest of these cosines.
    pub min_cosine: f64,
}

/// One split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitEntry {
    /// `train`, `valid` or `test`.
    pub name: String,
    /// Rows of the data file.
    pub rows: usize,
    /// Sequences a row.
    pub columns: usize,
    /// Tokens of all rows, before identical sequences were merged.
    pub tokens: usize,
    /// The index file.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Its BLAKE3.
    pub blake3: String,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// The file.
    pub file: String,
    /// Sequences in it.
    pub sequences: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Its length.
    pub bytes: u64,
    /// Its BLAKE3; null until it is written.
    pub blake3: Option<String>,
}

impl Manifest {
    /// A manifest of nothing, to be filled in.
    pub fn new(fingerprint: Fingerprint) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            complete: false,
            fingerprint,
            encoding: Value::Null,
            labels: Value::Null,
            model: String::new(),
            data: Value::Null,
            shard_bytes: None,
            precision: None,
            width: 0,
            parity: None,
            sequences: 0,
            tokens: 0,
            bytes: 0,
            splits: Vec::new(),
            shards: Vec::new(),
        }
    }

    /// Reads the manifest of the cache in `folder`.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(MANIFEST);
        if !path.is_file() {
            return Err(Error::Missing {
                folder: folder.to_owned(),
            });
        }
        let bytes = fs_err::read(&path).map_err(Error::Read)?;
        let damaged = |problem: String| Error::Damaged {
            path: path.clone(),
            problem,
        };
        let text = String::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
        // The version is judged before the fields: another version may have others.
        let value: Value =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if value["format"] != FORMAT {
            return Err(damaged(format!(
                "`format` is {}, expected \"{FORMAT}\"",
                value["format"]
            )));
        }
        match value["version"].as_u64() {
            Some(OLDEST_VERSION) => {}
            Some(VERSION) => check_checksum(&text).map_err(damaged)?,
            found => {
                return Err(Error::Version {
                    path,
                    found: found.unwrap_or(0),
                    expected: VERSION,
                });
            }
        }
        let manifest: Self =
            serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        manifest.check().map_err(damaged)?;
        Ok(manifest)
    }

    /// Whether its numbers fit each other, so that readers can add and multiply them, and its files
    /// lie in the cache's folder.
    fn check(&self) -> Result<(), String> {
        for shard in &self.shards {
            // Each takes some bytes.
            let most = usize::try_from(shard.bytes).unwrap_or(usize::MAX);
            if shard.sequences >= most || shard.tokens >= most {
                return Err(format!(
                    "`{}` is to hold {} sequences and {} tokens in {} bytes",
                    shard.file, shard.sequences, shard.tokens, shard.bytes
                ));
            }
        }
        let sequences = total(self.shards.iter().map(|shard| shard.sequences as u64));
        let tokens = total(self.shards.iter().map(|shard| shard.tokens as u64));
        let bytes = total(self.shards.iter().map(|shard| shard.bytes));
        for (what, found, expected) in [
            ("sequences", sequences, self.sequences as u64),
            ("tokens", tokens, self.tokens as u64),
            ("bytes", bytes, self.bytes),
        ] {
            if found != Some(expected) {
                let found = found.map_or("more than can be".into(), |found| found.to_string());
                return Err(format!(
                    "its shards hold {found} {what}, expected {expected}"
                ));
            }
        }
        if total(
            [self.bytes]
                .into_iter()
                .chain(self.splits.iter().map(|split| split.bytes)),
        )
        .is_none()
        {
            return Err("its files have more bytes than can be".into());
        }
        // A token's states and scale, in the widest precision.
        let token_bytes = self
            .width
            .checked_add(1)
            .and_then(|numbers| numbers.checked_mul(size_of::<f32>()));
        if token_bytes
            .and_then(|bytes| bytes.checked_mul(self.tokens.max(1)))
            .is_none()
        {
            return Err(format!("`width` is {}", self.width));
        }
        if let Some(split) = self.splits.iter().find(|split| split.columns == 0) {
            return Err(format!("the {} split has 0 columns", split.name));
        }
        let splits = self.splits.iter().map(|split| &split.file);
        let mut files = self.shards.iter().map(|shard| &shard.file).chain(splits);
        if let Some(file) = files.find(|file| !is_name(file)) {
            return Err(format!("`{file}` is no name of a file in its folder"));
        }
        Ok(())
    }

    /// The file's content: JSON, its last field the checksum of what stands before it.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let current = Self {
            version: VERSION,
            ..self.clone()
        };
        let text = serde_json::to_string_pretty(&current)
            .unwrap_or_else(|_| unreachable!("a manifest has only string keys"));
        let fields = text.strip_suffix("\n}").unwrap_or(&text);
        let checksum = blake3::hash(fields.as_bytes()).to_hex();
        format!("{fields}{CHECKSUM_START}{checksum}{CHECKSUM_END}").into_bytes()
    }

    /// The entry of split `name`.
    pub fn split(&self, name: &str) -> Option<&SplitEntry> {
        self.splits.iter().find(|split| split.name == name)
    }
}

/// The sum, if it can be counted.
fn total(mut numbers: impl Iterator<Item = u64>) -> Option<u64> {
    numbers.try_fold(0u64, u64::checked_add)
}

/// Whether `file` is a name, not a path that may lead elsewhere.
fn is_name(file: &str) -> bool {
    Path::new(file).file_name() == Some(file.as_ref())
}

/// Compares the last field of the manifest's `text` with what stands before it.
fn check_checksum(text: &str) -> Result<(), String> {
    let Some((fields, rest)) = text.rsplit_once(CHECKSUM_START) else {
        return Err("it does not end with its own `blake3`".into());
    };
    let expected = blake3::hash(fields.as_bytes()).to_hex();
    if rest.strip_suffix(CHECKSUM_END) != Some(expected.as_str()) {
        return Err(format!(
            "its BLAKE3 is {expected}, its last field says otherwise"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a manifest of one shard and one split, changed by `change`.
    fn read(change: impl FnOnce(&mut Manifest)) -> Result<Manifest, Error> {
        let mut manifest = Manifest::new(Fingerprint::default());
        manifest.precision = Some(Precision::Int8);
        manifest.width = 3;
        (manifest.sequences, manifest.tokens, manifest.bytes) = (2, 5, 500);
        manifest.shards.push(ShardEntry {
            file: "shard-00000.safetensors".into(),
            sequences: 2,
            tokens: 5,
            bytes: 500,
            blake3: None,
        });
        manifest.splits.push(SplitEntry {
            name: "train".into(),
            rows: 2,
            columns: 1,
            tokens: 5,
            file: "train.safetensors".into(),
            bytes: 100,
            blake3: String::new(),
        });
        change(&mut manifest);
        let folder = tempfile::tempdir().expect("a folder");
        fs_err::write(folder.path().join(MANIFEST), manifest.to_bytes()).expect("written");
        Manifest::read(folder.path())
    }

    #[test]
    fn numbers_that_do_not_fit_each_other_are_refused() {
        assert!(read(|_| ()).is_ok());
        let changes: [fn(&mut Manifest); 8] = [
            |manifest| manifest.shards[0].sequences = usize::MAX,
            |manifest| manifest.shards[0].tokens = usize::MAX,
            |manifest| {
                let mut huge = manifest.shards[0].clone();
                huge.bytes = u64::MAX;
                manifest.shards.push(huge);
            },
            |manifest| manifest.tokens = 6,
            |manifest| manifest.bytes = 501,
            |manifest| manifest.width = usize::MAX / 8,
            |manifest| manifest.splits[0].bytes = u64::MAX,
            |manifest| manifest.splits[0].columns = 0,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let error = read(change).err();
            assert!(
                matches!(error, Some(Error::Damaged { .. })),
                "{number}: {error:?}"
            );
        }
    }

    #[test]
    fn files_elsewhere_are_refused() {
        for file in ["../shard", "/etc/passwd", "a/b", "..", ""] {
            let shard = read(|manifest| manifest.shards[0].file = file.into());
            let split = read(|manifest| manifest.splits[0].file = file.into());
            assert!(shard.is_err() && split.is_err(), "{file}");
        }
    }
}
