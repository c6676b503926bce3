//! The encoder's layers: their parameters, and their forward pass in candle's primitives.

use candle_core::{D, DType, Tensor};

use super::buckets::Buckets;
use super::ops::{self, attention, dropout, layer_norm, linear_in, rms_norm};
use super::pass::Site;
use super::{Error, Packing, Parameters, Pass, Weight};
use crate::checkpoint::{self, BlockActivation, Checkpoint, NormKind, NormPlacement, Rotation};

/// What all layers are told about the sequences of one pass.
pub(super) struct Setting {
    pub(super) packing: Packing,
    pub(super) buckets: Buckets,
    /// [`RelativePositions::bias`](super::relative_position) of the longest sequence,
    /// `[heads, longest, longest]`, in a family that has one.
    pub(super) bias: Option<Tensor>,
}

/// A linear layer's handles.
pub(super) struct Linear {
    pub(super) weight: Weight,
    pub(super) bias: Option<Weight>,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl Linear {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        block: &checkpoint::Linear,
        parameters: &mut Parameters,
    ) -> Result<Self, Error> {
        let (weights, name) = (&checkpoint.weights, &block.name);
        let (inputs, outputs) = (block.inputs, block.outputs);
        let weight = parameters.load(weights, &format!("{name}.weight"), &[outputs, inputs])?;
        let bias = format!("{name}.bias");
        let bias = block
            .bias
            .then(|| parameters.load(weights, &bias, &[outputs]));
        Ok(Self {
            weight,
            bias: bias.transpose()?,
            inputs,
            outputs,
        })
    }

    /// In the type of numbers that `pass` computes in.
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor, Error> {
        let bias = self.bias.as_deref();
        Ok(linear_in(pass.number_type(), x, &self.weight, bias)?)
    }
}

/// A norm's handles.
pub(super) struct Norm {
    pub(super) kind: NormKind,
    pub(super) weight: Weight,
    pub(super) bias: Option<Weight>,
    pub(super) epsilon: f64,
}

