//! Where each sequence of a packed batch lies.

use std::ops::Range;

/// Sequences one after the other without padding, as a part of a batch.
#[derive(Debug, Clone)]
pub struct Packing {
    /// Sequence `i` is the rows `offsets[i]..offsets[i + 1]`: `[sequences + 1]`.
    pub offsets: Vec<usize>,
    /// Tokens of the batch before this part, so that dropout numbers elements as in the whole.
    pub first_token: usize,
    /// Sum of the squared lengths of the batch's sequences before this part.
    first_square: usize,
}

/// How much of a batch is worked on at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartLimit {
    /// Most tokens.
    pub tokens: usize,
    /// Most sequences.
    pub sequences: usize,
}

impl PartLimit {
    /// All of it.
    pub const NONE: Self = Self {
        tokens: usize::MAX,
        sequences: usize::MAX,
    };
}

impl Packing {
    /// A whole batch, from the offsets of a [`Ragged`](crate::ragged::Ragged).
    pub fn new(offsets: &[usize]) -> Self {
        Self {
            offsets: offsets.to_vec(),
            first_token: 0,
            first_square: 0,
        }
    }

    /// Of this whole batch, the part that holds `sequences`.
    #[must_use]
    pub fn part(&self, sequences: Range<usize>) -> Self {
        let first = self.offsets[sequences.start];
        let offsets = &self.offsets[sequences.start..=sequences.end];
        Self {
            offsets: offsets.iter().map(|offset| offset - first).collect(),
            first_token: first,
            first_square: squares(&self.offsets[..=sequences.start]).sum(),
        }
    }

    /// Runs of whole sequences within `limit`, each of one sequence at least.
    pub fn parts(&self, limit: PartLimit) -> Vec<Range<usize>> {
        let mut parts: Vec<Range<usize>> = Vec::new();
        for index in 0..self.sequences() {
            match parts.last_mut() {
                Some(part)
                    if self.offsets[index + 1] - self.offsets[part.start] <= limit.tokens
                        && part.len() < limit.sequences =>
                {
                    part.end = index + 1;
                }
                _ => parts.push(index..index + 1),
            }
        }
        parts
    }

    /// Runs of whole sequences, of about as many tokens each, for at most `count` replicas: fewer
    /// where there is nothing for one.
    pub fn shares(&self, count: usize) -> Vec<Range<usize>> {
        let tokens = self.tokens();
        let bound = |replica: usize| {
            let target = replica * tokens / count;
            let after = self.offsets.partition_point(|&offset| offset < target);
            // Whichever is nearer.
            match after.checked_sub(1) {
                Some(before) if target - self.offsets[before] < self.offsets[after] - target => {
                    before
                }
                _ => after,
            }
        };
        let bounds: Vec<usize> = (1..count).map(bound).collect();
        let starts = std::iter::once(0).chain(bounds.iter().copied());
        let ends = bounds.iter().copied().chain([self.sequences()]);
        let shares = starts.zip(ends).map(|(start, end)| start..end);
        shares.filter(|share| !share.is_empty()).collect()
    }

    /// How many sequences.
    pub fn sequences(&self) -> usize {
        self.offsets.len() - 1
    }

    /// How many tokens.
    pub fn tokens(&self) -> usize {
        self.offsets[self.offsets.len() - 1]
    }

    /// Tokens of sequence `index`.
    pub fn length(&self, index: usize) -> usize {
        self.offsets[index + 1] - self.offsets[index]
    }

    /// Tokens of the longest sequence.
    pub fn longest(&self) -> usize {
        let lengths = (0..self.sequences()).map(|index| self.length(index));
        lengths.max().unwrap_or(0)
    }

    /// Where the attention probabilities of each sequence, `[heads, length, length]`, start in
    /// the numbering by which dropout draws: after those of all earlier sequences of the batch.
    pub fn probabilities(&self, heads: usize) -> Vec<usize> {
        let starts = squares(&self.offsets).scan(self.first_square, |start, square| {
            let this = *start;
            *start += square;
            Some(this * heads)
        });
        starts.collect()
    }
}

fn squares(offsets: &[usize]) -> impl Iterator<Item = usize> {
    offsets
        .windows(2)
        .map(|bounds| (bounds[1] - bounds[0]) * (bounds[1] - bounds[0]))
}

#[cfg(test)]
mod tests {
    use super::{Packing, PartLimit};

    #[test]
    fn a_part_is_numbered_as_in_the_whole() {
        let whole = Packing::new(&[0, 2, 5, 6]);
        assert_eq!(whole.probabilities(3), [0, 12, 39]);
        let part = whole.part(1..3);
        assert_eq!(part.offsets, [0, 3, 4]);
        assert_eq!((part.first_token, part.tokens()), (2, 4));
        assert_eq!(part.probabilities(3), [12, 39]);
    }

    #[test]
    fn shares_are_about_equal() {
        let shares = |offsets: &[usize], count| Packing::new(offsets).shares(count);
        let one = |offsets: &[usize], count| {
            let [share] = &shares(offsets, count)[..] else {
                panic!("one share is expected")
            };
            share.clone()
        };
        assert_eq!(one(&[0, 2, 5, 6], 1), 0..3);
        assert_eq!(shares(&[0, 2, 5, 6], 2), [0..1, 1..3]);
        assert_eq!(shares(&[0, 2, 5, 6], 3), [0..1, 1..2, 2..3]);
        assert_eq!(shares(&[0, 10, 20, 30, 40], 2), [0..2, 2..4]);
        // One is longer than the others together.
        assert_eq!(shares(&[0, 100, 101, 102], 3), [0..1, 1..3]);
        assert_eq!(shares(&[0, 1, 2, 102], 2), [0..2, 2..3]);
        assert_eq!(one(&[0, 7], 4), 0..1);
        assert!(shares(&[0], 2).is_empty());
    }

    #[test]
    fn parts_keep_within_the_limit() {
        let whole = Packing::new(&[0, 2, 5, 6]);
        let parts = |tokens, sequences| whole.parts(PartLimit { tokens, sequences });
        assert_eq!(parts(4, 9), [0..1, 1..3]);
        assert_eq!(parts(1, 9), [0..1, 1..2, 2..3]);
        assert_eq!(parts(6, 2), [0..2, 2..3]);
        assert_eq!(whole.parts(PartLimit::NONE).len(), 1);
    }
}
