//! The encoder's top layers, and its embeddings when nothing is frozen, as differentiable
//! functions of packed sequences.

use candle_core::Tensor;

use super::ops::{attention, dropout, gelu, layer_norm, linear};
use super::relative_position::RelativePositions;
use super::{Error, Packing, Parameters, Pass};
use crate::checkpoint::{self, Checkpoint, EncoderConfig, Freeze, Positions};
use crate::ragged::Ragged;

/// What goes into the trainable half: one batch of packed sequences.
pub enum EncoderInput {
    /// Hidden states after the frozen layers, f32 `[tokens, hidden]`.
    HiddenStates(Ragged<f32>),
    /// Token ids, when the embeddings are trained too.
    TokenIds(Ragged<u32>),
}

impl EncoderInput {
    /// Where each sequence lies.
    pub fn packing(&self) -> Packing {
        Packing::new(match self {
            Self::HiddenStates(states) => states.offsets(),
            Self::TokenIds(ids) => ids.offsets(),
        })
    }

    /// How many tokens.
    pub fn tokens(&self) -> usize {
        match self {
            Self::HiddenStates(states) => states.tokens(),
            Self::TokenIds(ids) => ids.tokens(),
        }
    }
}

/// Layers K..L-1, after the embeddings when nothing is frozen.
pub struct TrainableEncoder {
    embeddings: Option<Embeddings>,
    relative_positions: Option<RelativePositions>,
    layers: Vec<EncoderLayer>,
    hidden_size: usize,
}

impl TrainableEncoder {
    /// Loads what `freeze` leaves to train from `checkpoint` into `parameters`.
    pub fn load(
        checkpoint: &Checkpoint,
        freeze: Freeze,
        parameters: &mut Parameters,
    ) -> Result<Self, Error> {
        let embeddings = match freeze {
            Freeze::Nothing => Some(Embeddings::load(checkpoint, parameters)?),
            Freeze::Layers(_) => None,
        };
        let relative_positions = RelativePositions::load(checkpoint, freeze, parameters)?;
        let layers = (freeze.layers()..checkpoint.config.layers)
            .map(|layer| EncoderLayer::load(checkpoint, layer, parameters))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            embeddings,
            relative_positions,
            layers,
            hidden_size: checkpoint.config.hidden_size,
        })
    }

    /// Hidden states after the last layer, `[tokens, hidden]`.
    ///
    /// # Panics
    /// If `input` is of the kind that this encoder does not take.
    pub fn forward(
        &self,
        input: EncoderInput,
        parameters: &Parameters,
        pass: &Pass,
    ) -> Result<Tensor, Error> {
        let packing = input.packing();
        let mut hidden = match (input, &self.embeddings) {
            (EncoderInput::HiddenStates(states), None) => {
                let (values, _) = states.into_parts();
                let tokens = values.len() / self.hidden_size;
                Tensor::from_vec(values, (tokens, self.hidden_size), parameters.device())?
            }
            (EncoderInput::TokenIds(ids), Some(embeddings)) => embeddings.forward(&ids, pass)?,
            _ => panic!("an encoder takes token ids exactly when its embeddings are trained"),
        };
        let bias = self.relative_positions.as_ref();
        let bias = bias
            .map(|table| table.bias(packing.longest()))
            .transpose()?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden, &packing, bias.as_ref(), pass)?;
        }
        Ok(hidden)
    }
}

/// A linear layer's handles.
struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    fn load(
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

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor, Error> {
        Ok(linear(pass.ops, x, &self.weight, &self.bias)?)
    }
}

/// A LayerNorm's handles.
struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    fn load(
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

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor, Error> {
        Ok(layer_norm(
            pass.ops,
            x,
            &self.weight,
            &self.bias,
            self.epsilon,
        )?)
    }
}

/// One encoder layer, post-norm as in BERT (Devlin et al., 2019).
struct EncoderLayer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    heads: usize,
    hidden_dropout: f64,
    attention_dropout: f64,
}

