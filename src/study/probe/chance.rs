//! What guessing gives.

use std::collections::HashMap;

/// How often the most frequent class of `train` is right in `test`.
pub(super) fn share_of_most_frequent(train: &[u32], test: &[u32], classes: usize) -> f64 {
    let count = |class: u32, of: &[u32]| of.iter().filter(|&&other| other == class).count();
    let most = (0..).take(classes).max_by_key(|&class| count(class, train));
    count(most.unwrap_or(0), test) as f64 / test.len().max(1) as f64
}

/// How many examples each group has.
fn sizes(groups: &[i64]) -> HashMap<i64, usize> {
    let mut sizes = HashMap::new();
    for group in groups {
        *sizes.entry(*group).or_default() += 1;
    }
    sizes
}

/// The mean of 1 / rank where every rank is equally likely; others of the same group do not rank.
pub(super) fn reciprocal_rank_of_chance(groups: &[i64]) -> f64 {
    let mut sums = vec![0.0];
    for rank in 1..=groups.len() {
        sums.push(sums[rank - 1] + 1.0 / rank as f64);
    }
    let means = sizes(groups).into_values().map(|size| {
        let ranks = groups.len() - size + 1;
        size as f64 * sums[ranks] / ranks as f64
    });
    means.sum::<f64>() / groups.len().max(1) as f64
}

/// The expected mean average precision at R of a random order. With R of n others right, each place
/// holds one with the chance p = R / n, and then (k - 1) (R - 1) / (n - 1) of the k - 1 before it are.
pub(super) fn precision_of_chance(groups: &[i64]) -> f64 {
    let sizes = sizes(groups);
    let others = groups.len().saturating_sub(1) as f64;
    let expected = |wanted: usize| {
        let right = wanted as f64;
        let places = (1..=wanted).map(|place| {
            let before = (place - 1) as f64 * (right - 1.0) / (others - 1.0).max(1.0);
            right / others * (1.0 + before) / place as f64
        });
        places.sum::<f64>() / right
    };
    let groups = sizes.values().filter(|&&size| size > 1);
    let (sum, count) = groups.fold((0.0, 0), |(sum, count), &size| {
        (sum + size as f64 * expected(size - 1), count + size)
    });
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::seq::SliceRandom;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::task::average_precision_at_r;

    #[test]
    fn chance_is_what_guessing_gives() {
        assert!((share_of_most_frequent(&[1, 1, 0], &[1, 0, 0, 0], 2) - 0.25).abs() < 1e-12);
        assert!((reciprocal_rank_of_chance(&[7, 9]) - 0.75).abs() < 1e-12);
        // Of three, one ranks among all, and two with the other one of theirs left out.
        let mean = (11.0 / 18.0 + 2.0 * 0.75) / 3.0;
        assert!((reciprocal_rank_of_chance(&[1, 1, 2]) - mean).abs() < 1e-12);
        // Against many random orders.
        let groups = [0, 0, 0, 1, 1, 2];
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut scores: Vec<f32> = vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let (mut sum, rounds) = (0.0, 20_000);
        for _ in 0..rounds {
            scores.shuffle(&mut random);
            let rows = (0..5).map(|row| average_precision_at_r(row, &scores, &groups));
            sum += rows.sum::<f64>() / 5.0;
        }
        let found = sum / f64::from(rounds);
        assert!(
            (precision_of_chance(&groups) - found).abs() < 0.01,
            "{found}"
        );
    }
}
