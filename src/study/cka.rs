//! Linear centred kernel alignment: Kornblith, Norouzi, Lee and Hinton, "Similarity of Neural Network
//! Representations Revisited" (ICML 2019), section 3.

use std::ops::Range;

use rayon::prelude::*;

use super::Resamples;
use super::products::{TileProducts, product_transposed, tiles};
use super::similarity::correlation;

/// Vectors whose squares sum to less than this part of what they did before their mean was taken away
/// differ by rounding alone.
const LEAST_VARIANCE: f64 = 1e-12;
/// The same of the inner products of a resample, whose mean is taken away in sums of 32 bits.
const LEAST_CRITERION: f64 = 1e-6;

/// Vectors less their mean, scaled so that their squares have the mean 1.
pub(super) struct Centred {
    texts: usize,
    /// `[texts, width]`.
    values: Vec<f32>,
}

impl Centred {
    /// Of `vectors` `[texts, width]`; none where they are all alike.
    #[allow(clippy::cast_possible_truncation, reason = "rounded from 64 bits")]
    pub(super) fn new(vectors: &[f32], texts: usize) -> Option<Self> {
        let width = vectors.len() / texts;
        let mut means = vec![0.0f64; width];
        for vector in vectors.chunks_exact(width) {
            for (mean, &number) in means.iter_mut().zip(vector) {
                *mean += f64::from(number) / texts as f64;
            }
        }
        let numbers = || vectors.iter().map(|&number| f64::from(number));
        let centred = || {
            numbers()
                .zip(means.iter().cycle())
                .map(|(n, mean)| n - mean)
        };
        let before: f64 = numbers().map(|number| number * number).sum();
        let variance: f64 = centred().map(|number| number * number).sum();
        let differ = variance.is_finite() && variance > LEAST_VARIANCE * before;
        let scale = (texts as f64 / variance).sqrt();
        differ.then(|| Self {
            texts,
            values: centred().map(|number| (number * scale) as f32).collect(),
        })
    }

    /// The rows `texts` of the matrix of inner products, `[rows, all texts]`.
    fn inner_products(&self, texts: Range<usize>) -> Vec<f32> {
        let width = self.values.len() / self.texts;
        let rows = &self.values[texts.start * width..texts.end * width];
        product_transposed(rows, &self.values, width)
    }
}

/// Sums over the texts of a resample, of inner products K of one model and L of the other.
#[derive(Clone, Copy, Default)]
struct Sums {
    /// `Σ c_i (K c)_i` and `Σ c_i (L c)_i`.
    k: f64,
    l: f64,
    /// `Σ c_i c_j` of K², L² and K L, by element.
    kk: f64,
    ll: f64,
    kl: f64,
    /// `Σ c_i (K c)_i²`, `Σ c_i (L c)_i²` and `Σ c_i (K c)_i (L c)_i`.
    rows_kk: f64,
    rows_ll: f64,
    rows_kl: f64,
}

impl Sums {
    fn add(&mut self, more: &Self) {
        self.k += more.k;
        self.l += more.l;
        self.kk += more.kk;
        self.ll += more.ll;
        self.kl += more.kl;
        self.rows_kk += more.rows_kk;
        self.rows_ll += more.rows_ll;
        self.rows_kl += more.rows_kl;
    }

    /// `HSIC(K, L) / √(HSIC(K, K) HSIC(L, L))`, where HSIC is the sum over the products of the two
    /// matrices' elements, each centred by rows and columns: of n texts
    /// `Σ k_ij l_ij − 2/n Σ_i (Σ_j k_ij)(Σ_j l_ij) + (Σ k_ij)(Σ l_ij) / n²`.
    fn alignment(&self, texts: f64) -> f64 {
        let criterion = |elements: f64, rows: f64, all: f64| {
            elements - 2.0 / texts * rows + all / (texts * texts)
        };
        let kk = criterion(self.kk, self.rows_kk, self.k * self.k);
        let ll = criterion(self.ll, self.rows_ll, self.l * self.l);
        let kl = criterion(self.kl, self.rows_kl, self.k * self.l);
        // Of vectors that are all alike but for rounding there is no alignment.
        if kk <= LEAST_CRITERION * self.kk || ll <= LEAST_CRITERION * self.ll {
            return f64::NAN;
        }
        correlation(kk, ll, kl)
    }
}

