//! How alike the texts are to one model, and how well two models agree on it.

use std::ops::Range;

use rayon::prelude::*;

use super::Resamples;
use super::products::{TileProducts, product_transposed, tiles};

/// Numbers that are added up by one thread, in order: the sum of all does not depend on how many
/// threads there are.
const SUM_PIECE: usize = 1 << 16;
/// Numbers whose deviation is smaller than this part of their mean differ by rounding alone.
const LEAST_DEVIATION: f64 = 1e-6;

/// A number for each pair of texts: the upper triangle of a symmetric matrix `[texts, texts]` without
/// its diagonal, row after row.
pub(super) struct Pairs {
    texts: usize,
    values: Vec<f32>,
}

impl Pairs {
    /// The cosine of each pair of `vectors` `[texts, width]`. Those of a vector of zeros are no numbers.
    #[allow(clippy::cast_possible_truncation, reason = "rounded from 64 bits")]
    pub(super) fn cosines(vectors: &[f32], texts: usize) -> Self {
        let width = vectors.len() / texts;
        let inverse_norm = |vector: &[f32]| {
            let squares = vector.iter().map(|&number| f64::from(number).powi(2));
            1.0 / squares.sum::<f64>().sqrt()
        };
        let inverse_norms: Vec<f64> = vectors.chunks_exact(width).map(inverse_norm).collect();
        let mut values = vec![0.0f32; texts * (texts - 1) / 2];
        let mut rest = values.as_mut_slice();
        let mut pieces = Vec::new();
        for tile in tiles(texts) {
            let end = start_of(tile.end, texts) - start_of(tile.start, texts);
            let (piece, later) = rest.split_at_mut(end);
            pieces.push((tile, piece));
            rest = later;
        }
        pieces.into_par_iter().for_each(|(tile, mut piece)| {
            let rows = &vectors[tile.start * width..tile.end * width];
            let later = &vectors[tile.start * width..];
            let products = product_transposed(rows, later, width);
            let columns = texts - tile.start;
            for (row, products) in products.chunks_exact(columns).enumerate() {
                let text = tile.start + row;
                let (cosines, others) = piece.split_at_mut(texts - text - 1);
                let products = products[row + 1..].iter().zip(&inverse_norms[text + 1..]);
                for (cosine, (&product, inverse)) in cosines.iter_mut().zip(products) {
                    *cosine = (f64::from(product) * inverse_norms[text] * inverse) as f32;
                }
                piece = others;
            }
        });
        Self { texts, values }
    }

    /// Puts in the place of each number its rank among all, of equal ones their mean rank, less the
    /// mean of all ranks.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "there are fewer than 2^32 pairs, and ranks are rounded to 24 bits"
    )]
    pub(super) fn into_ranks(mut self) -> Self {
        let numbers = 0..self.values.len() as u32;
        // The number in the upper half, so that sorting reads nothing else.
        let key =
            |pair: u32| (u64::from(sortable(self.values[pair as usize])) << 32) | u64::from(pair);
        let mut keys: Vec<u64> = numbers.into_par_iter().map(key).collect();
        keys.par_sort_unstable();
        let middle = (keys.len() as f64 - 1.0) / 2.0;
        let mut before = 0;
        for equal in keys.chunk_by(|one, other| one >> 32 == other >> 32) {
            let mean = before as f64 + (equal.len() as f64 - 1.0) / 2.0;
            for key in equal {
                self.values[*key as u32 as usize] = (mean - middle) as f32;
            }
            before += equal.len();
        }
        self
    }

    /// Ready to be correlated; none where all numbers are alike, or some are none.
    pub(super) fn standardized(&self) -> Option<Standardized<'_>> {
        let count = self.values.len() as f64;
        let [sum] = self.sums(|value| [value]);
        let mean = sum / count;
        let [squares] = self.sums(|value| [(value - mean).powi(2)]);
        let deviation = (squares / count).sqrt();
        let differ = deviation.is_finite() && deviation > LEAST_DEVIATION * mean.abs();
        differ.then_some(Standardized {
            pairs: self,
            mean,
            deviation,
        })
    }

    /// Sums over all pairs, in the same order for any number of threads.
    fn sums<const N: usize>(&self, of: impl Fn(f64) -> [f64; N] + Sync) -> [f64; N] {
        let pieces = self.values.par_chunks(SUM_PIECE).map(|piece| {
            let numbers = piece.iter().map(|&value| of(f64::from(value)));
            numbers.fold([0.0; N], add)
        });
        pieces.collect::<Vec<_>>().into_iter().fold([0.0; N], add)
    }

    /// Of the pairs of `text` with each later one.
    fn row(&self, text: usize) -> &[f32] {
        &self.values[start_of(text, self.texts)..start_of(text + 1, self.texts)]
    }
}

