//! Where the hidden states that fill a cache come from.

use std::ops::ControlFlow;

use crate::cache::Cache;
use crate::frozen::{self, BatchSize, ComputedBatch, FrozenEncoder, FrozenLayers};
use crate::ragged::Ragged;

/// Puts out hidden states of numbered sequences, at one or several depths.
pub trait States {
    /// After how many layers.
    fn depths(&self) -> &[usize];

    /// How much is to run together in a batch.
    fn batch_size(&self) -> BatchSize;

    /// Runs each of `batches` of sequences together, several at a time, and hands them to `sink` as
    /// they are done, in no particular order, until it breaks off. A batch that memory has no room
    /// for comes in parts.
    fn run(
        &mut self,
        batches: &[Vec<usize>],
        sink: &mut (dyn FnMut(&ComputedBatch) -> ControlFlow<()> + Send),
    ) -> Result<(), frozen::Error>;
}

/// Out of the whole frozen half.
pub struct FromTokens<'a> {
    /// Runs the embeddings and the bottom layers.
    pub frozen: &'a mut FrozenEncoder,
    /// Token ids of every sequence.
    pub sequences: &'a Ragged<u32>,
}

impl States for FromTokens<'_> {
    fn depths(&self) -> &[usize] {
        self.frozen.depths()
    }

    fn batch_size(&self) -> BatchSize {
        self.frozen.batch_size()
    }

    fn run(
        &mut self,
        batches: &[Vec<usize>],
        sink: &mut (dyn FnMut(&ComputedBatch) -> ControlFlow<()> + Send),
    ) -> Result<(), frozen::Error> {
        self.frozen.run(self.sequences, batches, sink)
    }
}

/// Out of a cache that holds those after fewer layers.
pub struct FromCache<'a> {
    /// Runs the layers in between.
    pub layers: &'a mut FrozenLayers,
    /// Holds the states to start from.
    pub source: &'a Cache,
}

impl States for FromCache<'_> {
    fn depths(&self) -> &[usize] {
        self.layers.depths()
    }

    fn batch_size(&self) -> BatchSize {
        self.layers.batch_size()
    }

    fn run(
        &mut self,
        batches: &[Vec<usize>],
        sink: &mut (dyn FnMut(&ComputedBatch) -> ControlFlow<()> + Send),
    ) -> Result<(), frozen::Error> {
        let read = |batch: &[usize]| self.source.hidden_states(batch);
        let length = |index| self.source.length(index);
        let ids = |batch: &[usize]| self.source.token_ids(batch);
        self.layers.run(length, read, ids, batches, sink)
    }
}
