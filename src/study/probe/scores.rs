//! How a probe does on each of the test examples.

use crate::study::clustered::interval_of_mean;

/// A probe's score on each test example, from 0 to 1; none where its metric says nothing of one, as of a
/// function that solves a problem alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores(Vec<Option<f64>>);

impl Scores {
    /// Those of examples in order.
    pub(super) fn new(scores: impl IntoIterator<Item = Option<f64>>) -> Self {
        Self(scores.into_iter().collect())
    }

    /// 1 for what is right and 0 for what is not.
    pub(super) fn right(right: impl IntoIterator<Item = bool>) -> Self {
        let scores = right.into_iter().map(|right| f64::from(u8::from(right)));
        Self::new(scores.map(Some))
    }

    /// What the probe found: their mean, 0 of none.
    pub fn mean(&self) -> f64 {
        let count = self.0.iter().flatten().count().max(1);
        self.0.iter().flatten().sum::<f64>() / count as f64
    }

    /// The 95 % confidence interval of the mean, over other examples; those of equal `clusters` are not
    /// independent. None where the examples do not tell: all score the same, or are of one cluster.
    pub fn interval(&self, clusters: &[i64]) -> Option<[f64; 2]> {
        let zero = std::iter::repeat_n(&Some(0.0), self.0.len());
        let [low, high] = interval_of_difference(self.0.iter(), zero, clusters)?;
        Some([low.max(0.0), high.min(1.0)])
    }

    /// The 95 % confidence interval of how much better they are than those of `other` on the same examples,
    /// in the mean.
    pub fn interval_above(&self, other: &Self, clusters: &[i64]) -> Option<[f64; 2]> {
        interval_of_difference(self.0.iter(), other.0.iter(), clusters)
    }
}

fn interval_of_difference<'a>(
    ones: impl Iterator<Item = &'a Option<f64>>,
    others: impl Iterator<Item = &'a Option<f64>>,
    clusters: &[i64],
) -> Option<[f64; 2]> {
    let pairs = ones.zip(others).zip(clusters);
    let known = pairs.filter_map(|((one, other), cluster)| Some(((*one)? - (*other)?, *cluster)));
    let (differences, clusters): (Vec<f64>, Vec<i64>) = known.unzip();
    interval_of_mean(&differences, &clusters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_score_does_not_count() {
        let scores = Scores::new([Some(0.2), None, Some(0.9), Some(0.4), Some(0.7)]);
        assert!((scores.mean() - 0.55).abs() < 1e-12);
        let clusters = [0, 1, 2, 3, 4];
        let [low, high] = scores.interval(&clusters).expect("an interval");
        // As of the four in `clustered`, but that no score is above 1.
        assert!((low - 0.055_268_616_575_281).abs() < 1e-9);
        assert!((high - 1.0).abs() < 1e-12);
        let better = Scores::new(scores.0.iter().map(|score| score.map(|score| score + 0.1)));
        assert_eq!(better.interval_above(&scores, &clusters), None);
        let better = Scores::right([true, true, true, false, false]);
        let [low, high] = better.interval_above(&scores, &clusters).expect("pairs");
        assert!(low < -0.05 && high > -0.05, "{low} {high}");
    }
}