/// Linear CKA of the texts, and of each resample: a text that was drawn twice is two texts. Of the same
/// vectors it is 1 exactly.
///
/// By inner products of texts, not of features as `‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖)`, which is the same number:
/// all resamples are then products of a few rows with all counts at once.
pub(super) fn alignments(x: &Centred, y: &Centred, resamples: &Resamples) -> (f64, Vec<f64>) {
    let (texts, columns) = (resamples.texts(), resamples.columns());
    let sums = tiles(texts).into_par_iter().map(|tile| {
        let [k, l] = [x, y].map(|vectors| vectors.inner_products(tile.clone()));
        let products = TileProducts::new(&k, &l, resamples.counts_from(0), texts);
        let mut sums = vec![Sums::default(); columns];
        for (row, text) in tile.enumerate() {
            let at = row * columns;
            for (column, &count) in resamples.counts_of(text).iter().enumerate() {
                let number = |numbers: &[f32]| f64::from(numbers[at + column]);
                let (k, l) = (number(&products.x), number(&products.y));
                let count = f64::from(count);
                sums[column].add(&Sums {
                    k: count * k,
                    l: count * l,
                    kk: count * number(&products.xx),
                    ll: count * number(&products.yy),
                    kl: count * number(&products.xy),
                    rows_kk: count * k * k,
                    rows_ll: count * l * l,
                    rows_kl: count * k * l,
                });
            }
        }
        sums
    });
    let mut all = vec![Sums::default(); columns];
    for tile in sums.collect::<Vec<_>>() {
        for (sums, more) in all.iter_mut().zip(&tile) {
            sums.add(more);
        }
    }
    let alignments = all.iter().map(|sums| sums.alignment(texts as f64));
    let mut alignments: Vec<f64> = alignments.collect();
    (alignments.remove(0), alignments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_centred_and_scaled() {
        let centred = Centred::new(&[1.0, 5.0, 3.0, 5.0, 2.0, 8.0], 3).expect("differ");
        let squares: f32 = centred.values.iter().map(|number| number * number).sum();
        assert!((squares - 3.0).abs() < 1e-6);
        for column in 0..2 {
            let sum: f32 = centred.values[column..].iter().step_by(2).sum();
            assert!(sum.abs() < 1e-6);
        }
        assert!(Centred::new(&[1.3, 5.7, 1.3, 5.7, 1.3, 5.7], 3).is_none());
        assert!(Centred::new(&[1.0, f32::NAN, 2.0], 3).is_none());
    }

    /// Of one number a text, CKA is the square of Pearson's correlation.
    #[test]
    fn single_numbers_give_the_square_of_their_correlation() {
        let (x, y) = ([1.0, 2.0, 4.0, 3.0, 0.0], [2.0, 1.0, 5.0, 5.0, 2.0]);
        // Deviations -1 0 2 1 -2 and -1 -2 2 2 -1: products 9, squares 10 and 14.
        let expected = 81.0 / 140.0;
        let [x, y] = [x, y].map(|numbers| Centred::new(&numbers, 5).expect("differ"));
        // Drawn: text 0 five times, then each once.
        let resamples = Resamples::from_draws(5, 2, |resample, place| resample * place);
        let (found, replicates) = alignments(&x, &y, &resamples);
        assert!((found - expected).abs() < 1e-6, "{found}");
        assert!(replicates[0].is_nan(), "one text is like itself");
        assert!((replicates[1] - expected).abs() < 1e-6);
    }
}
