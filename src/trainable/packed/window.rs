//! Attention to near tokens only: of the scores, those within the window are computed, a block of
//! queries at a time, and what a block needs beyond it is left out of the softmax.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::prelude::{Reborrow, ReborrowMut};
use faer::{Accum, MatMut, MatRef, Par};

use super::attention::{Head, room, scores_backward, softmax_in_place};
use super::matrix::{view, view_mut};
use crate::simd;

/// Queries at a time. Fewer leave out more of what lies beyond the window, more make better
/// products.
const BLOCK: usize = 32;

/// Some queries of a sequence, and the keys that at least one of them attends to.
struct Block {
    /// Rows of the queries' matrix.
    queries: Range<usize>,
    /// Rows of the keys' matrix.
    keys: Range<usize>,
    /// Place in its sequence of the first query.
    position: usize,
}

impl Block {
    /// Those of the keys, counted from the block's first, that the query in `row` attends to.
    fn near(&self, row: usize, window: usize) -> Range<usize> {
        let position = self.position + row;
        let first = position.saturating_sub(window).max(self.keys.start);
        let end = (position + window + 1).min(self.keys.end);
        first - self.keys.start..end - self.keys.start
    }
}

/// The blocks of `asking` queries, the first at place `first_query` of a sequence of `length`.
fn blocks(
    asking: usize,
    first_query: usize,
    length: usize,
    window: usize,
) -> impl Iterator<Item = Block> {
    (0..asking).step_by(BLOCK).map(move |start| {
        let end = asking.min(start + BLOCK);
        let (position, last) = (first_query + start, first_query + end - 1);
        Block {
            queries: start..end,
            keys: position.saturating_sub(window)..length.min(last + window + 1),
            position,
        }
    })
}

/// How many scores there are within the window of `asking` queries.
pub(super) fn pairs(asking: usize, first_query: usize, length: usize, window: usize) -> usize {
    let positions = first_query..first_query + asking;
    let near = positions.map(|at| length.min(at + window + 1) - at.saturating_sub(window));
    near.sum()
}

impl Head<'_> {
    /// [`attention::forward`](super::attention::forward) of this head.
    pub(super) fn forward_within(
        &self,
        window: usize,
        [q, k, v]: [MatRef<f32>; 3],
        mut context: MatMut<f32>,
        scratch: &mut Vec<f32>,
    ) {
        let length = k.nrows();
        for block in blocks(q.nrows(), self.first_query, length, window) {
            let (asking, asked) = (block.queries.len(), block.keys.len());
            let probabilities = room(scratch, asking * asked);
            self.score_within(window, &block, [q, k], probabilities);
            self.drop_out_within(&block, length, probabilities);
            let values = v.subrows(block.keys.start, asked);
            let context = context.rb_mut().subrows_mut(block.queries.start, asking);
            self.product(context, 1.0, view(probabilities, asked), values);
        }
    }

    /// [`attention::backward`](super::attention::backward) of this head.
    pub(super) fn backward_within(
        &self,
        window: usize,
        [mut q, mut k, mut v]: [MatMut<f32>; 3],
        of_context: MatRef<f32>,
        scratch: &mut Vec<f32>,
    ) {
        let (length, size) = (k.nrows(), k.ncols());
        let scores = BLOCK * length.min(BLOCK + 2 * window);
        let scratch = room(scratch, 2 * scores + BLOCK * size + 2 * length * size);
        let (probabilities, rest) = scratch.split_at_mut(scores);
        let (of_scores, rest) = rest.split_at_mut(scores);
        let (of_queries, rest) = rest.split_at_mut(BLOCK * size);
        let (of_keys, of_values) = rest.split_at_mut(length * size);
        of_keys.fill(0.0);
        of_values.fill(0.0);
        let scale = 1.0 / (size as f32).sqrt();
        for block in blocks(q.nrows(), self.first_query, length, window) {
            let (asking, asked) = (block.queries.len(), block.keys.len());
            let probabilities = &mut probabilities[..asking * asked];
            let of_scores = &mut of_scores[..asking * asked];
            let of_queries = &mut of_queries[..asking * size];
            self.score_within(window, &block, [q.rb(), k.rb()], probabilities);
            let of_context = of_context.subrows(block.queries.start, asking);
            let values = v.rb().subrows(block.keys.start, asked);
            let of_probabilities = view_mut(of_scores, asked);
            self.product(of_probabilities, 1.0, of_context, values.transpose());
            self.drop_out_within(&block, length, of_scores);
            scores_backward(probabilities, of_scores, asked);
            self.drop_out_within(&block, length, probabilities);

            let (probabilities, of_scores) = (view(probabilities, asked), view(of_scores, asked));
            let near = block.keys.start * size..block.keys.end * size;
            let of_values = view_mut(&mut of_values[near.clone()], size);
            self.add_product(of_values, 1.0, probabilities.transpose(), of_context);
            let mut queries = q.rb_mut().subrows_mut(block.queries.start, asking);
            let of_keys = view_mut(&mut of_keys[near], size);
            self.add_product(of_keys, scale, of_scores.transpose(), queries.rb());
            let keys = k.rb().subrows(block.keys.start, asked);
            self.product(view_mut(of_queries, size), scale, of_scores, keys);
            queries.copy_from(view(of_queries, size));
        }
        k.copy_from(view(of_keys, size));
        v.copy_from(view(of_values, size));
    }

    /// `target ← target + scale · left right`
    fn add_product(&self, target: MatMut<f32>, scale: f32, left: MatRef<f32>, right: MatRef<f32>) {
        self.profile.product(|| {
            matmul(target, Accum::Add, left, right, scale, Par::Seq);
        });
    }

    /// The probabilities of a block, 0 beyond the window.
    fn score_within(
        &self,
        window: usize,
        block: &Block,
        [q, k]: [MatRef<f32>; 2],
        probabilities: &mut [f32],
    ) {
        let asked = block.keys.len();
        let q = q.subrows(block.queries.start, block.queries.len());
        let k = k.subrows(block.keys.start, asked);
        let scale = 1.0 / (q.ncols() as f32).sqrt();
        self.product(view_mut(probabilities, asked), scale, q, k.transpose());
        simd::dispatch(
            #[inline(always)]
            || {
                for (row, scores) in probabilities.chunks_exact_mut(asked).enumerate() {
                    let near = block.near(row, window);
                    scores[..near.start].fill(0.0);
                    scores[near.end..].fill(0.0);
                    softmax_in_place(&mut scores[near]);
                }
            },
        );
    }

    /// Dropout of a block of probabilities, numbered as among those of the whole sequence.
    fn drop_out_within(&self, block: &Block, length: usize, numbers: &mut [f32]) {
        let Some(dropout) = self.dropout else { return };
        let first = self.first_probability + block.queries.start * length + block.keys.start;
        simd::dispatch(
            #[inline(always)]
            || {
                let rows = numbers.chunks_exact_mut(block.keys.len());
                for (row, numbers) in rows.enumerate() {
                    let start = first + row * length;
                    for (index, number) in numbers.iter_mut().enumerate() {
                        *number *= dropout.factor(start + index);
                    }
                }
            },
        );
    }
}