impl Norm {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        block: &checkpoint::Norm,
        parameters: &mut Parameters,
    ) -> Result<Self, Error> {
        let config = &checkpoint.config;
        let mut part = |part| {
            let name = format!("{}.{part}", block.name);
            parameters.load(&checkpoint.weights, &name, &[config.hidden_size])
        };
        Ok(Self {
            kind: block.kind,
            weight: part("weight")?,
            bias: block.bias.then(|| part("bias")).transpose()?,
            epsilon: config.layer_norm_epsilon,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let (weight, bias) = (&self.weight, self.bias.as_deref());
        Ok(match self.kind {
            NormKind::Layer => layer_norm(x, weight, bias, self.epsilon)?,
            NormKind::RootMeanSquare => rms_norm(x, weight, bias, self.epsilon)?,
        })
    }
}

/// What projects hidden states to queries, keys and values.
pub(super) enum Projections {
    Separate(Box<[Linear; 3]>),
    /// All three side by side.
    Fused(Linear),
}

impl Projections {
    fn load(
        checkpoint: &Checkpoint,
        blocks: &checkpoint::Projections,
        parameters: &mut Parameters,
    ) -> Result<Self, Error> {
        let mut load = |block| Linear::load(checkpoint, block, parameters);
        Ok(match blocks {
            checkpoint::Projections::Separate([query, key, value]) => {
                Self::Separate(Box::new([load(query)?, load(key)?, load(value)?]))
            }
            checkpoint::Projections::Fused(block) => Self::Fused(load(block)?),
        })
    }

    /// Queries of `x` `[tokens, hidden]`, of that shape, and its keys and values, of the width of
    /// theirs.
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<[Tensor; 3], Error> {
        // Once for all three.
        let x = &x.to_dtype(pass.number_type())?;
        Ok(match self {
            Self::Separate(linears) => {
                let [query, key, value] = &**linears;
                [
                    query.forward(x, pass)?,
                    key.forward(x, pass)?,
                    value.forward(x, pass)?,
                ]
            }
            Self::Fused(linear) => {
                let all = linear.forward(x, pass)?;
                let width = linear.outputs / 3;
                let part = |index: usize| all.narrow(D::Minus1, index * width, width);
                [part(0)?, part(1)?, part(2)?]
            }
        })
    }
}

/// What widens hidden states in a feed-forward block.
pub(super) enum Wide {
    One(Linear),
    /// What goes through the activation, and what multiplies it.
    GateAndUp(Box<[Linear; 2]>),
}

impl Wide {
    fn load(
        checkpoint: &Checkpoint,
        blocks: &checkpoint::Wide,
        parameters: &mut Parameters,
    ) -> Result<Self, Error> {
        let mut load = |block| Linear::load(checkpoint, block, parameters);
        Ok(match blocks {
            checkpoint::Wide::One(block) => Self::One(load(block)?),
            checkpoint::Wide::GateAndUp([gate, up]) => {
                Self::GateAndUp(Box::new([load(gate)?, load(up)?]))
            }
        })
    }

    /// The linear layers, in the order of what they put out.
    pub(super) fn linears(&self) -> &[Linear] {
        match self {
            Self::One(linear) => std::slice::from_ref(linear),
            Self::GateAndUp(linears) => linears.as_slice(),
        }
    }

    /// Numbers a row that they put out in all.
    pub(super) fn outputs(&self) -> usize {
        self.linears().iter().map(|linear| linear.outputs).sum()
    }

    /// What goes through the activation and what multiplies it, `[tokens, half]` each.
    fn gate_and_up(&self, x: &Tensor, half: usize, pass: &Pass) -> Result<[Tensor; 2], Error> {
        Ok(match self {
            Self::One(linear) => {
                let wide = linear.forward(x, pass)?;
                let part = |index: usize| wide.narrow(D::Minus1, index * half, half);
                [part(0)?, part(1)?]
            }
            Self::GateAndUp(linears) => {
                // Once for both.
                let x = &x.to_dtype(pass.number_type())?;
                [linears[0].forward(x, pass)?, linears[1].forward(x, pass)?]
            }
        })
    }
}

/// One encoder layer.
pub(super) struct EncoderLayer {
    pub(super) norms: NormPlacement,
    pub(super) projections: Projections,
    pub(super) attention_output: Linear,
    /// None where the first layer takes the embeddings as they are.
    pub(super) attention_norm: Option<Norm>,
    /// Twice as wide as the inputs of `output` when gated.
    pub(super) wide: Wide,
    pub(super) activation: BlockActivation,
    pub(super) output: Linear,
    pub(super) output_norm: Norm,
    pub(super) gated: bool,
    pub(super) heads: usize,
    /// Those of keys and values.
    pub(super) key_value_heads: usize,
    /// How queries and keys are turned by their positions.
    pub(super) rotation: Option<Rotation>,
    /// Farthest token that a token attends to.
    pub(super) window: Option<usize>,
    pub(super) probability_dropout: f64,
    pub(super) attention_dropout: f64,
    /// Of the gated product, or else of what comes out.
    pub(super) feed_forward_dropout: f64,
}

impl EncoderLayer {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        layer: usize,
        parameters: &mut Parameters,
    ) -> Result<Self, Error> {
        let config = &checkpoint.config;
        let blocks = config.layer(layer);
        let (attention, feed_forward) = (&blocks.attention, &blocks.feed_forward);
        let projections = Projections::load(checkpoint, &attention.projections, parameters)?;
        let attention_output = Linear::load(checkpoint, &attention.output, parameters)?;
        let wide = Wide::load(checkpoint, &feed_forward.wide, parameters)?;
        let output = Linear::load(checkpoint, &feed_forward.narrow, parameters)?;
        let mut norm = |block| Norm::load(checkpoint, block, parameters);
        let head_size = config.head_size();
        Ok(Self {
            norms: blocks.norms,
            projections,
            attention_output,
            attention_norm: attention.norm.as_ref().map(&mut norm).transpose()?,
            wide,
            activation: feed_forward.activation,
            output,
            output_norm: norm(&feed_forward.norm)?,
            gated: feed_forward.gated,
            heads: config.attention_heads,
            key_value_heads: config.key_value_heads,
            rotation: attention
                .rotary
                .map(|rotary| Rotation::new(&rotary, head_size)),
            window: attention.window,
            probability_dropout: config.dropout.probabilities,
            attention_dropout: config.dropout.attention.unwrap_or(0.0),
            feed_forward_dropout: config.dropout.feed_forward,
        })
    }

    /// `[tokens, hidden]` to `[tokens, hidden]` in candle's primitives, as the trained layer
    /// number `index`.
    pub(super) fn forward(
        &self,
        index: usize,
        x: &Tensor,
        setting: &Setting,
        pass: &Pass,
    ) -> Result<Tensor, Error> {
        let packing = &setting.packing;
        let norm = |x: &Tensor| match &self.attention_norm {
            Some(norm) => norm.forward(x),
            None => Ok(x.clone()),
        };
        let site = Site::Attention(index);
        match self.norms {
            NormPlacement::AfterResidual => {
                let projected = self.attention(index, x, setting, pass)?;
                let settings = pass.dropout(site, self.attention_dropout);
                let projected = dropout(&projected, settings, packing.first_token)?;
                let attended = norm(&(projected + x)?)?;
                let narrow = self.feed_forward(index, &attended, packing, pass)?;
                self.output_norm.forward(&(narrow + attended)?)
            }
            NormPlacement::BeforeBlock => {
                let projected = self.attention(index, &norm(x)?, setting, pass)?;
                let settings = pass.dropout(site, self.attention_dropout);
                let projected = dropout(&projected, settings, packing.first_token)?;
                let attended = (projected + x)?;
                let normalised = self.output_norm.forward(&attended)?;
                let narrow = self.feed_forward(index, &normalised, packing, pass)?;
                Ok((narrow + attended)?)
            }
        }
    }

    /// In f32, whatever it was computed in, as what it is added to.
    fn attention(
        &self,
        index: usize,
        x: &Tensor,
        setting: &Setting,
        pass: &Pass,
    ) -> Result<Tensor, Error> {
        let packing = &setting.packing;
        let [mut queries, mut keys, values] = self.projections.forward(x, pass)?;
        if let Some(rotation) = &self.rotation {
            let turn = |x: &Tensor| ops::turn(x, packing, rotation);
            (queries, keys) = (turn(&queries)?, turn(&keys)?);
        }
        let context = attention(
            [&queries, &keys, &values],
            (packing, &setting.buckets),
            [self.heads, self.key_value_heads],
            ops::Scores {
                bias: setting.bias.as_ref(),
                window: self.window,
                dropout: pass.dropout(Site::Probabilities(index), self.probability_dropout),
            },
        )?;
        let output = self.attention_output.forward(&context, pass)?;
        Ok(output.to_dtype(DType::F32)?)
    }

    /// In f32, whatever it was computed in, as what it is added to.
    fn feed_forward(
        &self,
        index: usize,
        x: &Tensor,
        packing: &Packing,
        pass: &Pass,
    ) -> Result<Tensor, Error> {
        let settings = pass.dropout(Site::Output(index), self.feed_forward_dropout);
        if self.gated {
            let [gate, up] = self.wide.gate_and_up(x, self.output.inputs, pass)?;
            let active = (self.activate(&gate)? * up)?;
            let active = active.to_dtype(DType::F32)?;
            let active = dropout(&active, settings, packing.first_token)?;
            return Ok(self.output.forward(&active, pass)?.to_dtype(DType::F32)?);
        }
        let Wide::One(wide) = &self.wide else {
            unreachable!("two linear layers are of a gated block")
        };
        let active = self.activate(&wide.forward(x, pass)?)?;
        let narrow = self.output.forward(&active, pass)?;
        let narrow = narrow.to_dtype(DType::F32)?;
        Ok(dropout(&narrow, settings, packing.first_token)?)
    }

    fn activate(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(match self.activation {
            BlockActivation::Gelu => x.gelu_erf()?,
            BlockActivation::GeluTanh => x.gelu()?,
            BlockActivation::Silu => x.silu()?,
        })
    }
}
