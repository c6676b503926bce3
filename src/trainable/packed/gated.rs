//! The gated activation: `gelu(a) · b`, where `a` and `b` are the halves of a row (Shazeer, 2020),
//! and dropout of the product, in one pass over the rows.

use rayon::prelude::*;

use super::CHUNK;
use super::gelu::{self, with_slope};
use super::layer_norm::RowDropout;
use crate::simd;

/// `output ← dropout(gelu(a) · b)`: `wide` `[rows, 2 · half]`, `output` `[rows, half]`.
pub(super) fn forward(wide: &[f32], half: usize, dropout: Option<RowDropout>, output: &mut [f32]) {
    let rows = (CHUNK / half).max(1);
    let chunks = output.par_chunks_mut(rows * half);
    let chunks = chunks.zip(wide.par_chunks(2 * rows * half)).enumerate();
    chunks.for_each(|(chunk, (output, wide))| {
        simd::dispatch(
            #[inline(always)]
            || {
                let pairs = output.chunks_exact_mut(half);
                for (row, (output, wide)) in pairs.zip(wide.chunks_exact(2 * half)).enumerate() {
                    let (a, b) = wide.split_at(half);
                    for ((output, &a), &b) in output.iter_mut().zip(a).zip(b) {
                        *output = gelu::value(a) * b;
                    }
                    drop_out(output, dropout, chunk * rows + row);
                }
            },
        );
    });
}

/// Turns `wide` into its gradient, and `gradient`, of what [`forward`] put out, into what it put
/// out.
pub(super) fn backward(
    wide: &mut [f32],
    half: usize,
    dropout: Option<RowDropout>,
    gradient: &mut [f32],
) {
    let rows = (CHUNK / half).max(1);
    let chunks = gradient.par_chunks_mut(rows * half);
    let chunks = chunks.zip(wide.par_chunks_mut(2 * rows * half)).enumerate();
    chunks.for_each(|(chunk, (gradient, wide))| {
        simd::dispatch(
            #[inline(always)]
            || {
                let pairs = gradient.chunks_exact_mut(half);
                let pairs = pairs.zip(wide.chunks_exact_mut(2 * half));
                for (row, (gradient, wide)) in pairs.enumerate() {
                    let index = chunk * rows + row;
                    drop_out(gradient, dropout, index);
                    let (a, b) = wide.split_at_mut(half);
                    for ((gradient, a), b) in gradient.iter_mut().zip(a).zip(b) {
                        let (active, slope) = with_slope(*a);
                        let product = active * *b;
                        *a = *gradient * *b * slope;
                        *b = *gradient * active;
                        *gradient = product;
                    }
                    drop_out(gradient, dropout, index);
                }
            },
        );
    });
}

/// Dropout of row `index` in place.
#[inline(always)]
fn drop_out(row: &mut [f32], dropout: Option<RowDropout>, index: usize) {
    if let Some(settings) = dropout {
        let start = settings.start(index, row.len());
        for (column, number) in row.iter_mut().enumerate() {
            *number *= settings.dropout.factor(start + column);
        }
    }
}
