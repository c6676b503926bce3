//! A model run over chunks of records, one vector a sequence.

use candle_core::{Device, Tensor};

use super::model::LoadedModel;
use crate::error::Error;
use crate::frozen::{FrozenEncoder, ModelSession, by_token_budget};
use crate::interrupt;
use crate::ragged::Ragged;
use crate::train::{self, FreshActivations, embed_with};

/// Tokens of a batch in 8-bit integers.
const TOKENS: usize = 4096;

/// A model that is run over several pieces of data.
pub(super) struct Embedder<'a> {
    loaded: &'a LoadedModel,
    engine: Engine,
    /// Tokens so far.
    pub(super) tokens: u64,
}

enum Engine {
    /// The frozen half, unless nothing is frozen, and the trained one.
    Halves(Option<FrozenEncoder>),
    /// All layers as one graph in 8-bit integers.
    Quantized(ModelSession),
}

impl<'a> Embedder<'a> {
    pub(super) fn new(loaded: &'a LoadedModel, quantize: bool) -> Result<Self, Error> {
        let engine = if quantize {
            Engine::Quantized(loaded.quantized()?)
        } else {
            Engine::Halves(loaded.frozen()?)
        };
        Ok(Self {
            loaded,
            engine,
            tokens: 0,
        })
    }

    /// One vector a sequence, `[sequences, hidden]`, of unit length for search.
    pub(super) fn embed(&mut self, sequences: Ragged<u32>) -> Result<Tensor, Error> {
        let model = &self.loaded.model;
        match &mut self.engine {
            Engine::Halves(frozen) => {
                let indices: Vec<usize> = (0..sequences.len()).collect();
                let mut activations = FreshActivations {
                    sequences,
                    frozen: frozen.take(),
                };
                let tokens = &mut self.tokens;
                let count = |done: u64| *tokens += done;
                let vectors = embed_with(model, &mut activations, &indices, count);
                *frozen = activations.frozen;
                Ok(vectors?)
            }
            Engine::Quantized(session) => {
                let count = sequences.len();
                let lengths: Vec<usize> = (0..count).map(|index| sequences.length(index)).collect();
                let width = self.loaded.checkpoint.config.hidden_size;
                let mut vectors = vec![0.0; count * width];
                for batch in by_token_budget(&lengths, TOKENS) {
                    if interrupt::requested() {
                        return Err(train::Error::Interrupted.into());
                    }
                    let rows = session.run(&sequences, &batch)?;
                    for (row, &index) in rows.chunks_exact(width).zip(&batch) {
                        vectors[index * width..][..width].copy_from_slice(row);
                    }
                    self.tokens += batch
                        .iter()
                        .map(|&index| lengths[index] as u64)
                        .sum::<u64>();
                }
                let vectors = Tensor::from_vec(vectors, (count, width), &Device::Cpu);
                let vectors = vectors.and_then(|all| all.to_device(model.parameters.device()));
                Ok(model.from_pooled(&vectors.map_err(super::predict::tensor)?)?)
            }
        }
    }
}
