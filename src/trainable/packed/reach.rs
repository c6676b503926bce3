//! Attention to some tokens of a sequence only, near ones or those up to itself, and by several
//! heads that share keys and values: of the scores, those that are wanted are computed, a block of
//! queries at a time, and what a block needs beyond them is left out of the softmax.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::prelude::{Reborrow, ReborrowMut};
use faer::{Accum, MatMut, MatRef, Par};

use super::attention::{Head, room, scores_backward, softmax_in_place};
use super::matrix::{view, view_mut};
use crate::simd;

/// Queries at a time. Fewer leave out more of what is not wanted, more make better products.
const BLOCK: usize = 32;

/// Which tokens of its sequence a token attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::trainable) struct Reach {
    /// None farther away than this.
    pub(in crate::trainable) window: Option<usize>,
    /// None behind both itself and so many first tokens.
    pub(in crate::trainable) prefix: Option<usize>,
}

impl Reach {
    /// To all of them.
    pub(in crate::trainable) fn is_all(self) -> bool {
        self.window.is_none() && self.prefix.is_none()
    }

    /// The places of the keys that the query at `position` of a sequence of `length` attends to:
    /// among them its own. Neither end comes before that of an earlier query.
    fn keys(self, position: usize, length: usize) -> Range<usize> {
        let near = match self.window {
            Some(window) => position.saturating_sub(window)..position + window + 1,
            None => 0..length,
        };
        let known = self
            .prefix
            .map_or(length, |prefix| prefix.max(position + 1));
        near.start..near.end.min(known).min(length)
    }

    /// How many scores there are between the queries at `places` of a sequence of `length` and what
    /// they attend to.
    pub(super) fn pairs(self, places: Range<usize>, length: usize) -> usize {
        places.map(|place| self.keys(place, length).len()).sum()
    }

    /// Keys that a block of queries attends to at most.
    fn most_keys(self, length: usize) -> usize {
        self.window
            .map_or(length, |window| length.min(BLOCK + 2 * window))
    }

    /// Numbers that [`Head::backward_by_blocks`] needs room for.
    pub(in crate::trainable) fn room(self, length: usize, head_size: usize) -> usize {
        2 * BLOCK * self.most_keys(length) + BLOCK * head_size + 2 * length * head_size
    }
}

/// Some queries of a sequence, and the keys that at least one of them attends to.
struct Block {
    /// Rows of the queries' matrix.
    queries: Range<usize>,
    /// Rows of the keys' matrix.
    keys: Range<usize>,
    /// Place in its sequence of the first query.
    position: usize,
}

