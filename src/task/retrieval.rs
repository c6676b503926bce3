//! How well functions of one group find each other.

use std::cmp::Ordering;
use std::collections::HashMap;

use candle_core::Tensor;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Error;
use super::search::{SCORE_SCALE, similarity};

/// Rows scored at a time: a split of a million then takes 256 MB.
const ROWS: usize = 64;

/// Metrics of retrieval by groups.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RetrievalMetrics {
    /// Mean average precision at R: see [`average_precision_at_r`].
    pub map_at_r: f64,
    /// Mean, over all rows and partners of their groups, of the cross-entropy of the partner
    /// against all rows of other groups.
    pub loss: f64,
}

impl RetrievalMetrics {
    /// Of unit `vectors` `[rows, width]`, each row against all others, exactly. A row whose group
    /// has no other does not count.
    pub fn new(vectors: &Tensor, groups: &[i64]) -> Result<Self, Error> {
        let rows = retrieve(vectors, groups)?;
        let counted = rows.iter().flatten().count().max(1) as f64;
        // Added up in order, so that the sum is the same on every machine.
        let mean = |of: fn(&Retrieved) -> f64| rows.iter().flatten().map(of).sum::<f64>() / counted;
        Ok(Self {
            map_at_r: mean(|row| row.precision),
            loss: mean(|row| row.loss),
        })
    }
}

/// What is found with one row.
struct Retrieved {
    /// Its [`average_precision_at_r`].
    precision: f64,
    loss: f64,
}

/// With each of unit `vectors` `[rows, width]` among all others; none of a row whose group has no other.
fn retrieve(vectors: &Tensor, groups: &[i64]) -> Result<Vec<Option<Retrieved>>, Error> {
    let mut sizes: HashMap<i64, usize> = HashMap::new();
    for group in groups {
        *sizes.entry(*group).or_default() += 1;
    }
    let mut found = Vec::with_capacity(groups.len());
    for start in (0..groups.len()).step_by(ROWS) {
        let count = ROWS.min(groups.len() - start);
        let scores = similarity(&vectors.narrow(0, start, count)?, vectors)?;
        let scores = scores.to_vec2::<f32>()?;
        let rows = scores.into_par_iter().enumerate().map(|(row, scores)| {
            let row = start + row;
            (sizes[&groups[row]] > 1).then(|| Retrieved {
                precision: average_precision_at_r(row, &scores, groups),
                loss: cross_entropy(row, &scores, groups),
            })
        });
        found.extend(rows.collect::<Vec<_>>());
    }
    Ok(found)
}

/// The [`average_precision_at_r`] of each of unit `vectors` `[rows, width]` among all others; none of a row
/// whose group has no other.
pub fn average_precisions_at_r(
    vectors: &Tensor,
    groups: &[i64],
) -> Result<Vec<Option<f64>>, Error> {
    let rows = retrieve(vectors, groups)?.into_iter();
    Ok(rows.map(|row| Some(row?.precision)).collect())
}

/// Average precision at R of `row`, whose group has R others, as `CodeXGLUE` measures it: of the R
/// rows that score highest, itself left out, those of its group have the share of their group among
/// the rows up to them; the sum of these shares over R. Of equal scores those of other groups
/// come first.
///
/// `scores` and `groups` are those of all rows.
pub fn average_precision_at_r(row: usize, scores: &[f32], groups: &[i64]) -> f64 {
    let same = |other: usize| groups[other] == groups[row];
    let mut others: Vec<usize> = (0..scores.len()).filter(|&other| other != row).collect();
    let wanted = others.iter().filter(|&&other| same(other)).count();
    if wanted == 0 {
        return 0.0;
    }
    // What is no number is the worst that can be: last in its group, first of the others.
    let key = |other: usize| match (scores[other].is_nan(), same(other)) {
        (true, true) => f32::NEG_INFINITY,
        (true, false) => f32::INFINITY,
        (false, _) => scores[other],
    };
    let order = |&one: &usize, &other: &usize| -> Ordering {
        let by_score = key(other).partial_cmp(&key(one)).unwrap_or(Ordering::Equal);
        by_score.then(same(one).cmp(&same(other)))
    };
    if wanted < others.len() {
        others.select_nth_unstable_by(wanted, order);
    }
    others.truncate(wanted);
    others.sort_unstable_by(order);
    let mut hits = 0;
    let mut sum = 0.0;
    for (place, &other) in others.iter().enumerate() {
        if same(other) {
            hits += 1;
            sum += f64::from(hits) / (place + 1) as f64;
        }
    }
    sum / wanted as f64
}

/// The mean over the partners of `row` of `-log(e^s / (e^s + Σ e^t))`, `s` the partner's score,
/// `t` those of the rows of other groups, both scaled.
fn cross_entropy(row: usize, scores: &[f32], groups: &[i64]) -> f64 {
    let scaled = |score: f32| SCORE_SCALE * f64::from(score);
    // No cosine is larger, so nothing overflows.
    let others = scores.iter().zip(groups);
    let negatives = others.filter(|(_, group)| **group != groups[row]);
    let negatives: f64 = negatives
        .map(|(&score, _)| (scaled(score) - SCORE_SCALE).exp())
        .sum();
    let negatives = negatives.ln() + SCORE_SCALE;
    let partners = (0..scores.len()).filter(|&other| other != row && groups[other] == groups[row]);
    let (mut sum, mut count) = (0.0, 0usize);
    for partner in partners {
        // ln(1 + e^x), written so that a large x does not overflow.
        let x = negatives - scaled(scores[partner]);
        sum += x.max(0.0) + (-x.abs()).exp().ln_1p();
        count += 1;
    }
    sum / count.max(1) as f64
}
