//! `search`: find the function that a description asks for. One encoder for both sides, mean
//! over all tokens, unit length, in-batch cross-entropy from query to code (UniXcoder's recipe,
//! as Telly's reference uses it).

use candle_core::{D, Tensor};

use super::Error;
use super::head::{Candidates, EmbeddedSplit, Head, HeadSettings, Predictions, RowScores};
use super::metrics::{Metrics, RankingMetrics, rank_of};
use crate::targets::Targets;
use crate::trainable::Pass;

/// Cosines are multiplied by this before the softmax: a temperature of 0.05.
pub const SCORE_SCALE: f64 = 20.0;
/// Where a row's query is.
pub const QUERY_COLUMN: usize = 0;
/// Where a row's code is; in training, hard negatives come after it.
pub const CODE_COLUMN: usize = 1;

/// No layer of its own: unit vectors, compared.
pub(super) struct Matcher {
    /// Queries whose code ranks lower count 0 in the mean reciprocal rank.
    pub(super) rank_limit: Option<usize>,
}

impl Head for Matcher {
    fn settings(&self) -> HeadSettings {
        HeadSettings::Match {
            rank_limit: self.rank_limit,
        }
    }

    fn embed(&self, pooled: &Tensor) -> Result<Tensor, Error> {
        normalise(pooled)
    }

    /// In-batch cross-entropy: every code of the batch but the query's own is a negative, and so
    /// are the hard negatives of every query.
    fn loss(&self, columns: &[Tensor], _: &Targets, _: &Pass) -> Result<Tensor, Error> {
        let queries = &columns[QUERY_COLUMN];
        let codes = Tensor::cat(&columns[CODE_COLUMN..], 0)?;
        let scores = (similarity(queries, &codes)? * SCORE_SCALE)?;
        let own = Tensor::arange(0, queries.dim(0)? as i64, scores.device())?;
        Ok(candle_nn::loss::cross_entropy(&scores, &own)?)
    }

    fn predict(&self, columns: &[Tensor], _: &Pass) -> Result<Predictions, Error> {
        Ok(Predictions::Vectors(columns[QUERY_COLUMN].clone()))
    }

    fn metrics(&self, split: &EmbeddedSplit, _: &Pass) -> Result<Metrics, Error> {
        let (ranks, losses) = rank_split(split)?;
        let loss = losses / ranks.len() as f64;
        let metrics = RankingMetrics::new(&ranks, self.rank_limit, loss);
        Ok(Metrics::Ranking(metrics))
    }

    fn row_scores(&self, split: &EmbeddedSplit, _: &Pass) -> Result<Option<RowScores>, Error> {
        let (ranks, _) = rank_split(split)?;
        let scores = ranks.into_iter().map(|rank| {
            let counts = self.rank_limit.is_none_or(|limit| rank <= limit);
            Some(if counts { 1.0 / rank as f64 } else { 0.0 })
        });
        Ok(Some(scores.collect()))
    }

    fn metrics_of_nothing(&self) -> Metrics {
        Metrics::Ranking(RankingMetrics::new(&[], None, 0.0))
    }
}

/// The rank of each query's code in what `split` is searched in, and the sum of their losses.
fn rank_split(split: &EmbeddedSplit) -> Result<(Vec<usize>, f64), Error> {
    let queries = &split.columns[QUERY_COLUMN];
    if let Some(Candidates { vectors, sequences }) = &split.candidates {
        let places = split.targets.classes();
        #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation)] // Places.
        return rank(queries, vectors, sequences, |row| places[row] as usize);
    }
    let codes = &split.columns[CODE_COLUMN];
    rank(queries, codes, &split.sequences[CODE_COLUMN], |row| row)
}

/// Ranks the whole code base for every query; `right` is the place of a query's code in it, and
/// codes of equal `sequences` are the same code. Beside the ranks the sum of the cross-entropies against
/// the whole code base, so that the loss depends on no batch.
fn rank(
    queries: &Tensor,
    codes: &Tensor,
    sequences: &[usize],
    right: impl Fn(usize) -> usize,
) -> Result<(Vec<usize>, f64), Error> {
    /// Queries scored at a time: a code base of a million then takes 256 MB.
    const QUERIES: usize = 64;
    let mut ranks = Vec::new();
    let mut losses = 0.0;
    let count = queries.dim(0)?;
    for start in (0..count).step_by(QUERIES) {
        let rows = QUERIES.min(count - start);
        let scores = similarity(&queries.narrow(0, start, rows)?, codes)?;
        for (row, scores) in scores.to_vec2::<f32>()?.into_iter().enumerate() {
            let right = right(start + row);
            let same = |other: usize| sequences[other] == sequences[right];
            ranks.push(rank_of(right, &scores, same));
            losses += cross_entropy(right, &scores);
        }
    }
    Ok((ranks, losses))
}

/// Scales each vector, along the last dimension, to unit length.
pub fn normalise(vectors: &Tensor) -> Result<Tensor, Error> {
    // PyTorch's `normalize` takes at least 1e-12 for the length.
    let length = vectors
        .sqr()?
        .sum_keepdim(D::Minus1)?
        .sqrt()?
        .clamp(1e-12, f64::MAX)?;
    Ok(vectors.broadcast_div(&length)?)
}

/// Cosines of unit vectors: `[queries, codes]`.
pub fn similarity(queries: &Tensor, codes: &Tensor) -> Result<Tensor, Error> {
    Ok(queries.matmul(&codes.t()?)?)
}

/// `-log softmax(scale · scores)[right]`.
fn cross_entropy(right: usize, scores: &[f32]) -> f64 {
    let scaled = |score: f32| SCORE_SCALE * f64::from(score);
    let largest = scores.iter().copied().map(scaled).fold(f64::MIN, f64::max);
    let sum: f64 = scores
        .iter()
        .map(|&score| (scaled(score) - largest).exp())
        .sum();
    sum.ln() + largest - scaled(scores[right])
}
