//! Linear layers and parts of them, forward and backward.

use std::ops::Range;

use super::bias::{column_sums, fill};
use super::matrix::{Target, times, times_transposed, transposed_times};
use super::profile::{Part, Profile};
use super::values::values;
use crate::trainable::Error;
use crate::trainable::gradients::Gradients;
use crate::trainable::layers::Linear;

/// `y ← x Wᵀ + b`
pub(super) fn forward(
    profile: &Profile,
    linear: &Linear,
    x: &[f32],
    y: &mut [f32],
) -> Result<(), Error> {
    forward_part(profile, linear, 0..linear.outputs, x, y)
}

/// `y ← x Wᵀ + b` of some `outputs` alone.
pub(super) fn forward_part(
    profile: &Profile,
    linear: &Linear,
    outputs: Range<usize>,
    x: &[f32],
    y: &mut [f32],
) -> Result<(), Error> {
    let (weight, inputs) = (values(&linear.weight)?, linear.inputs);
    let weight = &weight[outputs.start * inputs..outputs.end * inputs];
    let target = match &linear.bias {
        Some(bias) => {
            let bias = values(bias)?;
            profile.time(Part::Elementwise, || fill(y, &bias[outputs]));
            Target::Add
        }
        None => Target::Replace,
    };
    times_transposed(profile, y, x, weight, inputs, target);
    Ok(())
}

/// `of_x ← of_y W`, or added to it.
pub(super) fn of_input(
    profile: &Profile,
    linear: &Linear,
    of_y: &[f32],
    of_x: &mut [f32],
    target: Target,
) -> Result<(), Error> {
    of_input_by_part(profile, linear, 0..linear.outputs, of_y, of_x, target)
}

/// As [`of_input`], by way of some `outputs` alone.
pub(super) fn of_input_by_part(
    profile: &Profile,
    linear: &Linear,
    outputs: Range<usize>,
    of_y: &[f32],
    of_x: &mut [f32],
    target: Target,
) -> Result<(), Error> {
    let (weight, inputs) = (values(&linear.weight)?, linear.inputs);
    let weight = &weight[outputs.start * inputs..outputs.end * inputs];
    times(profile, of_x, of_y, weight, inputs, target);
    Ok(())
}

/// The gradients of weight and bias, whose outputs lie in several matrices side by side: one pair
/// of `x` and `of_y` for each.
pub(super) fn backward<const N: usize>(
    profile: &Profile,
    linear: &Linear,
    parts: [(&[f32], &[f32]); N],
    gradients: &mut Gradients,
) {
    let (of_weight, target) = gradients.host(&linear.weight);
    let size = of_weight.len() / N;
    for (of_weight, (x, of_y)) in of_weight.chunks_exact_mut(size).zip(parts) {
        transposed_times(profile, of_weight, of_y, x, linear.inputs, target);
    }
    let Some(bias) = &linear.bias else { return };
    let (of_bias, target) = gradients.host(bias);
    let size = of_bias.len() / N;
    profile.time(Part::Elementwise, || {
        for (of_bias, (_, of_y)) in of_bias.chunks_exact_mut(size).zip(parts) {
            column_sums(of_y, of_bias, target);
        }
    });
}
