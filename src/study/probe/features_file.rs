//! What probes saw, in a safetensors file: others can be trained on it, and these again.

use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::{Features, Probe, SplitFeatures, Tokens, Traversals};
use crate::mapping::MappedFile;
use crate::study::Error;
use crate::study::described::{self, finite_numbers, write_described};
use crate::study::syntax::{COMPLEXITY_CLASSES, TokenClass};

const KIND: &str = "features of probes";
const SPLITS: [&str; 2] = ["train", "test"];

/// What features were made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeaturesSource {
    /// Folder of the checkpoint or run, or its name on the hub.
    pub model: String,
    /// Most tokens of a text.
    pub max_length: usize,
    /// That functions and tokens were drawn by.
    pub seed: u64,
    /// Those that the features are for.
    pub probes: Vec<Probe>,
    codes_cut: [usize; 2],
    traversals_cut: [usize; 2],
}

impl FeaturesSource {
    /// That of `splits`, for `probes`: what `model` made of at most `max_length` tokens of each text drawn by
    /// `seed`.
    pub fn new(
        model: String,
        max_length: usize,
        seed: u64,
        probes: Vec<Probe>,
        splits: &[SplitFeatures; 2],
    ) -> Self {
        let traversals_cut =
            |split: &SplitFeatures| split.traversals.as_ref().map_or(0, |trees| trees.cut);
        Self {
            model,
            max_length,
            seed,
            probes,
            codes_cut: splits.each_ref().map(|split| split.codes_cut),
            traversals_cut: splits.each_ref().map(traversals_cut),
        }
    }

    /// Writes its `splits` as `folder/name`: features `[examples, layers, hidden]` as they are before a probe
    /// scales them, and labels. The file is whole or not there at all.
    pub fn write(
        &self,
        folder: &Path,
        name: &str,
        splits: &[SplitFeatures; 2],
    ) -> Result<(), Error> {
        let tensors = SPLITS.iter().zip(splits).flat_map(|(name, split)| {
            let tensors = tensors(split).into_iter();
            tensors.map(move |(what, view)| (format!("{name}.{what}"), view))
        });
        write_described(folder, name, KIND, self, tensors)
    }

    /// Reads the file `path` that was so written.
    pub fn read(path: &Path) -> Result<(Self, [SplitFeatures; 2]), Error> {
        let damaged = |problem: String| Error::Damaged {
            path: path.to_owned(),
            problem,
        };
        let file = MappedFile::open(path).map_err(Error::Read)?;
        let source: Self = described::source(path, &file, KIND)?;
        let tensors =
            SafeTensors::deserialize(&file).map_err(|error| damaged(error.to_string()))?;
        let split = |place: usize| source.split(&tensors, place).map_err(damaged);
        let splits = [split(0)?, split(1)?];
        let shape = |split: &SplitFeatures| [split.codes.layers(), split.codes.width()];
        let [train, test] = splits.each_ref().map(shape);
        if train != test {
            return Err(damaged(format!(
                "layers and numbers of a vector are {train:?} to learn from and {test:?} to test on"
            )));
        }
        Ok((source, splits))
    }

    /// The split at `place` out of `tensors`.
    fn split(&self, tensors: &SafeTensors, place: usize) -> Result<SplitFeatures, String> {
        let reading = Reading {
            tensors,
            split: SPLITS[place],
        };
        let codes = reading.features("codes")?;
        let count = codes.examples();
        if self.codes_cut[place].max(self.traversals_cut[place]) > count {
            return Err("more texts are cut than there are".into());
        }
        let has = |probe| self.probes.contains(&probe);
        Ok(SplitFeatures {
            codes_cut: self.codes_cut[place],
            traversals: has(Probe::Syntactic)
                .then(|| {
                    Ok::<_, String>(Traversals {
                        features: reading.alike("traversals", &codes, Some(count))?,
                        groups: reading.numbers("traversal_groups", Dtype::I64, count)?,
                        cut: self.traversals_cut[place],
                    })
                })
                .transpose()?,
            tokens: has(Probe::Lexical)
                .then(|| {
                    let features = reading.alike("tokens", &codes, None)?;
                    let count = features.examples();
                    Ok::<_, String>(Tokens {
                        classes: reading.below("token_classes", count, TokenClass::COUNT)?,
                        texts: reading.below("token_texts", count, codes.examples())?,
                        features,
                    })
                })
                .transpose()?,
            complexities: reading.below("complexities", count, COMPLEXITY_CLASSES)?,
            groups: has(Probe::Semantic)
                .then(|| reading.numbers("groups", Dtype::I64, count))
                .transpose()?,
            codes,
        })
    }
}

/// A split's tensors in a file, by their names without the split's.
struct Reading<'a> {
    tensors: &'a SafeTensors<'a>,
    split: &'static str,
}

