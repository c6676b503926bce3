//! Dropout, the residual connection and layer normalisation (Ba, Kiros, Hinton, 2016) in one pass
//! over the rows: `y = n · weight + bias`, `n = (z - mean) / √(variance + ε)`,
//! `z = dropout(x) + residual`; and the same one by one, for norms in front of a block. Root mean
//! square normalisation (Zhang, Sennrich, 2019) is the same with a mean of 0.

use rayon::prelude::*;

use super::CHUNK;
use super::rows::Rows;
use super::sums::{dot, sum};
use crate::checkpoint::NormKind;
use crate::simd;
use crate::trainable::Dropout;

/// Dropout of some rows of a matrix, numbered as in the whole matrix.
#[derive(Clone, Copy)]
pub(super) struct RowDropout<'a> {
    pub(super) dropout: Dropout,
    pub(super) rows: Rows<'a>,
    /// Tokens of the batch before this matrix's first.
    pub(super) first_token: usize,
}

impl RowDropout<'_> {
    /// The number of the first element of row `index`.
    #[inline(always)]
    pub(super) fn start(&self, index: usize, width: usize) -> usize {
        (self.first_token + self.rows.original(index)) * width
    }
}

/// A norm's kind and parameters.
#[derive(Clone, Copy)]
pub(super) struct Affine<'a> {
    pub(super) kind: NormKind,
    pub(super) weight: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
}

impl Affine<'_> {
    /// `y ← n · weight + bias` of one row.
    #[inline(always)]
    fn apply(&self, normalised: &[f32], y: &mut [f32]) {
        let width = self.weight.len();
        match self.bias {
            Some(bias) => {
                for i in 0..width {
                    y[i] = normalised[i] * self.weight[i] + bias[i];
                }
            }
            None => {
                for i in 0..width {
                    y[i] = normalised[i] * self.weight[i];
                }
            }
        }
    }
}

/// Turns `x` into the normalised rows `n` and `residual` into `y`; `scales` gets each row's
/// `1 / √(variance + ε)`. Matrices are `[tokens, width]`.
pub(super) fn forward(
    x: &mut [f32],
    residual: &[f32],
    affine: Affine,
    epsilon: f32,
    dropout: Option<RowDropout>,
    scales: &mut [f32],
    y: &mut [f32],
) {
    let width = affine.weight.len();
    let rows = (CHUNK / width).max(1);
    x.par_chunks_mut(rows * width)
        .zip(y.par_chunks_mut(rows * width))
        .zip(residual.par_chunks(rows * width))
        .zip(scales.par_chunks_mut(rows))
        .enumerate()
        .for_each(|(chunk, (((x, y), residual), scales))| {
            simd::dispatch(
                #[inline(always)]
                || {
                    let inputs = x
                        .chunks_exact_mut(width)
                        .zip(y.chunks_exact_mut(width))
                        .zip(residual.chunks_exact(width))
                        .zip(scales);
                    for (row, (((x, y), residual), scale)) in inputs.enumerate() {
                        add_residual(x, residual, dropout, chunk * rows + row);
                        *scale = normalise(x, affine.kind, epsilon);
                        affine.apply(x, y);
                    }
                },
            );
        });
}

/// The normalised rows of `x` and the output `y`, each in its own place; `scales` as in
/// [`forward`].
pub(super) fn forward_apart(
    x: &[f32],
    affine: Affine,
    epsilon: f32,
    normalised: &mut [f32],
    scales: &mut [f32],
    y: &mut [f32],
) {
    let width = affine.weight.len();
    let rows = (CHUNK / width).max(1);
    normalised
        .par_chunks_mut(rows * width)
        .zip(y.par_chunks_mut(rows * width))
        .zip(x.par_chunks(rows * width))
        .zip(scales.par_chunks_mut(rows))
        .for_each(|(((normalised, y), x), scales)| {
            simd::dispatch(
                #[inline(always)]
                || {
                    let inputs = normalised
                        .chunks_exact_mut(width)
                        .zip(y.chunks_exact_mut(width))
                        .zip(x.chunks_exact(width))
                        .zip(scales);
                    for (((normalised, y), x), scale) in inputs {
                        normalised.copy_from_slice(x);
                        *scale = normalise(normalised, affine.kind, epsilon);
                        affine.apply(normalised, y);
                    }
                },
            );
        });
}

