//! Some layers in the middle of the frozen half, run over hidden states.

use ndarray::Array3;
use ort::value::TensorRef;

use super::onnx::{self, Start};
use super::session::{GraphSession, failed, mask};
use super::{Error, FrozenPrecision, Provider, Runtime, SessionOptions};
use crate::checkpoint::Checkpoint;
use crate::ragged::Ragged;

/// The layers of a checkpoint from one depth to another in ONNX Runtime. On the CPU they put out the
/// bits of a [`FrozenEncoder`](super::FrozenEncoder) when they are given those it has in between.
pub struct FrozenLayers {
    session: GraphSession,
    start: usize,
}

impl FrozenLayers {
    /// Builds the graph of `checkpoint`'s layers `start..depth`, and a session to run it.
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
        let session = GraphSession::open(runtime, model, &[depth], hidden_size, options)?;
        Ok(Self { session, start })
    }

    /// After how many layers the states that it puts out are: one depth.
    pub fn depths(&self) -> &[usize] {
        &self.session.depths
    }

    /// The provider that runs it.
    pub fn provider(&self) -> Provider {
        self.session.provider
    }

    /// What its linear layers compute in.
    pub fn precision(&self) -> FrozenPrecision {
        self.session.precision
    }

    /// Why `auto` took the CPU, when the library offers CUDA.
    pub fn fallback(&self) -> Option<&str> {
        self.session.fallback.as_deref()
    }

    /// Runs all of `states`, those of the sequences `batch` in that order, together, padded to the
    /// longest; gives each sequence and its hidden states, `[length, hidden]` flat, to `sink`.
    pub fn run(
        &mut self,
        states: &Ragged<f32>,
        batch: &[usize],
        mut sink: impl FnMut(usize, &[&[f32]]),
    ) -> Result<(), Error> {
        let lengths: Vec<usize> = (0..states.len()).map(|row| states.length(row)).collect();
        let mask = mask(&lengths);
        if mask.is_empty() {
            return Ok(());
        }
        let (rows, longest) = mask.dim();
        let width = states.width();
        let mut padded = Array3::<f32>::zeros((rows, longest, width));
        for (mut row, states) in padded.outer_iter_mut().zip(states.iter()) {
            for (number, state) in row.iter_mut().zip(states) {
                *number = *state;
            }
        }
        let input = onnx::hidden_state(self.start);
        let inputs = ort::inputs![
            input => TensorRef::from_array_view(&padded).map_err(failed)?,
            onnx::ATTENTION_MASK => TensorRef::from_array_view(&mask).map_err(failed)?,
        ];
        let run = self.session.run(inputs, &lengths, |row, states| {
            sink(batch[row], states);
        });
        run.map_err(|error| error.of_batch(batch))
    }
}
