//! The frozen half, ready to run.

use std::ops::ControlFlow;

use ndarray::Array2;
use ort::value::Tensor;

use super::onnx::{self, OnnxModel, Start};
use super::session::{BatchInputs, GraphSessions, padded_mask, with_prefixes};
use super::{BatchSize, ComputedBatch, Error, FrozenPrecision, Provider, Runtime, SessionOptions};
use crate::checkpoint::{AttentionPattern, Checkpoint};
use crate::ragged::Ragged;

/// The embeddings and bottom layers of a checkpoint in ONNX Runtime. It puts out the hidden states
/// after one or several numbers of layers, its depths.
pub struct FrozenEncoder {
    sessions: GraphSessions,
    padding_id: u32,
    pattern: AttentionPattern,
    graph_hashes: Vec<String>,
    /// Tokens that every sequence is padded to at least.
    padded_length: usize,
}

impl FrozenEncoder {
    /// Builds the graph of `checkpoint`'s embeddings and bottom layers, as many as the deepest of
    /// `depths` asks for, and sessions to run it.
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
        let encoder = Self::open(runtime, checkpoint, model, depths, options)?;
        Ok(Self {
            graph_hashes,
            ..encoder
        })
    }

    /// As [`new`](Self::new), for states that are not kept: without [`graph_hashes`](Self::graph_hashes),
    /// for which a graph is written for each depth.
    pub fn without_hashes(
        runtime: &Runtime,
        checkpoint: &Checkpoint,
        depths: &[usize],
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        let model = write(checkpoint, depths, options.precision)?;
        Self::open(runtime, checkpoint, model, depths, options)
    }

    fn open(
        runtime: &Runtime,
        checkpoint: &Checkpoint,
        model: OnnxModel,
        depths: &[usize],
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        let hidden_size = checkpoint.config.hidden_size;
        Ok(Self {
            sessions: GraphSessions::open(
                runtime,
                model,
                onnx::INPUT_IDS,
                depths,
                hidden_size,
                options,
            )?,
            padding_id: checkpoint.config.padding_id,
            pattern: checkpoint.config.attention_pattern,
            graph_hashes: Vec::new(),
            padded_length: 0,
        })
    }

    /// Pads every sequence to `length` tokens where it is shorter, not only to the longest of its
    /// batch.
    #[must_use]
    pub fn padded_to(self, length: usize) -> Self {
        Self {
            padded_length: length,
            ..self
        }
    }

    /// After how many layers it puts out hidden states, in the order asked for.
    pub fn depths(&self) -> &[usize] {
        &self.sessions.depths
    }

    /// Width of the hidden states.
    pub fn hidden_size(&self) -> usize {
        self.sessions.hidden_size
    }

    /// The provider that runs it.
    pub fn provider(&self) -> Provider {
        self.sessions.provider
    }

    /// What its linear layers compute in.
    pub fn precision(&self) -> FrozenPrecision {
        self.sessions.precision
    }

    /// Tokens that every sequence is [padded to](Self::padded_to) at least; 0 where to none.
    pub fn padded_length(&self) -> usize {
        self.padded_length
    }

    /// How much runs together in a batch at most.
    pub fn batch_size(&self) -> BatchSize {
        self.sessions.batch_size
    }

    /// For each depth, the [`graph_hash`] of the graph that ends there: that graph defines the
    /// numbers, whatever else is put out beside them.
    pub fn graph_hashes(&self) -> &[String] {
        &self.graph_hashes
    }

    /// Why `auto` took the CPU, when the library offers CUDA.
    pub fn fallback(&self) -> Option<&str> {
        self.sessions.fallback.as_deref()
    }

    /// How many batches run at a time.
    pub fn batches_at_a_time(&self) -> usize {
        self.sessions.count()
    }

    /// Runs each of `batches` of `sequences` together, padded to its longest, several at a time,
    /// and hands them to `sink` as they are done, in no particular order, until it breaks off. A batch
    /// that memory has no room for comes in parts, in order.
    pub fn run(
        &mut self,
        sequences: &Ragged<u32>,
        batches: &[Vec<usize>],
        sink: &mut (dyn FnMut(&ComputedBatch) -> ControlFlow<()> + Send),
    ) -> Result<(), Error> {
        let padding_id = i64::from(self.padding_id);
        let (pattern, padded_length) = (self.pattern, self.padded_length);
        let prepare = |batch: &[usize]| {
            let lengths: Vec<usize> = batch.iter().map(|&index| sequences.length(index)).collect();
            let longest = lengths.iter().copied().max().unwrap_or(0);
            if longest == 0 {
                return Ok(None);
            }
            let mask = padded_mask(&lengths, longest.max(padded_length));
            let mut ids = Array2::from_elem(mask.dim(), padding_id);
            for (mut row, &index) in ids.rows_mut().into_iter().zip(batch) {
                for (place, &id) in row.iter_mut().zip(sequences.sequence(index)) {
                    *place = i64::from(id);
                }
            }
            let inputs = ort::inputs![
                onnx::INPUT_IDS => Tensor::from_array(ids)?,
                onnx::ATTENTION_MASK => Tensor::from_array(mask)?,
            ];
            let ids = || sequences.gather(batch);
            let inputs = with_prefixes(inputs, pattern, batch.len(), ids)?;
            Ok(Some(BatchInputs { inputs, lengths }))
        };
        let length = |index| sequences.length(index).max(padded_length);
        self.sessions.run(batches, length, prepare, sink)
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