/// Where the row of `text` begins among the pairs of `texts`.
fn start_of(text: usize, texts: usize) -> usize {
    text * (2 * texts - text - 1) / 2
}

/// As an integer that sorts as the number does. Zero has one form.
fn sortable(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 1 {
        !bits
    } else {
        bits | (1 << 31)
    }
}

fn add<const N: usize>(mut sums: [f64; N], more: [f64; N]) -> [f64; N] {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += more;
    }
    sums
}

/// Numbers of pairs, to be taken to mean 0 and deviation 1.
pub(super) struct Standardized<'a> {
    pairs: &'a Pairs,
    mean: f64,
    deviation: f64,
}

impl Standardized<'_> {
    fn of(&self, value: f32) -> f64 {
        (f64::from(value) - self.mean) / self.deviation
    }

    /// The rows `texts` as a dense matrix `[rows, columns]`, column 0 being the pair with the text
    /// behind the first; zeros below the diagonal and on it.
    #[allow(clippy::cast_possible_truncation, reason = "rounded from 64 bits")]
    fn dense(&self, texts: Range<usize>) -> Vec<f32> {
        let columns = self.pairs.texts - texts.start - 1;
        let mut dense = vec![0.0; texts.len() * columns];
        for (row, text) in texts.enumerate() {
            let upper = &mut dense[row * columns + row..(row + 1) * columns];
            for (number, &value) in upper.iter_mut().zip(self.pairs.row(text)) {
                *number = self.of(value) as f32;
            }
        }
        dense
    }
}

/// Pearson's correlation of the numbers of two models, over all pairs of texts. Of the same numbers it
/// is 1 exactly.
pub(super) fn pearson(x: &Standardized, y: &Standardized) -> f64 {
    let x_pieces = x.pairs.values.par_chunks(SUM_PIECE);
    let pieces = x_pieces.zip(y.pairs.values.par_chunks(SUM_PIECE));
    let pieces = pieces.map(|(x_piece, y_piece)| {
        let numbers = x_piece.iter().zip(y_piece).map(|(&x_value, &y_value)| {
            let (x, y) = (x.of(x_value), y.of(y_value));
            [x * x, y * y, x * y]
        });
        numbers.fold([0.0; 3], add)
    });
    let [xx, yy, xy] = pieces.collect::<Vec<_>>().into_iter().fold([0.0; 3], add);
    correlation(xx, yy, xy)
}

/// From sums of squares and products of numbers less their means. √(s·s) is s, to the last bit.
pub(super) fn correlation(xx: f64, yy: f64, xy: f64) -> f64 {
    (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0)
}

