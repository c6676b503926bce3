//! The encoder's trainable layers, one on top of the other.

use super::Workspace;
use super::buffers::Buffer;
use super::layer::{LayerDropout, LayerPass, LayerTape};
use super::norm::{NormTape, in_front, in_front_backward};
use super::pooling;
use super::profile::Part;
use super::relative_bias::RelativeBias;
use super::rotary::Turns;
use super::rows::{Rows, Runs, gather, scatter_add};
use crate::trainable::encoder::TrainableEncoder;
use crate::trainable::gradients::Gradients;
use crate::trainable::pass::Site;
use crate::trainable::{Error, Packing, Pass, Pooling};

/// What a forward pass keeps for the backward pass.
pub(crate) struct Tape<'a> {
    packing: Packing,
    pooling: Pooling,
    /// The tokens that are read, if not all.
    read: Option<Runs>,
    /// Whether the last layer computed those only.
    pruned: bool,
    input: Vec<f32>,
    layers: Vec<Kept<'a>>,
    /// Of the norm after the last layer, of the rows that are pooled.
    final_norm: Option<NormTape<'a>>,
}

/// What is kept of a layer.
struct Kept<'a> {
    /// None where the layer is computed again.
    tape: Option<LayerTape<'a>>,
    /// What went into it, where what is kept of the layer below does not tell.
    input: Option<Buffer<'a>>,
    dropout: LayerDropout,
}

/// What all layers of an encoder are told about the sequences in one pass.
struct Setting<'p, 'w> {
    encoder: &'w TrainableEncoder,
    packing: &'p Packing,
    /// The tokens that the last layer computes, if not all.
    read: Option<&'p Runs>,
    bias: Option<RelativeBias>,
    turns: Turns<'w>,
}

impl<'p, 'w> Setting<'p, 'w> {
    fn new(
        encoder: &'w TrainableEncoder,
        packing: &'p Packing,
        read: Option<&'p Runs>,
    ) -> Result<Self, Error> {
        let longest = packing.longest();
        let positions = encoder.relative_positions.as_ref();
        let bias = positions.map(|positions| RelativeBias::new(positions, longest));
        Ok(Self {
            encoder,
            packing,
            read,
            bias: bias.transpose()?,
            turns: Turns::new(&encoder.layers, longest),
        })
    }

    /// Layer `index` with its `dropout`.
    fn layer(&self, index: usize, dropout: LayerDropout) -> LayerPass<'_, 'w> {
        let encoder = self.encoder;
        let top = index + 1 == encoder.layers.len();
        let layer = &encoder.layers[index];
        LayerPass {
            layer,
            workspace: &encoder.workspace,
            packing: self.packing,
            rows: match self.read {
                Some(read) if top => Rows::Some(read),
                _ => Rows::All,
            },
            hidden_size: encoder.hidden_size,
            bias: self.bias.as_ref().zip(encoder.relative_positions.as_ref()),
            turn: self.turns.of(layer),
            dropout,
        }
    }
}

/// Pooled states of packed sequences: `input` `[tokens, hidden]` to `[vectors, hidden]`, and
/// what [`backward`] needs, if `pass` asks for gradients.
pub(crate) fn forward<'a>(
    encoder: &'a TrainableEncoder,
    input: Vec<f32>,
    packing: Packing,
    pooling: Pooling,
    pass: &Pass,
) -> Result<(Vec<f32>, Option<Tape<'a>>), Error> {
    let (workspace, width) = (&encoder.workspace, encoder.hidden_size);
    let read = Runs::new(&packing, pooling);
    let pruned = read.is_some() && !pass.all_rows && !encoder.layers.is_empty();
    let setting = Setting::new(encoder, &packing, read.as_ref().filter(|_| pruned))?;
    let mut tapes = Vec::with_capacity(encoder.layers.len());
    let mut states: Option<Buffer> = None;
    for (index, layer) in encoder.layers.iter().enumerate() {
        let (attention, feed_forward) = (layer.attention_dropout, layer.feed_forward_dropout);
        let dropout = LayerDropout {
            probabilities: pass.dropout(Site::Probabilities(index), layer.probability_dropout),
            attention: pass.dropout(Site::Attention(index), attention),
            feed_forward: pass.dropout(Site::Output(index), feed_forward),
        };
        let layer = setting.layer(index, dropout);
        let (output, tape) = layer.forward(states.as_deref().unwrap_or(&input))?;
        let input = states.replace(output);
        if pass.way_back {
            // On the way back the top layer comes first: computing it twice would save nothing.
            let top = index + 1 == encoder.layers.len();
            tapes.push(Kept {
                tape: (top || !pass.recompute).then_some(tape),
                input: input.filter(|_| pass.recompute),
                dropout,
            });
        }
    }
    let vectors = packing.vectors(pooling, 0..packing.sequences());
    let mut pooled = vec![0.0; vectors.len() * width];
    if let Some(read) = read.as_ref().filter(|_| !pruned) {
        let mut some = workspace.buffers.take(pooled.len());
        let all = states.as_deref().unwrap_or(&input);
        gather(all, &read.rows, width, &mut some);
        states = Some(some);
    }
    let mut final_norm = None;
    if let Some(norm) = &encoder.final_norm {
        let unpooled = states.as_deref().unwrap_or(&input);
        let (normalised, tape) = in_front(workspace, norm, unpooled)?;
        (states, final_norm) = (Some(normalised), Some(tape));
    }
    let states = states.as_deref().unwrap_or(&input);
    workspace.profile.time(Part::Elementwise, || match pooling {
        Pooling::Cls | Pooling::Scored => pooled.copy_from_slice(states),
        Pooling::Mean => pooling::mean(states, &packing.offsets, width, &mut pooled),
    });
    let tape = pass.way_back.then_some(Tape {
        packing,
        pooling,
        read,
        pruned,
        input,
        layers: tapes,
        final_norm,
    });
    Ok((pooled, tape))
}

