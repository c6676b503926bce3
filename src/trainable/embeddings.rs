//! The embeddings, as a differentiable function of token ids.

use candle_core::Tensor;

use super::layers::Norm;
use super::ops::dropout;
use super::pass::Site;
use super::{Error, Packing, Parameters, Pass, Weight};
use crate::checkpoint::{AttentionPattern, Checkpoint, Positions, Table, TokenTypes};
use crate::ragged::Ragged;

/// The embeddings, trained only when nothing is frozen.
pub(super) struct Embeddings {
    words: Weight,
    positions: Option<(Weight, Positions)>,
    token_types: Option<(Weight, TokenTypes)>,
    norm: Option<Norm>,
    /// Whose target's positions may be moved on.
    pattern: AttentionPattern,
    padding_id: u32,
    dropout: f64,
}

impl Embeddings {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        parameters: &mut Parameters,
    ) -> Result<Self, Error> {
        let config = &checkpoint.config;
        let blocks = config.embeddings();
        let mut load = |table: &Table| {
            let name = format!("{}.weight", table.name);
            parameters.load(
                &checkpoint.weights,
                &name,
                &[table.rows, config.hidden_size],
            )
        };
        let words = load(&blocks.words)?;
        let positions = match &blocks.positions {
            Some((table, numbering)) => Some((load(table)?, *numbering)),
            None => None,
        };
        let token_types = match &blocks.token_types {
            Some((table, types)) => Some((load(table)?, *types)),
            None => None,
        };
        Ok(Self {
            words,
            positions,
            token_types,
            norm: match &blocks.norm {
                Some(norm) => Some(Norm::load(checkpoint, norm, parameters)?),
                None => None,
            },
            pattern: config.attention_pattern,
            padding_id: config.padding_id,
            dropout: config.dropout.embeddings,
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
        let mut sum = self.words.index_select(&words, 0)?;
        if let Some((table, numbering)) = &self.positions {
            let sequences = ids.iter().enumerate();
            let rows = sequences.flat_map(|(index, ids)| {
                let prefix = packing.prefix(index);
                self.rows(*numbering, ids, prefix)
            });
            let rows = Tensor::from_vec(rows.collect::<Vec<u32>>(), tokens, device)?;
            sum = (sum + table.index_select(&rows, 0)?)?;
        }
        if let Some((table, types)) = &self.token_types {
            sum = match types {
                // That row is the only one to receive a gradient.
                TokenTypes::Zero => sum.broadcast_add(&table.narrow(0, 0, 1)?)?,
                TokenTypes::OneAfter(_) => {
                    let rows = ids.iter().flat_map(|ids| types.of(ids));
                    let rows = Tensor::from_vec(rows.collect::<Vec<u32>>(), tokens, device)?;
                    (sum + table.index_select(&rows, 0)?)?
                }
            };
        }
        if let Some(norm) = &self.norm {
            sum = norm.forward(&sum)?;
        }
        let settings = pass.dropout(Site::Embeddings, self.dropout);
        Ok(dropout(&sum, settings, packing.first_token)?)
    }

    /// Row of the position embeddings of each token, as in the frozen graph.
    #[allow(clippy::cast_possible_truncation)]
    fn rows(&self, numbering: Positions, ids: &[u32], prefix: Option<usize>) -> Vec<u32> {
        let mut rows: Vec<u32> = match numbering {
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
        };
        if let Some(prefix) = prefix {
            let shift = self.pattern.position_shift(prefix) as u32;
            for row in &mut rows[prefix..] {
                *row += shift;
            }
        }
        rows
    }
}
