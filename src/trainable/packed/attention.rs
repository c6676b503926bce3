//! Multi-head scaled dot-product self-attention over packed sequences, each token attending to
//! every token of its own sequence, or to some of them: `softmax(Q Kᵀ / √d) V` (Vaswani et al.,
//! 2017). Several heads of queries may share one of keys and values (Ainslie et al., 2023).
//!
//! Heads of sequences are worked on in parallel, each with room for its own probabilities only;
//! the backward pass computes them again.

use faer::linalg::matmul::matmul;
use faer::prelude::{Reborrow, ReborrowMut};
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::Profile;
use super::math::exp;
use super::matrix::{view, view_mut};
use super::reach::Reach;
use super::relative_bias::RelativeBias;
use super::rows::Rows;
use super::sums::{dot, largest, sum};
use crate::simd;
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
    /// Heads of keys and values.
    pub(super) key_value_heads: usize,
    /// Farthest token that a token attends to, if not all; without a bias. Which else it does not,
    /// the packing says.
    pub(super) window: Option<usize>,
    /// Added to the scores.
    pub(super) bias: Option<&'a RelativeBias>,
    /// Of the probabilities.
    pub(super) dropout: Option<Dropout>,
    /// Where the products' time is written down.
    pub(super) profile: &'a Profile,
}

/// One head of keys and values of one sequence, and the first head of queries that has it.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    number: usize,
    /// Heads of queries that have it.
    shared_by: usize,
    /// Place in its sequence of the first token that asks.
    pub(super) first_query: usize,
    /// Dropout's number of the first probability.
    pub(super) first_probability: usize,
    pub(super) reach: Reach,
    bias: Option<&'a RelativeBias>,
    pub(super) dropout: Option<Dropout>,
    pub(super) profile: &'a Profile,
}

impl<'a> Shape<'a> {
    /// Rows of the queries' matrix that belong to sequence `index`.
    fn queries(&self, index: usize) -> usize {
        self.rows.places(self.packing, index).len()
    }

    /// What the tokens of sequence `index` attend to.
    fn reach(&self, index: usize) -> Reach {
        let length = self.packing.length(index);
        Reach {
            window: self.window.filter(|window| length > window + 1),
            prefix: self.packing.prefix(index),
        }
    }

    /// Every head of keys and values of every sequence, sequence after sequence.
    fn heads(&self) -> Vec<Head<'a>> {
        let sequences = self
            .packing
            .probabilities(self.heads)
            .into_iter()
            .enumerate();
        let shared_by = self.heads / self.key_value_heads;
        let heads = sequences.flat_map(|(index, start)| {
            let length = self.packing.length(index);
            let first_query = self.rows.places(self.packing, index).start;
            let numbers = (0..self.heads).step_by(shared_by);
            numbers.map(move |number| Head {
                number,
                shared_by,
                first_query,
                first_probability: start + (number * length + first_query) * length,
                reach: self.reach(index),
                bias: self.bias,
                dropout: self.dropout,
                profile: self.profile,
            })
        });
        heads.collect()
    }

    /// Width of a row of keys or values where queries are `width` wide.
    fn key_value_width(&self, width: usize) -> usize {
        width / self.heads * self.key_value_heads
    }

    /// Heads that a thread takes at least.
    fn least_heads(&self) -> usize {
        (MIN_HEADS * self.key_value_heads).div_ceil(self.heads)
    }

    /// Counts `products` with as many operations as `Q Kᵀ`.
    fn count(&self, products: usize, width: usize) {
        let sequences = 0..self.packing.sequences();
        let pairs = sequences.map(|index| {
            let (places, length) = (
                self.rows.places(self.packing, index),
                self.packing.length(index),
            );
            match self.reach(index) {
                reach if reach.is_all() => places.len() * length,
                reach => reach.pairs(places, length),
            }
        });
        let operations = 2 * products * pairs.sum::<usize>() * width;
        self.profile.count(operations as u64);
    }

    /// The blocks of `matrix` for each head of keys and values, `rows(sequence)` rows of it,
    /// sequence after sequence, head after head.
    fn blocks<'m>(
        &self,
        matrix: MatRef<'m, f32>,
        rows: impl Fn(usize) -> usize,
    ) -> Vec<MatRef<'m, f32>> {
        let size = matrix.ncols() / self.key_value_heads;
        let mut start = 0;
        let sequences = (0..self.packing.sequences()).flat_map(|index| {
            let (first, count) = (start, rows(index));
            start += count;
            (0..self.key_value_heads)
                .map(move |head| matrix.submatrix(first, head * size, count, size))
        });
        sequences.collect()
    }

    /// As [`blocks`](Self::blocks), to be written to.
    fn blocks_mut<'m>(
        &self,
        matrix: MatMut<'m, f32>,
        rows: impl Fn(usize) -> usize,
    ) -> Vec<MatMut<'m, f32>> {
        let size = matrix.ncols() / self.key_value_heads;
        let mut blocks = Vec::with_capacity(self.packing.sequences() * self.key_value_heads);
        let mut below = matrix;
        for index in 0..self.packing.sequences() {
            let (sequence, rest) = below.split_at_row_mut(rows(index));
            below = rest;
            let mut right = sequence;
            for _ in 0..self.key_value_heads {
                let (head, rest) = right.split_at_col_mut(size);
                blocks.push(head);
                right = rest;
            }
        }
        blocks
    }
}

