//! Reading a cache, memory-mapped.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::shard::Shard;
use super::{Error, Fingerprint, Manifest, SplitEntry};
use crate::ragged::Ragged;
use crate::targets::Targets;

/// What a split's file calls the class of each row, I64 `[rows]`.
pub(super) const CLASSES: &str = "labels";
/// The set of labels of each row, U8 `[rows, labels]`.
pub(super) const SETS: &str = "label_sets";
/// The number of each row, F32 `[rows]`.
pub(super) const NUMBERS: &str = "label_numbers";
/// The place of the first token that is scored.
pub(super) const FIRST_SCORED: &str = "first_scored";
/// The texts that are wanted, in UTF-8, one after the other, and where each begins and the last ends.
pub(super) const REFERENCES: &str = "references";
pub(super) const REFERENCE_OFFSETS: &str = "reference_offsets";

/// An open cache: shards are mapped, nothing is read until it is asked for.
pub struct Cache {
    folder: PathBuf,
    manifest: Manifest,
    shards: Vec<Shard>,
    /// First sequence of each shard.
    starts: Vec<usize>,
    /// Bytes read since pages were last given back.
    unreleased: AtomicUsize,
}

/// Pages are given back to the kernel each time that so many bytes have been read, so that the
/// process takes no more memory however large the cache is. The kernel maps many pages around
/// each that is touched: what is held between two releases is some ten times this.
const RELEASE_BYTES: usize = 2 << 20;

/// One split's index.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Sequences a row.
    pub columns: usize,
    /// Index of each row's sequences, row after row.
    pub rows: Vec<usize>,
    /// What each row is to come to.
    pub targets: Targets,
}

impl Split {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.len() / self.columns
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The sequence in `column` of `row`.
    pub fn sequence(&self, row: usize, column: usize) -> usize {
        self.rows[row * self.columns + column]
    }

    /// All sequences of `rows`, column after column.
    pub fn sequences_of(&self, rows: &[usize]) -> Vec<usize> {
        let columns = 0..self.columns;
        let sequences =
            columns.flat_map(|column| rows.iter().map(move |&row| self.sequence(row, column)));
        sequences.collect()
    }
}

impl Cache {
    /// Opens the complete cache in `folder`; checks lengths and headers of all its files.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let manifest = Manifest::read(folder)?;
        let written = manifest
            .shards
            .iter()
            .filter(|shard| shard.blake3.is_some())
            .count();
        if !manifest.complete {
            return Err(Error::Incomplete {
                folder: folder.to_owned(),
                written,
                planned: manifest.shards.len(),
            });
        }
        let shards = manifest.shards.iter();
        let shards = shards
            .map(|entry| Shard::open(folder, entry, manifest.precision, manifest.width))
            .collect::<Result<Vec<_>, _>>()?;
        let starts = manifest.shards.iter().scan(0, |start, shard| {
            let this = *start;
            *start += shard.sequences;
            Some(this)
        });
        Ok(Self {
            folder: folder.to_owned(),
            starts: starts.collect(),
            unreleased: AtomicUsize::new(0),
            shards,
            manifest,
        })
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// BLAKE3 of what the cache was made from and of what it holds; its folder and the
    /// checkpoint's do not count.
    pub fn identity(&self) -> String {
        let content = json!([
            self.manifest.fingerprint,
            self.manifest.splits,
            self.manifest.shards
        ]);
        blake3::hash(content.to_string().as_bytes())
            .to_hex()
            .to_string()
    }

