//! Functions that do the same are to lie close together, others apart: what `clone` learns of
//! groups, as `UniXcoder`'s recipe for POJ-104 does.
//!
//! Each row of a batch comes with another row of its group. Its cosine with that one, times 20, is
//! put through a softmax with its cosines with all rows of other groups and their partners. The
//! reference draws one more row of another group for each; with a batch of 8 that is one in
//! fifteen, with larger ones less, and it costs half as much again to compute, so it is left out
//! here.

use candle_core::Tensor;

use super::head::{EmbeddedSplit, Head, HeadSettings, Predictions, RowScores};
use super::retrieval::{RetrievalMetrics, average_precisions_at_r};
use super::search::{SCORE_SCALE, normalise, similarity};
use super::{Error, Metrics};
use crate::targets::Targets;
use crate::trainable::Pass;

/// Where a batch's rows are.
const ROW: usize = 0;
/// Where the other row of each one's group is.
const PARTNER: usize = 1;
/// Added to the score of what is no wrong answer, as of rows of the same group: `exp` makes nothing of it.
pub(crate) const NO_NEGATIVE: f32 = -1e9;

/// No layer of its own: unit vectors, compared.
pub(super) struct Contrast;

impl Head for Contrast {
    fn settings(&self) -> HeadSettings {
        HeadSettings::Contrast
    }

    fn embed(&self, pooled: &Tensor) -> Result<Tensor, Error> {
        normalise(pooled)
    }

    fn needs_partners(&self) -> bool {
        true
    }

    fn loss(&self, columns: &[Tensor], targets: &Targets, _: &Pass) -> Result<Tensor, Error> {
        let rows = &columns[ROW];
        let candidates = Tensor::cat(&[rows, &columns[PARTNER]], 0)?;
        let scores = (similarity(rows, &candidates)? * SCORE_SCALE)?;
        let groups = targets.classes();
        let count = groups.len();
        let mut mask = vec![0.0f32; 2 * count * count];
        for (row, group) in groups.iter().enumerate() {
            for (other, _) in groups.iter().enumerate().filter(|(_, same)| *same == group) {
                mask[2 * count * row + other] = NO_NEGATIVE;
                if other != row {
                    mask[2 * count * row + count + other] = NO_NEGATIVE;
                }
            }
        }
        let mask = Tensor::from_vec(mask, (count, 2 * count), scores.device())?;
        let own = Tensor::arange(count as i64, 2 * count as i64, scores.device())?;
        Ok(candle_nn::loss::cross_entropy(&(scores + mask)?, &own)?)
    }

    fn predict(&self, columns: &[Tensor], _: &Pass) -> Result<Predictions, Error> {
        Ok(Predictions::Vectors(columns[ROW].clone()))
    }

    fn metrics(&self, split: &EmbeddedSplit, _: &Pass) -> Result<Metrics, Error> {
        let vectors = &split.columns[ROW];
        RetrievalMetrics::new(vectors, split.targets.classes()).map(Metrics::Retrieval)
    }

    fn row_scores(&self, split: &EmbeddedSplit, _: &Pass) -> Result<Option<RowScores>, Error> {
        average_precisions_at_r(&split.columns[ROW], split.targets.classes()).map(Some)
    }

    fn metrics_of_nothing(&self) -> Metrics {
        Metrics::Retrieval(RetrievalMetrics {
            map_at_r: 0.0,
            loss: 0.0,
        })
    }
}
