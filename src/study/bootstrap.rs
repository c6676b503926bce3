//! How sure a number is: resampled texts, and intervals.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Share of resamples on either side of an interval of 95 %.
const TAIL: f64 = 0.025;

/// How often each text was drawn in each resample: the bootstrap of Efron (1979) over texts.
pub struct Resamples {
    texts: usize,
    /// Columns of `counts`.
    columns: usize,
    /// `[texts, 1 + resamples]`; the first column is the texts as they are, each once.
    counts: Vec<f32>,
}

impl Resamples {
    /// Draws `texts` out of `texts` with replacement, `resamples` times. The same `seed` gives the
    /// same ones.
    pub fn draw(texts: usize, resamples: usize, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        Self::from_draws(texts, resamples, |_, _| random.random_range(0..texts))
    }

    /// Of `texts`, where `draw` gives the text at a place of a resample, both counted from 0.
    ///
    /// # Panics
    /// If there is no such text.
    pub fn from_draws(
        texts: usize,
        resamples: usize,
        mut draw: impl FnMut(usize, usize) -> usize,
    ) -> Self {
        let columns = resamples + 1;
        let mut counts = vec![0.0; texts * columns];
        let themselves = counts.iter_mut().step_by(columns);
        themselves.for_each(|count| *count = 1.0);
        for resample in 0..resamples {
            for place in 0..texts {
                counts[draw(resample, place) * columns + resample + 1] += 1.0;
            }
        }
        Self {
            texts,
            columns,
            counts,
        }
    }

    /// How many texts.
    pub fn texts(&self) -> usize {
        self.texts
    }

    /// Columns of the counts: one more than there are resamples.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// The counts from text `first` on, `[texts - first, columns]`.
    pub(super) fn counts_from(&self, first: usize) -> &[f32] {
        &self.counts[first * self.columns..]
    }

    /// The counts of one text, in every column.
    pub(super) fn counts_of(&self, text: usize) -> &[f32] {
        &self.counts_from(text)[..self.columns]
    }

    /// For every column Σ c², c being the counts.
    pub(super) fn squares(&self) -> Vec<f64> {
        let mut squares = vec![0.0; self.columns];
        for row in self.counts.chunks_exact(self.columns) {
            for (square, &count) in squares.iter_mut().zip(row) {
                *square += f64::from(count) * f64::from(count);
            }
        }
        squares
    }
}

/// From the 2.5th to the 97.5th percentile of `values`, by linear interpolation (Efron's percentile
/// interval). Those that are no numbers, of resamples where the measure is not defined, are left out.
/// None where nothing is left.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "places in a list, rounded down"
)]
pub(super) fn interval(values: &[f64]) -> Option<[f64; 2]> {
    let mut sorted: Vec<f64> = values
        .iter()
        .copied()
        .filter(|value| value.is_finite())
        .collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    Some([TAIL, 1.0 - TAIL].map(|share| {
        let place = share * last as f64;
        let below = place as usize;
        let above = (below + 1).min(last);
        // Of equal ends that end itself: no rounding moves it.
        sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resample_has_as_many_texts() {
        let resamples = Resamples::draw(37, 20, 5);
        let column = |column: usize| -> Vec<f32> {
            (0..37)
                .map(|text| resamples.counts_of(text)[column])
                .collect()
        };
        assert_eq!(column(0), [1.0; 37]);
        for resample in 1..=20 {
            let drawn: f32 = column(resample).iter().sum();
            assert!((drawn - 37.0).abs() < 0.5);
        }
        assert_ne!(column(1), column(2));
        assert_eq!(resamples.counts, Resamples::draw(37, 20, 5).counts);
        assert_ne!(resamples.counts, Resamples::draw(37, 20, 6).counts);
    }

    /// As NumPy's `percentile`.
    #[test]
    fn percentiles_are_interpolated() {
        let values: Vec<f64> = (0..=10).rev().map(f64::from).collect();
        let [low, high] = interval(&values).expect("numbers");
        assert!((low - 0.25).abs() < 1e-12 && (high - 9.75).abs() < 1e-12);
        assert_eq!(interval(&[f64::NAN, 2.0]), Some([2.0, 2.0]));
        assert_eq!(interval(&[f64::NAN]), None);
        assert_eq!(interval(&[]), None);
    }
}