/// `x ← dropout(x) + residual`, both `[rows, width]`.
pub(super) fn add_rows(x: &mut [f32], residual: &[f32], width: usize, dropout: Option<RowDropout>) {
    let rows = (CHUNK / width).max(1);
    let chunks = x.par_chunks_mut(rows * width);
    let chunks = chunks.zip(residual.par_chunks(rows * width)).enumerate();
    chunks.for_each(|(chunk, (x, residual))| {
        simd::dispatch(
            #[inline(always)]
            || {
                let pairs = x.chunks_exact_mut(width).zip(residual.chunks_exact(width));
                for (row, (x, residual)) in pairs.enumerate() {
                    add_residual(x, residual, dropout, chunk * rows + row);
                }
            },
        );
    });
}

/// `output ← dropout(x)`, both `[rows, width]`.
pub(super) fn drop_rows(x: &[f32], width: usize, dropout: Option<RowDropout>, output: &mut [f32]) {
    let rows = (CHUNK / width).max(1);
    let chunks = output.par_chunks_mut(rows * width);
    let chunks = chunks.zip(x.par_chunks(rows * width)).enumerate();
    chunks.for_each(|(chunk, (output, x))| {
        simd::dispatch(
            #[inline(always)]
            || {
                let pairs = output.chunks_exact_mut(width).zip(x.chunks_exact(width));
                for (row, (output, x)) in pairs.enumerate() {
                    drop_out(x, dropout, chunk * rows + row, output);
                }
            },
        );
    });
}

/// `x ← dropout(x) + residual`, for row `index`.
#[inline(always)]
fn add_residual(x: &mut [f32], residual: &[f32], dropout: Option<RowDropout>, index: usize) {
    match dropout {
        Some(settings) => {
            let start = settings.start(index, x.len());
            for (column, (x, residual)) in x.iter_mut().zip(residual).enumerate() {
                *x = *x * settings.dropout.factor(start + column) + residual;
            }
        }
        None => {
            for (x, residual) in x.iter_mut().zip(residual) {
                *x += residual;
            }
        }
    }
}

/// Normalises a row in place; returns `1 / √(variance + ε)`.
#[inline(always)]
fn normalise(x: &mut [f32], kind: NormKind, epsilon: f32) -> f32 {
    let count = x.len() as f32;
    let mean = match kind {
        NormKind::Layer => sum(x, |x| x) / count,
        NormKind::RootMeanSquare => 0.0,
    };
    let variance = sum(x, |x| (x - mean) * (x - mean)) / count;
    let scale = 1.0 / (variance + epsilon).sqrt();
    for x in x {
        *x = (*x - mean) * scale;
    }
    scale
}

/// `y ← n · weight + bias` again, from the normalised rows.
pub(super) fn scale_and_shift(normalised: &[f32], affine: Affine, y: &mut [f32]) {
    let width = affine.weight.len();
    let rows = (CHUNK / width).max(1) * width;
    let chunks = y.par_chunks_mut(rows).zip(normalised.par_chunks(rows));
    chunks.for_each(|(y, normalised)| {
        let rows = y
            .chunks_exact_mut(width)
            .zip(normalised.chunks_exact(width));
        for (y, normalised) in rows {
            affine.apply(normalised, y);
        }
    });
}

/// What [`forward`] left, to go back through it.
#[derive(Clone, Copy)]
pub(super) struct Normalised<'a> {
    /// The normalised rows `n`, `[tokens, width]`.
    pub(super) rows: &'a [f32],
    /// Of each row.
    pub(super) scales: &'a [f32],
    /// By which norm.
    pub(super) kind: NormKind,
}

/// Turns `gradient`, with respect to `y`, into that with respect to `z` and so to the residual:
/// with `g` the gradient times the weight, a row's is `scale · (g - mean(g) - n · mean(g n))`,
/// without the `mean(g)` where the mean was not taken off.
/// `of_x` gets that with respect to `x`, before dropout. Returns those of weight and bias, to be
/// added up.
pub(super) fn backward(
    gradient: &mut [f32],
    normalised: Normalised,
    weight: &[f32],
    dropout: Option<RowDropout>,
    of_x: &mut [f32],
) -> [Vec<Vec<f32>>; 2] {
    backward_to(
        gradient,
        normalised,
        weight,
        of_x,
        #[inline(always)]
        |of_z, index, of_x| drop_out(of_z, dropout, index, of_x),
    )
}

