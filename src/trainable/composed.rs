//! The encoder's trainable layers in candle's differentiable primitives, one on top of the other,
//! and their way back: of all at once, or of one after the other, each computed again.

use candle_core::backprop::GradStore;
use candle_core::{Result as CandleResult, Tensor, Var};

use super::buckets::Buckets;
use super::encoder::TrainableEncoder;
use super::layers::Setting;
use super::ops::pool;
use super::{Error, Gradients, Packing, Parameters, Pass, Pooling};

/// What a forward pass keeps for the backward pass.
pub(super) struct Tape {
    /// Pooled, with candle's way back to what they were made of.
    vectors: Tensor,
    /// The layers that candle's way does not reach.
    below: Option<Below>,
}

/// All layers but the top one, of each only what goes into it (Chen et al., 2016, arXiv
/// 1604.06174).
struct Below {
    setting: Setting,
    pass: Pass,
    /// What was put in, with candle's way back where the embeddings are trained.
    input: Tensor,
    /// What goes into each layer from the second one.
    between: Vec<Tensor>,
    /// What goes into the top layer, where candle's way ends.
    top: Var,
}

#[cfg(test)]
impl Tape {
    /// Pooled, with candle's way back to what they were made of.
    pub(super) fn vectors(&self) -> &Tensor {
        &self.vectors
    }
}

/// The layers of an encoder in one pass.
struct Layers<'a> {
    encoder: &'a TrainableEncoder,
    setting: &'a Setting,
    pass: &'a Pass,
}

impl Layers<'_> {
    fn layer(&self, index: usize, x: &Tensor) -> Result<Tensor, Error> {
        self.encoder.layers[index].forward(index, x, self.setting, self.pass)
    }

    fn pool(&self, hidden: &Tensor, pooling: Pooling) -> Result<Tensor, Error> {
        let normalised = match &self.encoder.final_norm {
            Some(norm) => &norm.forward(hidden)?,
            None => hidden,
        };
        Ok(pool(normalised, &self.setting.packing, pooling)?)
    }
}

/// What the layers of `encoder` are told about sequences of `packing`.
fn setting(encoder: &TrainableEncoder, packing: Packing) -> Result<Setting, Error> {
    let positions = encoder.relative_positions.as_ref();
    let bias = positions.map(|positions| positions.bias(packing.longest()));
    Ok(Setting {
        buckets: Buckets::new(&packing, encoder.device())?,
        bias: bias.transpose()?,
        packing,
    })
}

/// Pooled states of packed sequences: `input` `[tokens, hidden]` to `[sequences, hidden]`, and what
/// [`backward`] needs, if `pass` asks for gradients.
pub(super) fn forward(
    encoder: &TrainableEncoder,
    input: Tensor,
    packing: Packing,
    pooling: Pooling,
    pass: &Pass,
) -> Result<(Tensor, Option<Tape>), Error> {
    let setting = setting(encoder, packing)?;
    let layers = Layers {
        encoder,
        setting: &setting,
        pass,
    };
    let count = encoder.layers.len();
    if !(pass.way_back && pass.recompute && count > 1) {
        let mut hidden = input;
        for index in 0..count {
            hidden = layers.layer(index, &hidden)?;
            if !pass.way_back {
                // Or candle keeps how it was made until the top.
                hidden = hidden.detach();
            }
        }
        let vectors = layers.pool(&hidden, pooling)?;
        let cut = vectors.detach();
        let tape = pass.way_back.then_some(Tape {
            vectors,
            below: None,
        });
        return Ok((cut, tape));
    }
    let mut between = Vec::with_capacity(count - 1);
    let mut hidden = layers.layer(0, &input.detach())?.detach();
    for index in 1..count - 1 {
        let output = layers.layer(index, &hidden)?.detach();
        between.push(std::mem::replace(&mut hidden, output));
    }
    // On the way back the top layer comes first: computing it twice would save nothing.
    let top = Var::from_tensor(&hidden)?;
    drop(hidden);
    let vectors = layers.pool(&layers.layer(count - 1, &top)?, pooling)?;
    let cut = vectors.detach();
    let below = Below {
        setting,
        pass: *pass,
        input,
        between,
        top,
    };
    let tape = Tape {
        vectors,
        below: Some(below),
    };
    Ok((cut, Some(tape)))
}

/// From the `gradient` of the pooled states, `[sequences, hidden]`, to those of the parameters, the
/// embeddings' too where `input` was made of them.
pub(super) fn backward(
    encoder: &TrainableEncoder,
    tape: Tape,
    gradient: &Tensor,
    parameters: &Parameters,
    gradients: &mut Gradients,
) -> Result<(), Error> {
    let Tape { vectors, below } = tape;
    // Without layers and a norm after them, nothing below the vectors is trained.
    if !vectors.track_op() {
        return Ok(());
    }
    let store = start_from(&vectors, gradient)?;
    drop(vectors);
    gradients.add(parameters, &store)?;
    let Some(below) = below else { return Ok(()) };
    let Below {
        setting,
        pass,
        input,
        mut between,
        top,
    } = below;
    let layers = Layers {
        encoder,
        setting: &setting,
        pass: &pass,
    };
    let mut gradient = of(&store, &top)?;
    drop((store, top));
    while let Some(x) = between.pop() {
        let x = Var::from_tensor(&x)?;
        let store = start_from(&layers.layer(between.len() + 1, &x)?, &gradient)?;
        gradients.add(parameters, &store)?;
        gradient = of(&store, &x)?;
    }
    // With its way back, if there is one.
    let store = start_from(&layers.layer(0, &input)?, &gradient)?;
    gradients.add(parameters, &store)
}

/// The gradients of what `y` was made of, from its own `gradient`: those of Σ (y · gradient).
pub(super) fn start_from(y: &Tensor, gradient: &Tensor) -> CandleResult<GradStore> {
    // candle keeps how it computed a gradient, from weights too, which are to get none of it.
    (y * gradient.detach())?.sum_all()?.backward()
}

/// That of `x` in `store`; zero if nothing was made of it.
fn of(store: &GradStore, x: &Var) -> CandleResult<Tensor> {
    match store.get(x.as_tensor()) {
        Some(gradient) => Ok(gradient.clone()),
        None => x.zeros_like(),
    }
}
