//! Multi-head scaled dot-product self-attention over packed sequences, each token attending to
//! every token of its own sequence: `softmax(Q Kᵀ / √d) V` (Vaswani et al., 2017).
//!
//! Heads of sequences are worked on in parallel, each with room for its own probabilities only;
//! the backward pass computes them again.

use faer::linalg::matmul::matmul;
use faer::prelude::{Reborrow, ReborrowMut};
use faer::{Accum, MatMut, MatRef, Par};
use pulp::Arch;
use rayon::prelude::*;

use super::math::exp;
use super::matrix::{view, view_mut};
use super::rows::Rows;
use super::sums::{dot, largest, sum};
use crate::trainable::Dropout;
use crate::trainable::Packing;

/// Heads that a thread takes at least: those of short sequences are done in a microsecond.
const MIN_HEADS: usize = 4;

/// What attention is over.
#[derive(Clone, Copy)]
pub(super) struct Shape<'a> {
    /// Where the sequences lie.
    pub(super) packing: &'a Packing,
    /// Tokens that ask; all tokens are asked.
    pub(super) rows: Rows<'a>,
    /// Attention heads.
    pub(super) heads: usize,
    /// Of the probabilities.
    pub(super) dropout: Option<Dropout>,
}

impl Shape<'_> {
    /// Rows of the queries' matrix that belong to sequence `index`.
    fn queries(&self, index: usize) -> usize {
        match self.rows {
            Rows::All => self.packing.length(index),
            Rows::Some(_) => 1,
        }
    }

    /// Place in its sequence of the first token that asks.
    fn first_query(&self, index: usize) -> usize {
        match self.rows {
            Rows::All => 0,
            Rows::Some(rows) => rows[index] - self.packing.offsets[index],
        }
    }

    /// Dropout's number of the first probability of each head of each sequence.
    fn first_probabilities(&self) -> Vec<usize> {
        let sequences = self
            .packing
            .probabilities(self.heads)
            .into_iter()
            .enumerate();
        let heads = sequences.flat_map(|(index, start)| {
            let length = self.packing.length(index);
            let query = self.first_query(index) * length;
            (0..self.heads).map(move |head| start + head * length * length + query)
        });
        heads.collect()
    }

    /// The blocks `[rows(sequence), head size]` of `matrix`, sequence after sequence, head after
    /// head.
    fn blocks<'m>(
        &self,
        matrix: MatRef<'m, f32>,
        rows: impl Fn(usize) -> usize,
    ) -> Vec<MatRef<'m, f32>> {
        let size = matrix.ncols() / self.heads;
        let mut start = 0;
        let sequences = (0..self.packing.sequences()).flat_map(|index| {
            let (first, count) = (start, rows(index));
            start += count;
            (0..self.heads).map(move |head| matrix.submatrix(first, head * size, count, size))
        });
        sequences.collect()
    }

    /// As [`blocks`](Self::blocks), to be written to.
    fn blocks_mut<'m>(
        &self,
        matrix: MatMut<'m, f32>,
        rows: impl Fn(usize) -> usize,
    ) -> Vec<MatMut<'m, f32>> {
        let size = matrix.ncols() / self.heads;
        let mut blocks = Vec::with_capacity(self.packing.sequences() * self.heads);
        let mut below = matrix;
        for index in 0..self.packing.sequences() {
            let (sequence, rest) = below.split_at_row_mut(rows(index));
            below = rest;
            let mut right = sequence;
            for _ in 0..self.heads {
                let (head, rest) = right.split_at_col_mut(size);
                blocks.push(head);
                right = rest;
            }
        }
        blocks
    }
}

/// `context ← softmax(Q Kᵀ / √d) V`. `queries` and `context` have a row for each token that asks,
/// `keys` and `values` one for each token; all are `[…, width]`.
pub(super) fn forward(
    shape: Shape,
    [queries, keys, values]: [&[f32]; 3],
    width: usize,
    context: &mut [f32],
) {
    let asking = |index| shape.queries(index);
    let asked = |index| shape.packing.length(index);
    shape
        .blocks(view(queries, width), asking)
        .into_par_iter()
        .zip(shape.blocks(view(keys, width), asked))
        .zip(shape.blocks(view(values, width), asked))
        .zip(shape.blocks_mut(view_mut(context, width), asking))
        .zip(shape.first_probabilities())
        .with_min_len(MIN_HEADS)
        .for_each_init(Vec::new, |scratch, ((((q, k), v), context), start)| {
            let probabilities = room(scratch, q.nrows() * k.nrows());
            score(q, k, probabilities);
            drop_out(probabilities, shape.dropout, start);
            let probabilities = view(probabilities, k.nrows());
            matmul(context, Accum::Replace, probabilities, v, 1.0, Par::Seq);
        });
}

