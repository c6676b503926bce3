//! The gated activation: `activation(a) · b` (Shazeer, 2020) and dropout of the product, in one
//! pass over the rows.

use rayon::prelude::*;

use super::CHUNK;
use super::activation::Activation;
use super::layer_norm::RowDropout;
use crate::simd;

/// How `a` and `b` lie in the wide states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// As halves of each row, `[rows, 2 · half]`.
    SideBySide,
    /// All rows of `a` before all of `b`, `[2, rows, half]`.
    Stacked,
}

/// `output ← dropout(activation(a) · b)`: `wide` `2 · rows · half` numbers, `output`
/// `[rows, half]`.
pub(super) fn forward<A: Activation>(
    wide: &[f32],
    (layout, half): (Layout, usize),
    dropout: Option<RowDropout>,
    output: &mut [f32],
) {
    let rows = (CHUNK / half).max(1);
    let outputs = output.len();
    let chunks = output.par_chunks_mut(rows * half);
    match layout {
        Layout::SideBySide => {
            let chunks = chunks.zip(wide.par_chunks(2 * rows * half)).enumerate();
            chunks.for_each(|(chunk, (output, wide))| {
                let pairs = wide.chunks_exact(2 * half).map(|row| row.split_at(half));
                forward_rows::<A>(output, pairs, dropout, chunk * rows);
            });
        }
        Layout::Stacked => {
            let (a, b) = wide.split_at(outputs);
            let chunks = chunks.zip(a.par_chunks(rows * half));
            let chunks = chunks.zip(b.par_chunks(rows * half)).enumerate();
            chunks.for_each(|(chunk, ((output, a), b))| {
                let pairs = a.chunks_exact(half).zip(b.chunks_exact(half));
                forward_rows::<A>(output, pairs, dropout, chunk * rows);
            });
        }
    }
}

/// Some rows of [`forward`], the first of them number `first`.
fn forward_rows<'a, A: Activation>(
    output: &mut [f32],
    pairs: impl ExactSizeIterator<Item = (&'a [f32], &'a [f32])>,
    dropout: Option<RowDropout>,
    first: usize,
) {
    let half = output.len() / pairs.len();
    simd::dispatch(
        #[inline(always)]
        || {
            let rows = output.chunks_exact_mut(half).zip(pairs);
            for (row, (output, (a, b))) in rows.enumerate() {
                for ((output, &a), &b) in output.iter_mut().zip(a).zip(b) {
                    *output = A::value(a) * b;
                }
                drop_out(output, dropout, first + row);
            }
        },
    );
}

/// Turns `wide` into its gradient, and `gradient`, of what [`forward`] put out, into what it put
/// out.
pub(super) fn backward<A: Activation>(
    wide: &mut [f32],
    (layout, half): (Layout, usize),
    dropout: Option<RowDropout>,
    gradient: &mut [f32],
) {
    let rows = (CHUNK / half).max(1);
    let outputs = gradient.len();
    let chunks = gradient.par_chunks_mut(rows * half);
    match layout {
        Layout::SideBySide => {
            let chunks = chunks.zip(wide.par_chunks_mut(2 * rows * half)).enumerate();
            chunks.for_each(|(chunk, (gradient, wide))| {
                let wide = wide.chunks_exact_mut(2 * half);
                let pairs = wide.map(|row| row.split_at_mut(half));
                backward_rows::<A>(gradient, pairs, dropout, chunk * rows);
            });
        }
        Layout::Stacked => {
            let (a, b) = wide.split_at_mut(outputs);
            let chunks = chunks.zip(a.par_chunks_mut(rows * half));
            let chunks = chunks.zip(b.par_chunks_mut(rows * half)).enumerate();
            chunks.for_each(|(chunk, ((gradient, a), b))| {
                let pairs = a.chunks_exact_mut(half).zip(b.chunks_exact_mut(half));
                backward_rows::<A>(gradient, pairs, dropout, chunk * rows);
            });
        }
    }
}

/// Some rows of [`backward`], the first of them number `first`.
fn backward_rows<'a, A: Activation>(
    gradient: &mut [f32],
    pairs: impl ExactSizeIterator<Item = (&'a mut [f32], &'a mut [f32])>,
    dropout: Option<RowDropout>,
    first: usize,
) {
    let half = gradient.len() / pairs.len();
    simd::dispatch(
        #[inline(always)]
        || {
            let rows = gradient.chunks_exact_mut(half).zip(pairs);
            for (row, (gradient, (a, b))) in rows.enumerate() {
                drop_out(gradient, dropout, first + row);
                for ((gradient, a), b) in gradient.iter_mut().zip(a).zip(b) {
                    let (active, slope) = A::with_slope(*a);
                    let product = active * *b;
                    *a = *gradient * *b * slope;
                    *b = *gradient * active;
                    *gradient = product;
                }
                drop_out(gradient, dropout, first + row);
            }
        },
    );
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