    /// Refuses a cache whose fingerprint differs in any field of `current`.
    pub fn require(&self, current: &Fingerprint, hint: &str) -> Result<(), Error> {
        let differences = self.manifest.fingerprint.differences(current);
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::Stale {
            folder: self.folder.clone(),
            differences,
            hint: hint.into(),
        })
    }

    /// The index of split `name`, if the cache has it.
    pub fn split(&self, name: &str) -> Result<Option<Split>, Error> {
        self.manifest
            .split(name)
            .map(|entry| self.read_split(entry))
            .transpose()
    }

    /// Tokens of sequence `index`.
    pub fn length(&self, index: usize) -> usize {
        let (shard, index) = self.locate(index);
        shard.tokens(index).len()
    }

    /// Bytes that a token takes of the activations; of the token ids if there are none.
    pub fn token_bytes(&self) -> u64 {
        let bytes = self
            .manifest
            .precision
            .map_or(size_of::<u32>(), |precision| {
                precision.token_bytes(self.manifest.width)
            });
        bytes as u64
    }

    /// Has the kernel read the activations of `sequences`, which lie side by side, ahead: one
    /// range a shard.
    pub fn will_need(&self, sequences: &Range<usize>) {
        let mut left = sequences.clone();
        while !left.is_empty() {
            let (shard, first) = self.locate(left.start);
            let count = left.len().min(shard.sequences() - first);
            shard.will_need(&(first..first + count));
            left.start += count;
        }
    }

    /// Hidden states of `sequences`, converted to f32 straight out of the map.
    ///
    /// # Panics
    /// If the cache holds token ids alone.
    pub fn hidden_states(&self, sequences: &[usize]) -> Ragged<f32> {
        let width = self.manifest.width;
        let offsets = self.offsets(sequences);
        let mut values = vec![0.0; offsets[sequences.len()] * width];
        self.read_hidden_states(sequences, &mut values);
        Ragged::from_parts(values, offsets, width)
    }

    /// Where each of `sequences` starts when they lie end to end, and the end: `[sequences + 1]`, in
    /// tokens.
    pub fn offsets(&self, sequences: &[usize]) -> Vec<usize> {
        let mut offsets = vec![0];
        for &index in sequences {
            offsets.push(offsets[offsets.len() - 1] + self.length(index));
        }
        offsets
    }

    /// As [`hidden_states`](Self::hidden_states), to `values`, `[tokens, width]`, which the caller has.
    ///
    /// # Panics
    /// If the cache holds token ids alone, or `values` is too short.
    pub fn read_hidden_states(&self, sequences: &[usize], values: &mut [f32]) {
        self.will_need_each(sequences);
        let mut left = &mut *values;
        for &index in sequences {
            let numbers = self.length(index) * self.manifest.width;
            let (states, rest) = left.split_at_mut(numbers);
            left = rest;
            let (shard, index) = self.locate(index);
            shard.read_hidden(index, states);
        }
        self.read(size_of_val(values));
    }

    /// As [`will_need`](Self::will_need), of sequences that lie anywhere: those that follow one
    /// another are asked for at once.
    pub fn will_need_each(&self, sequences: &[usize]) {
        for run in sequences.chunk_by(|one, next| one + 1 == *next) {
            self.will_need(&(run[0]..run[0] + run.len()));
        }
    }

    /// Token ids of `sequences`.
    pub fn token_ids(&self, sequences: &[usize]) -> Ragged<u32> {
        let mut ids = Ragged::new(1);
        let mut sequence = Vec::new();
        for &index in sequences {
            let (shard, index) = self.locate(index);
            sequence.clear();
            shard.read_ids(index, &mut sequence);
            ids.push(&sequence);
        }
        ids
    }

    /// Counts bytes read; gives pages back now and then.
    fn read(&self, bytes: usize) {
        let before = self.unreleased.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes >= RELEASE_BYTES {
            self.unreleased.store(0, Ordering::Relaxed);
            self.shards.iter().for_each(Shard::release);
        }
    }

    fn locate(&self, index: usize) -> (&Shard, usize) {
        let shard = self.starts.partition_point(|&start| start <= index) - 1;
        (&self.shards[shard], index - self.starts[shard])
    }

    fn read_split(&self, entry: &SplitEntry) -> Result<Split, Error> {
        let path = self.folder.join(&entry.file);
        let damaged = |problem: String| Error::Damaged {
            path: path.clone(),
            problem,
        };
        let bytes = fs_err::read(&path).map_err(Error::Read)?;
        if blake3::hash(&bytes).to_hex().as_str() != entry.blake3 {
            return Err(damaged("its checksum is not the manifest's".into()));
        }
        let tensors =
            SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
        let rows = tensors
            .tensor("rows")
            .map_err(|error| damaged(error.to_string()))?;
        let shape = vec![entry.rows, entry.columns];
        if rows.dtype() != Dtype::U32 || rows.shape() != shape {
            return Err(damaged(format!("`rows` is not u32 {shape:?}")));
        }
        let (rows, _) = rows.data().as_chunks::<4>();
        let rows: Vec<usize> = rows
            .iter()
            .map(|row| u32::from_le_bytes(*row) as usize)
            .collect();
        if rows.iter().any(|&row| row >= self.manifest.sequences) {
            return Err(damaged(
                "`rows` names a sequence that the cache does not hold".into(),
            ));
        }
        let lengths = || rows.iter().map(|&row| self.length(row)).collect();
        let targets = read_targets(&tensors, entry.rows, &lengths).map_err(damaged)?;
        Ok(Split {
            columns: entry.columns,
            rows,
            targets,
        })
    }
}

/// What the `rows` rows of a split's file are to come to; `lengths` are the tokens of their sequences.
fn read_targets(
    tensors: &SafeTensors,
    rows: usize,
    lengths: &dyn Fn() -> Vec<usize>,
) -> Result<Targets, String> {
    let find = |name: &str, dtype: Dtype, width: Option<usize>| {
        let Ok(tensor) = tensors.tensor(name) else {
            return Ok(None);
        };
        let shape = std::iter::once(rows).chain(width).collect::<Vec<_>>();
        if tensor.dtype() != dtype || tensor.shape() != shape {
            return Err(format!("`{name}` is not {dtype:?} {shape:?}").to_lowercase());
        }
        Ok(Some(tensor))
    };
    if let Some(labels) = find(CLASSES, Dtype::I64, None)? {
        let (labels, _) = labels.data().as_chunks::<8>();
        let classes = labels.iter().map(|label| i64::from_le_bytes(*label));
        return Ok(Targets::Classes(classes.collect()));
    }
    if let Some(numbers) = find(NUMBERS, Dtype::F32, None)? {
        let (numbers, _) = numbers.data().as_chunks::<4>();
        let numbers = numbers.iter().map(|number| f32::from_le_bytes(*number));
        return Ok(Targets::Numbers(numbers.collect()));
    }
    if let Some(texts) = read_texts(&find, tensors, lengths)? {
        return Ok(texts);
    }
    let width = match tensors.tensor(SETS) {
        Ok(sets) => sets.shape().get(1).copied().unwrap_or_default().max(1),
        Err(_) => return Ok(Targets::None),
    };
    let Some(sets) = find(SETS, Dtype::U8, Some(width))? else {
        return Ok(Targets::None);
    };
    if sets.data().iter().any(|&member| member > 1) {
        return Err(format!("`{SETS}` holds what is neither 0 nor 1"));
    }
    Ok(Targets::Sets {
        classes: width,
        members: sets.data().to_vec(),
    })
}

