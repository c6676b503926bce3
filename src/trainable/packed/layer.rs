//! One encoder layer, post-norm as in BERT (Devlin et al., 2019), forward and backward.

use super::attention;
use super::bias::{add_up, column_sums, fill};
use super::buffers::Buffer;
use super::gelu;
use super::layer_norm::{self, Normalised, RowDropout};
use super::matrix::{Target, times, times_transposed, transposed_times};
use super::profile::Part;
use super::relative_bias::RelativeBias;
use super::rows::{Rows, gather, scatter_add};
use super::values::values;
use super::{Profile, Workspace};
use crate::trainable::gradients::Gradients;
use crate::trainable::layers::{EncoderLayer, LayerNorm, Linear};
use crate::trainable::relative_position::RelativePositions;
use crate::trainable::{Dropout, Error, Packing};

/// Dropout of one layer in one pass.
#[derive(Clone, Copy)]
pub(super) struct LayerDropout {
    /// Of the attention probabilities.
    pub(super) probabilities: Option<Dropout>,
    /// Of what attention puts out.
    pub(super) attention: Option<Dropout>,
    /// Of what the feed-forward part puts out.
    pub(super) output: Option<Dropout>,
}

/// One layer in one pass.
#[derive(Clone, Copy)]
pub(super) struct LayerPass<'p, 'w> {
    pub(super) layer: &'w EncoderLayer,
    pub(super) workspace: &'w Workspace,
    pub(super) packing: &'p Packing,
    /// Tokens whose state is read from this layer; keys and values are computed for all.
    pub(super) rows: Rows<'p>,
    pub(super) hidden_size: usize,
    /// What all layers add to their attention scores.
    pub(super) bias: Option<(&'p RelativeBias, &'w RelativePositions)>,
    pub(super) dropout: LayerDropout,
}

/// What a forward pass keeps for the backward pass. The layer's input is not among it: it is
/// what the layer below put out, and is made again from that layer's normalised rows.
pub(super) struct LayerTape<'a> {
    attention: AttentionTape<'a>,
    attended: NormTape<'a>,
    /// Before the activation.
    wide: Buffer<'a>,
    pub(super) output: NormTape<'a>,
}

struct AttentionTape<'a> {
    queries: Buffer<'a>,
    keys: Buffer<'a>,
    values: Buffer<'a>,
    context: Buffer<'a>,
}

/// Normalised rows and their scales.
pub(super) struct NormTape<'a> {
    rows: Buffer<'a>,
    scales: Buffer<'a>,
}

impl NormTape<'_> {
    /// What the normalisation `norm` put out, again.
    pub(super) fn output(
        &self,
        norm: &LayerNorm,
        profile: &Profile,
        y: &mut [f32],
    ) -> Result<(), Error> {
        let (weight, bias) = (values(&norm.weight)?, values(&norm.bias)?);
        profile.time(Part::Elementwise, || {
            layer_norm::scale_and_shift(&self.rows, [&weight, &bias], y);
        });
        Ok(())
    }
}

impl<'p, 'w> LayerPass<'p, 'w> {
    /// `x` `[tokens, hidden]` to the states of the rows that are read, `[rows, hidden]`.
    pub(super) fn forward(&self, x: &[f32]) -> Result<(Buffer<'w>, LayerTape<'w>), Error> {
        let (layer, buffers) = (self.layer, &self.workspace.buffers);
        let asking = self.asking(x);
        let asking = asking.as_deref().unwrap_or(x);
        let wide_size = layer.intermediate.bias.elem_count();
        let rows = asking.len() / self.hidden_size;

        let mut queries = buffers.take(asking.len());
        let (mut keys, mut values) = (buffers.take(x.len()), buffers.take(x.len()));
        self.linear(&layer.query, asking, &mut queries)?;
        self.linear(&layer.key, x, &mut keys)?;
        self.linear(&layer.value, x, &mut values)?;
        let mut context = buffers.take(asking.len());
        self.profile().time_attention(|| {
            let shape = self.attention();
            let inputs = [&*queries, &*keys, &*values];
            attention::forward(shape, inputs, self.hidden_size, &mut context);
        });

        let mut projected = buffers.take(asking.len());
        self.linear(&layer.attention_output, &context, &mut projected)?;
        let dropout = self.row_dropout(self.dropout.attention);
        let (states, attended) =
            self.normalise(&layer.attention_norm, projected, asking, dropout)?;

        let (mut wide, mut active) = (
            buffers.take(rows * wide_size),
            buffers.take(rows * wide_size),
        );
        self.linear(&layer.intermediate, &states, &mut wide)?;
        self.profile()
            .time(Part::Elementwise, || gelu::forward(&wide, &mut active));
        let mut narrow = buffers.take(asking.len());
        self.linear(&layer.output, &active, &mut narrow)?;
        let dropout = self.row_dropout(self.dropout.output);
        let (y, output) = self.normalise(&layer.output_norm, narrow, &states, dropout)?;
        let tape = LayerTape {
            attention: AttentionTape {
                queries,
                keys,
                values,
                context,
            },
            attended,
            wide,
            output,
        };
        Ok((y, tape))
    }

