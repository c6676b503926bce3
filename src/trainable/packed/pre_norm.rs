//! An encoder layer with norms in front of its blocks, forward and backward.

use super::attention_block::AttentionTape;
use super::buffers::Buffer;
use super::layer::LayerPass;
use super::layer_norm::{self, RowDropout};
use super::matrix::Target;
use super::norm::{NormTape, in_front, in_front_backward};
use super::profile::Part;
use crate::trainable::Error;
use crate::trainable::gradients::Gradients;

/// What a forward pass keeps for the backward pass. Hidden states are not among it: what was made
/// of them is made of normalised rows.
pub(super) struct PreNormTape<'a> {
    /// None where attention takes the layer's input as it is.
    input: Option<NormTape<'a>>,
    attention: AttentionTape<'a>,
    attended: NormTape<'a>,
    /// Before the activation.
    wide: Buffer<'a>,
}

impl<'w> LayerPass<'_, 'w> {
    /// `x` `[tokens, hidden]` to the states of the rows that are read, `[rows, hidden]`.
    pub(super) fn pre_norm_forward(
        &self,
        x: &[f32],
    ) -> Result<(Buffer<'w>, PreNormTape<'w>), Error> {
        let (layer, workspace) = (self.layer, self.workspace);
        let norm = layer.attention_norm.as_ref();
        let normalised = norm.map(|norm| in_front(workspace, norm, x)).transpose()?;
        let (normalised, input) = normalised.unzip();
        let normalised = normalised.as_deref().unwrap_or(x);
        let asking = self.asking(normalised);
        let asking = asking.as_deref().unwrap_or(normalised);
        let (mut states, attention) = self.attend(asking, normalised)?;
        let residual = self.asking(x);
        let residual = residual.as_deref().unwrap_or(x);
        let dropout = self.row_dropout(self.dropout.attention);
        self.profile().time(Part::Elementwise, || {
            layer_norm::add_rows(&mut states, residual, self.hidden_size, dropout);
        });
        let (normalised, attended) = in_front(workspace, &layer.output_norm, &states)?;
        let (mut y, wide) = self.feed_forward(&normalised)?;
        let dropout = self.output_dropout();
        self.profile().time(Part::Elementwise, || {
            layer_norm::add_rows(&mut y, &states, self.hidden_size, dropout);
        });
        let tape = PreNormTape {
            input,
            attention,
            attended,
            wide,
        };
        Ok((y, tape))
    }

    /// From the gradient of what [`pre_norm_forward`](Self::pre_norm_forward) put out to those of
    /// the parameters and, if `of_input`, of its input. `x` is that input where no norm stands in
    /// front of attention; else only its size is looked at.
    pub(super) fn pre_norm_backward(
        &self,
        tape: PreNormTape<'w>,
        x: &[f32],
        mut gradient: Buffer<'w>,
        gradients: &mut Gradients,
        of_input: bool,
    ) -> Result<Option<Buffer<'w>>, Error> {
        let PreNormTape {
            input,
            attention,
            attended,
            wide,
        } = tape;
        let (layer, workspace) = (self.layer, self.workspace);
        let (buffers, profile) = (&workspace.buffers, self.profile());
        let mut of_normalised = buffers.take(gradient.len());
        let norm = &layer.output_norm;
        let again = |states: &mut [f32]| attended.output(norm, profile, states);
        let into = (&mut *of_normalised, Target::Replace);
        let dropout = self.output_dropout();
        let dropped = dropout.map(|dropout| {
            let mut dropped = buffers.take(gradient.len());
            profile.time(Part::Elementwise, || {
                layer_norm::drop_rows(&gradient, self.hidden_size, Some(dropout), &mut dropped);
            });
            dropped
        });
        let of_narrow = dropped.as_deref().unwrap_or(&gradient);
        self.feed_forward_backward(wide, again, of_narrow, into, gradients)?;
        drop(dropped);
        let (used_up, sum) = (&mut *of_normalised, &mut *gradient);
        in_front_backward(workspace, norm, &attended, used_up, sum, gradients)?;
        drop(attended);

        let mut branch = of_normalised;
        profile.time(Part::Elementwise, || {
            let dropout = self.row_dropout(self.dropout.attention);
            layer_norm::drop_rows(&gradient, self.hidden_size, dropout, &mut branch);
        });
        let projected = self.attend_backward(attention, branch, gradients)?;
        let projected = projected.each_ref().map(|matrix| &**matrix);
        let norm = layer.attention_norm.as_ref().zip(input.as_ref());
        let normalised = norm.map(|(norm, input)| {
            let mut normalised = buffers.take(x.len());
            input.output(norm, profile, &mut normalised)?;
            Ok::<_, Error>(normalised)
        });
        let normalised = normalised.transpose()?;
        let normalised_rows = normalised.as_deref().unwrap_or(x);
        let asking = self.asking(normalised_rows);
        let asking = asking.as_deref().unwrap_or(normalised_rows);
        self.projections_backward(asking, normalised_rows, projected, gradients);
        drop(normalised);
        // The norm's own parameters need the gradient of what it put out.
        if norm.is_none() && !of_input {
            return Ok(None);
        }
        let room = buffers.take(gradient.len());
        let mut of_normalised = self.of_projected(projected, room, Target::Replace)?;
        let mut of_x = self.spread(gradient, x.len());
        match norm {
            Some((norm, input)) => {
                let (used_up, sum) = (&mut *of_normalised, &mut *of_x);
                in_front_backward(workspace, norm, input, used_up, sum, gradients)?;
            }
            None => profile.time(Part::Elementwise, || {
                layer_norm::add_rows(&mut of_x, &of_normalised, self.hidden_size, None);
            }),
        }
        Ok(of_input.then_some(of_x))
    }

    /// Dropout of what the feed-forward block puts out: a gated one has its own inside.
    fn output_dropout(&self) -> Option<RowDropout<'_>> {
        let dropout = self.dropout.feed_forward.filter(|_| !self.layer.gated);
        self.row_dropout(dropout)
    }
}
