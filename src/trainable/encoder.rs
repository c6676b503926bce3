//! The encoder's top layers, and its embeddings when nothing is frozen: their parameters, and one
//! vector a sequence as a differentiable function of packed sequences.

use std::ops::Range;

use candle_core::{Device, Tensor};

use super::ops::{attention, dropout, layer_norm, linear, pool};
use super::packed::{self, Profile, Workspace};
use super::pass::Site;
use super::{Error, Gradients, Ops, Packing, Parameters, Pass, Pooling, Weight};
use crate::checkpoint::{self, Checkpoint, EncoderConfig, Family, Freeze};
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
        Packing::new(self.offsets())
    }

    /// How many tokens.
    pub fn tokens(&self) -> usize {
        self.offsets()[self.sequences()]
    }

    /// How many sequences.
    pub fn sequences(&self) -> usize {
        self.offsets().len() - 1
    }

    fn offsets(&self) -> &[usize] {
        match self {
            Self::HiddenStates(states) => states.offsets(),
            Self::TokenIds(ids) => ids.offsets(),
        }
    }

    /// A copy of some sequences.
    pub fn part(&self, sequences: Range<usize>) -> Self {
        let indices: Vec<usize> = sequences.collect();
        match self {
            Self::HiddenStates(states) => Self::HiddenStates(states.gather(&indices)),
            Self::TokenIds(ids) => Self::TokenIds(ids.gather(&indices)),
        }
    }
}

/// Layers K..L-1, after the embeddings when nothing is frozen.
pub struct TrainableEncoder {
    embeddings: Option<Embeddings>,
    pub(super) layers: Vec<EncoderLayer>,
    pub(super) hidden_size: usize,
    pub(super) workspace: Workspace,
    device: Device,
}

/// One vector a sequence, and the way back from it.
pub struct Pooled<'a> {
    /// `[sequences, hidden]`, cut off from what it was computed from.
    pub vectors: Tensor,
    encoder: &'a TrainableEncoder,
    tape: Tape<'a>,
}

enum Tape<'a> {
    /// The written-out layers' own; the embeddings, if they are trained, as candle has them.
    Packed(packed::Tape<'a>, Option<Tensor>),
    /// candle has it all.
    Composed(Tensor),
    /// The pass asked for none.
    None,
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
        let layers = (freeze.layers()..checkpoint.config.layers)
            .map(|layer| EncoderLayer::load(checkpoint, layer, parameters))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            embeddings,
            layers,
            hidden_size: checkpoint.config.hidden_size,
            workspace: Workspace::default(),
            device: parameters.device().clone(),
        })
    }

    /// Where the time of all passes so far went.
    pub fn profile(&self) -> &Profile {
        &self.workspace.profile
    }

    /// One vector for each sequence of `input`, which `packing` describes.
    ///
    /// # Panics
    /// If `input` is of the kind that this encoder does not take.
    pub fn pool(
        &self,
        input: EncoderInput,
        packing: Packing,
        pooling: Pooling,
        pass: &Pass,
    ) -> Result<Pooled<'_>, Error> {
        match pass.ops {
            Ops::Fused => self.pool_packed(input, packing, pooling, pass),
            Ops::Composed => {
                let hidden = self.forward(input, &packing, pass)?;
                let vectors = pool(&hidden, &packing, pooling)?;
                Ok(Pooled {
                    vectors: vectors.detach(),
                    encoder: self,
                    tape: match pass.way_back {
                        true => Tape::Composed(vectors),
                        false => Tape::None,
                    },
                })
            }
        }
    }

    fn pool_packed(
        &self,
        input: EncoderInput,
        packing: Packing,
        pooling: Pooling,
        pass: &Pass,
    ) -> Result<Pooled<'_>, Error> {
        let sequences = packing.sequences();
        let (states, embeddings) = match (input, &self.embeddings) {
            (EncoderInput::HiddenStates(states), None) => (states.into_parts().0, None),
            (EncoderInput::TokenIds(ids), Some(embeddings)) => {
                let embedded = embeddings.forward(&ids, &packing, pass)?;
                (embedded.flatten_all()?.to_vec1()?, Some(embedded))
            }
            _ => panic!("{WRONG_INPUT}"),
        };
        let (pooled, tape) = packed::forward(self, states, packing, pooling, pass)?;
        Ok(Pooled {
            vectors: Tensor::from_vec(pooled, (sequences, self.hidden_size), &self.device)?,
            encoder: self,
            tape: match tape {
                Some(tape) => Tape::Packed(tape, embeddings),
                None => Tape::None,
            },
        })
    }

    /// Hidden states after the last layer, `[tokens, hidden]`, in candle's primitives.
    fn forward(
        &self,
        input: EncoderInput,
        packing: &Packing,
        pass: &Pass,
    ) -> Result<Tensor, Error> {
        let mut hidden = match (input, &self.embeddings) {
            (EncoderInput::HiddenStates(states), None) => {
                let shape = (packing.tokens(), self.hidden_size);
                Tensor::from_vec(states.into_parts().0, shape, &self.device)?
            }
            (EncoderInput::TokenIds(ids), Some(embeddings)) => {
                embeddings.forward(&ids, packing, pass)?
            }
            _ => panic!("{WRONG_INPUT}"),
        };
        for (index, layer) in self.layers.iter().enumerate() {
            hidden = layer.forward(index, &hidden, packing, pass)?;
        }
        Ok(hidden)
    }
}