impl Reading<'_> {
    fn tensor(&self, what: &str, dtype: Dtype, rank: usize) -> Result<TensorView<'_>, String> {
        let name = format!("{}.{what}", self.split);
        let tensor = self.tensors.tensor(&name);
        let tensor = tensor.map_err(|error| error.to_string())?;
        let (found, shape) = (tensor.dtype(), tensor.shape());
        if found != dtype || shape.len() != rank || shape.contains(&0) {
            return Err(format!("`{name}` is {found:?} {shape:?}"));
        }
        Ok(tensor)
    }

    /// `[examples, layers, hidden]`.
    fn features(&self, what: &str) -> Result<Features, String> {
        let tensor = self.tensor(what, Dtype::F32, 3)?;
        let numbers = finite_numbers(&tensor).ok_or_else(|| {
            let split = self.split;
            format!("`{split}.{what}` has a number that is not finite")
        })?;
        Ok(Features::new(numbers, tensor.shape()[1], tensor.shape()[2]))
    }

    /// As [`features`](Self::features), of the same layers as `codes`; of `count` examples if that is told.
    fn alike(
        &self,
        what: &str,
        codes: &Features,
        count: Option<usize>,
    ) -> Result<Features, String> {
        let found = self.features(what)?;
        let (layers, width) = (codes.layers(), codes.width());
        let count = count.unwrap_or(found.examples());
        if (found.examples(), found.layers(), found.width()) != (count, layers, width) {
            return Err(format!(
                "`{}.{what}` is [{}, {}, {}], expected [{count}, {layers}, {width}]",
                self.split,
                found.examples(),
                found.layers(),
                found.width()
            ));
        }
        Ok(found)
    }

    /// `count` numbers, each below `end`.
    fn below(&self, what: &str, count: usize, end: usize) -> Result<Vec<u32>, String> {
        let found = self.numbers::<u32>(what, Dtype::U32, count)?;
        match found.iter().find(|&&number| number as usize >= end) {
            None => Ok(found),
            Some(number) => Err(format!(
                "`{}.{what}` has {number}, expected 0 to {}",
                self.split,
                end - 1
            )),
        }
    }

    /// `count` numbers of `dtype`, which is that of `T`.
    fn numbers<T: bytemuck::AnyBitPattern>(
        &self,
        what: &str,
        dtype: Dtype,
        count: usize,
    ) -> Result<Vec<T>, String> {
        let tensor = self.tensor(what, dtype, 1)?;
        if tensor.shape() != [count] {
            return Err(format!(
                "`{}.{what}` is {:?}, expected [{count}]",
                self.split,
                tensor.shape()
            ));
        }
        let bytes = tensor.data().chunks_exact(size_of::<T>());
        Ok(bytes.map(bytemuck::pod_read_unaligned).collect())
    }
}

/// All of a split's tensors, by their names without the split's.
fn tensors(split: &SplitFeatures) -> Vec<(&'static str, TensorView<'_>)> {
    let tokens = split.tokens.as_ref();
    let traversals = split.traversals.as_ref();
    let found = [
        ("codes", Dtype::F32, Some(cube(&split.codes))),
        (
            "traversals",
            Dtype::F32,
            traversals.map(|trees| cube(&trees.features)),
        ),
        (
            "tokens",
            Dtype::F32,
            tokens.map(|tokens| cube(&tokens.features)),
        ),
        ("complexities", Dtype::U32, Some(row(&split.complexities))),
        (
            "token_classes",
            Dtype::U32,
            tokens.map(|tokens| row(&tokens.classes)),
        ),
        (
            "token_texts",
            Dtype::U32,
            tokens.map(|tokens| row(&tokens.texts)),
        ),
        ("groups", Dtype::I64, split.groups.as_deref().map(row)),
        (
            "traversal_groups",
            Dtype::I64,
            traversals.map(|trees| row(&trees.groups)),
        ),
    ];
    let found = found.into_iter().filter_map(|(what, dtype, tensor)| {
        let (shape, bytes) = tensor?;
        let view = TensorView::new(dtype, shape, bytes)
            .unwrap_or_else(|_| unreachable!("the bytes are those of the shape"));
        Some((what, view))
    });
    found.collect()
}

/// Shape `[examples, layers, width]` and bytes of `features`.
fn cube(features: &Features) -> (Vec<usize>, &[u8]) {
    let shape = vec![features.examples(), features.layers(), features.width()];
    (shape, bytemuck::cast_slice(features.values()))
}

/// Shape `[numbers]` and bytes of `numbers`.
fn row<T: bytemuck::NoUninit>(numbers: &[T]) -> (Vec<usize>, &[u8]) {
    (vec![numbers.len()], bytemuck::cast_slice(numbers))
}
