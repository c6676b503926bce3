//! One shard: a safetensors file of consecutive sequences.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;
use safetensors::tensor::Dtype;
use safetensors::{SafeTensors, View};
use serde::{Deserialize, Serialize};

use super::{Error, ShardEntry};
use crate::mapping::MappedFile;
use crate::ragged::Ragged;

/// Tensor names in a shard.
const OFFSETS: &str = "offsets";
const IDS: &str = "ids";
const HIDDEN: &str = "hidden";

/// `--precision`: how activations are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Half precision, 2 bytes a number.
    Fp16,
    /// Single precision, 4 bytes a number.
    Fp32,
}

impl Precision {
    fn dtype(self) -> Dtype {
        match self {
            Self::Fp16 => Dtype::F16,
            Self::Fp32 => Dtype::F32,
        }
    }

    /// Bytes a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::Fp16 => 2,
            Self::Fp32 => 4,
        }
    }

    /// Writes `numbers` to `bytes`, little-endian.
    pub fn encode(self, numbers: &[f32], bytes: &mut [u8]) {
        match self {
            Self::Fp16 => {
                let mut halves = vec![f16::ZERO; numbers.len()];
                halves.convert_from_f32_slice(numbers);
                let (pairs, _) = bytes.as_chunks_mut::<2>();
                for (pair, half) in pairs.iter_mut().zip(halves) {
                    *pair = half.to_le_bytes();
                }
            }
            Self::Fp32 => {
                let (words, _) = bytes.as_chunks_mut::<4>();
                for (word, number) in words.iter_mut().zip(numbers) {
                    *word = number.to_le_bytes();
                }
            }
        }
    }
}

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

/// A shard's bytes: `ids` and, unless the cache holds token ids alone, `hidden` `[tokens, width]`
/// already little-endian in `precision`.
pub(super) fn serialise(
    ids: &Ragged<u32>,
    hidden: Option<(Precision, usize, &[u8])>,
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
    if let Some((precision, width, bytes)) = hidden {
        let tensor = Tensor {
            dtype: precision.dtype(),
            shape: vec![ids.tokens(), width],
            bytes: bytes.into(),
        };
        tensors.push((HIDDEN, tensor));
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
    }
    let data: usize = tensors.iter().map(|(_, tensor)| (&tensor).data_len()).sum();
    let header =
        safetensors::serialize(tensors.iter().map(|(name, tensor)| (*name, tensor)), None)?;
    Ok((header.len() + data) as u64)
}

/// An open shard, mapped.
pub(super) struct Shard {
    path: PathBuf,
    bytes: MappedFile,
    offsets: Vec<usize>,
    ids: Range<usize>,
    hidden: Option<Hidden>,
}

struct Hidden {
    precision: Precision,
    width: usize,
    range: Range<usize>,
}

impl Hidden {
    /// Where in the file the states of `tokens` are.
    fn of(&self, tokens: Range<usize>) -> Range<usize> {
        let size = self.width * self.precision.bytes();
        self.range.start + tokens.start * size..self.range.start + tokens.end * size
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
                Ok(Hidden {
                    precision,
                    width,
                    range,
                })
            })
            .transpose()?;
        bytes.in_no_order();
        Ok(Self {
            path,
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

    /// Has the kernel read the hidden states of sequence `index` ahead.
    pub(super) fn will_need(&self, index: usize) {
        if let Some(hidden) = &self.hidden {
            self.bytes.will_need(&hidden.of(self.tokens(index)));
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
        let hidden = self
            .hidden
            .as_ref()
            .expect("the caller checked that there are activations");
        let bytes = &self.bytes[hidden.of(self.tokens(index))];
        match hidden.precision {
            // On a little-endian machine with an aligned map the cast succeeds and the
            // conversion uses the processor's own instructions.
            Precision::Fp16 => match bytemuck::try_cast_slice::<u8, f16>(bytes) {
                Ok(numbers) if cfg!(target_endian = "little") => {
                    numbers.convert_to_f32_slice(states);
                }
                _ => {
                    let (pairs, _) = bytes.as_chunks::<2>();
                    for (state, pair) in states.iter_mut().zip(pairs) {
                        *state = f16::from_le_bytes(*pair).to_f32();
                    }
                }
            },
            Precision::Fp32 => {
                let (words, _) = bytes.as_chunks::<4>();
                for (state, word) in states.iter_mut().zip(words) {
                    *state = f32::from_le_bytes(*word);
                }
            }
        }
    }

    /// BLAKE3 of the file, hexadecimal.
    pub(super) fn hash(&self) -> String {
        blake3::Hasher::new()
            .update_rayon(&self.bytes)
            .finalize()
            .to_hex()
            .to_string()
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
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