const WRONG_INPUT: &str = "an encoder takes token ids exactly when its embeddings are trained";

impl Pooled<'_> {
    /// Adds to `gradients` those of the encoder's parameters, from the `gradient` of the
    /// vectors, `[sequences, hidden]`.
    ///
    /// # Panics
    /// If the pass did not ask for a way back.
    pub fn backward(
        self,
        gradient: &Tensor,
        parameters: &Parameters,
        gradients: &mut Gradients,
    ) -> Result<(), Error> {
        // The gradient of Σ (y · g) with respect to what y was made of is y's, started from g.
        let start_from = |y: &Tensor, g: &Tensor| (y * g)?.sum_all()?.backward();
        match self.tape {
            Tape::Packed(tape, embedded) => {
                let numbers = gradient.flatten_all()?.to_vec1::<f32>()?;
                let of_input = embedded.is_some();
                let of_states =
                    packed::backward(self.encoder, tape, &numbers, gradients, of_input)?;
                if let (Some(embedded), Some(of_states)) = (embedded, of_states) {
                    let of_states =
                        Tensor::from_vec(of_states, embedded.shape(), gradient.device())?;
                    gradients.add(parameters, &start_from(&embedded, &of_states)?)?;
                }
            }
            // Without layers nothing below the vectors is trained.
            Tape::Composed(vectors) if vectors.track_op() => {
                gradients.add(parameters, &start_from(&vectors, gradient)?)?;
            }
            Tape::Composed(_) => {}
            Tape::None => panic!("the pass asked for no way back"),
        }
        Ok(())
    }
}

/// A linear layer's handles.
pub(super) struct Linear {
    pub(super) weight: Weight,
    pub(super) bias: Weight,
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

    fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
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

    fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
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
        let query = linear("attention.self.query", [hidden, hidden])?;
        let key = linear("attention.self.key", [hidden, hidden])?;
        let value = linear("attention.self.value", [hidden, hidden])?;
        let attention_output = linear("attention.output.dense", [hidden, hidden])?;
        let intermediate = linear("intermediate.dense", [wide, hidden])?;
        let output = linear("output.dense", [hidden, wide])?;
        let mut norm =
            |name: &str| LayerNorm::load(checkpoint, &format!("{prefix}{name}"), parameters);
        Ok(Self {
            query,
            key,
            value,
            attention_output,
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate,
            output,
            output_norm: norm("output.LayerNorm")?,
            heads: checkpoint.config.attention_heads,
            hidden_dropout: checkpoint.config.hidden_dropout,
            attention_dropout: checkpoint.config.attention_dropout,
        })
    }

    /// `[tokens, hidden]` to `[tokens, hidden]`, as the trained layer number `index`.
    fn forward(
        &self,
        index: usize,
        x: &Tensor,
        packing: &Packing,
        pass: &Pass,
    ) -> Result<Tensor, Error> {
        let queries = self.query.forward(x)?;
        let keys = self.key.forward(x)?;
        let values = self.value.forward(x)?;
        let context = attention(
            [&queries, &keys, &values],
            packing,
            self.heads,
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

/// The embeddings, trained only when nothing is frozen.
struct Embeddings {
    words: Weight,
    positions: Weight,
    token_types: Weight,
    norm: LayerNorm,
    family: Family,
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
            token_types: table("token_type_embeddings", config.token_types)?,
            norm: LayerNorm::load(checkpoint, "embeddings.LayerNorm", parameters)?,
            family: config.family,
            padding_id: config.padding_id,
            hidden_dropout: config.hidden_dropout,
        })
    }

    /// `[tokens, hidden]`
    fn forward(&self, ids: &Ragged<u32>, packing: &Packing, pass: &Pass) -> Result<Tensor, Error> {
        let device = self.words.device();
        let tokens = ids.tokens();
        let words = Tensor::from_slice(ids.values(), tokens, device)?;
        let words = self.words.index_select(&words, 0)?;
        let positions: Vec<u32> = ids.iter().flat_map(|ids| self.position_ids(ids)).collect();
        let positions = Tensor::from_vec(positions, tokens, device)?;
        let positions = self.positions.index_select(&positions, 0)?;
        // Every token is of type 0, whose row is the only one to receive a gradient.
        let token_type = self.token_types.narrow(0, 0, 1)?;
        let sum = (words + positions)?.broadcast_add(&token_type)?;
        let normalised = self.norm.forward(&sum)?;
        let settings = pass.dropout(Site::Embeddings, self.hidden_dropout);
        Ok(dropout(&normalised, settings, packing.first_token)?)
    }

    /// As in the frozen graph: RoBERTa counts only tokens that are not the padding id.
    #[allow(clippy::cast_possible_truncation)]
    fn position_ids(&self, ids: &[u32]) -> Vec<u32> {
        match self.family {
            Family::Bert => (0..ids.len() as u32).collect(),
            Family::Roberta => ids
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
