//! A bias of the attention scores by how far apart two tokens are.

use super::matrix::Target;
use super::values::values;
use crate::checkpoint::relative_position_bucket;
use crate::trainable::Error;
use crate::trainable::relative_position::RelativePositions;

/// The table of buckets laid out by distance, for sequences up to a length.
pub(super) struct RelativeBias {
    /// `[heads, 2 · longest - 1]`: first that of a key `longest - 1` tokens before its query.
    by_distance: Vec<f32>,
    longest: usize,
    /// Whether the gradient is wanted.
    pub(super) trained: bool,
}

impl RelativeBias {
    pub(super) fn new(positions: &RelativePositions, longest: usize) -> Result<Self, Error> {
        let table = positions.table();
        let (_, heads) = table.dims2()?;
        let table = values(table)?;
        let by_distance = (0..heads).flat_map(|head| {
            let table = &table;
            buckets(longest).map(move |bucket| table[bucket * heads + head])
        });
        Ok(Self {
            by_distance: by_distance.collect(),
            longest,
            trained: positions.trained().is_some(),
        })
    }

    /// Distances that are told apart.
    pub(super) fn distances(&self) -> usize {
        2 * self.longest - 1
    }

    /// The bias of `head` between a query and each of `length` keys, the query at place `query`.
    pub(super) fn row(&self, head: usize, query: usize, length: usize) -> &[f32] {
        let start = self.start(query);
        &self.by_distance[head * self.distances()..][start..start + length]
    }

    /// Where the first key's distance is among all.
    pub(super) fn start(&self, query: usize) -> usize {
        self.longest - 1 - query
    }

    /// Adds up gradients by distance, one list a head of a sequence, in the table
    /// `[buckets, heads]`.
    pub(super) fn add_up(
        &self,
        by_distance: &[Vec<f32>],
        heads: usize,
        sums: &mut [f32],
        target: Target,
    ) {
        if target == Target::Replace {
            sums.fill(0.0);
        }
        for (index, gradient) in by_distance.iter().enumerate() {
            for (bucket, number) in buckets(self.longest).zip(gradient) {
                sums[bucket * heads + index % heads] += number;
            }
        }
    }
}

/// The bucket of each distance from `1 - longest` to `longest - 1`.
fn buckets(longest: usize) -> impl Iterator<Item = usize> {
    let last = longest as i64 - 1;
    (-last..=last).map(relative_position_bucket)
}
