//! How good a clone detector is.

use serde::{Deserialize, Serialize};

/// Metrics of pairs. Precision, recall and F1 are those of the clones, 0 where a quotient has
/// nothing below the line, as scikit-learn's `average="binary", zero_division=0`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairMetrics {
    /// Share of pairs predicted right.
    pub accuracy: f64,
    /// Share of predicted clones that are clones.
    pub precision: f64,
    /// Share of clones that are predicted.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
    /// Pairs that score higher are predicted to be clones.
    pub threshold: f64,
    /// Mean loss.
    pub loss: f64,
}

impl PairMetrics {
    /// From each pair's score, and its label: 1 for clones, 0 for others.
    pub fn new(scores: &[f32], labels: &[i64], threshold: f64, loss: f64) -> Self {
        let pairs = || scores.iter().zip(labels);
        let clone = |score: f32| f64::from(score) > threshold;
        let hits = pairs().filter(|&(&score, &label)| clone(score) && label == 1);
        let right = pairs().filter(|&(&score, &label)| clone(score) == (label == 1));
        let (hits, right) = (hits.count(), right.count());
        let predicted = scores.iter().filter(|&&score| clone(score)).count();
        let clones = labels.iter().filter(|&&label| label == 1).count();
        Self {
            accuracy: share(right, labels.len()),
            precision: share(hits, predicted),
            recall: share(hits, clones),
            f1: share(2 * hits, predicted + clones),
            threshold,
            loss,
        }
    }
}

/// The threshold with the highest F1; of several the highest. It lies half way between two scores,
/// or below all of them.
pub fn best_threshold(scores: &[f32], labels: &[i64]) -> f64 {
    let mut pairs: Vec<(f32, i64)> = scores
        .iter()
        .copied()
        .zip(labels.iter().copied())
        .filter(|(score, _)| !score.is_nan())
        .collect();
    pairs.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let clones = labels.iter().filter(|&&label| label == 1).count();
    let mut best = (0.0, 0.5);
    let mut hits = 0;
    for (place, &(score, label)) in pairs.iter().enumerate() {
        hits += usize::from(label == 1);
        let next = pairs.get(place + 1).map(|&(next, _)| f64::from(next));
        let score = f64::from(score);
        // Equal scores are on the same side of any threshold.
        if next.is_some_and(|next| next >= score) {
            continue;
        }
        let f1 = share(2 * hits, place + 1 + clones);
        if f1 > best.0 {
            best = (
                f1,
                next.map_or(score - 1.0, |next| f64::midpoint(score, next)),
            );
        }
    }
    best.1
}

fn share(part: usize, whole: usize) -> f64 {
    match whole {
        0 => 0.0,
        _ => part as f64 / whole as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_threshold_is_the_best_of_all() {
        // By trying every one.
        let mut state = 1u64;
        let mut draw = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as f32
        };
        for rows in 1..60 {
            let scores: Vec<f32> = (0..rows).map(|_| (draw() % 16.0) / 16.0).collect();
            let labels: Vec<i64> = (0..rows).map(|_| i64::from(draw() % 2.0 > 0.5)).collect();
            let f1 = |threshold| PairMetrics::new(&scores, &labels, threshold, 0.0).f1;
            let tried = (-1..=32).map(|place| f1(f64::from(place) / 32.0 - 1.0 / 64.0));
            let highest = tried.fold(0.0, f64::max);
            let found = best_threshold(&scores, &labels);
            assert!(f1(found) >= highest, "{scores:?} {labels:?} {found}");
            // A higher one is worse.
            let higher = (0..=32).map(|place| f64::from(place) / 32.0 - 1.0 / 64.0);
            let higher = higher.filter(|&other| {
                scores
                    .iter()
                    .any(|&score| f64::from(score) > found && f64::from(score) < other)
            });
            assert!(
                higher
                    .into_iter()
                    .all(|other| highest == 0.0 || f1(other) < highest)
            );
        }
    }

    #[test]
    fn without_clones_there_is_nothing_to_choose() {
        for (scores, labels, expected) in [
            (&[0.1, 0.9][..], &[0, 0][..], 0.5),
            (&[], &[], 0.5),
            (&[f32::NAN, 0.25], &[0, 1], -0.75),
        ] {
            let found = best_threshold(scores, labels);
            assert!((found - expected).abs() < 1e-12, "{found}");
        }
    }
}
