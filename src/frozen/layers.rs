//! Some layers in the middle of the frozen half, run over hidden states.

use std::ops::ControlFlow;

use ndarray::Array3;
use ort::value::Tensor;

use super::onnx::{self, Start};
use super::session::{BatchInputs, GraphSessions, mask, with_prefixes};
use super::{BatchSize, ComputedBatch, Error, FrozenPrecision, Provider, Runtime, SessionOptions};
use crate::checkpoint::{AttentionPattern, Checkpoint};
use crate::ragged::Ragged;

/// The layers of a checkpoint from one depth to another in ONNX Runtime. On the CPU they put out the
/// bits of a [`FrozenEncoder`](super::FrozenEncoder) when they are given those it has in between.
pub struct FrozenLayers {
    sessions: GraphSessions,
    start: usize,
    pattern: AttentionPattern,
}

impl FrozenLayers {
    /// Builds the graph of `checkpoint`'s layers `start..depth`, and sessions to run it.
    ///
    /// # Panics
    /// If `depth` is not above `start` or more than the layers that there are.
    pub fn new(
        runtime: &Runtime,
        checkpoint: &Checkpoint,
        start: usize,
        depth: usize,
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        let precision = options.precision;
        let from = Start::HiddenStates(start);
        let model = onnx::write(checkpoint, from, &[depth], precision, onnx::DATA_FILE)?;
        let hidden_size = checkpoint.config.hidden_size;
        let input = onnx::hidden_state(start);
        let sessions = GraphSessions::open(runtime, model, &input, &[depth], hidden_size, options)?;
        Ok(Self {
            sessions,
            start,
            pattern: checkpoint.config.attention_pattern,
        })
    }

    /// After how many layers the states that it puts out are: one depth.
    pub fn depths(&self) -> &[usize] {
        &self.sessions.depths
    }

    /// The provider that runs it.
    pub fn provider(&self) -> Provider {
        self.sessions.provider
    }

    /// What its linear layers compute in.
    pub fn precision(&self) -> FrozenPrecision {
        self.sessions.precision
    }

    /// How much runs together in a batch at most.
    pub fn batch_size(&self) -> BatchSize {
        self.sessions.batch_size
    }

    /// Why `auto` took the CPU, when the library offers CUDA.
    pub fn fallback(&self) -> Option<&str> {
        self.sessions.fallback.as_deref()
    }

    /// Runs each of `batches` together, whose sequences are as long as `length` says and whose states
    /// and token ids `read` and `ids` give in its order, padded to its longest, several at a time, and
    /// hands them to `sink` as they are done, in no particular order, until it breaks off. A batch that memory has no room
    /// for comes in parts, in order.
    pub fn run(
        &mut self,
        length: impl Fn(usize) -> usize + Sync,
        read: impl Fn(&[usize]) -> Ragged<f32> + Sync,
        ids: impl Fn(&[usize]) -> Ragged<u32> + Sync,
        batches: &[Vec<usize>],
        sink: &mut (dyn FnMut(&ComputedBatch) -> ControlFlow<()> + Send),
    ) -> Result<(), Error> {
        let input = onnx::hidden_state(self.start);
        let pattern = self.pattern;
        let prepare = |batch: &[usize]| {
            let states = read(batch);
            let lengths: Vec<usize> = (0..states.len()).map(|row| states.length(row)).collect();
            let mask = mask(&lengths);
            if mask.is_empty() {
                return Ok(None);
            }
            let (rows, longest) = mask.dim();
            let mut padded = Array3::<f32>::zeros((rows, longest, states.width()));
            for (mut row, states) in padded.outer_iter_mut().zip(states.iter()) {
                for (number, state) in row.iter_mut().zip(states) {
                    *number = *state;
                }
            }
            let inputs = ort::inputs![
                input.clone() => Tensor::from_array(padded)?,
                onnx::ATTENTION_MASK => Tensor::from_array(mask)?,
            ];
            let inputs = with_prefixes(inputs, pattern, batch.len(), || ids(batch))?;
            Ok(Some(BatchInputs { inputs, lengths }))
        };
        self.sessions.run(batches, length, prepare, sink)
    }
}
