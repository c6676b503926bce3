//! One vector a sequence.

use rayon::prelude::*;

/// The mean over all tokens of each sequence: `[tokens, width]` to `[sequences, width]`.
pub(super) fn mean(x: &[f32], offsets: &[usize], width: usize, output: &mut [f32]) {
    let sequences = output.par_chunks_exact_mut(width);
    let sequences = sequences.zip(offsets.par_windows(2)).with_min_len(8);
    sequences.for_each(|(mean, bounds)| {
        mean.fill(0.0);
        for row in x[bounds[0] * width..bounds[1] * width].chunks_exact(width) {
            for (sum, number) in mean.iter_mut().zip(row) {
                *sum += number;
            }
        }
        let share = 1.0 / (bounds[1] - bounds[0]) as f32;
        for sum in mean {
            *sum *= share;
        }
    });
}

/// The gradient of [`mean`]: each token gets its share of its sequence's.
pub(super) fn mean_backward(gradient: &[f32], offsets: &[usize], width: usize, of_x: &mut [f32]) {
    for (gradient, bounds) in gradient.chunks_exact(width).zip(offsets.windows(2)) {
        let share = 1.0 / (bounds[1] - bounds[0]) as f32;
        for row in of_x[bounds[0] * width..bounds[1] * width].chunks_exact_mut(width) {
            for (number, gradient) in row.iter_mut().zip(gradient) {
                *number = gradient * share;
            }
        }
    }
}
