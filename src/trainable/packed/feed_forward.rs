//! The feed-forward block, plain or gated, forward and backward.

use super::activation::{self, with_activation};
use super::buffers::Buffer;
use super::gated::{self, Layout};
use super::layer::LayerPass;
use super::linear;
use super::matrix::Target;
use super::profile::Part;
use crate::trainable::Error;
use crate::trainable::gradients::Gradients;
use crate::trainable::layers::Wide;

impl<'w> LayerPass<'_, 'w> {
    /// What the block puts out for `x` `[rows, hidden]`, and the wide states before the activation,
    /// which are kept. Dropout is done here when it is gated.
    pub(super) fn feed_forward(&self, x: &[f32]) -> Result<(Buffer<'w>, Buffer<'w>), Error> {
        let (layer, profile) = (self.layer, self.profile());
        let buffers = &self.workspace.buffers;
        let rows = x.len() / self.hidden_size;
        let mut wide = buffers.take(rows * layer.wide.outputs());
        let mut active = buffers.take(rows * layer.output.inputs);
        let mut rest = &mut *wide;
        for linear in layer.wide.linears() {
            let (y, others) = rest.split_at_mut(rows * linear.outputs);
            linear::forward(profile, linear, x, y)?;
            rest = others;
        }
        profile.time(Part::Elementwise, || {
            with_activation!(layer.activation, A => if layer.gated {
                let dropout = self.row_dropout(self.dropout.feed_forward);
                gated::forward::<A>(&wide, self.halves(), dropout, &mut active);
            } else {
                activation::forward::<A>(&wide, &mut active);
            });
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
                with_activation!(layer.activation, A => {
                    gated::backward::<A>(&mut wide, self.halves(), dropout, &mut of_active);
                });
            });
            (of_active, wide)
        } else {
            profile.time(Part::Elementwise, || {
                with_activation!(layer.activation, A => {
                    activation::backward::<A>(&mut wide, &mut of_active);
                });
            });
            (wide, of_active)
        };
        linear::backward(profile, &layer.output, [(&active, gradient)], gradients);
        drop(active);
        let mut x = buffers.take(gradient.len());
        again(&mut x)?;
        let mut rest = &*of_wide;
        for linear in layer.wide.linears() {
            let (of_y, others) = rest.split_at(rows * linear.outputs);
            linear::backward(profile, linear, [(&x, of_y)], gradients);
            rest = others;
        }
        drop(x);
        let (mut rest, mut target) = (&*of_wide, target);
        for linear in layer.wide.linears() {
            let (of_y, others) = rest.split_at(rows * linear.outputs);
            linear::of_input(profile, linear, of_y, of_x, target)?;
            (rest, target) = (others, Target::Add);
        }
        Ok(())
    }

    /// How what goes through the activation and what multiplies it lie, and their width.
    fn halves(&self) -> (Layout, usize) {
        let layout = match self.layer.wide {
            Wide::One(_) => Layout::SideBySide,
            Wide::GateAndUp(_) => Layout::Stacked,
        };
        (layout, self.layer.output.inputs)
    }
}
