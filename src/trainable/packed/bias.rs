//! Biases of linear layers.

use rayon::prelude::*;

use super::CHUNK;
use super::matrix::Target;
use crate::simd;

/// Rows whose sum is taken at a time.
const ROWS: usize = 64;

/// Sets every row of `[tokens, outputs]` to `bias`, for a product to be added to.
pub(super) fn fill(output: &mut [f32], bias: &[f32]) {
    let width = bias.len();
    let rows = (CHUNK / width).max(1);
    output.par_chunks_mut(rows * width).for_each(|rows| {
        for row in rows.chunks_exact_mut(width) {
            row.copy_from_slice(bias);
        }
    });
}

/// `sums ← Σ rows` of `[tokens, outputs]`: the gradient of a bias.
pub(super) fn column_sums(matrix: &[f32], sums: &mut [f32], target: Target) {
    let columns = sums.len();
    let partial: Vec<Vec<f32>> = matrix
        .par_chunks(ROWS * columns)
        .map(|rows| {
            let mut sums = vec![0.0; columns];
            simd::dispatch(
                #[inline(always)]
                || {
                    for row in rows.chunks_exact(columns) {
                        for (sum, number) in sums.iter_mut().zip(row) {
                            *sum += number;
                        }
                    }
                },
            );
            sums
        })
        .collect();
    add_up(&partial, sums, target);
}

/// `sums ← Σ partial`, in order.
pub(super) fn add_up(partial: &[Vec<f32>], sums: &mut [f32], target: Target) {
    if target == Target::Replace {
        sums.fill(0.0);
    }
    for part in partial {
        for (sum, number) in sums.iter_mut().zip(part) {
            *sum += number;
        }
    }
}
