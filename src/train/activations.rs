//! Where the trainable half's input comes from: a cache, or the frozen half itself.

use std::ops::ControlFlow;

use super::Error;
use crate::cache::Cache;
use crate::checkpoint::AttentionPattern;
use crate::frozen::FrozenEncoder;
use crate::ragged::Ragged;
use crate::trainable::{EncoderInput, Stage};

/// Numbered sequences, ready for the trainable half.
pub trait Activations {
    /// Tokens of sequence `index`.
    fn length(&self, index: usize) -> usize;

    /// The token ids of those named by `indices`.
    fn token_ids(&self, indices: &[usize]) -> Ragged<u32>;

    /// The sequences named by `indices`, packed in that order.
    fn input(&mut self, indices: &[usize]) -> Result<EncoderInput, Error>;
}

/// Out of a cache.
pub struct CachedActivations<'a> {
    /// What holds them.
    pub cache: &'a Cache,
    /// Which tokens attend to which.
    pub pattern: AttentionPattern,
}

/// `input` of the sequences `ids`, attending by `pattern`.
fn attending(
    input: EncoderInput,
    pattern: AttentionPattern,
    ids: impl FnOnce() -> Ragged<u32>,
) -> EncoderInput {
    match pattern.prefixes(input.sequences(), ids) {
        Some(prefixes) => input.with_prefixes(prefixes),
        None => input,
    }
}

impl Activations for CachedActivations<'_> {
    fn length(&self, index: usize) -> usize {
        self.cache.length(index)
    }

    fn token_ids(&self, indices: &[usize]) -> Ragged<u32> {
        self.cache.token_ids(indices)
    }

    fn input(&mut self, indices: &[usize]) -> Result<EncoderInput, Error> {
        let input = match self.cache.manifest().precision {
            Some(_) => EncoderInput::HiddenStates(self.cache.hidden_states(indices)),
            None => EncoderInput::TokenIds(self.cache.token_ids(indices)),
        };
        Ok(attending(input, self.pattern, || self.token_ids(indices)))
    }
}

/// Out of a cache to where it is computed: hidden states are written once, to where `stage` wants them.
pub(super) struct StagedActivations<'a> {
    pub(super) cache: &'a Cache,
    pub(super) pattern: AttentionPattern,
    pub(super) stage: &'a dyn Stage,
}

impl Activations for StagedActivations<'_> {
    fn length(&self, index: usize) -> usize {
        self.cache.length(index)
    }

    fn token_ids(&self, indices: &[usize]) -> Ragged<u32> {
        self.cache.token_ids(indices)
    }

    fn input(&mut self, indices: &[usize]) -> Result<EncoderInput, Error> {
        let Self {
            cache,
            pattern,
            stage,
        } = *self;
        if cache.manifest().precision.is_none() {
            // Token ids are a few kilobytes, which the embeddings look at on the host.
            return CachedActivations { cache, pattern }.input(indices);
        }
        let width = cache.manifest().width;
        let read = |states: &mut [f32]| cache.read_hidden_states(indices, states);
        let input = stage.stage(cache.offsets(indices), width, &read)?;
        Ok(attending(input, pattern, || cache.token_ids(indices)))
    }
}

/// Straight through the frozen half, without a cache.
pub struct FreshActivations {
    /// Token ids of each sequence.
    pub sequences: Ragged<u32>,
    /// The frozen half, of one depth; absent when nothing is frozen.
    pub frozen: Option<FrozenEncoder>,
    /// Which tokens attend to which.
    pub pattern: AttentionPattern,
}

impl Activations for FreshActivations {
    fn length(&self, index: usize) -> usize {
        self.sequences.length(index)
    }

    fn token_ids(&self, indices: &[usize]) -> Ragged<u32> {
        self.sequences.gather(indices)
    }

    fn input(&mut self, indices: &[usize]) -> Result<EncoderInput, Error> {
        let Some(frozen) = &mut self.frozen else {
            let input = EncoderInput::TokenIds(self.sequences.gather(indices));
            return Ok(attending(input, self.pattern, || self.token_ids(indices)));
        };
        // One part for each that runs at a time.
        let part = indices.len().div_ceil(frozen.batches_at_a_time());
        let part = part.clamp(1, frozen.batch_size().rows);
        let parts: Vec<Vec<usize>> = indices.chunks(part).map(<[usize]>::to_vec).collect();
        let mut done: Vec<Ragged<f32>> = Vec::new();
        done.resize_with(parts.len(), || Ragged::new(frozen.hidden_size()));
        frozen.run(&self.sequences, &parts, &mut |batch| {
            // It was opened for one depth, the one that the top half starts from.
            for (_, at_depths) in batch.iter() {
                done[batch.place].push(at_depths[0]);
            }
            ControlFlow::Continue(())
        })?;
        let mut states = Ragged::new(frozen.hidden_size());
        for sequence in done.iter().flat_map(Ragged::iter) {
            states.push(sequence);
        }
        let input = EncoderInput::HiddenStates(states);
        Ok(attending(input, self.pattern, || self.token_ids(indices)))
    }
}