/// Pearson's correlation in each resample, c being its counts: a pair of two texts counts `c_i c_j`
/// times. A text drawn twice makes no pair with itself, which would be 1 for any model.
///
/// For each resample `Σ c_i c_j x_ij` over i < j is `cᵀ X c` with X the strict upper triangle, so all of
/// them are products of a few rows of X with all counts at once.
pub(super) fn pearson_resampled(
    x: &Standardized,
    y: &Standardized,
    resamples: &Resamples,
) -> Vec<f64> {
    let (texts, columns) = (resamples.texts(), resamples.columns());
    // The last text is in no row of its own.
    let sums = tiles(texts - 1).into_par_iter().map(|tile| {
        let (first, rows) = (tile.start + 1, tile.clone());
        let [x, y] = [x, y].map(|matrix| matrix.dense(rows.clone()));
        let counts = resamples.counts_from(first);
        let products = TileProducts::new(&x, &y, counts, texts - first);
        let TileProducts { x, y, xx, yy, xy } = products;
        let mut sums = vec![[0.0; 5]; columns];
        for (row, text) in rows.enumerate() {
            let at = row * columns;
            for (column, &count) in resamples.counts_of(text).iter().enumerate() {
                let products = [&x, &y, &xx, &yy, &xy].map(|numbers| numbers[at + column]);
                let counted = products.map(|product| f64::from(count) * f64::from(product));
                sums[column] = add(sums[column], counted);
            }
        }
        sums
    });
    let mut all = vec![[0.0; 5]; columns];
    for tile in sums.collect::<Vec<_>>() {
        for (sums, more) in all.iter_mut().zip(tile) {
            *sums = add(*sums, more);
        }
    }
    let texts = texts as f64;
    let drawn = all.into_iter().zip(resamples.squares()).skip(1);
    drawn
        .map(|([x, y, xx, yy, xy], squares)| {
            let pairs = (texts * texts - squares) / 2.0;
            let (xx, yy) = (xx - x * x / pairs, yy - y * y / pairs);
            // Of numbers that are all alike but for rounding there is no correlation.
            if xx.min(yy) <= LEAST_DEVIATION * pairs {
                return f64::NAN;
            }
            correlation(xx, yy, xy - x * y / pairs)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(texts: usize, values: &[f32]) -> Pairs {
        let values = values.to_vec();
        Pairs { texts, values }
    }

    #[test]
    fn pairs_are_row_after_row() {
        // More than one tile.
        let (texts, width) = (130, 3);
        let vector = |text: usize| [1.0, text as f32, (text * text % 17) as f32 - 8.0];
        let vectors: Vec<f32> = (0..texts).flat_map(vector).collect();
        assert_eq!(vectors.len(), texts * width);
        let found = Pairs::cosines(&vectors, texts);
        assert_eq!(found.values.len(), texts * (texts - 1) / 2);
        for text in 0..texts {
            assert_eq!(found.row(text).len(), texts - text - 1);
            for (later, cosine) in (text + 1..texts).zip(found.row(text)) {
                let product = |one: usize, other: usize| -> f64 {
                    let numbers = vector(one).into_iter().zip(vector(other));
                    numbers.map(|(a, b)| f64::from(a) * f64::from(b)).sum()
                };
                let norms = (product(text, text) * product(later, later)).sqrt();
                let expected = product(text, later) / norms;
                assert!(
                    (f64::from(*cosine) - expected).abs() < 1e-6,
                    "{text} {later}"
                );
            }
        }
    }

    #[test]
    fn equal_numbers_have_their_mean_rank() {
        let ranks = pairs(4, &[0.5, -2.0, 0.5, -0.0, 7.0, 0.0]).into_ranks();
        // From 0: 3.5, 0, 3.5, 1.5, 5, 1.5, less their mean of 2.5.
        assert_eq!(ranks.values, [1.0, -2.5, 1.0, -1.0, 2.5, -1.0]);
    }

    #[test]
    fn what_is_all_alike_cannot_be_correlated() {
        assert!(pairs(3, &[0.7, 0.7, 0.7]).standardized().is_none());
        assert!(pairs(3, &[0.7, 0.7, 0.700_000_05]).standardized().is_none());
        assert!(pairs(3, &[0.7, f32::NAN, 0.1]).standardized().is_none());
        assert!(pairs(3, &[0.7, 0.7, 0.71]).standardized().is_some());
        let no_length = [0.0, 0.0, 1.0, 2.0, 3.0, 1.0];
        assert!(Pairs::cosines(&no_length, 3).standardized().is_none());
    }

    /// The same text three times leaves no pair.
    #[test]
    fn a_resample_without_pairs_is_no_number() {
        let (x, y) = (pairs(3, &[0.1, 0.5, 0.9]), pairs(3, &[0.2, 0.3, 0.9]));
        let (x, y) = (
            x.standardized().expect("differ"),
            y.standardized().expect("differ"),
        );
        let resamples = Resamples::from_draws(3, 2, |resample, place| resample * place);
        let found = pearson_resampled(&x, &y, &resamples);
        assert!(found[0].is_nan());
        assert!((found[1] - pearson(&x, &y)).abs() < 1e-6);
    }
}
