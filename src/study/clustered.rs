//! How sure a mean is over examples that are not independent.

use std::collections::HashMap;

use statrs::distribution::{ContinuousCDF, StudentsT};

/// The values of one cluster.
#[derive(Default)]
struct Cluster {
    size: f64,
    /// The sum of how far they are above the mean of all.
    residual: f64,
}

/// The 95 % confidence interval of the mean of `values`, those of equal `clusters` being not independent, as
/// tokens of a text are not: by the robust variance of Liang and Zeger (1986) for whole clusters, with the
/// correction and the degrees of freedom that Bell and `McCaffrey` (2002) made for few and unequal ones (CR2,
/// Satterthwaite; with equal ones they are G / (G - 1) and G - 1 for G clusters). With a cluster for each
/// value it is Student's interval. None with fewer than two clusters, of numbers that are none, and of
/// clusters that do not differ, by which other ones cannot be judged.
pub fn interval_of_mean(values: &[f64], clusters: &[i64]) -> Option<[f64; 2]> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    // Kept in the order of the examples, so that sums are the same every time.
    let mut numbers = HashMap::new();
    let mut found: Vec<Cluster> = Vec::new();
    for (value, cluster) in values.iter().zip(clusters) {
        let number = *numbers.entry(*cluster).or_insert(found.len());
        if number == found.len() {
            found.push(Cluster::default());
        }
        found[number].size += 1.0;
        found[number].residual += value - mean;
    }
    if found.len() < 2 || !mean.is_finite() {
        return None;
    }
    let squares = found.iter();
    let squares = squares.map(|of| of.residual * of.residual / (1.0 - of.size / count));
    let error = squares.sum::<f64>().sqrt() / count;
    if error <= 8.0 * f64::EPSILON * mean.abs() {
        return None;
    }
    let student = StudentsT::new(0.0, 1.0, degrees_of_freedom(&found, count)).ok()?;
    let reach = student.inverse_cdf(0.975) * error;
    Some([mean - reach, mean + reach])
}

/// Those of the variance of the mean of `count` values in `clusters`: Bell and `McCaffrey`'s, (sum of l)^2 / sum of
/// l^2 for the eigenvalues l of G'G, with G's column of a cluster of n values being (I - H) 1 / sqrt(1 - n / N) / N.
/// With a mean alone H is 1 / N everywhere, and both sums are traces that need no eigenvalue.
fn degrees_of_freedom(clusters: &[Cluster], count: f64) -> f64 {
    let (mut own, mut between, mut twice) = (0.0, 0.0, 0.0);
    for Cluster { size, .. } in clusters {
        let square = size * size;
        let share = square / (count - size);
        own += square;
        between += share;
        twice += share * share;
    }
    count * count / (own + between * between - twice)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::StandardNormal;

    use super::*;

    fn assert_interval(values: &[f64], clusters: &[i64], expected: [f64; 2]) {
        let found = interval_of_mean(values, clusters).expect("clusters");
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
        }
    }

    const VALUES: [f64; 10] = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.5];

    /// Against R's `clubSandwich` 0.5.8:
    /// `conf_int(lm(values ~ 1), vcov = "CR2", cluster = clusters, test = "Satterthwaite")`.
    #[test]
    fn club_sandwich_says_the_same_of_unequal_clusters() {
        let clusters = [4, 4, 7, 7, 7, 9, 9, 4, 2, 2];
        let expected = [0.515_253_772_280_082_7, 0.784_746_227_719_917_1];
        assert_interval(&VALUES, &clusters, expected);
        let clusters = [1, 1, 1, 1, 1, 1, 1, 2, 3, 4];
        assert_interval(
            &VALUES,
            &clusters,
            [0.013_551_576_775_648, 1.286_448_423_224_352],
        );
    }

    /// Against `statsmodels` 0.15: `OLS(values, ones).fit(cov_type="cluster", use_t=True)`.
    #[test]
    fn statsmodels_says_the_same_of_equal_clusters() {
        assert_interval(
            &VALUES,
            &[1, 1, 2, 2, 3, 3, 4, 4, 5, 5],
            [0.130_574_683_158_216, 1.169_425_316_841_784],
        );
    }

    /// Against `scipy.stats.t.interval` of `SciPy` 1.17.
    #[test]
    fn alone_each_value_counts_for_itself() {
        let expected = [0.055_268_616_575_281, 1.044_731_383_424_719];
        assert_interval(&[0.2, 0.9, 0.4, 0.7], &[0, 1, 2, 3], expected);
    }

    /// Of 2,000 draws of clusters of equal values, of 1 to 4 each or three of them eight times as large as the
    /// others, hardly fewer than 95 % have the true mean in their interval; with each value taken for itself, far
    /// fewer.
    #[test]
    fn it_holds_what_it_promises() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let like: Vec<usize> = (0..30).map(|cluster| 1 + cluster % 4).collect();
        let unlike = vec![40, 40, 40, 5, 5, 5, 5, 5, 5, 5];
        for sizes in [like, unlike] {
            let mut counts = [0, 0];
            for _ in 0..2_000 {
                let (mut values, mut clusters) = (Vec::new(), Vec::new());
                for (cluster, size) in (0..).zip(&sizes) {
                    let value: f64 = random.sample(StandardNormal);
                    values.extend(std::iter::repeat_n(value, *size));
                    clusters.extend(std::iter::repeat_n(cluster, *size));
                }
                let alone: Vec<i64> = (0..).take(values.len()).collect();
                for (count, clusters) in counts.iter_mut().zip([&clusters, &alone]) {
                    let [low, high] = interval_of_mean(&values, clusters).expect("clusters");
                    *count += u32::from(low <= 0.0 && 0.0 <= high);
                }
            }
            let [clustered, alone] = counts.map(|count| f64::from(count) / 2_000.0);
            assert!((0.92..0.97).contains(&clustered), "{clustered}: {sizes:?}");
            assert!(alone < 0.85, "{alone}: {sizes:?}");
        }
    }

    #[test]
    fn what_does_not_differ_says_nothing_of_others() {
        assert_eq!(interval_of_mean(&[0.1, 0.1, 0.1], &[0, 1, 2]), None);
        assert_eq!(interval_of_mean(&[0.2, 0.7], &[5, 5]), None);
        assert_eq!(interval_of_mean(&[f64::NAN, 0.7], &[5, 6]), None);
        assert_eq!(interval_of_mean(&[], &[]), None);
    }
}
