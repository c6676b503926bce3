//! One file of weights, mapped: what tensors it has and where their numbers lie.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorInfo};

use super::stored::{ElementType, StoredTensor};
use super::{Error, pytorch};
use crate::mapping::MappedFile;

/// How a weight file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `*.safetensors`.
    Safetensors,
    /// `*.bin`, by `torch.save`.
    Pytorch,
}

/// A mapped file and its tensors by name.
pub(super) struct WeightFile {
    pub(super) path: PathBuf,
    bytes: MappedFile,
    tensors: HashMap<String, StoredTensor>,
}

impl WeightFile {
    /// Maps `path` and checks that every tensor lies within it.
    pub(super) fn open(path: &Path, format: Format) -> Result<Self, Error> {
        let bytes = MappedFile::open(path).map_err(Error::Read)?;
        let tensors = match format {
            Format::Safetensors => safetensors(path, &bytes)?,
            Format::Pytorch => pytorch::read(&bytes).map_err(|source| Error::Pytorch {
                path: path.to_owned(),
                source,
            })?,
        };
        Ok(Self {
            path: path.to_owned(),
            bytes,
            tensors,
        })
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// The mapped bytes, in which the tensors lie.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the memory of what has been read back to the kernel.
    pub(super) fn release(&self) {
        self.bytes.release();
    }
}

fn safetensors(path: &Path, bytes: &MappedFile) -> Result<HashMap<String, StoredTensor>, Error> {
    // Besides the header this checks that the tensors fill the file exactly, so that none of them
    // reaches past the end of the map.
    let (header, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|source| Error::Safetensors {
            path: path.to_owned(),
            bytes: bytes.len(),
            source,
        })?;
    let data = size_of::<u64>() + header;
    let stored = |(name, info): (String, &TensorInfo)| {
        let (start, _) = info.data_offsets;
        let element = match info.dtype {
            Dtype::F64 => ElementType::F64,
            Dtype::F32 => ElementType::F32,
            Dtype::F16 => ElementType::F16,
            Dtype::BF16 => ElementType::Bf16,
            other => ElementType::Unread {
                name: unread(other),
                bytes: other.bitsize() / 8,
            },
        };
        let tensor = StoredTensor::row_major(element, info.shape.clone(), data + start);
        (name, tensor)
    };
    Ok(metadata.tensors().into_iter().map(stored).collect())
}

fn unread(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::BOOL => "BOOL",
        Dtype::U8 => "U8",
        Dtype::I8 => "I8",
        Dtype::I16 => "I16",
        Dtype::U16 => "U16",
        Dtype::I32 => "I32",
        Dtype::U32 => "U32",
        Dtype::I64 => "I64",
        Dtype::U64 => "U64",
        Dtype::F8_E4M3 => "F8_E4M3",
        Dtype::F8_E5M2 => "F8_E5M2",
        _ => "a type of another kind",
    }
}
