//! `search`: find the function that a description asks for. One encoder for both sides, mean
//! over all tokens, unit length, in-batch cross-entropy from query to code (UniXcoder's recipe,
//! as Telly's reference uses it).

use candle_core::{D, Tensor};

use super::metrics::{RankingMetrics, rank_of};
use super::{EncodedSplit, Error};
use crate::checkpoint::Checkpoint;
use crate::dataset::{Dataset, FieldChoice};

/// Cosines are multiplied by this before the softmax: a temperature of 0.05.
pub const SCORE_SCALE: f64 = 20.0;
/// Where a row's query is.
pub const QUERY_COLUMN: usize = 0;
/// Where a row's code is.
pub const CODE_COLUMN: usize = 1;

/// `--query-field`: CodeSearchNet's names, and `CoSQA`'s.
pub(super) fn query_field(named: Option<&str>) -> FieldChoice {
    FieldChoice::new(
        "--query-field",
        named,
        &["docstring_tokens", "docstring", "query", "doc"],
    )
}

/// `--code-field`: CodeSearchNet's names, and `AdvTest`'s.
pub(super) fn code_field(named: Option<&str>) -> FieldChoice {
    FieldChoice::new(
        "--code-field",
        named,
        &["code_tokens", "function_tokens", "code", "function"],
    )
}

/// Encodes one field, one sequence a row.
pub(super) fn encode_column(
    data: &Dataset,
    checkpoint: &Checkpoint,
    field: &FieldChoice,
    max_length: usize,
) -> Result<EncodedSplit, Error> {
    let texts = data
        .records
        .iter()
        .map(|record| field.text(record, &data.path));
    let texts = texts.collect::<Result<_, _>>()?;
    Ok(EncodedSplit {
        sequences: checkpoint.tokenizer.encode(texts, max_length)?,
        columns: 1,
        labels: Vec::new(),
    })
}

/// Scales each row of `[rows, width]` to unit length.
pub(super) fn normalise(vectors: &Tensor) -> Result<Tensor, Error> {
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

/// In-batch cross-entropy: row `i` of `queries` belongs to row `i` of `codes`, every other code
/// of the batch is a negative. Both `[pairs, width]`, of unit length.
pub(super) fn loss(queries: &Tensor, codes: &Tensor) -> Result<Tensor, Error> {
    let scores = (similarity(queries, codes)? * SCORE_SCALE)?;
    let targets = Tensor::arange(0, scores.dim(0)? as i64, scores.device())?;
    Ok(candle_nn::loss::cross_entropy(&scores, &targets)?)
}

/// Ranks the whole code base for every query: row `i` of `queries` belongs to row `i` of `codes`.
/// The loss is the cross-entropy against the whole code base, so that it depends on no batch.
pub(super) fn metrics(queries: &Tensor, codes: &Tensor) -> Result<RankingMetrics, Error> {
    /// Queries scored at a time: a code base of a million then takes 256 MB.
    const QUERIES: usize = 64;
    let mut ranks = Vec::new();
    let mut losses = 0.0;
    let count = queries.dim(0)?;
    for start in (0..count).step_by(QUERIES) {
        let rows = QUERIES.min(count - start);
        let scores = similarity(&queries.narrow(0, start, rows)?, codes)?;
        for (row, scores) in scores.to_vec2::<f32>()?.into_iter().enumerate() {
            let right = start + row;
            ranks.push(rank_of(right, &scores));
            losses += cross_entropy(right, &scores);
        }
    }
    Ok(RankingMetrics::new(&ranks, losses / count as f64))
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
