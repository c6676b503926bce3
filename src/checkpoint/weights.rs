//! Tensors out of `model.safetensors` or `pytorch_model.bin`, or the files that an index of either
//! names.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::stored::{ElementType, StoredTensor};
use super::weight_file::{Format, WeightFile};
use super::{Error, Family};

/// What is read, the first that is there.
pub(super) const SOURCES: [(&str, Format, Parts); 4] = [
    ("model.safetensors", Format::Safetensors, Parts::One),
    (
        "model.safetensors.index.json",
        Format::Safetensors,
        Parts::Index,
    ),
    ("pytorch_model.bin", Format::Pytorch, Parts::One),
    (
        "pytorch_model.bin.index.json",
        Format::Pytorch,
        Parts::Index,
    ),
];
/// Weight files of other kinds that a folder may hold, to name in the refusal.
const NOT_READ: [&str; 3] = ["tf_model.h5", "flax_model.msgpack", "model.onnx"];
/// What TensorFlow called the parts of a LayerNorm, as the oldest checkpoints still do.
const TENSORFLOW_NAMES: [(&str, &str); 2] = [
    ("LayerNorm.weight", "LayerNorm.gamma"),
    ("LayerNorm.bias", "LayerNorm.beta"),
];

/// Whether a file has the weights or names those that have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parts {
    One,
    Index,
}

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

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: std::collections::BTreeMap<String, String>,
}

impl Weights {
    /// Maps the weight files of `folder`.
    pub fn open(folder: &Path, family: Family) -> Result<Self, Error> {
        let source = SOURCES
            .iter()
            .find(|(name, ..)| folder.join(name).is_file());
        let Some((name, format, parts)) = source else {
            let found = NOT_READ.into_iter().find(|name| folder.join(name).exists());
            return Err(Error::NoWeights {
                folder: folder.to_owned(),
                found: found.map(Into::into),
            });
        };
        let names = match parts {
            Parts::One => BTreeSet::from([(*name).to_owned()]),
            Parts::Index => shard_names(&folder.join(name))?,
        };
        let files = names
            .iter()
            .map(|name| WeightFile::open(&folder.join(name), *format))
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

    /// Whether there is a tensor in the place of `name`.
    pub fn is_replaced(&self, name: &str) -> bool {
        self.replaced.contains_key(name)
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
        let (file, tensor) = self.find(name, shape)?;
        let numbers = tensor.floats(file.bytes());
        numbers.ok_or_else(|| unread(name, tensor.element))
    }

    /// Of tensor `name` as [`tensor`](Self::tensor) gives it, some `rows`.
    ///
    /// # Panics
    /// If they are not all there.
    pub fn rows(
        &self,
        name: &str,
        shape: [usize; 2],
        rows: Range<usize>,
    ) -> Result<Vec<f32>, Error> {
        if let Some(replacement) = self.replaced.get(name) {
            let values = replacement.values(name, &shape)?;
            return Ok(values[rows.start * shape[1]..rows.end * shape[1]].to_vec());
        }
        let (file, tensor) = self.find(name, &shape)?;
        let numbers = tensor.rows(rows).floats(file.bytes());
        numbers.ok_or_else(|| unread(name, tensor.element))
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
        self.files.iter().for_each(WeightFile::release);
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<(&WeightFile, &StoredTensor), Error> {
        let prefix = self.family.prefix();
        let older = TENSORFLOW_NAMES.iter().find_map(|(now, then)| {
            let stem = name.strip_suffix(now)?;
            Some(format!("{stem}{then}"))
        });
        let names = [Some(name.to_owned()), older].into_iter().flatten();
        let names: Vec<String> = names
            .flat_map(|name| [name.clone(), format!("{prefix}{name}")])
            .collect();
        let found = self.files.iter().find_map(|file| {
            let tensor = names.iter().find_map(|name| file.tensor(name))?;
            Some((file, tensor))
        });
        let (file, tensor) = found.ok_or_else(|| Error::MissingTensor {
            folder: self.folder.clone(),
            name: name.into(),
            prefix,
        })?;
        if tensor.shape != shape {
            return Err(Error::TensorShape {
                name: name.into(),
                found: tensor.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        if matches!(tensor.element, ElementType::Unread { .. }) {
            return Err(unread(name, tensor.element));
        }
        Ok((file, tensor))
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

fn unread(name: &str, found: ElementType) -> Error {
    Error::TensorType {
        name: name.into(),
        found: found.to_string(),
    }
}

/// The names of the weight files that the index `path` names, each a file beside it.
pub(super) fn shard_names(path: &Path) -> Result<BTreeSet<String>, Error> {
    let text = fs_err::read_to_string(path).map_err(Error::Read)?;
    let index: ShardIndex = serde_json::from_str(&text).map_err(|source| Error::Json {
        path: path.to_owned(),
        source,
    })?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    match names.iter().find(|name| !is_plain(name)) {
        Some(name) => Err(Error::ShardName {
            path: path.to_owned(),
            name: name.clone(),
        }),
        None if names.is_empty() => Err(Error::NoShards {
            path: path.to_owned(),
        }),
        None => Ok(names),
    }
}

/// Whether `name` is that of a file in a folder, and leads nowhere else.
fn is_plain(name: &str) -> bool {
    let safe = |letter: char| !letter.is_control() && !matches!(letter, '/' | '\\' | ':');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(safe)
}
