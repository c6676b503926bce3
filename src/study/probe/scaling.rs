//! Features on one scale: a probe is to find what is there, not what happens to be large.

use super::Features;

/// Mean 0 and standard deviation 1 for each feature of the training examples.
pub(super) struct Scaling {
    means: Vec<f64>,
    deviations: Vec<f64>,
}

impl Scaling {
    /// That of the training examples `features`. What does not vary is left on its own scale.
    pub(super) fn of(features: &Features) -> Self {
        let size = features.layers() * features.width();
        let count = features.examples().max(1) as f64;
        let mut means = vec![0.0; size];
        for row in features.rows() {
            for (mean, &number) in means.iter_mut().zip(row) {
                *mean += f64::from(number) / count;
            }
        }
        let mut deviations = vec![0.0; size];
        for row in features.rows() {
            for ((sum, &number), mean) in deviations.iter_mut().zip(row).zip(&means) {
                *sum += (f64::from(number) - mean).powi(2) / count;
            }
        }
        for (deviation, mean) in deviations.iter_mut().zip(&means) {
            let rounding = f64::from(f32::EPSILON) * mean.abs();
            *deviation = match deviation.sqrt() {
                root if root > rounding => root,
                _ => 1.0,
            };
        }
        Self { means, deviations }
    }

    /// Puts `features` on it.
    #[allow(clippy::cast_possible_truncation, reason = "features are f32")]
    pub(super) fn apply(&self, features: &mut Features) {
        for row in features.rows_mut() {
            let scales = self.means.iter().zip(&self.deviations);
            for (number, (mean, deviation)) in row.iter_mut().zip(scales) {
                *number = ((f64::from(*number) - mean) / deviation) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_examples_get_mean_0_and_deviation_1() {
        let mut features = Features::new(vec![1.0, 5.0, 3.0, 5.0], 1, 2);
        let scaling = Scaling::of(&features);
        scaling.apply(&mut features);
        assert_eq!(features.values(), [-1.0, 0.0, 1.0, 0.0]);
        let mut other = Features::new(vec![2.0, 6.0], 1, 2);
        scaling.apply(&mut other);
        assert_eq!(other.values(), [0.0, 1.0]);
    }
}