/// Looks up a tensor of one number a row.
type Find<'f, 't> =
    dyn Fn(&str, Dtype, Option<usize>) -> Result<Option<TensorView<'t>>, String> + 'f;

/// The texts that rows are to come to whose sequences have so many tokens, if they are.
fn read_texts(
    find: &Find,
    tensors: &SafeTensors,
    lengths: &dyn Fn() -> Vec<usize>,
) -> Result<Option<Targets>, String> {
    let words = |tensor: TensorView| -> Vec<u32> {
        let (numbers, _) = tensor.data().as_chunks::<4>();
        let numbers = numbers.iter().map(|number| u32::from_le_bytes(*number));
        numbers.collect()
    };
    let Some(first_scored) = find(FIRST_SCORED, Dtype::U32, None)?.map(words) else {
        return Ok(None);
    };
    let lengths = lengths();
    let places = first_scored.iter().map(|&first| first as usize);
    let wrong = places
        .zip(&lengths)
        .position(|(first, &length)| first == 0 || first > length);
    if let Some(row) = wrong {
        return Err(format!(
            "`{FIRST_SCORED}` of row {row} is not within its sequence"
        ));
    }
    let references = match (
        tensors.tensor(REFERENCE_OFFSETS),
        tensors.tensor(REFERENCES),
    ) {
        (Ok(offsets), texts) => {
            // Empty where every reference is.
            let text = texts.map(|text| text.data().to_vec()).unwrap_or_default();
            cut(offsets.data(), &text, first_scored.len()).ok_or_else(|| {
                format!("`{REFERENCE_OFFSETS}` does not cut `{REFERENCES}` into texts")
            })?
        }
        _ => Vec::new(),
    };
    #[allow(clippy::cast_possible_truncation)] // A sequence fits in a model's positions.
    let lengths = lengths.into_iter().map(|length| length as u32).collect();
    Ok(Some(Targets::Texts {
        first_scored,
        lengths,
        references,
    }))
}

/// `text` cut at the little-endian i64 `offsets` into `rows` texts, if it can be.
fn cut(offsets: &[u8], text: &[u8], rows: usize) -> Option<Vec<String>> {
    let (offsets, _) = offsets.as_chunks::<8>();
    let offsets = offsets
        .iter()
        .map(|bytes| usize::try_from(i64::from_le_bytes(*bytes)).ok());
    let offsets = offsets.collect::<Option<Vec<usize>>>()?;
    if offsets.len() != rows + 1 {
        return None;
    }
    let texts = offsets.windows(2).map(|bounds| {
        let bytes = text.get(bounds[0]..bounds[1])?;
        String::from_utf8(bytes.to_vec()).ok()
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with the right checksum is still not taken at its word.
    #[test]
    fn labels_are_one_for_each_row() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut manifest = Manifest::new(Fingerprint::default());
        manifest.sequences = 1;
        let cache = Cache {
            folder: folder.path().to_owned(),
            manifest,
            shards: Vec::new(),
            starts: Vec::new(),
            unreleased: AtomicUsize::new(0),
        };
        for (labels, dtype, whole) in [
            (2, Dtype::I64, true),
            (1, Dtype::I64, false),
            (2, Dtype::U64, false),
        ] {
            let zeros = [0; 16];
            let view = |dtype, shape, bytes| TensorView::new(dtype, shape, bytes).expect("a view");
            let tensors = [
                ("rows", view(Dtype::U32, vec![2, 1], &zeros[..8])),
                ("labels", view(dtype, vec![labels], &zeros[..8 * labels])),
            ];
            let bytes = safetensors::serialize(tensors, None).expect("bytes");
            fs_err::write(folder.path().join("train.safetensors"), &bytes).expect("written");
            let split = cache.read_split(&SplitEntry {
                name: "train".into(),
                rows: 2,
                columns: 1,
                tokens: 2,
                file: "train.safetensors".into(),
                bytes: bytes.len() as u64,
                blake3: blake3::hash(&bytes).to_hex().to_string(),
            });
            assert_eq!(split.is_ok(), whole, "{labels} {dtype:?}");
        }
    }
}
