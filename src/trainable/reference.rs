//! The layers that are frozen, in candle's own operations: what the frozen half is compared with.

use candle_core::{Device, Tensor};

use super::buckets::Buckets;
use super::embeddings::Embeddings;
use super::layers::{EncoderLayer, Setting};
use super::relative_position::RelativePositions;
use super::{Error, Ops, Packing, Parameters, Pass};
use crate::checkpoint::{Checkpoint, Freeze};
use crate::ragged::Ragged;

/// Sequences on their way up a checkpoint's layers, on the CPU, in fp32 and without dropout. A single
/// layer's weights are in memory at a time, and those of the words that occur.
pub struct Reference<'a> {
    checkpoint: &'a Checkpoint,
    layers: usize,
    packings: Vec<Packing>,
    states: Vec<Tensor>,
}

impl<'a> Reference<'a> {
    /// Embeds `sequences`.
    pub fn new(checkpoint: &'a Checkpoint, sequences: &Ragged<u32>) -> Result<Self, Error> {
        let mut parameters = Parameters::new(&Device::Cpu);
        let embeddings = Embeddings::of_ids(checkpoint, sequences.values(), &mut parameters)?;
        checkpoint.weights.release();
        let pass = Pass::evaluation(Ops::Composed);
        let pattern = checkpoint.config.attention_pattern;
        let (mut packings, mut states) = (Vec::new(), Vec::new());
        for index in 0..sequences.len() {
            // One at a time, as in the layers.
            let ids = sequences.gather(&[index]);
            let mut packing = Packing::new(ids.offsets());
            if let Some(prefixes) = pattern.prefixes(1, || ids.clone()) {
                packing = packing.with_prefixes(prefixes);
            }
            states.push(embeddings.forward(&ids, &packing, &pass)?.detach());
            packings.push(packing);
        }
        Ok(Self {
            checkpoint,
            layers: 0,
            packings,
            states,
        })
    }

    /// How many layers they went through.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Each sequence's hidden states after these, f32 `[tokens, hidden]`.
    pub fn states(&self) -> &[Tensor] {
        &self.states
    }

    /// Goes through one layer more.
    pub fn advance(&mut self) -> Result<(), Error> {
        let (checkpoint, pass) = (self.checkpoint, Pass::evaluation(Ops::Composed));
        let mut parameters = Parameters::new(&Device::Cpu);
        let positions = RelativePositions::load(checkpoint, Freeze::Nothing, &mut parameters)?;
        let layer = EncoderLayer::load(checkpoint, self.layers, &mut parameters)?;
        checkpoint.weights.release();
        for (states, packing) in self.states.iter_mut().zip(&self.packings) {
            // One at a time: candle keeps every intermediate result until the layer is through.
            let bias = positions.as_ref();
            let bias = bias.map(|positions| positions.bias(packing.longest()));
            let setting = Setting {
                buckets: Buckets::new(packing, &Device::Cpu)?,
                bias: bias.transpose()?,
                packing: packing.clone(),
            };
            *states = layer
                .forward(self.layers, states, &setting, &pass)?
                .detach();
        }
        self.layers += 1;
        Ok(())
    }
}
