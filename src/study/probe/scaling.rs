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

    /// `features` on it.
    #[allow(clippy::cast_possible_truncation, reason = "features are f32")]
    pub(super) fn applied(&self, mut features: Features) -> Features {
        for row in features.rows_mut() {
            let scales = self.means.iter().zip(&self.deviations);
            for (number, scale) in row.iter_mut().zip(scales) {
                *number = scaled(*number, scale) as f32;
            }
        }
        features
    }

    /// The vectors of one `layer` of `features` on it, one number after the other.
    pub(super) fn layer<'a>(
        &'a self,
        features: &'a Features,
        layer: usize,
    ) -> impl Iterator<Item = f64> + 'a {
        let place = layer * features.width()..(layer + 1) * features.width();
        let (means, deviations) = (&self.means[place.clone()], &self.deviations[place]);
        features.layer(layer).flat_map(move |vector| {
            let numbers = vector.iter().zip(means.iter().zip(deviations));
            numbers.map(|(&number, scale)| scaled(number, scale))
        })
    }
}

fn scaled(number: f32, (mean, deviation): (&f64, &f64)) -> f64 {
    (f64::from(number) - mean) / deviation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_examples_get_mean_0_and_deviation_1() {
        let features = Features::new(vec![1.0, 5.0, 3.0, 5.0], 2, 1);
        let scaling = Scaling::of(&features);
        assert!(scaling.layer(&features, 0).eq([-1.0, 1.0]));
        assert_eq!(scaling.applied(features).values(), [-1.0, 0.0, 1.0, 0.0]);
        let other = Features::new(vec![2.0, 6.0], 2, 1);
        assert!(scaling.layer(&other, 1).eq([1.0]));
        assert_eq!(scaling.applied(other).values(), [0.0, 1.0]);
    }
}
