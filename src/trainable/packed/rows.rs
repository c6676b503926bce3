//! Some rows of a matrix.

use std::ops::Range;

use crate::trainable::{Packing, Pooling};

/// Which tokens' states are read from a layer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows<'a> {
    /// Every token's.
    All,
    /// Those of some tokens.
    Some(&'a Runs),
}

/// Some tokens of each sequence, side by side.
#[derive(Debug)]
pub(super) struct Runs {
    /// The row in the whole matrix of each; ascending.
    pub(super) rows: Vec<usize>,
    /// The places of a sequence's tokens among all of it.
    places: Vec<Range<usize>>,
}

impl Runs {
    /// Those that `pooling` reads; none where that is every one.
    pub(super) fn new(packing: &Packing, pooling: Pooling) -> Option<Self> {
        let read = pooling == Pooling::Cls || !packing.reads_all(pooling);
        read.then(|| Self {
            rows: packing.rows_read(pooling),
            places: (0..packing.sequences())
                .map(|index| packing.read(pooling, index))
                .collect(),
        })
    }
}

impl Rows<'_> {
    /// The row in the whole matrix of the `index`th that is read.
    #[inline(always)]
    pub(super) fn original(self, index: usize) -> usize {
        match self {
            Self::All => index,
            Self::Some(runs) => runs.rows[index],
        }
    }

    /// The places of those that are read in sequence `index`.
    pub(super) fn places(self, packing: &Packing, index: usize) -> Range<usize> {
        match self {
            Self::All => 0..packing.length(index),
            Self::Some(runs) => runs.places[index].clone(),
        }
    }

    /// The place of each that is read in its sequence.
    pub(super) fn positions(self, packing: &Packing) -> Vec<usize> {
        let sequences = 0..packing.sequences();
        sequences
            .flat_map(|index| self.places(packing, index))
            .collect()
    }
}

/// `output ← ` the given rows of `[tokens, width]`.
pub(super) fn gather(matrix: &[f32], rows: &[usize], width: usize, output: &mut [f32]) {
    for (output, &row) in output.chunks_exact_mut(width).zip(rows) {
        output.copy_from_slice(&matrix[row * width..][..width]);
    }
}

/// Adds each row of `part` to the given row of `[tokens, width]`.
pub(super) fn scatter_add(part: &[f32], rows: &[usize], width: usize, matrix: &mut [f32]) {
    for (part, &row) in part.chunks_exact(width).zip(rows) {
        let target = &mut matrix[row * width..][..width];
        for (sum, number) in target.iter_mut().zip(part) {
            *sum += number;
        }
    }
}
