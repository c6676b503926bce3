//! MPNet's bias by relative position, one table that all layers share.

use candle_core::Tensor;

use super::{Error, Parameters, Weight};
use crate::checkpoint::{Checkpoint, Freeze, relative_position_bucket};

/// What each head's scores get by how far apart two tokens are.
pub(super) struct RelativePositions {
    table: Table,
}

/// `[buckets, heads]`.
enum Table {
    Trained(Weight),
    Frozen(Tensor),
}

impl RelativePositions {
    /// Loads the table of `checkpoint`, if its family has one.
    ///
    /// It is trained with the bottom layer or not at all: frozen layers use it too, and the
    /// hidden states cached from them would be out of date once it moved.
    pub(super) fn load(
        checkpoint: &Checkpoint,
        freeze: Freeze,
        parameters: &mut Parameters,
    ) -> Result<Option<Self>, Error> {
        let (config, weights) = (&checkpoint.config, &checkpoint.weights);
        let table = config.relative_positions();
        let Some((name, shape)) = table.filter(|_| freeze.layers() < config.layers) else {
            return Ok(None);
        };
        let table = if freeze.layers() == 0 {
            Table::Trained(parameters.load(weights, name, &shape)?)
        } else {
            let table = weights.tensor(name, &shape)?;
            Table::Frozen(Tensor::from_vec(table, &shape, parameters.device())?)
        };
        Ok(Some(Self { table }))
    }

    /// `[buckets, heads]`.
    pub(super) fn table(&self) -> &Tensor {
        match &self.table {
            Table::Trained(table) => table,
            Table::Frozen(table) => table,
        }
    }

    /// The table, if it is trained.
    pub(super) fn trained(&self) -> Option<&Weight> {
        match &self.table {
            Table::Trained(table) => Some(table),
            Table::Frozen(_) => None,
        }
    }

    /// The bias among the tokens of a sequence of `length`, `[heads, length, length]`. That of a
    /// shorter sequence is its top left corner.
    #[allow(clippy::cast_possible_truncation, reason = "a bucket is below 32")]
    pub(super) fn bias(&self, length: usize) -> Result<Tensor, Error> {
        let (_, heads) = self.table().dims2()?;
        let positions = 0..length as i64;
        let buckets: Vec<u32> = positions
            .clone()
            .flat_map(|query| positions.clone().map(move |key| key - query))
            .map(|distance| relative_position_bucket(distance) as u32)
            .collect();
        let buckets = Tensor::from_vec(buckets, length * length, self.table().device())?;
        let bias = self.table().index_select(&buckets, 0)?;
        let bias = bias.reshape((length, length, heads))?;
        Ok(bias.permute((2, 0, 1))?.contiguous()?)
    }
}
