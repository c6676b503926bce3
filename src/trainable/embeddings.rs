//! The embeddings, as a differentiable function of token ids.

use candle_core::Tensor;

use super::layers::LayerNorm;
use super::ops::dropout;
use super::pass::Site;
use super::{Error, Packing, Parameters, Pass, Weight};
use crate::checkpoint::{Checkpoint, Positions};
use crate::ragged::Ragged;

/// The embeddings, trained only when nothing is frozen.
pub(super) struct Embeddings {
    words: Weight,
    positions: Weight,
    token_types: Option<Weight>,
    norm: LayerNorm,
    numbering: Positions,
    padding_id: u32,
    hidden_dropout: f64,
}

impl Embeddings {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        parameters: &mut Parameters,
    ) -> Result<Self, Error> {
        let config = &checkpoint.config;
        let mut table = |name: &str, rows| {
            let name = format!("embeddings.{name}.weight");
            parameters.load(&checkpoint.weights, &name, &[rows, config.hidden_size])
        };
        Ok(Self {
            words: table("word_embeddings", config.vocabulary_size)?,
            positions: table("position_embeddings", config.position_embeddings)?,
            token_types: config
                .token_types
                .map(|rows| table("token_type_embeddings", rows))
                .transpose()?,
            norm: LayerNorm::load(checkpoint, "embeddings.LayerNorm", parameters)?,
            numbering: config.family.positions(),
            padding_id: config.padding_id,
            hidden_dropout: config.hidden_dropout,
        })
    }

    /// `[tokens, hidden]`
    pub(super) fn forward(
        &self,
        ids: &Ragged<u32>,
        packing: &Packing,
        pass: &Pass,
    ) -> Result<Tensor, Error> {
        let device = self.words.device();
        let tokens = ids.tokens();
        let words = Tensor::from_slice(ids.values(), tokens, device)?;
        let words = self.words.index_select(&words, 0)?;
        let positions: Vec<u32> = ids.iter().flat_map(|ids| self.position_ids(ids)).collect();
        let positions = Tensor::from_vec(positions, tokens, device)?;
        let positions = self.positions.index_select(&positions, 0)?;
        let mut sum = (words + positions)?;
        if let Some(token_types) = &self.token_types {
            // Every token is of type 0, whose row is the only one to receive a gradient.
            sum = sum.broadcast_add(&token_types.narrow(0, 0, 1)?)?;
        }
        let normalised = self.norm.forward(&sum)?;
        let settings = pass.dropout(Site::Embeddings, self.hidden_dropout);
        Ok(dropout(&normalised, settings, packing.first_token)?)
    }

    /// As in the frozen graph.
    #[allow(clippy::cast_possible_truncation)]
    fn position_ids(&self, ids: &[u32]) -> Vec<u32> {
        match self.numbering {
            Positions::FromZero => (0..ids.len() as u32).collect(),
            Positions::AfterPadding => ids
                .iter()
                .scan(self.padding_id, |last, &id| {
                    Some(if id == self.padding_id {
                        self.padding_id
                    } else {
                        *last += 1;
                        *last
                    })
                })
                .collect(),
        }
    }
}