impl EncoderLayer {
    fn load(
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

    /// `[tokens, hidden]` to `[tokens, hidden]`; `bias` is [`RelativePositions::bias`] of the
    /// longest sequence.
    fn forward(
        &self,
        x: &Tensor,
        packing: &Packing,
        bias: Option<&Tensor>,
        pass: &Pass,
    ) -> Result<Tensor, Error> {
        let queries = self.query.forward(x, pass)?;
        let keys = self.key.forward(x, pass)?;
        let values = self.value.forward(x, pass)?;
        let context = attention(
            pass.ops,
            [&queries, &keys, &values],
            &packing.offsets,
            self.heads,
            bias,
            pass.dropout(self.attention_dropout),
        )?;
        let projected = self.attention_output.forward(&context, pass)?;
        let projected = dropout(pass.ops, &projected, pass.dropout(self.hidden_dropout))?;
        let attended = self.attention_norm.forward(&(projected + x)?, pass)?;

        let wide = gelu(pass.ops, &self.intermediate.forward(&attended, pass)?)?;
        let narrow = self.output.forward(&wide, pass)?;
        let narrow = dropout(pass.ops, &narrow, pass.dropout(self.hidden_dropout))?;
        self.output_norm.forward(&(narrow + attended)?, pass)
    }
}

/// The embeddings, trained only when nothing is frozen.
struct Embeddings {
    words: Tensor,
    positions: Tensor,
    token_types: Option<Tensor>,
    norm: LayerNorm,
    numbering: Positions,
    padding_id: u32,
    hidden_dropout: f64,
}

impl Embeddings {
    fn load(checkpoint: &Checkpoint, parameters: &mut Parameters) -> Result<Self, Error> {
        let config = &checkpoint.config;
        let mut table = |name: &str, rows| {
            let name = format!("embeddings.{name}.weight");
            parameters.load(&checkpoint.weights, &name, &[rows, config.hidden_size])
        };
        Ok(Self {
            words: table("word_embeddings", config.vocabulary_size)?,
            positions: table("position_embeddings", config.position_embeddings)?,
            token_types: config
                .token_types
                .map(|rows| table("token_type_embeddings", rows))
                .transpose()?,
            norm: LayerNorm::load(checkpoint, "embeddings.LayerNorm", parameters)?,
            numbering: config.family.positions(),
            padding_id: config.padding_id,
            hidden_dropout: config.hidden_dropout,
        })
    }

    fn forward(&self, ids: &Ragged<u32>, pass: &Pass) -> Result<Tensor, Error> {
        let device = self.words.device();
        let tokens = ids.tokens();
        let words = Tensor::from_slice(ids.values(), tokens, device)?;
        let words = self.words.index_select(&words, 0)?;
        let positions: Vec<u32> = ids.iter().flat_map(|ids| self.position_ids(ids)).collect();
        let positions = Tensor::from_vec(positions, tokens, device)?;
        let positions = self.positions.index_select(&positions, 0)?;
        let mut sum = (words + positions)?;
        if let Some(token_types) = &self.token_types {
            // Every token is of type 0, whose row is the only one to receive a gradient.
            sum = sum.broadcast_add(&token_types.narrow(0, 0, 1)?)?;
        }
        let normalised = self.norm.forward(&sum, pass)?;
        Ok(dropout(
            pass.ops,
            &normalised,
            pass.dropout(self.hidden_dropout),
        )?)
    }

    /// As in the frozen graph.
    #[allow(clippy::cast_possible_truncation)]
    fn position_ids(&self, ids: &[u32]) -> Vec<u32> {
        match self.numbering {
            Positions::FromZero => (0..ids.len() as u32).collect(),
            Positions::AfterPadding => ids
                .iter()
                .scan(self.padding_id, |last, &id| {
                    Some(if id == self.padding_id {
                        self.padding_id
                    } else {
                        *last += 1;
                        *last
                    })
                })
                .collect(),
        }
    }
}
