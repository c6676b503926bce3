//! What will be computed, before anything is.

use std::path::Path;

use serde_json::Value;

use crate::cache::{Fingerprint, Manifest, Precision, SplitRows, Writer};
use crate::checkpoint::{AttentionPattern, Checkpoint, Freeze, Identity};
use crate::dataset::Source;
use crate::distinct::Distinct;
use crate::error::Error;
use crate::frozen::{FrozenEncoder, Runtime};
use crate::ragged::Ragged;
use crate::targets::Targets;
use crate::task::{EncodedSplit, Encoding, Known, Labels, Role};

/// Distinct sequences, the rows made of them, and the manifests of the caches to be.
pub struct Plan {
    /// Distinct token sequences, in order of first appearance.
    pub sequences: Ragged<u32>,
    /// The splits' rows over them.
    pub splits: Vec<SplitRows>,
    /// One manifest a depth, shards laid out; but for what they were made from they are alike.
    pub manifests: Vec<Manifest>,
}

/// The splits as token sequences: what can be wrong with the data has been found by then.
pub struct EncodedSplits {
    labels: Option<Labels>,
    /// Absolute paths by split.
    files: Value,
    splits: Vec<(String, EncodedSplit)>,
}

impl EncodedSplits {
    /// What the user is to be told of rows that were left out.
    pub fn notices(&self) -> impl Iterator<Item = &str> {
        let splits = self.splits.iter();
        splits.filter_map(|(_, split)| split.notice.as_deref())
    }

    /// Reads and encodes `splits`, name and place, the training split first. Each file is read once;
    /// its text is never in memory whole.
    pub fn new(
        checkpoint: &Checkpoint,
        encoding: &Encoding,
        splits: &[(String, Source)],
    ) -> Result<Self, Error> {
        let files = splits.iter().map(|(name, source)| {
            let paths = source.given.iter().map(|path| absolute(path));
            let mut paths: Vec<Value> = paths.map(Value::from).collect();
            let paths = match paths.len() {
                1 => paths.remove(0),
                _ => paths.into(),
            };
            (name.clone(), paths)
        });
        let files = Value::Object(files.collect());
        let searched = splits.iter().find(|(name, _)| name == Role::CODE_BASE);
        let code_base = match (encoding, searched) {
            (Encoding::Search(search), Some((_, source))) => {
                Some(search.code_base(source.records()?)?)
            }
            _ => None,
        };
        let mut labels = None;
        let mut encoded = Vec::new();
        for (place, (name, source)) in splits.iter().enumerate() {
            let split = if place == 0 && encoding.has_labels() {
                let (split, found) = encoding.encode_training(source.records()?, checkpoint)?;
                labels = found;
                split
            } else {
                let known = Known {
                    labels: labels.as_ref(),
                    code_base: code_base.as_ref(),
                };
                encoding.encode_source(source, checkpoint, Role::of(name), known)?
            };
            encoded.push((name.clone(), split));
        }
        Ok(Self {
            labels,
            files,
            splits: encoded,
        })
    }
}

impl Plan {
    /// Lays out a cache for each of `freezes`; `frozen` is what will run, with a depth for each, and
    /// absent when nothing is frozen. A shard takes `shard_bytes` at most.
    pub fn new(
        checkpoint: &Checkpoint,
        freezes: &[Freeze],
        encoding: &Encoding,
        precision: Precision,
        shard_bytes: usize,
        EncodedSplits {
            labels,
            files,
            splits,
        }: EncodedSplits,
        frozen: Option<(&Runtime, &FrozenEncoder)>,
    ) -> Result<Self, Error> {
        let mut distinct = Distinct::default();
        let mut rows = Vec::new();
        let mut content = Fingerprint::default();
        for (name, encoded) in splits {
            content.set(&name, content_hash(&encoded, labels.as_ref()));
            rows.push(SplitRows {
                name,
                columns: encoded.columns,
                tokens: encoded.row_sequences().map(<[u32]>::len).sum(),
                rows: encoded
                    .row_sequences()
                    .map(|ids| distinct.index(ids))
                    .collect(),
                targets: encoded.targets,
            });
        }
        for name in ["valid", "test"] {
            if rows.iter().all(|split| split.name != name) {
                content.set(name, Value::Null);
            }
        }
        let identity = checkpoint.identity()?;
        let manifests = freezes.iter().enumerate().map(|(place, &freeze)| {
            let running = frozen.map(|(runtime, encoder)| (runtime, encoder, place));
            let model = (&identity, checkpoint.config.attention_pattern);
            let mut fingerprint = fingerprint(model, freeze, encoding, precision, running);
            for (field, value) in content.iter() {
                fingerprint.set(field, value.clone());
            }
            let mut manifest = Manifest::new(fingerprint);
            manifest.encoding = to_value(encoding);
            manifest.labels = to_value(&labels);
            manifest.model = absolute(&checkpoint.folder);
            manifest.data = files.clone();
            if frozen.is_some() {
                manifest.precision = Some(precision);
                manifest.width = checkpoint.config.hidden_size;
            }
            Writer::plan_shards(&mut manifest, &distinct.sequences, shard_bytes)?;
            Ok(manifest)
        });
        let manifests = manifests.collect::<Result<_, Error>>()?;
        Ok(Self {
            sequences: distinct.sequences,
            splits: rows,
            manifests,
        })
    }