    /// From the gradient of what [`forward`](Self::forward) put out for `x` to those of the
    /// parameters and, if `of_input`, of `x`.
    pub(super) fn backward(
        &self,
        tape: LayerTape<'w>,
        x: &[f32],
        mut gradient: Buffer<'w>,
        gradients: &mut Gradients,
        of_input: bool,
    ) -> Result<Option<Buffer<'w>>, Error> {
        let LayerTape {
            attention,
            attended,
            wide,
            output,
        } = tape;
        let branch = self.workspace.buffers.take(gradient.len());
        let branch =
            self.feed_forward_backward(wide, &attended, output, &mut gradient, branch, gradients)?;
        self.attention_backward(
            attention, attended, x, gradient, branch, gradients, of_input,
        )
    }

    /// Turns `gradient`, of what the layer put out, into that of what attention put out. `branch`
    /// is room for the gradient of what goes into a residual connection.
    fn feed_forward_backward(
        &self,
        mut wide: Buffer<'w>,
        attended: &NormTape,
        output: NormTape,
        gradient: &mut [f32],
        mut branch: Buffer<'w>,
        gradients: &mut Gradients,
    ) -> Result<Buffer<'w>, Error> {
        let (layer, profile) = (self.layer, self.profile());
        let buffers = &self.workspace.buffers;
        let dropout = self.row_dropout(self.dropout.output);
        let norm = &layer.output_norm;
        self.norm_backward(norm, &output, dropout, gradient, &mut branch, gradients)?;
        drop(output);
        let mut of_wide = buffers.take(wide.len());
        self.times(&layer.output, &branch, &mut of_wide, Target::Replace)?;
        profile.time(Part::Elementwise, || {
            gelu::backward(&mut wide, &mut of_wide);
        });
        let active = wide;
        self.linear_backward(&layer.output, &active, &branch, gradients);
        drop(active);
        let mut states = buffers.take(gradient.len());
        attended.output(&layer.attention_norm, profile, &mut states)?;
        self.linear_backward(&layer.intermediate, &states, &of_wide, gradients);
        drop(states);
        self.times(&layer.intermediate, &of_wide, gradient, Target::Add)?;
        Ok(branch)
    }

    /// From the gradient of what attention put out to that of `x`.
    #[allow(clippy::too_many_arguments, reason = "each is one matrix of the layer")]
    fn attention_backward(
        &self,
        tape: AttentionTape<'w>,
        attended: NormTape,
        x: &[f32],
        mut gradient: Buffer<'w>,
        mut branch: Buffer<'w>,
        gradients: &mut Gradients,
        of_input: bool,
    ) -> Result<Option<Buffer<'w>>, Error> {
        let (layer, width) = (self.layer, self.hidden_size);
        let AttentionTape {
            mut queries,
            mut keys,
            mut values,
            mut context,
        } = tape;
        let dropout = self.row_dropout(self.dropout.attention);
        let norm = &layer.attention_norm;
        self.norm_backward(
            norm,
            &attended,
            dropout,
            &mut gradient,
            &mut branch,
            gradients,
        )?;
        drop(attended);
        self.linear_backward(&layer.attention_output, &context, &branch, gradients);
        let projection = &layer.attention_output;
        self.times(projection, &branch, &mut context, Target::Replace)?;
        drop(branch);
        self.profile().time_attention(|| {
            let matrices = [&mut *queries, &mut *keys, &mut *values];
            let of_bias = attention::backward(self.attention(), matrices, width, &context);
            if let Some((bias, positions)) = self.bias
                && let Some(table) = positions.trained()
            {
                let (sums, target) = gradients.host(table);
                bias.add_up(&of_bias, layer.heads, sums, target);
            }
        });
        drop(context);

        let asking = self.asking(x);
        let asking = asking.as_deref().unwrap_or(x);
        self.linear_backward(&layer.query, asking, &queries, gradients);
        self.linear_backward(&layer.key, x, &keys, gradients);
        self.linear_backward(&layer.value, x, &values, gradients);
        if !of_input {
            return Ok(None);
        }
        self.times(&layer.query, &queries, &mut gradient, Target::Add)?;
        let mut of_x = match self.rows {
            Rows::All => gradient,
            Rows::Some(rows) => {
                let mut of_x = self.workspace.buffers.take(x.len());
                of_x.fill(0.0);
                scatter_add(&gradient, rows, width, &mut of_x);
                of_x
            }
        };
        self.times(&layer.key, &keys, &mut of_x, Target::Add)?;
        self.times(&layer.value, &values, &mut of_x, Target::Add)?;
        Ok(Some(of_x))
    }

    /// The rows that ask, where they are not all.
    fn asking(&self, x: &[f32]) -> Option<Buffer<'w>> {
        match self.rows {
            Rows::All => None,
            Rows::Some(rows) => {
                let mut asking = self.workspace.buffers.take(rows.len() * self.hidden_size);
                gather(x, rows, self.hidden_size, &mut asking);
                Some(asking)
            }
        }
    }

    fn profile(&self) -> &'w Profile {
        &self.workspace.profile
    }

    fn attention(&self) -> attention::Shape<'_> {
        attention::Shape {
            packing: self.packing,
            rows: self.rows,
            heads: self.layer.heads,
            bias: self.bias.map(|(bias, _)| bias),
            dropout: self.dropout.probabilities,
            profile: self.profile(),
        }
    }

    fn row_dropout(&self, dropout: Option<Dropout>) -> Option<RowDropout<'p>> {
        dropout.map(|dropout| RowDropout {
            dropout,
            rows: self.rows,
            first_token: self.packing.first_token,
        })
    }

    /// `y ← x Wᵀ + b`
    fn linear(&self, linear: &Linear, x: &[f32], y: &mut [f32]) -> Result<(), Error> {
        let (weight, bias) = (values(&linear.weight)?, values(&linear.bias)?);
        let inputs = weight.len() / bias.len();
        self.profile().time(Part::Elementwise, || fill(y, &bias));
        times_transposed(self.profile(), y, x, &weight, inputs, Target::Add);
        Ok(())
    }

    /// `of_x ← of_y W`, or added to it.
    fn times(
        &self,
        linear: &Linear,
        of_y: &[f32],
        of_x: &mut [f32],
        target: Target,
    ) -> Result<(), Error> {
        let weight = values(&linear.weight)?;
        let inputs = weight.len() / linear.bias.elem_count();
        times(self.profile(), of_x, of_y, &weight, inputs, target);
        Ok(())
    }

    /// The gradients of weight and bias.
    fn linear_backward(&self, linear: &Linear, x: &[f32], of_y: &[f32], gradients: &mut Gradients) {
        let inputs = linear.weight.elem_count() / linear.bias.elem_count();
        let (of_weight, target) = gradients.host(&linear.weight);
        transposed_times(self.profile(), of_weight, of_y, x, inputs, target);
        let (of_bias, target) = gradients.host(&linear.bias);
        self.profile()
            .time(Part::Elementwise, || column_sums(of_y, of_bias, target));
    }

    /// Dropout of `x`, the residual and the normalisation: the states, and what is kept.
    fn normalise(
        &self,
        norm: &LayerNorm,
        mut x: Buffer<'w>,
        residual: &[f32],
        dropout: Option<RowDropout>,
    ) -> Result<(Buffer<'w>, NormTape<'w>), Error> {
        let (weight, bias) = (values(&norm.weight)?, values(&norm.bias)?);
        let mut scales = self.workspace.buffers.take(x.len() / self.hidden_size);
        let mut y = self.workspace.buffers.take(x.len());
        self.profile().time(Part::Elementwise, || {
            let parameters = [&*weight, &*bias];
            // An epsilon is a round decimal number.
            #[allow(clippy::cast_possible_truncation)]
            let epsilon = norm.epsilon as f32;
            layer_norm::forward(
                &mut x,
                residual,
                parameters,
                epsilon,
                dropout,
                &mut scales,
                &mut y,
            );
        });
        Ok((y, NormTape { rows: x, scales }))
    }

    fn norm_backward(
        &self,
        norm: &LayerNorm,
        tape: &NormTape,
        dropout: Option<RowDropout>,
        gradient: &mut [f32],
        of_x: &mut [f32],
        gradients: &mut Gradients,
    ) -> Result<(), Error> {
        let weight = values(&norm.weight)?;
        self.profile().time(Part::Elementwise, || {
            let normalised = Normalised {
                rows: &tape.rows,
                scales: &tape.scales,
            };
            let [of_weight, of_bias] =
                layer_norm::backward(gradient, normalised, &weight, dropout, of_x);
            for (parameter, partial) in [(&norm.weight, of_weight), (&norm.bias, of_bias)] {
                let (sums, target) = gradients.host(parameter);
                add_up(&partial, sums, target);
            }
        });
        Ok(())
    }
}