/// The way back through [`forward_apart`]: as [`backward`], but the gradient with respect to `x` is
/// added to `sum`.
pub(super) fn backward_added(
    gradient: &mut [f32],
    normalised: Normalised,
    weight: &[f32],
    sum: &mut [f32],
) -> [Vec<Vec<f32>>; 2] {
    backward_to(
        gradient,
        normalised,
        weight,
        sum,
        #[inline(always)]
        |of_x, _, sum| {
            for (sum, number) in sum.iter_mut().zip(of_x) {
                *sum += number;
            }
        },
    )
}

/// Turns `gradient` into that with respect to `z`, and gives each row of it, with its number and
/// its row of `target`, to `finish`.
fn backward_to(
    gradient: &mut [f32],
    normalised: Normalised,
    weight: &[f32],
    target: &mut [f32],
    finish: impl Fn(&[f32], usize, &mut [f32]) + Sync,
) -> [Vec<Vec<f32>>; 2] {
    let (width, kind) = (weight.len(), normalised.kind);
    let rows = (CHUNK / width).max(1);
    let partial: Vec<(Vec<f32>, Vec<f32>)> = gradient
        .par_chunks_mut(rows * width)
        .zip(target.par_chunks_mut(rows * width))
        .zip(normalised.rows.par_chunks(rows * width))
        .zip(normalised.scales.par_chunks(rows))
        .enumerate()
        .map(|(chunk, (((gradient, target), normalised), scales))| {
            let mut sums = (vec![0.0; width], vec![0.0; width]);
            simd::dispatch(
                #[inline(always)]
                || {
                    let inputs = gradient
                        .chunks_exact_mut(width)
                        .zip(target.chunks_exact_mut(width))
                        .zip(normalised.chunks_exact(width))
                        .zip(scales);
                    for (row, (((gradient, target), normalised), &scale)) in inputs.enumerate() {
                        add_parameter_gradients(gradient, normalised, &mut sums);
                        row_backward(gradient, normalised, weight, (kind, scale));
                        finish(gradient, chunk * rows + row, target);
                    }
                },
            );
            sums
        })
        .collect();
    let (of_weight, of_bias) = partial.into_iter().unzip();
    [of_weight, of_bias]
}

#[inline(always)]
fn add_parameter_gradients(
    gradient: &[f32],
    normalised: &[f32],
    (of_weight, of_bias): &mut (Vec<f32>, Vec<f32>),
) {
    let sums = of_weight.iter_mut().zip(of_bias.iter_mut());
    for ((of_weight, of_bias), (gradient, normalised)) in sums.zip(gradient.iter().zip(normalised))
    {
        *of_weight += gradient * normalised;
        *of_bias += gradient;
    }
}

#[inline(always)]
fn row_backward(
    gradient: &mut [f32],
    normalised: &[f32],
    weight: &[f32],
    (kind, scale): (NormKind, f32),
) {
    let count = gradient.len() as f32;
    for (gradient, weight) in gradient.iter_mut().zip(weight) {
        *gradient *= weight;
    }
    let mean = match kind {
        NormKind::Layer => sum(gradient, |g| g) / count,
        NormKind::RootMeanSquare => 0.0,
    };
    let mean_product = dot(gradient, normalised) / count;
    for (gradient, normalised) in gradient.iter_mut().zip(normalised) {
        *gradient = scale * (*gradient - mean - normalised * mean_product);
    }
}

/// `output ← dropout(x)` of row `index`.
#[inline(always)]
fn drop_out(x: &[f32], dropout: Option<RowDropout>, index: usize, output: &mut [f32]) {
    match dropout {
        Some(settings) => {
            let start = settings.start(index, x.len());
            for (column, (output, x)) in output.iter_mut().zip(x).enumerate() {
                *output = x * settings.dropout.factor(start + column);
            }
        }
        None => output.copy_from_slice(x),
    }
}
