//! The feed-forward block, plain or gated, forward and backward.

use super::buffers::Buffer;
use super::layer::LayerPass;
use super::linear;
use super::matrix::Target;
use super::profile::Part;
use super::{gated, gelu};
use crate::trainable::Error;
use crate::trainable::gradients::Gradients;

impl<'w> LayerPass<'_, 'w> {
    /// What the block puts out for `x` `[rows, hidden]`, and the wide states before the activation,
    /// which are kept. Dropout is done here when it is gated.
    pub(super) fn feed_forward(&self, x: &[f32]) -> Result<(Buffer<'w>, Buffer<'w>), Error> {
        let (layer, profile) = (self.layer, self.profile());
        let buffers = &self.workspace.buffers;
        let rows = x.len() / self.hidden_size;
        let mut wide = buffers.take(rows * layer.intermediate.outputs);
        let mut active = buffers.take(rows * layer.output.inputs);
        linear::forward(profile, &layer.intermediate, x, &mut wide)?;
        profile.time(Part::Elementwise, || {
            if layer.gated {
                let dropout = self.row_dropout(self.dropout.feed_forward);
                gated::forward(&wide, layer.output.inputs, dropout, &mut active);
            } else {
                gelu::forward(&wide, &mut active);
            }
        });
        let mut narrow = buffers.take(x.len());
        linear::forward(profile, &layer.output, &active, &mut narrow)?;
        Ok((narrow, wide))
    }

    /// From the `gradient` of what the block put out to that of its input, which replaces `of_x` or
    /// is added to it; `again` makes the input again.
    pub(super) fn feed_forward_backward(
        &self,
        mut wide: Buffer<'w>,
        again: impl FnOnce(&mut [f32]) -> Result<(), Error>,
        gradient: &[f32],
        (of_x, target): (&mut [f32], Target),
        gradients: &mut Gradients,
    ) -> Result<(), Error> {
        let (layer, profile) = (self.layer, self.profile());
        let buffers = &self.workspace.buffers;
        let rows = gradient.len() / self.hidden_size;
        let mut of_active = buffers.take(rows * layer.output.inputs);
        let replace = Target::Replace;
        linear::of_input(profile, &layer.output, gradient, &mut of_active, replace)?;
        let (active, of_wide) = if layer.gated {
            profile.time(Part::Elementwise, || {
                let dropout = self.row_dropout(self.dropout.feed_forward);
                gated::backward(&mut wide, layer.output.inputs, dropout, &mut of_active);
            });
            (of_active, wide)
        } else {
            profile.time(Part::Elementwise, || {
                gelu::backward(&mut wide, &mut of_active);
            });
            (wide, of_active)
        };
        linear::backward(profile, &layer.output, [(&active, gradient)], gradients);
        drop(active);
        let mut x = buffers.take(gradient.len());
        again(&mut x)?;
        linear::backward(profile, &layer.intermediate, [(&x, &of_wide)], gradients);
        drop(x);
        linear::of_input(profile, &layer.intermediate, &of_wide, of_x, target)
    }
}
