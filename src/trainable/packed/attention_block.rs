//! Attention with its projections: from hidden states to what is added to them, and back.

use std::ops::Range;

use super::attention;
use super::buffers::Buffer;
use super::layer::LayerPass;
use super::linear;
use super::matrix::Target;
use super::rotary::Direction;
use super::rows::{Rows, gather, scatter_add};
use crate::trainable::Error;
use crate::trainable::gradients::Gradients;
use crate::trainable::layers::{Linear, Projections};

/// What a forward pass keeps for the backward pass.
pub(super) struct AttentionTape<'a> {
    /// Turned by their positions, if they are.
    queries: Buffer<'a>,
    /// As the queries.
    keys: Buffer<'a>,
    values: Buffer<'a>,
    context: Buffer<'a>,
}

impl<'w> LayerPass<'_, 'w> {
    /// What attention puts out for the rows that ask, `[rows, hidden]`, where `asking` are those
    /// rows of `x` `[tokens, hidden]`.
    pub(super) fn attend(
        &self,
        asking: &[f32],
        x: &[f32],
    ) -> Result<(Buffer<'w>, AttentionTape<'w>), Error> {
        let (layer, buffers) = (self.layer, &self.workspace.buffers);
        let mut queries = buffers.take(asking.len());
        let shared = self.packing.tokens() * self.projection(1).1.len();
        let (mut keys, mut values) = (buffers.take(shared), buffers.take(shared));
        self.project(0, asking, &mut queries)?;
        self.project(1, x, &mut keys)?;
        self.project(2, x, &mut values)?;
        let mut context = buffers.take(asking.len());
        self.profile().time_attention(|| {
            self.turn([&mut queries, &mut keys], Direction::Forward);
            let inputs = [&*queries, &*keys, &*values];
            attention::forward(self.attention(), inputs, self.hidden_size, &mut context);
        });
        let mut projected = buffers.take(asking.len());
        linear::forward(
            self.profile(),
            &layer.attention_output,
            &context,
            &mut projected,
        )?;
        let tape = AttentionTape {
            queries,
            keys,
            values,
            context,
        };
        Ok((projected, tape))
    }

    /// From the gradient of what [`attend`](Self::attend) put out to those of queries, keys and
    /// values as they were projected.
    pub(super) fn attend_backward(
        &self,
        tape: AttentionTape<'w>,
        gradient: Buffer<'w>,
        gradients: &mut Gradients,
    ) -> Result<[Buffer<'w>; 3], Error> {
        let AttentionTape {
            mut queries,
            mut keys,
            mut values,
            mut context,
        } = tape;
        let (layer, profile) = (self.layer, self.profile());
        let output = &layer.attention_output;
        linear::backward(profile, output, [(&context, &gradient)], gradients);
        let target = Target::Replace;
        linear::of_input(profile, output, &gradient, &mut context, target)?;
        drop(gradient);
        profile.time_attention(|| {
            let matrices = [&mut *queries, &mut *keys, &mut *values];
            let shape = self.attention();
            let of_bias = attention::backward(shape, matrices, self.hidden_size, &context);
            if let Some((bias, positions)) = self.bias
                && let Some(table) = positions.trained()
            {
                let (sums, target) = gradients.host(table);
                bias.add_up(&of_bias, layer.heads, sums, target);
            }
            self.turn([&mut queries, &mut keys], Direction::Back);
        });
        Ok([queries, keys, values])
    }

    /// The gradients of the projections' weights and biases, from those of what they put out.
    pub(super) fn projections_backward(
        &self,
        asking: &[f32],
        x: &[f32],
        [queries, keys, values]: [&[f32]; 3],
        gradients: &mut Gradients,
    ) {
        let parts = [(asking, queries), (x, keys), (x, values)];
        match &self.layer.projections {
            Projections::Separate(linears) => {
                for (linear, part) in linears.iter().zip(parts) {
                    linear::backward(self.profile(), linear, [part], gradients);
                }
            }
            Projections::Fused(linear) => {
                linear::backward(self.profile(), linear, parts, gradients);
            }
        }
    }

    /// The gradient of the projections' input, `[tokens, hidden]`. `gradient` `[rows, hidden]` is
    /// where that of the queries' input goes, or what it is added to.
    pub(super) fn of_projected(
        &self,
        [queries, keys, values]: [&[f32]; 3],
        mut gradient: Buffer<'w>,
        target: Target,
    ) -> Result<Buffer<'w>, Error> {
        let profile = self.profile();
        let of_input = |part: usize, of_y: &[f32], of_x: &mut [f32], target| {
            let (linear, outputs) = self.projection(part);
            linear::of_input_by_part(profile, linear, outputs, of_y, of_x, target)
        };
        of_input(0, queries, &mut gradient, target)?;
        let mut of_x = self.spread(gradient, self.packing.tokens() * self.hidden_size);
        of_input(1, keys, &mut of_x, Target::Add)?;
        of_input(2, values, &mut of_x, Target::Add)?;
        Ok(of_x)
    }

    /// The rows that ask, where they are not all.
    pub(super) fn asking(&self, x: &[f32]) -> Option<Buffer<'w>> {
        match self.rows {
            Rows::All => None,
            Rows::Some(runs) => {
                let length = runs.rows.len() * self.hidden_size;
                let mut asking = self.workspace.buffers.take(length);
                gather(x, &runs.rows, self.hidden_size, &mut asking);
                Some(asking)
            }
        }
    }

    /// What is given for the rows that ask, among zeros for the others: `length` numbers.
    pub(super) fn spread(&self, part: Buffer<'w>, length: usize) -> Buffer<'w> {
        match self.rows {
            Rows::All => part,
            Rows::Some(runs) => {
                let mut all = self.workspace.buffers.take(length);
                all.fill(0.0);
                scatter_add(&part, &runs.rows, self.hidden_size, &mut all);
                all
            }
        }
    }

    /// Queries, keys or values of `x`, by their place in that order.
    fn project(&self, part: usize, x: &[f32], y: &mut [f32]) -> Result<(), Error> {
        let (linear, outputs) = self.projection(part);
        linear::forward_part(self.profile(), linear, outputs, x, y)
    }

    fn projection(&self, part: usize) -> (&'w Linear, Range<usize>) {
        match &self.layer.projections {
            Projections::Separate(linears) => (&linears[part], 0..linears[part].outputs),
            Projections::Fused(linear) => {
                let width = linear.outputs / 3;
                (linear, part * width..(part + 1) * width)
            }
        }
    }

    fn turn(&self, [queries, keys]: [&mut [f32]; 2], direction: Direction) {
        let Some(turn) = self.turn else { return };
        turn.apply(queries, &self.rows.positions(self.packing), direction);
        turn.apply(keys, &Rows::All.positions(self.packing), direction);
    }

    fn attention(&self) -> attention::Shape<'_> {
        attention::Shape {
            packing: self.packing,
            rows: self.rows,
            heads: self.layer.heads,
            key_value_heads: self.layer.key_value_heads,
            window: self.layer.window,
            bias: self.bias.map(|(bias, _)| bias),
            dropout: self.dropout.probabilities,
            profile: self.profile(),
        }
    }
}
