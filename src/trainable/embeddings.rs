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
    /// Of which ids the rows of `words` are, in rising order; of all when absent.
    kept: Option<Vec<u32>>,
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
        Self::of(checkpoint, None, parameters)
    }

    /// Of the words, those of `ids` alone: [`forward`](Self::forward) takes no others.
    pub(super) fn of_ids(
        checkpoint: &Checkpoint,
        ids: &[u32],
        parameters: &mut Parameters,
    ) -> Result<Self, Error> {
        let mut kept = ids.to_vec();
        kept.sort_unstable();
        kept.dedup();
        Self::of(checkpoint, Some(kept), parameters)
    }

    fn of(
        checkpoint: &Checkpoint,
        kept: Option<Vec<u32>>,
        parameters: &mut Parameters,
    ) -> Result<Self, Error> {
        let config = &checkpoint.config;
        let blocks = config.embeddings();
        let table = &blocks.words;
        let (name, shape) = (
            format!("{}.weight", table.name),
            [table.rows, config.hidden_size],
        );
        let words = match &kept {
            Some(kept) => {
                let mut values = Vec::with_capacity(kept.len() * config.hidden_size);
                for &id in kept {
                    let row = id as usize..id as usize + 1;
                    values.extend(checkpoint.weights.rows(&name, shape, row)?);
                }
                parameters.add(&name, &[kept.len(), config.hidden_size], values)?
            }
            None => parameters.load(&checkpoint.weights, &name, &shape)?,
        };
        let mut load = |table: &Table| {
            let name = format!("{}.weight", table.name);
            parameters.load(
                &checkpoint.weights,
                &name,
                &[table.rows, config.hidden_size],
            )
        };
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
            kept,
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
    #[allow(clippy::cast_possible_truncation, reason = "no more places than ids")]
    pub(super) fn forward(
        &self,
        ids: &Ragged<u32>,
        packing: &Packing,
        pass: &Pass,
    ) -> Result<Tensor, Error> {
        let device = self.words.device();
        let tokens = ids.tokens();
        let words = match &self.kept {
            Some(kept) => {
                let places = ids
                    .values()
                    .iter()
                    .map(|id| kept.partition_point(|kept| kept < id));
                Tensor::from_vec(places.map(|place| place as u32).collect(), tokens, device)?
            }
            None => Tensor::from_slice(ids.values(), tokens, device)?,
        };
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
