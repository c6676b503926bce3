//! Some rows of a matrix.

use crate::trainable::Packing;

/// Which tokens' states are read from a layer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows<'a> {
    /// Every token's.
    All,
    /// One token's of each sequence, by its row; ascending.
    Some(&'a [usize]),
}

impl Rows<'_> {
    /// The row in the whole matrix of the `index`th that is read.
    #[inline(always)]
    pub(super) fn original(&self, index: usize) -> usize {
        match self {
            Self::All => index,
            Self::Some(rows) => rows[index],
        }
    }

    /// The place of each that is read in its sequence.
    pub(super) fn positions(&self, packing: &Packing) -> Vec<usize> {
        match self {
            Self::All => {
                let sequences = 0..packing.sequences();
                sequences
                    .flat_map(|index| 0..packing.length(index))
                    .collect()
            }
            Self::Some(rows) => {
                let rows = rows.iter().zip(&packing.offsets);
                rows.map(|(row, start)| row - start).collect()
            }
        }
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
