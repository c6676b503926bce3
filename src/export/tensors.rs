//! `model.safetensors` of an export.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::View;

use super::classes::Target;
use super::{Error, TrainedModel};
use crate::checkpoint::Weights;

const FILE: &str = "model.safetensors";

/// `--dtype`: how weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum StoredType {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, IEEE half precision.
    Fp16,
    /// 16 bits, bfloat16.
    Bf16,
}

impl StoredType {
    /// As in `dtype` of `config.json`.
    pub(super) fn in_config(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Fp16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Fp16 | Self::Bf16 => 2,
        }
    }
}

/// Writes every tensor of the encoder and of `target`'s head, one after the other: no second copy
/// of the model is made.
pub(super) fn write(
    folder: &Path,
    trained: &TrainedModel,
    target: &Target,
    stored: StoredType,
) -> Result<(), Error> {
    let checkpoint = &trained.checkpoint;
    let problem = RefCell::new(None);
    let encoder = checkpoint.config.tensors().filter_map(|(name, shape)| {
        let written = format!("{}{name}", target.prefix);
        let replaced = target.head.iter().any(|tensor| tensor.name == written);
        let source = Source::Encoder(&checkpoint.weights, name);
        (!replaced).then_some((written, shape, source))
    });
    let head = target.head.iter().map(|tensor| {
        let source = Source::Values(&tensor.values);
        (tensor.name.clone(), tensor.shape.clone(), source)
    });
    let tensors: Vec<(String, StoredTensor)> = encoder
        .chain(head)
        .map(|(name, shape, source)| {
            let tensor = StoredTensor {
                name: name.clone(),
                shape,
                source,
                stored,
                problem: &problem,
            };
            (name, tensor)
        })
        .collect();
    // `transformers` refuses a file that does not say so.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(tensors, Some(metadata), &folder.join(FILE))
        .map_err(|error| Error::Write(io::Error::other(error)))?;
    problem.into_inner().map_or(Ok(()), Err)
}

enum Source<'a> {
    Encoder(&'a Weights, String),
    Values(&'a [f32]),
}

/// A tensor that is read when it is written.
struct StoredTensor<'a> {
    name: String,
    shape: Vec<usize>,
    source: Source<'a>,
    stored: StoredType,
    /// The first thing that went wrong: the library asks for bytes and takes no error.
    problem: &'a RefCell<Option<Error>>,
}

impl StoredTensor<'_> {
    fn numbers(&self) -> Result<Cow<'_, [f32]>, Error> {
        Ok(match &self.source {
            Source::Encoder(weights, name) => Cow::Owned(weights.tensor(name, &self.shape)?),
            Source::Values(values) => Cow::Borrowed(*values),
        })
    }

    fn bytes(&self) -> Result<Vec<u8>, Error> {
        let numbers = self.numbers()?;
        let numbers = numbers.iter();
        Ok(match self.stored {
            StoredType::F32 => numbers.flat_map(|number| number.to_le_bytes()).collect(),
            StoredType::Bf16 => numbers
                .flat_map(|&number| bf16::from_f32(number).to_le_bytes())
                .collect(),
            StoredType::Fp16 => {
                let mut bytes = Vec::with_capacity(numbers.len() * 2);
                for &number in numbers {
                    let half = f16::from_f32(number);
                    if number.is_finite() && !half.is_finite() {
                        return Err(Error::Overflow {
                            tensor: self.name.clone(),
                            found: number,
                            stored: "fp16",
                        });
                    }
                    bytes.extend(half.to_le_bytes());
                }
                bytes
            }
        })
    }
}

impl View for StoredTensor<'_> {
    fn dtype(&self) -> Dtype {
        match self.stored {
            StoredType::F32 => Dtype::F32,
            StoredType::Fp16 => Dtype::F16,
            StoredType::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.bytes().unwrap_or_else(|error| {
            self.problem.borrow_mut().get_or_insert(error);
            vec![0; self.data_len()]
        }))
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.stored.bytes()
    }
}
