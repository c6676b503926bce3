//! The frozen half, ready to run.

use ndarray::Array2;
use ort::value::TensorRef;

use super::onnx::{self, OnnxModel, Start};
use super::session::{GraphSession, failed, mask};
use super::{Error, FrozenPrecision, Provider, Runtime, SessionOptions};
use crate::checkpoint::Checkpoint;
use crate::ragged::Ragged;

/// The embeddings and bottom layers of a checkpoint in ONNX Runtime. It puts out the hidden states
/// after one or several numbers of layers, its depths.
pub struct FrozenEncoder {
    session: GraphSession,
    padding_id: u32,
    graph_hashes: Vec<String>,
}

impl FrozenEncoder {
    /// Builds the graph of `checkpoint`'s embeddings and bottom layers, as many as the deepest of
    /// `depths` asks for, and a session to run it.
    pub fn new(
        runtime: &Runtime,
        checkpoint: &Checkpoint,
        depths: &[usize],
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        let precision = options.precision;
        let model = write(checkpoint, depths, precision)?;
        let graph_hashes = match depths {
            [_] => vec![hash(&model)],
            _ => depths
                .iter()
                .map(|&depth| graph_hash(checkpoint, depth, precision))
                .collect::<Result<_, _>>()?,
        };
        let hidden_size = checkpoint.config.hidden_size;
        Ok(Self {
            session: GraphSession::open(runtime, model, depths, hidden_size, options)?,
            padding_id: checkpoint.config.padding_id,
            graph_hashes,
        })
    }

    /// After how many layers it puts out hidden states, in the order asked for.
    pub fn depths(&self) -> &[usize] {
        &self.session.depths
    }

    /// Width of the hidden states.
    pub fn hidden_size(&self) -> usize {
        self.session.hidden_size
    }

    /// The provider that runs it.
    pub fn provider(&self) -> Provider {
        self.session.provider
    }

    /// What its linear layers compute in.
    pub fn precision(&self) -> FrozenPrecision {
        self.session.precision
    }

    /// For each depth, the [`graph_hash`] of the graph that ends there: that graph defines the
    /// numbers, whatever else is put out beside them.
    pub fn graph_hashes(&self) -> &[String] {
        &self.graph_hashes
    }

    /// Why `auto` took the CPU, when the library offers CUDA.
    pub fn fallback(&self) -> Option<&str> {
        self.session.fallback.as_deref()
    }

    /// Runs the sequences `batch` of `sequences` together, padded to the longest; gives each
    /// one's hidden states at every depth, `[length, hidden]` flat, to `sink`.
    pub fn run(
        &mut self,
        sequences: &Ragged<u32>,
        batch: &[usize],
        mut sink: impl FnMut(usize, &[&[f32]]),
    ) -> Result<(), Error> {
        let lengths: Vec<usize> = batch.iter().map(|&index| sequences.length(index)).collect();
        let mask = mask(&lengths);
        if mask.is_empty() {
            return Ok(());
        }
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
        let run = self.session.run(inputs, &lengths, |row, states| {
            sink(batch[row], states);
        });
        run.map_err(|error| error.of_batch(batch))
    }
}

/// BLAKE3, hexadecimal, of the graph of `checkpoint`'s embeddings and bottom `depth` layers, without
/// its weights.
pub fn graph_hash(
    checkpoint: &Checkpoint,
    depth: usize,
    precision: FrozenPrecision,
) -> Result<String, Error> {
    Ok(hash(&write(checkpoint, &[depth], precision)?))
}

fn write(
    checkpoint: &Checkpoint,
    depths: &[usize],
    precision: FrozenPrecision,
) -> Result<OnnxModel, Error> {
    let model = onnx::write(
        checkpoint,
        Start::TokenIds,
        depths,
        precision,
        onnx::DATA_FILE,
    );
    Ok(model?)
}

fn hash(model: &OnnxModel) -> String {
    blake3::hash(&model.graph).to_hex().to_string()
}
