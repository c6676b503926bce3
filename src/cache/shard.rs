//! One shard: a safetensors file of consecutive sequences.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use safetensors::tensor::Dtype;
use safetensors::{SafeTensors, View};

use super::{EncodedStates, Error, Precision, ShardEntry};
use crate::mapping::MappedFile;
use crate::ragged::Ragged;

/// Tensor names in a shard.
const OFFSETS: &str = "offsets";
const IDS: &str = "ids";
const HIDDEN: &str = "hidden";
const SCALES: &str = "scales";

/// A tensor to be serialised.
struct Tensor<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl View for &Tensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// A shard's bytes: `ids` and, unless the cache holds token ids alone, `states` of `width`
/// numbers a token in `precision`.
pub(super) fn serialise(
    ids: &Ragged<u32>,
    states: Option<(Precision, usize, &EncodedStates)>,
) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let offsets: Vec<u8> = ids
        .offsets()
        .iter()
        .flat_map(|&offset| (offset as i64).to_le_bytes())
        .collect();
    let id_bytes: Vec<u8> = ids
        .values()
        .iter()
        .flat_map(|id| id.to_le_bytes())
        .collect();
    let mut tensors = vec![
        (
            OFFSETS,
            Tensor {
                dtype: Dtype::I64,
                shape: vec![ids.len() + 1],
                bytes: offsets.into(),
            },
        ),
        (
            IDS,
            Tensor {
                dtype: Dtype::U32,
                shape: vec![ids.tokens()],
                bytes: id_bytes.into(),
            },
        ),
    ];
    if let Some((precision, width, states)) = states {
        let tensor = Tensor {
            dtype: precision.dtype(),
            shape: vec![ids.tokens(), width],
            bytes: (&states.hidden).into(),
        };
        tensors.push((HIDDEN, tensor));
        if precision.has_scales() {
            let tensor = Tensor {
                dtype: Dtype::F32,
                shape: vec![ids.tokens()],
                bytes: (&states.scales).into(),
            };
            tensors.push((SCALES, tensor));
        }
    }
    safetensors::serialize(tensors.iter().map(|(name, tensor)| (*name, tensor)), None)
}

/// The exact length of a shard of `sequences` sequences with `tokens` tokens.
pub(super) fn serialised_length(
    sequences: usize,
    tokens: usize,
    hidden: Option<(Precision, usize)>,
) -> Result<u64, safetensors::SafeTensorError> {
    // The header's length depends on the digits of the offsets inside it, so it is made, with
    // the data's length alone.
    struct Sized {
        dtype: Dtype,
        shape: Vec<usize>,
    }
    impl View for &Sized {
        fn dtype(&self) -> Dtype {
            self.dtype
        }
        fn shape(&self) -> &[usize] {
            &self.shape
        }
        fn data(&self) -> Cow<'_, [u8]> {
            Cow::Borrowed(&[])
        }
        fn data_len(&self) -> usize {
            self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
        }
    }
    let mut tensors = vec![
        (
            OFFSETS,
            Sized {
                dtype: Dtype::I64,
                shape: vec![sequences + 1],
            },
        ),
        (
            IDS,
            Sized {
                dtype: Dtype::U32,
                shape: vec![tokens],
            },
        ),
    ];
    if let Some((precision, width)) = hidden {
        tensors.push((
            HIDDEN,
            Sized {
                dtype: precision.dtype(),
                shape: vec![tokens, width],
            },
        ));
        if precision.has_scales() {
            tensors.push((
                SCALES,
                Sized {
                    dtype: Dtype::F32,
                    shape: vec![tokens],
                },
            ));
        }
    }
    let data: usize = tensors.iter().map(|(_, tensor)| (&tensor).data_len()).sum();
    let header =
        safetensors::serialize(tensors.iter().map(|(name, tensor)| (*name, tensor)), None)?;
    Ok((header.len() + data) as u64)
}

/// An open shard, mapped.
pub(super) struct Shard {
    bytes: MappedFile,
    offsets: Vec<usize>,
    ids: Range<usize>,
    hidden: Option<Hidden>,
}

struct Hidden {
    precision: Precision,
    width: usize,
    range: Range<usize>,
    /// Empty where there are none.
    scales: Range<usize>,
}

impl Hidden {
    /// Where in the file the states of `tokens` are.
    fn of(&self, tokens: Range<usize>) -> Range<usize> {
        let size = self.width * self.precision.bytes();
        self.range.start + tokens.start * size..self.range.start + tokens.end * size
    }

    /// Where in the file the scales of `tokens` are; nowhere if there are none.
    fn scales_of(&self, tokens: Range<usize>) -> Range<usize> {
        if self.precision.has_scales() {
            let size = size_of::<f32>();
            self.scales.start + tokens.start * size..self.scales.start + tokens.end * size
        } else {
            self.scales.clone()
        }
    }
}