/// `context ← softmax(Q Kᵀ / √d) V`. `queries` and `context` have a row of `width` numbers for each
/// token that asks, `keys` and `values` one for each token, as much narrower as they have fewer heads.
pub(super) fn forward(
    shape: Shape,
    [queries, keys, values]: [&[f32]; 3],
    width: usize,
    context: &mut [f32],
) {
    let asking = |index| shape.queries(index);
    let asked = |index| shape.packing.length(index);
    shape.count(2, width);
    let shared = shape.key_value_width(width);
    shape
        .blocks(view(queries, width), asking)
        .into_par_iter()
        .zip(shape.blocks(view(keys, shared), asked))
        .zip(shape.blocks(view(values, shared), asked))
        .zip(shape.blocks_mut(view_mut(context, width), asking))
        .zip(shape.heads())
        .with_min_len(shape.least_heads())
        .for_each_init(Vec::new, |scratch, ((((q, k), v), context), head)| {
            if head.goes_by_blocks() {
                return head.forward_by_blocks([q, k, v], context, scratch);
            }
            let probabilities = room(scratch, q.nrows() * k.nrows());
            head.score(q, k, probabilities);
            head.drop_out(probabilities);
            head.product(context, 1.0, view(probabilities, k.nrows()), v);
        });
}

/// Turns queries, keys and values into their gradients, given that of the context. Returns that of
/// the bias, if it is trained, by distance for each head of each sequence.
///
/// With `P` the probabilities, `M` dropout's factors and `G` the context's gradient:
/// `dV = (P∘M)ᵀ G`, `dP = (G Vᵀ)∘M`, `dS = P∘(dP - rowsum(dP∘P))`, `dQ = dS K / √d`,
/// `dK = dSᵀ Q / √d`.
pub(super) fn backward(
    shape: Shape,
    [queries, keys, values]: [&mut [f32]; 3],
    width: usize,
    of_context: &[f32],
) -> Vec<Vec<f32>> {
    let asking = |index| shape.queries(index);
    let asked = |index| shape.packing.length(index);
    // Of the five, the first is done again.
    shape.count(4, width);
    let shared = shape.key_value_width(width);
    shape
        .blocks_mut(view_mut(queries, width), asking)
        .into_par_iter()
        .zip(shape.blocks_mut(view_mut(keys, shared), asked))
        .zip(shape.blocks_mut(view_mut(values, shared), asked))
        .zip(shape.blocks(view(of_context, width), asking))
        .zip(shape.heads())
        .with_min_len(shape.least_heads())
        .map_init(Vec::new, |scratch, ((((q, k), v), of_context), head)| {
            if head.goes_by_blocks() {
                head.backward_by_blocks([q, k, v], of_context, scratch);
                return Vec::new();
            }
            head.backward([q, k, v], of_context, scratch)
        })
        .collect()
}