/// From the `gradient` of the pooled states, `[vectors, hidden]`, to those of the parameters
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
        read,
        pruned,
        input,
        mut layers,
        final_norm,
    } = tape;
    let workspace = &encoder.workspace;
    let setting = Setting::new(encoder, &packing, read.as_ref().filter(|_| pruned))?;
    let of_pooled = match pooling {
        Pooling::Cls | Pooling::Scored => {
            let mut of_states = workspace.buffers.take(gradient.len());
            of_states.copy_from_slice(gradient);
            of_states
        }
        Pooling::Mean => workspace.profile.time(Part::Elementwise, || {
            let mut of_states = workspace.buffers.take(input.len());
            let (offsets, width) = (&packing.offsets, encoder.hidden_size);
            pooling::mean_backward(gradient, offsets, width, &mut of_states);
            of_states
        }),
    };
    let of_pooled = match (&encoder.final_norm, final_norm) {
        (Some(norm), Some(tape)) => {
            let mut of_normalised = of_pooled;
            let mut of_states = workspace.buffers.take(of_normalised.len());
            of_states.fill(0.0);
            let (used_up, sum) = (&mut *of_normalised, &mut *of_states);
            in_front_backward(workspace, norm, &tape, used_up, sum, gradients)?;
            of_states
        }
        _ => of_pooled,
    };
    let mut of_states = Some(match read.as_ref().filter(|_| !pruned) {
        Some(read) => spread(workspace, &of_pooled, read, input.len()),
        None => of_pooled,
    });
    while let Some(kept) = layers.pop() {
        let index = layers.len();
        let layer = setting.layer(index, kept.dropout);
        let below = match (kept.input, layers.last().map(|below| &below.tape)) {
            (Some(states), _) => Some(states),
            (None, Some(Some(LayerTape::PostNorm(below)))) => {
                let mut states = workspace.buffers.take(input.len());
                let norm = &encoder.layers[index - 1].output_norm;
                below.output.output(norm, &workspace.profile, &mut states)?;
                Some(states)
            }
            // A layer on top of another one has a norm in front, and needs what that put out.
            (None, _) => None,
        };
        let x = below.as_deref().unwrap_or(&input);
        let tape = match kept.tape {
            Some(tape) => tape,
            None => layer.forward(x)?.1,
        };
        let Some(gradient) = of_states.take() else {
            unreachable!("every layer but the lowest hands one down")
        };
        of_states = layer.backward(tape, x, gradient, gradients, of_input || index > 0)?;
    }
    Ok(of_states
        .filter(|_| of_input)
        .map(|gradient| gradient.to_vec()))
}

/// `part` in the given rows among zeros, `length` numbers.
fn spread<'w>(workspace: &'w Workspace, part: &[f32], read: &Runs, length: usize) -> Buffer<'w> {
    let mut all = workspace.buffers.take(length);
    all.fill(0.0);
    let rows = &read.rows;
    scatter_add(part, rows, part.len() / rows.len().max(1), &mut all);
    all
}