/// Turns queries, keys and values into their gradients, given that of the context.
///
/// With `P` the probabilities, `M` dropout's factors and `G` the context's gradient:
/// `dV = (P∘M)ᵀ G`, `dP = (G Vᵀ)∘M`, `dS = P∘(dP - rowsum(dP∘P))`, `dQ = dS K / √d`,
/// `dK = dSᵀ Q / √d`.
pub(super) fn backward(
    shape: Shape,
    [queries, keys, values]: [&mut [f32]; 3],
    width: usize,
    of_context: &[f32],
) {
    let asking = |index| shape.queries(index);
    let asked = |index| shape.packing.length(index);
    shape
        .blocks_mut(view_mut(queries, width), asking)
        .into_par_iter()
        .zip(shape.blocks_mut(view_mut(keys, width), asked))
        .zip(shape.blocks_mut(view_mut(values, width), asked))
        .zip(shape.blocks(view(of_context, width), asking))
        .zip(shape.first_probabilities())
        .with_min_len(MIN_HEADS)
        .for_each_init(Vec::new, |scratch, ((((q, k), v), of_context), start)| {
            head_backward([q, k, v], of_context, shape.dropout, start, scratch);
        });
}

fn head_backward(
    [mut q, mut k, mut v]: [MatMut<f32>; 3],
    of_context: MatRef<f32>,
    dropout: Option<Dropout>,
    first_probability: usize,
    scratch: &mut Vec<f32>,
) {
    let (asking, length, size) = (q.nrows(), k.nrows(), q.ncols());
    let scratch = room(scratch, 2 * asking * length + asking * size);
    let (probabilities, rest) = scratch.split_at_mut(asking * length);
    let (of_scores, of_queries) = rest.split_at_mut(asking * length);
    let product = |target: MatMut<f32>, left: MatRef<f32>, right: MatRef<f32>| {
        matmul(target, Accum::Replace, left, right, 1.0, Par::Seq);
    };
    score(q.rb(), k.rb(), probabilities);
    product(view_mut(of_scores, length), of_context, v.rb().transpose());
    let scale = 1.0 / (size as f32).sqrt();
    scores_backward(
        probabilities,
        of_scores,
        length,
        scale,
        dropout,
        first_probability,
    );
    let (probabilities, of_scores) = (view(probabilities, length), view(of_scores, length));
    product(v.rb_mut(), probabilities.transpose(), of_context);
    product(view_mut(of_queries, size), of_scores, k.rb());
    product(k.rb_mut(), of_scores.transpose(), q.rb());
    q.copy_from(view(of_queries, size));
}

/// `softmax(Q Kᵀ / √d)`, `[queries, length]`.
fn score(q: MatRef<f32>, k: MatRef<f32>, probabilities: &mut [f32]) {
    let length = k.nrows();
    let scale = 1.0 / (q.ncols() as f32).sqrt();
    let scores = view_mut(probabilities, length);
    matmul(scores, Accum::Replace, q, k.transpose(), scale, Par::Seq);
    Arch::new().dispatch(
        #[inline(always)]
        || {
            probabilities
                .chunks_exact_mut(length)
                .for_each(softmax_in_place)
        },
    );
}

#[inline(always)]
fn softmax_in_place(row: &mut [f32]) {
    let largest = largest(row);
    for number in row.iter_mut() {
        *number = exp(*number - largest);
    }
    let share = 1.0 / sum(row, |number| number);
    for number in row {
        *number *= share;
    }
}

fn drop_out(numbers: &mut [f32], dropout: Option<Dropout>, start: usize) {
    let Some(dropout) = dropout else { return };
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (index, number) in numbers.iter_mut().enumerate() {
                *number *= dropout.factor(start + index);
            }
        },
    );
}

/// Turns `of_probabilities`, after dropout, into `scale` times the gradient of the scores, and
/// `probabilities` into those after dropout.
fn scores_backward(
    probabilities: &mut [f32],
    of_probabilities: &mut [f32],
    length: usize,
    scale: f32,
    dropout: Option<Dropout>,
    start: usize,
) {
    drop_out(of_probabilities, dropout, start);
    Arch::new().dispatch(
        #[inline(always)]
        || {
            let rows = of_probabilities.chunks_exact_mut(length);
            for (gradient, row) in rows.zip(probabilities.chunks_exact(length)) {
                let mean = dot(gradient, row);
                for (gradient, probability) in gradient.iter_mut().zip(row) {
                    *gradient = scale * probability * (*gradient - mean);
                }
            }
        },
    );
    drop_out(probabilities, dropout, start);
}

/// The first `length` numbers of `scratch`, made longer if need be.
fn room(scratch: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if scratch.len() < length {
        scratch.resize(length, 0.0);
    }
    &mut scratch[..length]
}