impl Head<'_> {
    /// Whether it is done a block of queries at a time: all at once where one head attends to all.
    fn goes_by_blocks(&self) -> bool {
        self.shared_by > 1 || !self.reach.is_all()
    }

    /// The heads of queries, each by itself, of a sequence of `length`.
    pub(super) fn sharing(&self, length: usize) -> impl Iterator<Item = Self> {
        (0..self.shared_by).map(move |index| Self {
            number: self.number + index,
            shared_by: 1,
            first_probability: self.first_probability + index * length * length,
            ..*self
        })
    }

    /// `target ← scale · left right`
    pub(super) fn product(
        &self,
        target: MatMut<f32>,
        scale: f32,
        left: MatRef<f32>,
        right: MatRef<f32>,
    ) {
        self.profile.product(|| {
            matmul(target, Accum::Replace, left, right, scale, Par::Seq);
        });
    }

    /// `softmax(Q Kᵀ / √d + bias)`, `[queries, length]`.
    fn score(&self, q: MatRef<f32>, k: MatRef<f32>, probabilities: &mut [f32]) {
        let length = k.nrows();
        let scale = 1.0 / (q.ncols() as f32).sqrt();
        let mut target = Accum::Replace;
        if let Some(bias) = self.bias {
            let rows = probabilities.chunks_exact_mut(length);
            for (row, scores) in rows.enumerate() {
                scores.copy_from_slice(bias.row(self.number, self.first_query + row, length));
            }
            target = Accum::Add;
        }
        let scores = view_mut(probabilities, length);
        self.profile.product(|| {
            matmul(scores, target, q, k.transpose(), scale, Par::Seq);
        });
        simd::dispatch(
            #[inline(always)]
            || {
                for row in probabilities.chunks_exact_mut(length) {
                    softmax_in_place(row);
                }
            },
        );
    }

    fn drop_out(&self, numbers: &mut [f32]) {
        let Some(dropout) = self.dropout else { return };
        let start = self.first_probability;
        simd::dispatch(
            #[inline(always)]
            || {
                for (index, number) in numbers.iter_mut().enumerate() {
                    *number *= dropout.factor(start + index);
                }
            },
        );
    }

    fn backward(
        &self,
        [mut q, mut k, mut v]: [MatMut<f32>; 3],
        of_context: MatRef<f32>,
        scratch: &mut Vec<f32>,
    ) -> Vec<f32> {
        let (asking, length, size) = (q.nrows(), k.nrows(), q.ncols());
        let scratch = room(scratch, 2 * asking * length + asking * size);
        let (probabilities, rest) = scratch.split_at_mut(asking * length);
        let (of_scores, of_queries) = rest.split_at_mut(asking * length);
        self.score(q.rb(), k.rb(), probabilities);
        let of_probabilities = view_mut(of_scores, length);
        self.product(of_probabilities, 1.0, of_context, v.rb().transpose());
        self.drop_out(of_scores);
        scores_backward(probabilities, of_scores, length);
        self.drop_out(probabilities);
        let of_bias = self.bias_backward(of_scores, length);
        let (probabilities, of_scores) = (view(probabilities, length), view(of_scores, length));
        let scale = 1.0 / (size as f32).sqrt();
        self.product(v.rb_mut(), 1.0, probabilities.transpose(), of_context);
        self.product(view_mut(of_queries, size), scale, of_scores, k.rb());
        self.product(k.rb_mut(), scale, of_scores.transpose(), q.rb());
        q.copy_from(view(of_queries, size));
        of_bias
    }

    /// The bias's gradient by distance; empty if it is not trained.
    fn bias_backward(&self, of_scores: &[f32], length: usize) -> Vec<f32> {
        let Some(bias) = self.bias.filter(|bias| bias.trained) else {
            return Vec::new();
        };
        let mut by_distance = vec![0.0; bias.distances()];
        for (row, gradient) in of_scores.chunks_exact(length).enumerate() {
            let sums = &mut by_distance[bias.start(self.first_query + row)..];
            for (sum, gradient) in sums.iter_mut().zip(gradient) {
                *sum += gradient;
            }
        }
        by_distance
    }
}

#[inline(always)]
pub(super) fn softmax_in_place(row: &mut [f32]) {
    let largest = largest(row);
    for number in row.iter_mut() {
        *number = exp(*number - largest);
    }
    let share = 1.0 / sum(row, |number| number);
    for number in row {
        *number *= share;
    }
}

/// Turns the gradient of the `probabilities` into that of the scores.
pub(super) fn scores_backward(probabilities: &[f32], gradient: &mut [f32], length: usize) {
    simd::dispatch(
        #[inline(always)]
        || {
            let rows = gradient.chunks_exact_mut(length);
            for (gradient, row) in rows.zip(probabilities.chunks_exact(length)) {
                let mean = dot(gradient, row);
                for (gradient, probability) in gradient.iter_mut().zip(row) {
                    *gradient = probability * (*gradient - mean);
                }
            }
        },
    );
}

/// The first `length` numbers of `scratch`, made longer if need be.
pub(super) fn room(scratch: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if scratch.len() < length {
        scratch.resize(length, 0.0);
    }
    &mut scratch[..length]
}
