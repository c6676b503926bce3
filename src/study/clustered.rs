//! How sure a mean is over examples that are not independent.

use std::collections::HashMap;

use statrs::distribution::{ContinuousCDF, StudentsT};

/// The 95 % confidence interval of the mean of `values`, those of equal `clusters` being not independent, as
/// tokens of a text are not: by the robust variance of Liang and Zeger (1986) for whole clusters, with its
/// correction G / (G - 1), and Student's distribution with G - 1 degrees of freedom for G clusters. With a
/// cluster for each value it is Student's interval. None with fewer than two clusters, of numbers that are
/// none, and of clusters that do not differ, by which other ones cannot be judged.
pub fn interval_of_mean(values: &[f64], clusters: &[i64]) -> Option<[f64; 2]> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    // Kept in the order of the examples, so that the sum is the same every time.
    let mut numbers = HashMap::new();
    let mut residuals = Vec::new();
    for (value, cluster) in values.iter().zip(clusters) {
        let number = *numbers.entry(*cluster).or_insert(residuals.len());
        if number == residuals.len() {
            residuals.push(0.0);
        }
        residuals[number] += value - mean;
    }
    let groups = residuals.len() as f64;
    if residuals.len() < 2 || !mean.is_finite() {
        return None;
    }
    let squares: f64 = residuals.iter().map(|residual| residual * residual).sum();
    let error = (squares * groups / (groups - 1.0)).sqrt() / count;
    if error <= 8.0 * f64::EPSILON * mean.abs() {
        return None;
    }
    let student = StudentsT::new(0.0, 1.0, groups - 1.0).ok()?;
    let reach = student.inverse_cdf(0.975) * error;
    Some([mean - reach, mean + reach])
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::StandardNormal;

    use super::*;

    /// Against `statsmodels` 0.15: `OLS(values, ones).fit(cov_type="cluster", use_t=True)`.
    #[test]
    fn statsmodels_says_the_same() {
        let values = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.5];
        let [low, high] =
            interval_of_mean(&values, &[4, 4, 7, 7, 7, 9, 9, 4, 2, 2]).expect("four clusters");
        assert!((low - 0.514_980_238_206_309).abs() < 1e-9, "{low}");
        assert!((high - 0.785_019_761_793_691).abs() < 1e-9, "{high}");
    }

    /// Against `scipy.stats.t.interval` of `SciPy` 1.17.
    #[test]
    fn alone_each_value_counts_for_itself() {
        let values = [0.2, 0.9, 0.4, 0.7];
        let [low, high] = interval_of_mean(&values, &[0, 1, 2, 3]).expect("four clusters");
        assert!((low - 0.055_268_616_575_281).abs() < 1e-9, "{low}");
        assert!((high - 1.044_731_383_424_719).abs() < 1e-9, "{high}");
    }

    /// Of 2,000 draws of 30 clusters of 1 to 4 equal values, hardly fewer than 95 % have the true mean in their
    /// interval; with each taken for itself, far fewer.
    #[test]
    fn it_holds_what_it_promises() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut counts = [0, 0];
        for _ in 0..2_000 {
            let (mut values, mut clusters) = (Vec::new(), Vec::new());
            for cluster in 0..30 {
                let size = random.random_range(1..=4);
                let value: f64 = random.sample(StandardNormal);
                values.extend(std::iter::repeat_n(value, size));
                clusters.extend(std::iter::repeat_n(cluster, size));
            }
            let alone: Vec<i64> = (0..).take(values.len()).collect();
            for (count, clusters) in counts.iter_mut().zip([&clusters, &alone]) {
                let [low, high] = interval_of_mean(&values, clusters).expect("clusters");
                *count += u32::from(low <= 0.0 && 0.0 <= high);
            }
        }
        let [clustered, alone] = counts.map(|count| f64::from(count) / 2_000.0);
        assert!((0.92..0.97).contains(&clustered), "{clustered}");
        assert!(alone < 0.85, "{alone}");
    }

    #[test]
    fn what_does_not_differ_says_nothing_of_others() {
        assert_eq!(interval_of_mean(&[0.1, 0.1, 0.1], &[0, 1, 2]), None);
        assert_eq!(interval_of_mean(&[0.2, 0.7], &[5, 5]), None);
        assert_eq!(interval_of_mean(&[f64::NAN, 0.7], &[5, 6]), None);
        assert_eq!(interval_of_mean(&[], &[]), None);
    }
}
