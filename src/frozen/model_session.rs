//! A whole model in ONNX Runtime: from tokens to logits or embeddings.

use std::path::Path;

use ndarray::Array2;
use ort::session::Session;
use ort::value::TensorRef;

use super::onnx::{self, OnnxModel};
use super::session::{failed, mask, open_file, open_session};
use super::{Error, Runtime, SessionOptions};
use crate::ragged::Ragged;

/// A graph of one output, a row a sequence, as `telly export --format onnx` writes it.
pub struct ModelSession {
    session: Session,
    output: String,
    padding_id: u32,
}

impl ModelSession {
    /// A session over `model`, which takes tokens of `padding_id` for padding.
    pub fn new(
        runtime: &Runtime,
        model: &OnnxModel,
        padding_id: u32,
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        Ok(Self::of(open_session(runtime, model, options)?, padding_id))
    }

    /// A session over the model in the file `path`, on the CPU.
    pub fn open(
        runtime: &Runtime,
        path: &Path,
        padding_id: u32,
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        Ok(Self::of(open_file(runtime, path, options)?, padding_id))
    }

    fn of(session: Session, padding_id: u32) -> Self {
        let output = session.outputs().first().map(|output| output.name().into());
        Self {
            output: output.unwrap_or_default(),
            session,
            padding_id,
        }
    }

    /// What the sequences `batch` of `sequences` give, run together and padded to the longest: one
    /// row each, one after the other.
    pub fn run(&mut self, sequences: &Ragged<u32>, batch: &[usize]) -> Result<Vec<f32>, Error> {
        let lengths: Vec<usize> = batch.iter().map(|&index| sequences.length(index)).collect();
        let mask = mask(&lengths);
        let mut ids = Array2::from_elem(mask.dim(), i64::from(self.padding_id));
        for (row, &index) in batch.iter().enumerate() {
            for (column, &id) in sequences.sequence(index).iter().enumerate() {
                ids[[row, column]] = i64::from(id);
            }
        }
        let inputs = ort::inputs![
            onnx::INPUT_IDS => TensorRef::from_array_view(&ids).map_err(failed)?,
            onnx::ATTENTION_MASK => TensorRef::from_array_view(&mask).map_err(failed)?,
        ];
        let outputs = self.session.run(inputs).map_err(failed)?;
        let rows = outputs[self.output.as_str()].try_extract_tensor::<f32>();
        let (_, rows) = rows.map_err(failed)?;
        let width = rows.len() / batch.len().max(1);
        match rows.iter().position(|number| !number.is_finite()) {
            Some(place) => Err(Error::NotFinite {
                sequence: batch[place / width.max(1)],
            }),
            None => Ok(rows.to_vec()),
        }
    }
}
