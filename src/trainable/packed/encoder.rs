//! The encoder's trainable layers, one on top of the other.

use super::buffers::Buffer;
use super::layer::{LayerDropout, LayerPass, LayerTape};
use super::pooling;
use super::profile::Part;
use super::relative_bias::RelativeBias;
use super::rows::{Rows, gather, scatter_add};
use crate::trainable::encoder::TrainableEncoder;
use crate::trainable::gradients::Gradients;
use crate::trainable::pass::Site;
use crate::trainable::{Error, Packing, Pass, Pooling};

/// What a forward pass keeps for the backward pass.
pub(crate) struct Tape<'a> {
    packing: Packing,
    pooling: Pooling,
    first_tokens: Vec<usize>,
    /// Whether the last layer computed first tokens only.
    pruned: bool,
    input: Vec<f32>,
    layers: Vec<(LayerTape<'a>, LayerDropout)>,
}

/// Pooled states of packed sequences: `input` `[tokens, hidden]` to `[sequences, hidden]`, and
/// what [`backward`] needs, if `pass` asks for gradients.
pub(crate) fn forward<'a>(
    encoder: &'a TrainableEncoder,
    input: Vec<f32>,
    packing: Packing,
    pooling: Pooling,
    pass: &Pass,
) -> Result<(Vec<f32>, Option<Tape<'a>>), Error> {
    let (workspace, width) = (&encoder.workspace, encoder.hidden_size);
    let first_tokens = packing.offsets[..packing.sequences()].to_vec();
    let pruned = pooling == Pooling::Cls && !pass.all_rows && !encoder.layers.is_empty();
    let bias = relative_bias(encoder, &packing)?;
    let mut tapes = Vec::with_capacity(encoder.layers.len());
    let mut states: Option<Buffer> = None;
    for (index, layer) in encoder.layers.iter().enumerate() {
        let dropout = LayerDropout {
            probabilities: pass.dropout(Site::Probabilities(index), layer.attention_dropout),
            attention: pass.dropout(Site::Attention(index), layer.hidden_dropout),
            output: pass.dropout(Site::Output(index), layer.hidden_dropout),
        };
        let top = index + 1 == encoder.layers.len();
        let rows = if pruned && top {
            Rows::Some(&first_tokens)
        } else {
            Rows::All
        };
        let layer = LayerPass {
            layer,
            workspace,
            packing: &packing,
            rows,
            hidden_size: width,
            bias: bias.as_ref().zip(encoder.relative_positions.as_ref()),
            dropout,
        };
        let (output, tape) = layer.forward(states.as_deref().unwrap_or(&input))?;
        states = Some(output);
        if pass.way_back {
            tapes.push((tape, dropout));
        }
    }
    let states = states.as_deref().unwrap_or(&input);
    let mut pooled = vec![0.0; packing.sequences() * width];
    workspace.profile.time(Part::Elementwise, || match pooling {
        Pooling::Cls if pruned => pooled.copy_from_slice(states),
        Pooling::Cls => gather(states, &first_tokens, width, &mut pooled),
        Pooling::Mean => pooling::mean(states, &packing.offsets, width, &mut pooled),
    });
    let tape = pass.way_back.then_some(Tape {
        packing,
        pooling,
        first_tokens,
        pruned,
        input,
        layers: tapes,
    });
    Ok((pooled, tape))
}

/// From the `gradient` of the pooled states, `[sequences, hidden]`, to those of the parameters
/// and, if `of_input`, of the input, `[tokens, hidden]`.
pub(crate) fn backward(
    encoder: &TrainableEncoder,
    tape: Tape,
    gradient: &[f32],
    gradients: &mut Gradients,
    of_input: bool,
) -> Result<Option<Vec<f32>>, Error> {
    let Tape {
        packing,
        pooling,
        first_tokens,
        pruned,
        input,
        mut layers,
    } = tape;
    let (workspace, width) = (&encoder.workspace, encoder.hidden_size);
    let rows = if pruned {
        first_tokens.len()
    } else {
        input.len() / width
    };
    let bias = relative_bias(encoder, &packing)?;
    let mut of_states = workspace.buffers.take(rows * width);
    workspace.profile.time(Part::Elementwise, || match pooling {
        Pooling::Cls if pruned => of_states.copy_from_slice(gradient),
        Pooling::Cls => {
            of_states.fill(0.0);
            scatter_add(gradient, &first_tokens, width, &mut of_states);
        }
        Pooling::Mean => pooling::mean_backward(gradient, &packing.offsets, width, &mut of_states),
    });
    let mut of_states = Some(of_states);
    while let Some((tape, dropout)) = layers.pop() {
        let index = layers.len();
        let top = index + 1 == encoder.layers.len();
        let layer = LayerPass {
            layer: &encoder.layers[index],
            workspace,
            packing: &packing,
            rows: if pruned && top {
                Rows::Some(&first_tokens)
            } else {
                Rows::All
            },
            hidden_size: width,
            bias: bias.as_ref().zip(encoder.relative_positions.as_ref()),
            dropout,
        };
        let below = match layers.last() {
            Some((below, _)) => {
                let mut states = workspace.buffers.take(input.len());
                let norm = &encoder.layers[index - 1].output_norm;
                below.output.output(norm, &workspace.profile, &mut states)?;
                Some(states)
            }
            None => None,
        };
        let x = below.as_deref().unwrap_or(&input);
        let Some(gradient) = of_states.take() else {
            unreachable!("every layer but the lowest hands one down")
        };
        of_states = layer.backward(tape, x, gradient, gradients, of_input || index > 0)?;
    }
    Ok(of_states
        .filter(|_| of_input)
        .map(|gradient| gradient.to_vec()))
}

/// What the layers add to their attention scores.
fn relative_bias(
    encoder: &TrainableEncoder,
    packing: &Packing,
) -> Result<Option<RelativeBias>, Error> {
    let positions = encoder.relative_positions.as_ref();
    positions
        .map(|positions| RelativeBias::new(positions, packing.longest()))
        .transpose()
}
