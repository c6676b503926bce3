//! Products of some rows of two matrices with the counts of all resamples, by faer.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Rows that are worked on together: their numbers stay in a core's cache.
const TILE_ROWS: usize = 64;

/// All of `rows` in pieces that are worked on together.
pub(super) fn tiles(rows: usize) -> Vec<Range<usize>> {
    let starts = (0..rows).step_by(TILE_ROWS);
    starts
        .map(|start| start..rows.min(start + TILE_ROWS))
        .collect()
}

/// `left` `[rows, inner]` times `right` `[inner, columns]`, all row-major, on this thread.
pub(super) fn product(left: &[f32], right: &[f32], inner: usize) -> Vec<f32> {
    let columns = right.len() / inner;
    multiply(
        view(left, inner),
        MatRef::from_row_major_slice(right, inner, columns),
    )
}

/// `left` `[rows, inner]` times the transpose of `right` `[columns, inner]`.
pub(super) fn product_transposed(left: &[f32], right: &[f32], inner: usize) -> Vec<f32> {
    multiply(view(left, inner), view(right, inner).transpose())
}

fn view(numbers: &[f32], columns: usize) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice(numbers, numbers.len() / columns, columns)
}

fn multiply(left: MatRef<'_, f32>, right: MatRef<'_, f32>) -> Vec<f32> {
    let (rows, columns) = (left.nrows(), right.ncols());
    let mut output = vec![0.0; rows * columns];
    let target = MatMut::from_row_major_slice_mut(&mut output, rows, columns);
    matmul(target, Accum::Replace, left, right, 1.0, Par::Seq);
    output
}

/// What rows of two matrices X and Y `[rows, columns]` give with counts `[columns, resamples]`: each
/// `[rows, resamples]`. Products are by element before the counts, and every one of the five is
/// computed in the same way: where X is Y, they are equal to the last bit.
pub(super) struct TileProducts {
    pub(super) x: Vec<f32>,
    pub(super) y: Vec<f32>,
    pub(super) xx: Vec<f32>,
    pub(super) yy: Vec<f32>,
    pub(super) xy: Vec<f32>,
}

impl TileProducts {
    pub(super) fn new(x: &[f32], y: &[f32], counts: &[f32], columns: usize) -> Self {
        let by_element = |left: &[f32], right: &[f32]| {
            let numbers = left.iter().zip(right).map(|(left, right)| left * right);
            product(&numbers.collect::<Vec<_>>(), counts, columns)
        };
        Self {
            x: product(x, counts, columns),
            y: product(y, counts, columns),
            xx: by_element(x, x),
            yy: by_element(y, y),
            xy: by_element(x, y),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_hold_every_row_once() {
        for rows in [1, 63, 64, 65, 200] {
            let all: Vec<usize> = tiles(rows).into_iter().flatten().collect();
            assert_eq!(all, (0..rows).collect::<Vec<_>>());
        }
    }

    #[test]
    fn products_are_those_of_matrices() {
        let left = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let right = [1.0, 0.0, 2.0, 1.0, 0.0, 3.0];
        assert_eq!(product(&left, &right, 3), [5.0, 11.0, 14.0, 23.0]);
        assert_eq!(
            product_transposed(&left, &right, 3),
            [7.0, 10.0, 16.0, 22.0]
        );
    }
}
