//! The encoder's layers: their parameters, and their forward pass in candle's primitives.

use candle_core::Tensor;

use super::ops::{attention, dropout, layer_norm, linear};
use super::pass::Site;
use super::{Error, Packing, Parameters, Pass, Weight};
use crate::checkpoint::{self, Checkpoint, EncoderConfig};

/// A linear layer's handles.
pub(super) struct Linear {
    pub(super) weight: Weight,
    pub(super) bias: Weight,
}

impl Linear {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        name: &str,
        [outputs, inputs]: [usize; 2],
        parameters: &mut Parameters,
    ) -> Result<Self, Error> {
        let weights = &checkpoint.weights;
        Ok(Self {
            weight: parameters.load(weights, &format!("{name}.weight"), &[outputs, inputs])?,
            bias: parameters.load(weights, &format!("{name}.bias"), &[outputs])?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(linear(x, &self.weight, &self.bias)?)
    }
}

/// A LayerNorm's handles.
pub(super) struct LayerNorm {
    pub(super) weight: Weight,
    pub(super) bias: Weight,
    pub(super) epsilon: f64,
}

impl LayerNorm {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        name: &str,
        parameters: &mut Parameters,
    ) -> Result<Self, Error> {
        let config = &checkpoint.config;
        let mut part = |part| {
            let name = format!("{name}.{part}");
            parameters.load(&checkpoint.weights, &name, &[config.hidden_size])
        };
        Ok(Self {
            weight: part("weight")?,
            bias: part("bias")?,
            epsilon: config.layer_norm_epsilon,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(layer_norm(x, &self.weight, &self.bias, self.epsilon)?)
    }
}

/// One encoder layer, post-norm as in BERT (Devlin et al., 2019).
pub(super) struct EncoderLayer {
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) attention_output: Linear,
    pub(super) attention_norm: LayerNorm,
    pub(super) intermediate: Linear,
    pub(super) output: Linear,
    pub(super) output_norm: LayerNorm,
    pub(super) heads: usize,
    pub(super) hidden_dropout: f64,
    pub(super) attention_dropout: f64,
}

impl EncoderLayer {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        layer: usize,
        parameters: &mut Parameters,
    ) -> Result<Self, Error> {
        let EncoderConfig {
            hidden_size: hidden,
            intermediate_size: wide,
            ..
        } = checkpoint.config;
        let prefix = checkpoint::layer_prefix(layer);
        let mut linear = |name: &str, shape| {
            Linear::load(checkpoint, &format!("{prefix}{name}"), shape, parameters)
        };
        let names = checkpoint.config.family.attention();
        let query = linear(names.query, [hidden, hidden])?;
        let key = linear(names.key, [hidden, hidden])?;
        let value = linear(names.value, [hidden, hidden])?;
        let attention_output = linear(names.output, [hidden, hidden])?;
        let intermediate = linear("intermediate.dense", [wide, hidden])?;
        let output = linear("output.dense", [hidden, wide])?;
        let mut norm =
            |name: &str| LayerNorm::load(checkpoint, &format!("{prefix}{name}"), parameters);
        Ok(Self {
            query,
            key,
            value,
            attention_output,
            attention_norm: norm(names.norm)?,
            intermediate,
            output,
            output_norm: norm("output.LayerNorm")?,
            heads: checkpoint.config.attention_heads,
            hidden_dropout: checkpoint.config.hidden_dropout,
            attention_dropout: checkpoint.config.attention_dropout,
        })
    }

    /// `[tokens, hidden]` to `[tokens, hidden]` in candle's primitives, as the trained layer
    /// number `index`; `bias` is [`RelativePositions::bias`](super::relative_position) of the
    /// longest sequence.
    pub(super) fn forward(
        &self,
        index: usize,
        x: &Tensor,
        packing: &Packing,
        bias: Option<&Tensor>,
        pass: &Pass,
    ) -> Result<Tensor, Error> {
        let queries = self.query.forward(x)?;
        let keys = self.key.forward(x)?;
        let values = self.value.forward(x)?;
        let context = attention(
            [&queries, &keys, &values],
            packing,
            self.heads,
            bias,
            pass.dropout(Site::Probabilities(index), self.attention_dropout),
        )?;
        let drop_out = |x: Tensor, site| {
            let settings = pass.dropout(site, self.hidden_dropout);
            dropout(&x, settings, packing.first_token)
        };
        let projected = self.attention_output.forward(&context)?;
        let projected = drop_out(projected, Site::Attention(index))?;
        let attended = self.attention_norm.forward(&(projected + x)?)?;

        let wide = self.intermediate.forward(&attended)?.gelu_erf()?;
        let narrow = self.output.forward(&wide)?;
        let narrow = drop_out(narrow, Site::Output(index))?;
        self.output_norm.forward(&(narrow + attended)?)
    }
}
