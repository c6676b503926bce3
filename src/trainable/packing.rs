//! Where each sequence of a packed batch lies, and what is made of its tokens.

use std::ops::Range;

use super::Pooling;

/// Which tokens of each sequence attend to which, and which are read in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// As [`Packing::with_prefixes`].
    pub(super) prefixes: Option<Vec<usize>>,
    /// As [`Packing::with_scored`].
    pub(super) scored: Option<Vec<Range<usize>>>,
}

impl Selection {
    /// Of some sequences alone.
    #[must_use]
    pub(super) fn part(&self, sequences: Range<usize>) -> Self {
        let prefixes = self.prefixes.as_ref();
        let scored = self.scored.as_ref();
        Self {
            prefixes: prefixes.map(|prefixes| prefixes[sequences.clone()].to_vec()),
            scored: scored.map(|scored| scored[sequences].to_vec()),
        }
    }
}

/// Sequences one after the other without padding, as a part of a batch.
#[derive(Debug, Clone)]
pub struct Packing {
    /// Sequence `i` is the rows `offsets[i]..offsets[i + 1]`: `[sequences + 1]`.
    pub offsets: Vec<usize>,
    /// Tokens of the batch before this part, so that dropout numbers elements as in the whole.
    pub first_token: usize,
    /// Sum of the squared lengths of the batch's sequences before this part.
    first_square: usize,
    pub(super) selection: Selection,
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
    /// A whole batch, from the offsets of a [`Ragged`](crate::ragged::Ragged). Every token attends
    /// to all of its sequence.
    pub fn new(offsets: &[usize]) -> Self {
        Self {
            offsets: offsets.to_vec(),
            first_token: 0,
            first_square: 0,
            selection: Selection::default(),
        }
    }

    /// The same, but each token attends to its sequence's prefix, the first so many tokens, and to
    /// those up to itself: one number a sequence, 0 in a decoder.
    ///
    /// # Panics
    /// If there is not one a sequence.
    #[must_use]
    pub fn with_prefixes(mut self, prefixes: Vec<usize>) -> Self {
        assert_eq!(prefixes.len(), self.sequences(), "one prefix a sequence");
        self.selection.prefixes = Some(prefixes);
        self
    }

    /// The same, of whose tokens those at these places of each sequence are read by
    /// [`Pooling::Scored`]; all of them unless that is said.
    ///
    /// # Panics
    /// If there is not one a sequence, or it reaches beyond its sequence.
    #[must_use]
    pub fn with_scored(mut self, scored: Vec<Range<usize>>) -> Self {
        assert_eq!(scored.len(), self.sequences(), "one range a sequence");
        let within = |(index, places): (usize, &Range<usize>)| {
            places.start <= places.end && places.end <= self.length(index)
        };
        assert!(
            scored.iter().enumerate().all(within),
            "places of a sequence"
        );
        self.selection.scored = Some(scored);
        self
    }

    /// Tokens of the prefix of sequence `index`; none where every token attends to all of them.
    pub fn prefix(&self, index: usize) -> Option<usize> {
        let prefix = self.selection.prefixes.as_ref()?[index];
        (prefix < self.length(index)).then_some(prefix)
    }

    /// Places in sequence `index` of the tokens that `pooling` reads from the last layer.
    pub fn read(&self, pooling: Pooling, index: usize) -> Range<usize> {
        match (pooling, &self.selection.scored) {
            (Pooling::Cls, _) => 0..1,
            (Pooling::Scored, Some(scored)) => scored[index].clone(),
            (Pooling::Scored, None) | (Pooling::Mean, _) => 0..self.length(index),
        }
    }

    /// Whether those are all.
    pub fn reads_all(&self, pooling: Pooling) -> bool {
        let mut sequences = 0..self.sequences();
        sequences.all(|index| self.read(pooling, index).len() == self.length(index))
    }

    /// Their rows among all, ascending.
    pub fn rows_read(&self, pooling: Pooling) -> Vec<usize> {
        let sequences = self.offsets[..self.sequences()].iter().enumerate();
        let rows = sequences.flat_map(|(index, first)| {
            let places = self.read(pooling, index);
            places.map(move |place| first + place)
        });
        rows.collect()
    }

    /// Which of the vectors that `pooling` makes are those of `sequences`.
    pub fn vectors(&self, pooling: Pooling, sequences: Range<usize>) -> Range<usize> {
        let count = |sequences: Range<usize>| match pooling {
            Pooling::Cls | Pooling::Mean => sequences.len(),
            Pooling::Scored => sequences.map(|index| self.read(pooling, index).len()).sum(),
        };
        let start = count(0..sequences.start);
        start..start + count(sequences)
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
            selection: self.selection.part(sequences),
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
    use crate::trainable::Pooling;

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
    fn a_part_keeps_prefixes_and_scored_places() {
        let whole = Packing::new(&[0, 2, 5, 6]);
        assert_eq!(whole.prefix(1), None);
        assert_eq!(whole.vectors(Pooling::Scored, 1..3), 2..6);
        let whole = whole.with_prefixes(vec![0, 2, 1]);
        let whole = whole.with_scored(vec![1..2, 0..2, 1..1]);
        let prefixes = [0, 1, 2].map(|index| whole.prefix(index));
        assert_eq!(prefixes, [Some(0), Some(2), None]);
        assert_eq!(whole.vectors(Pooling::Scored, 1..3), 1..3);
        assert_eq!(whole.vectors(Pooling::Mean, 1..3), 1..3);
        let part = whole.part(1..3);
        assert_eq!((part.prefix(0), part.prefix(1)), (Some(2), None));
        assert_eq!(part.read(Pooling::Scored, 0), 0..2);
        assert_eq!(part.vectors(Pooling::Scored, 0..2), 0..2);
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
