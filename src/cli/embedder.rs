//! A model run over chunks of records, one vector a sequence.

use candle_core::{Device, Tensor};

use super::model::LoadedModel;
use super::predict::tensor;
use crate::error::Error;
use crate::frozen::{FrozenEncoder, ModelSession, by_token_budget};
use crate::interrupt;
use crate::ragged::Ragged;
use crate::task::EncodedSplit;
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

    /// For each column of the rows, `[rows, hidden]`.
    pub(super) fn embed(&mut self, split: EncodedSplit) -> Result<Vec<Tensor>, Error> {
        let rows: Vec<usize> = split.rows.iter().map(|&number| number as usize).collect();
        let vectors = match &mut self.engine {
            Engine::Halves(frozen) => {
                let mut activations = FreshActivations {
                    sequences: split.sequences,
                    frozen: frozen.take(),
                    pattern: self.loaded.model.attention_pattern(),
                };
                let tokens = &mut self.tokens;
                let count = |done: u64| *tokens += done;
                let vectors = embed_with(&self.loaded.model, &mut activations, &rows, count);
                *frozen = activations.frozen;
                vectors?
            }
            Engine::Quantized(session) => {
                let width = self.loaded.checkpoint.config.hidden_size;
                let pooled = pooled(session, &split.sequences, width, &mut self.tokens)?;
                let model = &self.loaded.model;
                let device = model.parameters.device();
                let pooled = pooled.to_device(device);
                let places = Tensor::from_slice(&split.rows, rows.len(), device);
                let vectors = pooled.and_then(|pooled| pooled.index_select(&places?, 0));
                model.from_pooled(&vectors.map_err(tensor)?)?
            }
        };
        let hidden = vectors.dim(1).map_err(tensor)?;
        let shape = (rows.len() / split.columns, split.columns, hidden);
        let vectors = vectors.reshape(shape).map_err(tensor)?;
        let columns = (0..split.columns).map(|column| vectors.narrow(1, column, 1)?.squeeze(1));
        columns.collect::<Result<_, _>>().map_err(tensor)
    }

    /// Of rows of one sequence, `[rows, hidden]`.
    pub(super) fn embed_one(&mut self, split: EncodedSplit) -> Result<Tensor, Error> {
        Ok(self.embed(split)?.swap_remove(0))
    }
}

/// What `session` makes of each of `sequences`, `[sequences, width]`; `tokens` counts on.
fn pooled(
    session: &mut ModelSession,
    sequences: &Ragged<u32>,
    width: usize,
    tokens: &mut u64,
) -> Result<Tensor, Error> {
    let count = sequences.len();
    let lengths: Vec<usize> = (0..count).map(|index| sequences.length(index)).collect();
    let mut vectors = vec![0.0; count * width];
    for batch in by_token_budget(&lengths, TOKENS) {
        if interrupt::requested() {
            return Err(train::Error::Interrupted.into());
        }
        let rows = session.run(sequences, &batch)?;
        for (row, &index) in rows.chunks_exact(width).zip(&batch) {
            vectors[index * width..][..width].copy_from_slice(row);
        }
        *tokens += batch
            .iter()
            .map(|&index| lengths[index] as u64)
            .sum::<u64>();
    }
    Tensor::from_vec(vectors, (count, width), &Device::Cpu).map_err(tensor)
}
