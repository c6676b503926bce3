//! The seam between the two halves: sequences of different lengths, laid end to end.

use std::ops::Range;

/// Sequences of different lengths without padding.
///
/// `values` holds every token's `width` numbers, sequence after sequence; sequence `i` is the
/// tokens `offsets[i]..offsets[i + 1]`. Token ids are a `Ragged<u32>` of width 1, hidden states
/// a `Ragged<f32>` of width hidden size.
#[derive(Debug, Clone, PartialEq)]
pub struct Ragged<T> {
    values: Vec<T>,
    offsets: Vec<usize>,
    width: usize,
}

impl<T: Copy> Ragged<T> {
    /// No sequences yet, each token to be `width` numbers.
    pub fn new(width: usize) -> Self {
        Self {
            values: Vec::new(),
            offsets: vec![0],
            width,
        }
    }

    /// Builds from parts.
    ///
    /// # Panics
    /// If `offsets` does not rise from 0 to `values.len() / width`: a bug in the caller, who
    /// checks what comes from files.
    pub fn from_parts(values: Vec<T>, offsets: Vec<usize>, width: usize) -> Self {
        assert!(
            offsets.first() == Some(&0) && offsets.is_sorted(),
            "offsets must rise from 0"
        );
        assert_eq!(
            offsets[offsets.len() - 1] * width,
            values.len(),
            "offsets must end at the number of tokens"
        );
        Self {
            values,
            offsets,
            width,
        }
    }

    /// Appends one sequence: `[tokens, width]`, flat.
    ///
    /// # Panics
    /// If `sequence` is not a whole number of tokens.
    pub fn push(&mut self, sequence: &[T]) {
        assert_eq!(
            sequence.len() % self.width,
            0,
            "a sequence is a whole number of tokens"
        );
        self.values.extend_from_slice(sequence);
        self.offsets.push(self.values.len() / self.width);
    }

    /// Appends all sequences of `other`, which has the same width.
    ///
    /// # Panics
    /// If it has not.
    pub fn append(&mut self, other: &Self) {
        assert_eq!(self.width, other.width, "tokens are equally wide");
        let start = self.tokens();
        self.values.extend_from_slice(&other.values);
        let offsets = other.offsets[1..].iter().map(|offset| start + offset);
        self.offsets.extend(offsets);
    }

    /// How many sequences.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are no sequences.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many tokens in all.
    pub fn tokens(&self) -> usize {
        self.offsets[self.len()]
    }

    /// Numbers a token.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Tokens of sequence `index`.
    pub fn length(&self, index: usize) -> usize {
        self.offsets[index + 1] - self.offsets[index]
    }

    /// The numbers of sequence `index`: `[length, width]`, flat.
    pub fn sequence(&self, index: usize) -> &[T] {
        &self.values[self.value_range(index)]
    }

    /// All sequences in turn.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[T]> {
        (0..self.len()).map(|index| self.sequence(index))
    }

    /// Every token's numbers: `[tokens, width]`, flat.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// Where each sequence starts, and the end: `[sequences + 1]`, in tokens.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The sequences named by `rows`, in that order; a row may come twice.
    #[must_use]
    pub fn gather(&self, rows: &[usize]) -> Self {
        let mut gathered = Self::new(self.width);
        for &row in rows {
            gathered.push(self.sequence(row));
        }
        gathered
    }

    /// Takes the values and offsets apart again.
    pub fn into_parts(self) -> (Vec<T>, Vec<usize>) {
        (self.values, self.offsets)
    }

    fn value_range(&self, index: usize) -> Range<usize> {
        self.offsets[index] * self.width..self.offsets[index + 1] * self.width
    }
}

impl<'a, T: Copy + 'a> FromIterator<&'a [T]> for Ragged<T> {
    /// Collects sequences of width 1.
    fn from_iter<I: IntoIterator<Item = &'a [T]>>(sequences: I) -> Self {
        let mut ragged = Self::new(1);
        for sequence in sequences {
            ragged.push(sequence);
        }
        ragged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_come_back_as_pushed() {
        let mut ragged = Ragged::new(2);
        ragged.push(&[1, 2, 3, 4]);
        ragged.push(&[]);
        ragged.push(&[5, 6]);
        assert_eq!(ragged.len(), 3);
        assert_eq!(ragged.tokens(), 3);
        assert_eq!(ragged.offsets(), [0, 2, 2, 3]);
        assert_eq!(ragged.sequence(0), [1, 2, 3, 4]);
        assert!(ragged.sequence(1).is_empty());
        assert_eq!(ragged.gather(&[2, 0, 2]).values(), [5, 6, 1, 2, 3, 4, 5, 6]);
        let copy = ragged.clone();
        ragged.append(&copy);
        assert_eq!(ragged, copy.gather(&[0, 1, 2, 0, 1, 2]));
    }

    #[test]
    #[should_panic(expected = "offsets must end")]
    fn offsets_that_miss_values_are_refused() {
        let _ = Ragged::from_parts(vec![1, 2, 3], vec![0, 2], 1);
    }
}
