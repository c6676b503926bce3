//! Tensors out of `model.safetensors`, or the files that `model.safetensors.index.json` names.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserialize;

use super::{Error, Family};
use crate::mapping::MappedFile;

const SINGLE_FILE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Weight files of other kinds that a folder may hold, to name in the refusal.
const NOT_READ: [&str; 5] = [
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
    "flax_model.msgpack",
    "model.onnx",
];

/// A checkpoint's tensors, memory-mapped, found by name with or without the family's prefix.
pub struct Weights {
    folder: PathBuf,
    family: Family,
    files: Vec<WeightFile>,
    replaced: HashMap<String, Replacement>,
}

/// A tensor that is not the files' own.
struct Replacement {
    shape: Vec<usize>,
    values: Vec<f32>,
}

struct WeightFile {
    path: PathBuf,
    bytes: MappedFile,
    metadata: Metadata,
    data_start: usize,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: std::collections::BTreeMap<String, String>,
}

impl Weights {
    /// Maps the weight files of `folder`.
    pub fn open(folder: &Path, family: Family) -> Result<Self, Error> {
        let names: Vec<String> = if folder.join(SINGLE_FILE).is_file() {
            vec![SINGLE_FILE.into()]
        } else if folder.join(INDEX).is_file() {
            let path = folder.join(INDEX);
            let text = fs_err::read_to_string(&path).map_err(Error::Read)?;
            let index: ShardIndex =
                serde_json::from_str(&text).map_err(|source| Error::Json { path, source })?;
            let files: BTreeSet<String> = index.weight_map.into_values().collect();
            files.into_iter().collect()
        } else {
            let found = NOT_READ.into_iter().find(|name| folder.join(name).exists());
            return Err(Error::NoWeights {
                folder: folder.to_owned(),
                found: found.map(Into::into),
            });
        };
        let files = names
            .iter()
            .map(|name| WeightFile::open(&folder.join(name)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            folder: folder.to_owned(),
            family,
            files,
            replaced: HashMap::new(),
        })
    }

    /// Puts `values`, row-major, in the place of the tensor `name`, whether or not the files have
    /// one: what was trained over what it was trained from. [`hash`](Self::hash) stays that of the
    /// files.
    ///
    /// # Panics
    /// If there are not as many values as `shape` says.
    pub fn replace(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        assert_eq!(
            values.len(),
            shape.iter().product::<usize>(),
            "values of `{name}`"
        );
        let shape = shape.to_vec();
        let replacement = Replacement { shape, values };
        self.replaced.insert(name.into(), replacement);
    }

    /// Checks that tensor `name` is there with `shape` and a type that can be read.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<(), Error> {
        match self.replaced.get(name) {
            Some(replacement) => replacement.values(name, shape).map(drop),
            None => self.find(name, shape).map(drop),
        }
    }

    /// Tensor `name` as row-major f32, whatever precision it is stored in.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        if let Some(replacement) = self.replaced.get(name) {
            return replacement.values(name, shape).map(<[f32]>::to_vec);
        }
        let (file, info) = self.find(name, shape)?;
        let bytes = file.data(info);
        Ok(match info.dtype {
            Dtype::F16 => convert(bytes, |pair| f16::from_le_bytes(pair).to_f32()),
            Dtype::BF16 => convert(bytes, |pair| bf16::from_le_bytes(pair).to_f32()),
            // `find` lets no other type through.
            _ => convert(bytes, f32::from_le_bytes),
        })
    }

    /// BLAKE3 over the weight files in the order of their names, hexadecimal.
    ///
    /// The files are read, not mapped: all of them would count as this process's memory.
    pub fn hash(&self) -> Result<String, Error> {
        let mut hasher = blake3::Hasher::new();
        for file in &self.files {
            let reader = fs_err::File::open(&file.path).map_err(Error::Read)?;
            hasher.update_reader(reader).map_err(Error::Read)?;
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Gives the memory of what has been read back to the kernel; it can be read again.
    pub fn release(&self) {
        for file in &self.files {
            file.bytes.release();
        }
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<(&WeightFile, &TensorInfo), Error> {
        let prefixed = format!("{}{name}", self.family.prefix());
        let (file, info) = self
            .files
            .iter()
            .find_map(|file| {
                let info = file.metadata.info(name);
                let info = info.or_else(|| file.metadata.info(&prefixed));
                info.map(|info| (file, info))
            })
            .ok_or_else(|| Error::MissingTensor {
                folder: self.folder.clone(),
                name: name.into(),
                prefix: self.family.prefix(),
            })?;
        if info.shape != shape {
            return Err(Error::TensorShape {
                name: name.into(),
                found: info.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(Error::TensorType {
                name: name.into(),
                found: format!("{:?}", info.dtype),
            });
        }
        Ok((file, info))
    }
}

impl Replacement {
    /// The values of the tensor `name`, which must have `shape`.
    fn values(&self, name: &str, shape: &[usize]) -> Result<&[f32], Error> {
        if self.shape == shape {
            return Ok(&self.values);
        }
        Err(Error::TensorShape {
            name: name.into(),
            found: self.shape.clone(),
            expected: shape.to_vec(),
        })
    }
}

impl WeightFile {
    fn open(path: &Path) -> Result<Self, Error> {
        let bytes = MappedFile::open(path).map_err(Error::Read)?;
        // Besides the header this checks that the tensors fill the file exactly, so that
        // `data` cannot reach past the end of the map.
        let (header, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|source| Error::Safetensors {
                path: path.to_owned(),
                bytes: bytes.len(),
                source,
            })?;
        let data_start = size_of::<u64>() + header;
        Ok(Self {
            path: path.to_owned(),
            bytes,
            metadata,
            data_start,
        })
    }

    fn data(&self, info: &TensorInfo) -> &[u8] {
        let (start, end) = info.data_offsets;
        &self.bytes[self.data_start + start..self.data_start + end]
    }
}

/// Converts little-endian numbers of `N` bytes, in parallel: embeddings are large.
fn convert<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32 + Sync) -> Vec<f32> {
    let (numbers, _) = bytes.as_chunks::<N>();
    numbers.par_iter().map(|chunk| number(*chunk)).collect()
}