impl Head<'_> {
    /// The blocks of `asking` queries of a sequence of `length`.
    fn blocks(&self, asking: usize, length: usize) -> impl Iterator<Item = Block> + use<> {
        let (first_query, reach) = (self.first_query, self.reach);
        (0..asking).step_by(BLOCK).map(move |start| {
            let end = asking.min(start + BLOCK);
            let (position, last) = (first_query + start, first_query + end - 1);
            Block {
                queries: start..end,
                keys: reach.keys(position, length).start..reach.keys(last, length).end,
                position,
            }
        })
    }

    /// [`attention::forward`](super::attention::forward) of the heads that share keys and values with
    /// this one, the first of them.
    pub(super) fn forward_by_blocks(
        &self,
        [q, k, v]: [MatRef<f32>; 3],
        mut context: MatMut<f32>,
        scratch: &mut Vec<f32>,
    ) {
        let (length, size) = k.shape();
        for (index, head) in self.sharing(length).enumerate() {
            let q = q.subcols(index * size, size);
            let mut context = context.rb_mut().subcols_mut(index * size, size);
            for block in head.blocks(q.nrows(), length) {
                let (asking, asked) = (block.queries.len(), block.keys.len());
                let probabilities = room(scratch, asking * asked);
                head.score_block(&block, [q, k], probabilities);
                head.drop_out_block(&block, length, probabilities);
                let values = v.subrows(block.keys.start, asked);
                let context = context.rb_mut().subrows_mut(block.queries.start, asking);
                head.product(context, 1.0, view(probabilities, asked), values);
            }
        }
    }

    /// [`attention::backward`](super::attention::backward) of the heads that share keys and values
    /// with this one, the first of them: theirs are added up.
    pub(super) fn backward_by_blocks(
        &self,
        [mut q, mut k, mut v]: [MatMut<f32>; 3],
        of_context: MatRef<f32>,
        scratch: &mut Vec<f32>,
    ) {
        let (length, size) = k.shape();
        let scores = BLOCK * self.reach.most_keys(length);
        let scratch = room(scratch, self.reach.room(length, size));
        let (probabilities, rest) = scratch.split_at_mut(scores);
        let (of_scores, rest) = rest.split_at_mut(scores);
        let (of_queries, rest) = rest.split_at_mut(BLOCK * size);
        let (of_keys, of_values) = rest.split_at_mut(length * size);
        of_keys.fill(0.0);
        of_values.fill(0.0);
        let scale = 1.0 / (size as f32).sqrt();
        for (index, head) in self.sharing(length).enumerate() {
            let mut q = q.rb_mut().subcols_mut(index * size, size);
            let of_context = of_context.subcols(index * size, size);
            for block in head.blocks(q.nrows(), length) {
                let (asking, asked) = (block.queries.len(), block.keys.len());
                let probabilities = &mut probabilities[..asking * asked];
                let of_scores = &mut of_scores[..asking * asked];
                let of_queries = &mut of_queries[..asking * size];
                head.score_block(&block, [q.rb(), k.rb()], probabilities);
                let of_context = of_context.subrows(block.queries.start, asking);
                let values = v.rb().subrows(block.keys.start, asked);
                let of_probabilities = view_mut(of_scores, asked);
                head.product(of_probabilities, 1.0, of_context, values.transpose());
                head.drop_out_block(&block, length, of_scores);
                scores_backward(probabilities, of_scores, asked);
                head.drop_out_block(&block, length, probabilities);

                let probabilities = view(probabilities, asked);
                let of_scores = view(of_scores, asked);
                let near = block.keys.start * size..block.keys.end * size;
                let of_values = view_mut(&mut of_values[near.clone()], size);
                head.add_product(of_values, 1.0, probabilities.transpose(), of_context);
                let mut queries = q.rb_mut().subrows_mut(block.queries.start, asking);
                let of_keys = view_mut(&mut of_keys[near], size);
                head.add_product(of_keys, scale, of_scores.transpose(), queries.rb());
                let keys = k.rb().subrows(block.keys.start, asked);
                head.product(view_mut(of_queries, size), scale, of_scores, keys);
                queries.copy_from(view(of_queries, size));
            }
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

    /// The probabilities of a block, 0 where a query does not attend to a key.
    fn score_block(&self, block: &Block, [q, k]: [MatRef<f32>; 2], probabilities: &mut [f32]) {
        let (length, asked) = (k.nrows(), block.keys.len());
        let q = q.subrows(block.queries.start, block.queries.len());
        let k = k.subrows(block.keys.start, asked);
        let scale = 1.0 / (q.ncols() as f32).sqrt();
        self.product(view_mut(probabilities, asked), scale, q, k.transpose());
        simd::dispatch(
            #[inline(always)]
            || {
                for (row, scores) in probabilities.chunks_exact_mut(asked).enumerate() {
                    let keys = self.reach.keys(block.position + row, length);
                    let first = block.keys.start;
                    let (start, end) = (keys.start - first, keys.end - first);
                    scores[..start].fill(0.0);
                    scores[end..].fill(0.0);
                    softmax_in_place(&mut scores[start..end]);
                }
            },
        );
    }

    /// Dropout of a block of probabilities, numbered as among those of the whole sequence.
    fn drop_out_block(&self, block: &Block, length: usize, numbers: &mut [f32]) {
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