    /// What holds for the cache of every depth: sequences, tokens, shards.
    ///
    /// # Panics
    /// Without a depth.
    pub fn layout(&self) -> &Manifest {
        &self.manifests[0]
    }

    /// Bytes of all caches' shards.
    pub fn bytes(&self) -> u64 {
        self.manifests.iter().map(|manifest| manifest.bytes).sum()
    }

    /// Sequences before identical ones were merged.
    pub fn all_sequences(&self) -> usize {
        self.splits.iter().map(|split| split.rows.len()).sum()
    }
}

/// `runtime`, as a fingerprint says it.
pub fn runtime_name(runtime: &Runtime) -> String {
    format!("onnxruntime {}", runtime.version)
}

/// What the activations follow from, but for the data. `running` is the frozen half, and the place
/// of `freeze` among its depths.
fn fingerprint(
    (identity, pattern): (&Identity, AttentionPattern),
    freeze: Freeze,
    encoding: &Encoding,
    precision: Precision,
    running: Option<(&Runtime, &FrozenEncoder, usize)>,
) -> Fingerprint {
    let mut fingerprint = Fingerprint::default();
    fingerprint.set("weights", identity.weights.as_str());
    fingerprint.set("config", identity.config.as_str());
    fingerprint.set("tokenizer", identity.tokenizer.as_str());
    fingerprint.set("freeze", to_value(&freeze));
    fingerprint.set("encoding", to_value(encoding));
    fingerprint.set("attention", attention(pattern));
    match running {
        Some((runtime, encoder, place)) => {
            fingerprint.set("graph", encoder.graph_hashes()[place].as_str());
            fingerprint.set("runtime", runtime_name(runtime));
            fingerprint.set("provider", encoder.provider().to_string());
            fingerprint.set("frozen_precision", encoder.precision().to_string());
            fingerprint.set("precision", to_value(&precision));
        }
        None => {
            for field in [
                "graph",
                "runtime",
                "provider",
                "frozen_precision",
                "precision",
            ] {
                fingerprint.set(field, Value::Null);
            }
        }
    }
    fingerprint
}

/// What a fingerprint calls `pattern`.
fn attention(pattern: AttentionPattern) -> &'static str {
    match pattern {
        AttentionPattern::Bidirectional => "bidirectional",
        AttentionPattern::Causal => "causal",
        AttentionPattern::Prefix(_) => "prefix",
    }
}

/// BLAKE3 over a split's rows in order: token ids, and labels by their names, or by their numbers
/// where there are no names.
pub fn content_hash(split: &EncodedSplit, labels: Option<&Labels>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(split.columns as u64).to_le_bytes());
    for ids in split.row_sequences() {
        hasher.update(&(ids.len() as u64).to_le_bytes());
        for id in ids {
            hasher.update(&id.to_le_bytes());
        }
    }
    let name = |class: usize| match labels {
        Some(labels) => labels.label(class).to_string(),
        None => class.to_string(),
    };
    match &split.targets {
        Targets::None => {}
        Targets::Classes(classes) => {
            for &class in classes {
                // Classes are indices, so they are small and not negative.
                hasher.update(name(usize::try_from(class).unwrap_or_default()).as_bytes());
                hasher.update(b"\n");
            }
        }
        Targets::Sets { classes, members } => {
            for members in members.chunks(*classes) {
                for (class, _) in members.iter().enumerate().filter(|(_, found)| **found == 1) {
                    hasher.update(name(class).as_bytes());
                    hasher.update(b"\t");
                }
                hasher.update(b"\n");
            }
        }
        Targets::Numbers(numbers) => {
            for number in numbers {
                hasher.update(&number.to_le_bytes());
            }
        }
        Targets::Texts {
            first_scored,
            references,
            ..
        } => {
            for first in first_scored {
                hasher.update(&first.to_le_bytes());
            }
            for reference in references {
                hasher.update(&(reference.len() as u64).to_le_bytes());
                hasher.update(reference.as_bytes());
            }
        }
        Targets::Tokens(_) => unreachable!("of a batch"),
    }
    hasher.finalize().to_hex().to_string()
}

/// `path` from wherever it may be used; as it is where that cannot be found out.
pub(super) fn absolute(path: &Path) -> String {
    let found = fs_err::canonicalize(path);
    let path = found.unwrap_or_else(|_| path.to_owned());
    path.display().to_string()
}

pub(super) fn to_value(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|_| unreachable!("plain data with string keys"))
}
