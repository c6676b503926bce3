//! Products of row-major matrices, by faer.

use std::time::Instant;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use super::profile::{Part, Profile};

/// Fewer operations than these are done by one thread: waking another takes longer.
const PARALLEL_FROM: usize = 1 << 21;

/// Whether a product replaces what is there or is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::trainable) enum Target {
    Replace,
    Add,
}

impl Target {
    pub(super) fn accumulation(self) -> Accum {
        match self {
            Self::Replace => Accum::Replace,
            Self::Add => Accum::Add,
        }
    }
}

/// `[rows, columns]` of row-major numbers.
pub(super) fn view(numbers: &[f32], columns: usize) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice(numbers, numbers.len() / columns, columns)
}

/// As [`view`], to be written to.
pub(super) fn view_mut(numbers: &mut [f32], columns: usize) -> MatMut<'_, f32> {
    let rows = numbers.len() / columns;
    MatMut::from_row_major_slice_mut(numbers, rows, columns)
}

/// `output ← x Wᵀ`: `x` `[tokens, inputs]`, `weight` `[outputs, inputs]`, `output`
/// `[tokens, outputs]`. The forward pass of a linear layer.
pub(super) fn times_transposed(
    profile: &Profile,
    output: &mut [f32],
    x: &[f32],
    weight: &[f32],
    inputs: usize,
    target: Target,
) {
    let weight = view(weight, inputs);
    let output = view_mut(output, weight.nrows());
    product(profile, output, view(x, inputs), weight.transpose(), target);
}

/// `output ← y W`: `y` `[tokens, outputs]`, `weight` `[outputs, inputs]`, `output`
/// `[tokens, inputs]`. A linear layer's gradient with respect to its input.
pub(super) fn times(
    profile: &Profile,
    output: &mut [f32],
    y: &[f32],
    weight: &[f32],
    inputs: usize,
    target: Target,
) {
    let weight = view(weight, inputs);
    let y = view(y, weight.nrows());
    product(profile, view_mut(output, inputs), y, weight, target);
}

/// `output ← yᵀ x`: `y` `[tokens, outputs]`, `x` `[tokens, inputs]`, `output`
/// `[outputs, inputs]`. A linear layer's gradient with respect to its weight.
pub(super) fn transposed_times(
    profile: &Profile,
    output: &mut [f32],
    y: &[f32],
    x: &[f32],
    inputs: usize,
    target: Target,
) {
    let output = view_mut(output, inputs);
    let y = view(y, output.nrows());
    product(profile, output, y.transpose(), view(x, inputs), target);
}

fn product(
    profile: &Profile,
    output: MatMut<'_, f32>,
    left: MatRef<'_, f32>,
    right: MatRef<'_, f32>,
    target: Target,
) {
    let operations = 2 * left.nrows() * left.ncols() * right.ncols();
    let parallelism = match rayon::current_num_threads() {
        threads if threads > 1 && operations >= PARALLEL_FROM => Par::rayon(threads),
        _ => Par::Seq,
    };
    profile.count(operations as u64);
    profile.time(Part::Gemm, || {
        matmul(output, target.accumulation(), left, right, 1.0, parallelism);
    });
}

/// The most floating-point operations a second that the library reaches on this machine, in the
/// best of several products of large square matrices.
pub fn peak_flops() -> f64 {
    const SIZE: usize = 1536;
    const REPEATS: usize = 12;
    let (left, right) = (vec![0.5; SIZE * SIZE], vec![0.25; SIZE * SIZE]);
    let mut output = vec![0.0; SIZE * SIZE];
    let profile = Profile::default();
    let seconds = (0..REPEATS).map(|_| {
        let started = Instant::now();
        let (output, left) = (view_mut(&mut output, SIZE), view(&left, SIZE));
        product(&profile, output, left, view(&right, SIZE), Target::Replace);
        started.elapsed().as_secs_f64()
    });
    let best = seconds.fold(f64::INFINITY, f64::min);
    (2 * SIZE * SIZE * SIZE) as f64 / best
}
