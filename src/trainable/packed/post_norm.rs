//! An encoder layer with norms behind its residual connections, as in BERT (Devlin et al., 2019),
//! forward and backward.

use super::attention_block::AttentionTape;
use super::buffers::Buffer;
use super::layer::LayerPass;
use super::matrix::Target;
use super::norm::{NormTape, behind_residual, behind_residual_backward};
use crate::trainable::Error;
use crate::trainable::gradients::Gradients;
use crate::trainable::layers::Norm;

/// What a forward pass keeps for the backward pass. The layer's input is not among it: it is
/// what the layer below put out, and is made again from that layer's normalised rows.
pub(super) struct PostNormTape<'a> {
    attention: AttentionTape<'a>,
    attended: NormTape<'a>,
    /// Before the activation.
    wide: Buffer<'a>,
    pub(super) output: NormTape<'a>,
}

impl<'w> LayerPass<'_, 'w> {
    /// `x` `[tokens, hidden]` to the states of the rows that are read, `[rows, hidden]`.
    pub(super) fn post_norm_forward(
        &self,
        attention_norm: &Norm,
        x: &[f32],
    ) -> Result<(Buffer<'w>, PostNormTape<'w>), Error> {
        let (layer, workspace) = (self.layer, self.workspace);
        let asking = self.asking(x);
        let asking = asking.as_deref().unwrap_or(x);
        let (projected, attention) = self.attend(asking, x)?;
        let dropout = self.row_dropout(self.dropout.attention);
        let (states, attended) =
            behind_residual(workspace, attention_norm, projected, asking, dropout)?;
        let (narrow, wide) = self.feed_forward(&states)?;
        let dropout = self.row_dropout(self.dropout.feed_forward);
        let norm = &layer.output_norm;
        let (y, output) = behind_residual(workspace, norm, narrow, &states, dropout)?;
        let tape = PostNormTape {
            attention,
            attended,
            wide,
            output,
        };
        Ok((y, tape))
    }

    /// From the gradient of what [`post_norm_forward`](Self::post_norm_forward) put out for `x` to
    /// those of the parameters and, if `of_input`, of `x`.
    pub(super) fn post_norm_backward(
        &self,
        attention_norm: &Norm,
        tape: PostNormTape<'w>,
        x: &[f32],
        mut gradient: Buffer<'w>,
        gradients: &mut Gradients,
        of_input: bool,
    ) -> Result<Option<Buffer<'w>>, Error> {
        let PostNormTape {
            attention,
            attended,
            wide,
            output,
        } = tape;
        let workspace = self.workspace;
        // Of what goes into a residual connection.
        let mut branch = workspace.buffers.take(gradient.len());
        let norm = &self.layer.output_norm;
        let dropout = self.row_dropout(self.dropout.feed_forward);
        let both = [&mut *gradient, &mut *branch];
        behind_residual_backward(workspace, norm, &output, dropout, both, gradients)?;
        drop(output);
        let again = |states: &mut [f32]| attended.output(attention_norm, self.profile(), states);
        let into = (&mut *gradient, Target::Add);
        self.feed_forward_backward(wide, again, &branch, into, gradients)?;

        let dropout = self.row_dropout(self.dropout.attention);
        let both = [&mut *gradient, &mut *branch];
        behind_residual_backward(
            workspace,
            attention_norm,
            &attended,
            dropout,
            both,
            gradients,
        )?;
        drop(attended);
        let projected = self.attend_backward(attention, branch, gradients)?;
        let projected = projected.each_ref().map(|matrix| &**matrix);
        let asking = self.asking(x);
        let asking = asking.as_deref().unwrap_or(x);
        self.projections_backward(asking, x, projected, gradients);
        if !of_input {
            return Ok(None);
        }
        let of_x = self.of_projected(projected, gradient, Target::Add)?;
        Ok(Some(of_x))
    }
}
