//! How good predicted numbers are.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Metrics of regression. Correlations are 0 where one side does not vary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RegressionMetrics {
    /// Pearson's correlation.
    pub pearson: f64,
    /// Spearman's: Pearson's of the ranks, equal numbers sharing the mean of theirs.
    pub spearman: f64,
    /// Mean squared error.
    pub mse: f64,
    /// The same: it is what is learnt by.
    pub loss: f64,
}

impl RegressionMetrics {
    /// From the numbers `found` and `known`, of equal length.
    pub fn new(found: &[f32], known: &[f32], loss: f64) -> Self {
        // Adding 0 makes -0 equal to 0.
        let [found, known] = [found, known].map(|numbers| {
            numbers
                .iter()
                .map(|&number| f64::from(number) + 0.0)
                .collect::<Vec<_>>()
        });
        let squares = found.iter().zip(&known).map(|(a, b)| (a - b) * (a - b));
        Self {
            pearson: pearson(&found, &known),
            spearman: pearson(&ranks(&found), &ranks(&known)),
            mse: squares.sum::<f64>() / found.len().max(1) as f64,
            loss,
        }
    }

    /// By their names; the first chooses the best epoch.
    pub(super) fn to_json(self) -> Map<String, Value> {
        match json!(self) {
            Value::Object(map) => map,
            _ => unreachable!("a struct is an object"),
        }
    }
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let count = a.len() as f64;
    let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / count;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut both, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        both += a * b;
        of_a += a * a;
        of_b += b * b;
    }
    if of_a > 0.0 && of_b > 0.0 {
        (both / (of_a.sqrt() * of_b.sqrt())).clamp(-1.0, 1.0)
    } else {
        0.0
    }
}

/// From 1; equal numbers share the mean of theirs.
fn ranks(numbers: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[a].total_cmp(&numbers[b]));
    let mut ranks = vec![0.0; numbers.len()];
    let mut start = 0;
    while start < order.len() {
        let equal = order[start..]
            .iter()
            .take_while(|&&other| numbers[other].total_cmp(&numbers[order[start]]).is_eq());
        let end = start + equal.count().max(1);
        for &number in &order[start..end] {
            ranks[number] = (start + 1 + end) as f64 / 2.0;
        }
        start = end;
    }
    ranks
}
