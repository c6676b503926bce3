//! Norms behind a residual connection and in front of a block, forward and backward.

use super::Workspace;
use super::bias::add_up;
use super::buffers::Buffer;
use super::layer_norm::{self, Affine, Normalised, RowDropout};
use super::profile::{Part, Profile};
use super::values::values;
use crate::checkpoint::NormKind;
use crate::trainable::Error;
use crate::trainable::gradients::Gradients;
use crate::trainable::layers::Norm;

/// Normalised rows and their scales.
pub(super) struct NormTape<'a> {
    rows: Buffer<'a>,
    scales: Buffer<'a>,
    kind: NormKind,
}

impl NormTape<'_> {
    /// What the normalisation `norm` put out, again.
    pub(super) fn output(
        &self,
        norm: &Norm,
        profile: &Profile,
        y: &mut [f32],
    ) -> Result<(), Error> {
        with_affine(norm, |affine| {
            profile.time(Part::Elementwise, || {
                layer_norm::scale_and_shift(&self.rows, affine, y);
            });
        })
    }

    fn normalised(&self) -> Normalised<'_> {
        Normalised {
            rows: &self.rows,
            scales: &self.scales,
            kind: self.kind,
        }
    }
}

/// Dropout of `x`, the residual and the normalisation: the states, and what is kept.
pub(super) fn behind_residual<'w>(
    workspace: &'w Workspace,
    norm: &Norm,
    mut x: Buffer<'w>,
    residual: &[f32],
    dropout: Option<RowDropout>,
) -> Result<(Buffer<'w>, NormTape<'w>), Error> {
    let mut scales = workspace.buffers.take(x.len() / norm.weight.elem_count());
    let mut y = workspace.buffers.take(x.len());
    with_affine(norm, |affine| {
        workspace.profile.time(Part::Elementwise, || {
            layer_norm::forward(
                &mut x,
                residual,
                affine,
                epsilon(norm),
                dropout,
                &mut scales,
                &mut y,
            );
        });
    })?;
    let tape = NormTape {
        rows: x,
        scales,
        kind: norm.kind,
    };
    Ok((y, tape))
}

/// The normalisation of `x`: the states, and what is kept.
pub(super) fn in_front<'w>(
    workspace: &'w Workspace,
    norm: &Norm,
    x: &[f32],
) -> Result<(Buffer<'w>, NormTape<'w>), Error> {
    let buffers = &workspace.buffers;
    let mut scales = buffers.take(x.len() / norm.weight.elem_count());
    let (mut rows, mut y) = (buffers.take(x.len()), buffers.take(x.len()));
    with_affine(norm, |affine| {
        workspace.profile.time(Part::Elementwise, || {
            layer_norm::forward_apart(x, affine, epsilon(norm), &mut rows, &mut scales, &mut y);
        });
    })?;
    let kind = norm.kind;
    Ok((y, NormTape { rows, scales, kind }))
}

/// The way back through [`behind_residual`]: turns `gradient` into that of the residual; `of_x`
/// gets that of `x`.
pub(super) fn behind_residual_backward(
    workspace: &Workspace,
    norm: &Norm,
    tape: &NormTape,
    dropout: Option<RowDropout>,
    [gradient, of_x]: [&mut [f32]; 2],
    gradients: &mut Gradients,
) -> Result<(), Error> {
    let weight = values(&norm.weight)?;
    workspace.profile.time(Part::Elementwise, || {
        let normalised = tape.normalised();
        let partial = layer_norm::backward(gradient, normalised, &weight, dropout, of_x);
        add_parameter_gradients(norm, partial, gradients);
    });
    Ok(())
}

/// The way back through [`in_front`]: adds the gradient of `x` to `sum`. `gradient`, of what was
/// put out, is used up.
pub(super) fn in_front_backward(
    workspace: &Workspace,
    norm: &Norm,
    tape: &NormTape,
    gradient: &mut [f32],
    sum: &mut [f32],
    gradients: &mut Gradients,
) -> Result<(), Error> {
    let weight = values(&norm.weight)?;
    workspace.profile.time(Part::Elementwise, || {
        let partial = layer_norm::backward_added(gradient, tape.normalised(), &weight, sum);
        add_parameter_gradients(norm, partial, gradients);
    });
    Ok(())
}

fn add_parameter_gradients(
    norm: &Norm,
    [of_weight, of_bias]: [Vec<Vec<f32>>; 2],
    gradients: &mut Gradients,
) {
    let (sums, target) = gradients.host(&norm.weight);
    add_up(&of_weight, sums, target);
    if let Some(bias) = &norm.bias {
        let (sums, target) = gradients.host(bias);
        add_up(&of_bias, sums, target);
    }
}

/// An epsilon is a round decimal number.
#[allow(clippy::cast_possible_truncation)]
fn epsilon(norm: &Norm) -> f32 {
    norm.epsilon as f32
}

fn with_affine(norm: &Norm, work: impl FnOnce(Affine)) -> Result<(), Error> {
    let weight = values(&norm.weight)?;
    let bias = norm.bias.as_deref().map(values).transpose()?;
    work(Affine {
        kind: norm.kind,
        weight: &weight,
        bias: bias.as_deref(),
    });
    Ok(())
}
