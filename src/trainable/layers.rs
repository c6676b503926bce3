//! The encoder's layers: their parameters, and their forward pass in candle's primitives.

use candle_core::{D, DType, Tensor};

use super::buckets::Buckets;
use super::ops::{self, attention, dropout, layer_norm, linear_in};
use super::pass::Site;
use super::{Error, Packing, Parameters, Pass, Weight};
use crate::checkpoint::{self, Checkpoint, NormPlacement, Rotation};

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

/// A LayerNorm's handles.
pub(super) struct LayerNorm {
    pub(super) weight: Weight,
    pub(super) bias: Option<Weight>,
    pub(super) epsilon: f64,
}

impl LayerNorm {
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
            weight: part("weight")?,
            bias: block.bias.then(|| part("bias")).transpose()?,
            epsilon: config.layer_norm_epsilon,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let bias = self.bias.as_deref();
        Ok(layer_norm(x, &self.weight, bias, self.epsilon)?)
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

    /// Queries, keys and values of `x` `[tokens, hidden]`, each of that shape.
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

/// One encoder layer.
pub(super) struct EncoderLayer {
    pub(super) norms: NormPlacement,
    pub(super) projections: Projections,
    pub(super) attention_output: Linear,
    /// None where the first layer takes the embeddings as they are.
    pub(super) attention_norm: Option<LayerNorm>,
    /// Twice as wide as the inputs of `output` when gated.
    pub(super) intermediate: Linear,
    pub(super) output: Linear,
    pub(super) output_norm: LayerNorm,
    pub(super) gated: bool,
    pub(super) heads: usize,
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
        let mut linear = |block| Linear::load(checkpoint, block, parameters);
        let attention_output = linear(&attention.output)?;
        let intermediate = linear(&feed_forward.wide)?;
        let output = linear(&feed_forward.narrow)?;
        let mut norm = |block| LayerNorm::load(checkpoint, block, parameters);
        let head_size = config.head_size();
        Ok(Self {
            norms: blocks.norms,
            projections,
            attention_output,
            attention_norm: attention.norm.as_ref().map(&mut norm).transpose()?,
            intermediate,
            output,
            output_norm: norm(&feed_forward.norm)?,
            gated: feed_forward.gated,
            heads: config.attention_heads,
            rotation: attention.rotary.map(|base| Rotation::new(base, head_size)),
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
            let turn = |x: &Tensor| ops::turn(x, packing, self.heads, rotation);
            (queries, keys) = (turn(&queries)?, turn(&keys)?);
        }
        let context = attention(
            [&queries, &keys, &values],
            (packing, &setting.buckets),
            self.heads,
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
        let wide = self.intermediate.forward(x, pass)?;
        if self.gated {
            let half = self.output.inputs;
            let gate = wide.narrow(D::Minus1, half, half)?;
            let active = (wide.narrow(D::Minus1, 0, half)?.gelu_erf()? * gate)?;
            let active = active.to_dtype(DType::F32)?;
            let active = dropout(&active, settings, packing.first_token)?;
            return Ok(self.output.forward(&active, pass)?.to_dtype(DType::F32)?);
        }
        let narrow = self.output.forward(&wide.gelu_erf()?, pass)?;
        let narrow = narrow.to_dtype(DType::F32)?;
        Ok(dropout(&narrow, settings, packing.first_token)?)
    }
}