impl Shard {
    /// Maps the shard that `entry` describes, checking its length and header against it.
    pub(super) fn open(
        folder: &Path,
        entry: &ShardEntry,
        precision: Option<Precision>,
        width: usize,
    ) -> Result<Self, Error> {
        let path = folder.join(&entry.file);
        let damaged = |problem: String| Error::Damaged {
            path: path.clone(),
            problem,
        };
        let bytes = MappedFile::open(&path).map_err(Error::Read)?;
        if bytes.len() as u64 != entry.bytes {
            return Err(damaged(format!(
                "it has {} bytes, the manifest says {}",
                bytes.len(),
                entry.bytes
            )));
        }
        let tensors =
            SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
        let base = bytes.as_ptr().addr();
        let find = |name: &str, dtype: Dtype, shape: Vec<usize>| -> Result<Range<usize>, Error> {
            let tensor = tensors
                .tensor(name)
                .map_err(|error| damaged(error.to_string()))?;
            if tensor.dtype() != dtype || tensor.shape() != shape {
                return Err(damaged(format!(
                    "`{name}` is {:?} {:?}, expected {dtype:?} {shape:?}",
                    tensor.dtype(),
                    tensor.shape()
                )));
            }
            let start = tensor.data().as_ptr().addr() - base;
            Ok(start..start + tensor.data().len())
        };
        let offsets = find(OFFSETS, Dtype::I64, vec![entry.sequences + 1])?;
        let offsets = read_offsets(&bytes[offsets], entry.tokens).ok_or_else(|| {
            damaged(format!(
                "`offsets` does not rise from 0 to {}",
                entry.tokens
            ))
        })?;
        let ids = find(IDS, Dtype::U32, vec![entry.tokens])?;
        let hidden = precision
            .map(|precision| {
                let range = find(HIDDEN, precision.dtype(), vec![entry.tokens, width])?;
                let scales = if precision.has_scales() {
                    find(SCALES, Dtype::F32, vec![entry.tokens])?
                } else {
                    0..0
                };
                Ok(Hidden {
                    precision,
                    width,
                    range,
                    scales,
                })
            })
            .transpose()?;
        bytes.in_no_order();
        Ok(Self {
            bytes,
            offsets,
            ids,
            hidden,
        })
    }

    /// The tokens of sequence `index` of this shard.
    pub(super) fn tokens(&self, index: usize) -> Range<usize> {
        self.offsets[index]..self.offsets[index + 1]
    }

    /// How many sequences it holds.
    pub(super) fn sequences(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Has the kernel read the hidden states of `sequences`, and their scales, ahead.
    pub(super) fn will_need(&self, sequences: &Range<usize>) {
        if let Some(hidden) = &self.hidden {
            let tokens = self.offsets[sequences.start]..self.offsets[sequences.end];
            self.bytes.will_need(&hidden.of(tokens.clone()));
            let scales = hidden.scales_of(tokens);
            if !scales.is_empty() {
                self.bytes.will_need(&scales);
            }
        }
    }

    /// Gives the pages that have been read back to the kernel.
    pub(super) fn release(&self) {
        self.bytes.release();
    }

    /// Appends the token ids of sequence `index`.
    pub(super) fn read_ids(&self, index: usize, ids: &mut Vec<u32>) {
        let (numbers, _) = self.bytes[self.ids.clone()].as_chunks::<4>();
        ids.extend(
            numbers[self.tokens(index)]
                .iter()
                .map(|bytes| u32::from_le_bytes(*bytes)),
        );
    }

    /// Writes the hidden states of sequence `index`, `[tokens, width]`, to `states`, straight
    /// from the map.
    ///
    /// # Panics
    /// If the cache holds token ids alone.
    pub(super) fn read_hidden(&self, index: usize, states: &mut [f32]) {
        let (bytes, scales) = self.encoded(index);
        if let Some(hidden) = &self.hidden {
            hidden.precision.decode(bytes, scales, states);
        }
    }

    /// The states of sequence `index` as they are stored: numbers and scales.
    ///
    /// # Panics
    /// If the cache holds token ids alone.
    pub(super) fn encoded(&self, index: usize) -> (&[u8], &[u8]) {
        let hidden = self
            .hidden
            .as_ref()
            .expect("the caller checked that there are activations");
        let tokens = self.tokens(index);
        let scales = &self.bytes[hidden.scales_of(tokens.clone())];
        (&self.bytes[hidden.of(tokens)], scales)
    }

    /// BLAKE3 of the file, hexadecimal.
    pub(super) fn hash(&self) -> String {
        blake3::Hasher::new()
            .update_rayon(&self.bytes)
            .finalize()
            .to_hex()
            .to_string()
    }
}

/// Little-endian i64 offsets, if they rise from 0 to `tokens`.
fn read_offsets(bytes: &[u8], tokens: usize) -> Option<Vec<usize>> {
    let (numbers, _) = bytes.as_chunks::<8>();
    let offsets: Vec<usize> = numbers
        .iter()
        .map(|bytes| usize::try_from(i64::from_le_bytes(*bytes)).ok())
        .collect::<Option<_>>()?;
    let rises =
        offsets.is_sorted() && offsets.first() == Some(&0) && offsets.last() == Some(&tokens);
    rises.then_some(offsets)
}
