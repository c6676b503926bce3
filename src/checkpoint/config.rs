//! `config.json`: the encoder's sizes and constants.

use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::family::{BlockActivation, HeadConfig, Positions};
use super::{AttentionPattern, Error, Family, RotaryPositions};

/// An encoder's sizes and constants. What it is made of, by name, follows from them:
/// [`embeddings`](Self::embeddings), [`layer`](Self::layer), [`final_norm`](Self::final_norm).
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// By `model_type`.
    pub family: Family,
    /// Width of a hidden state.
    pub hidden_size: usize,
    /// Number of encoder layers, L.
    pub layers: usize,
    /// Attention heads a layer.
    pub attention_heads: usize,
    /// Heads a layer that keys and values have: fewer where several heads of queries share one
    /// (grouped-query attention: Ainslie et al., 2023).
    pub key_value_heads: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// Rows of the word embeddings.
    pub vocabulary_size: usize,
    /// Rows of the position embeddings, or how many positions the model was made for.
    pub position_embeddings: usize,
    /// Rows of the token type embeddings, in a family that has them.
    pub token_types: Option<usize>,
    /// Where sequences are of two texts that the model tells apart by token types: the token that
    /// ends the first.
    pub text_separator: Option<u32>,
    /// Which parts have biases.
    pub biases: Biases,
    /// How queries and keys are turned, in a family that does so.
    pub rotary: Option<RotaryPositions>,
    /// Which tokens a token attends to.
    pub attention_pattern: AttentionPattern,
    /// The layers that attend to near tokens only, in a family that has such.
    pub local: Option<LocalAttention>,
    /// The activation of the feed-forward blocks.
    pub activation: BlockActivation,
    /// Added to the variance in every LayerNorm, to the mean square in every RMSNorm.
    pub layer_norm_epsilon: f64,
    /// Dropout probabilities.
    pub dropout: DropoutRates,
    /// Standard deviation of freshly drawn weights.
    pub initializer_range: f64,
    /// Token id of padding.
    pub padding_id: u32,
    /// What it says of the family's own sequence classifier.
    pub head: HeadConfig,
    /// What ends a text that is written, in a family that writes some: the first is put behind a text
    /// that is learnt from.
    pub end_tokens: Vec<u32>,
    /// Whether the matrix from states to words is that of the embeddings.
    pub tied_language_head: bool,
}

/// Which parts of an encoder have biases.
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Biases {
    /// Attention's projections to queries, keys and values.
    pub attention: bool,
    /// Attention's output.
    pub attention_output: bool,
    /// Those of the feed-forward blocks.
    pub feed_forward: bool,
    /// The LayerNorms.
    pub norms: bool,
}

impl Biases {
    /// Everywhere.
    pub const ALL: Self = Self {
        attention: true,
        attention_output: true,
        feed_forward: true,
        norms: true,
    };
}

/// Layers that attend to near tokens only.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalAttention {
    /// How far away a token may be on either side.
    pub window: usize,
    /// As [`EncoderConfig::rotary`], of these layers.
    pub rotary: Option<RotaryPositions>,
    /// Which layers they are.
    pub layers: LayerKinds,
}

/// Which layers attend to near tokens only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerKinds {
    /// All but layer 0 and every so many after it.
    GlobalEvery(usize),
    /// Layer by layer.
    Local(Vec<bool>),
}

impl LayerKinds {
    /// Whether `layer` is one of them.
    pub fn are_local(&self, layer: usize) -> bool {
        match self {
            Self::GlobalEvery(every) => !layer.is_multiple_of(*every),
            Self::Local(local) => local[layer],
        }
    }
}

/// Dropout probabilities.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DropoutRates {
    /// Of what the embeddings put out.
    pub embeddings: f64,
    /// Of attention probabilities.
    pub probabilities: f64,
    /// Of what attention puts out, in a family that has dropout there.
    pub attention: Option<f64>,
    /// In the feed-forward blocks.
    pub feed_forward: f64,
    /// Of a head's input.
    pub head: f64,
}

impl DropoutRates {
    /// Sets all of them to `probability`, but those that the family does not have.
    pub fn set_all(&mut self, probability: f64) {
        *self = Self {
            embeddings: probability,
            probabilities: probability,
            attention: self.attention.map(|_| probability),
            feed_forward: probability,
            head: probability,
        };
    }
}

/// A `config.json` that is being read.
pub(super) struct ConfigFile {
    path: PathBuf,
    text: String,
}

impl ConfigFile {
    /// What a family reads of it.
    pub(super) fn fields<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(&self.text).map_err(|source| Error::Json {
            path: self.path.clone(),
            source,
        })
    }

    /// `field` has a value that Telly does not compute.
    pub(super) fn unsupported(
        &self,
        field: &'static str,
        found: &str,
        supported: impl Into<String>,
    ) -> Error {
        Error::Unsupported {
            path: self.path.clone(),
            field,
            found: found.into(),
            supported: supported.into(),
        }
    }

    /// A number makes no sense.
    pub(super) fn problem(&self, problem: String) -> Error {
        Error::Config {
            path: self.path.clone(),
            problem,
        }
    }

    /// An error when `field`, found as given, is neither absent, null nor the text `expected`.
    pub(super) fn require(
        &self,
        field: &'static str,
        found: Option<&Value>,
        expected: &str,
        supported: &str,
    ) -> Result<(), Error> {
        match found {
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(text)) if text == expected => Ok(()),
            Some(other) => Err(self.unsupported(field, &other.to_string(), supported)),
        }
    }

    /// As [`require`](Self::require), of the activation.
    pub(super) fn require_gelu(
        &self,
        field: &'static str,
        found: Option<&Value>,
    ) -> Result<(), Error> {
        self.require(field, found, "gelu", "\"gelu\" (the exact one, by erf)")
    }
}

impl EncoderConfig {
    /// `count` weights as the model's family begins pre-training with: normal, with `initializer_range`.
    #[allow(clippy::cast_possible_truncation, reason = "weights are f32")]
    pub(crate) fn fresh_weights(&self, random: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
        let normal = Normal::new(0.0, self.initializer_range)
            .unwrap_or_else(|_| unreachable!("`initializer_range` is a finite number out of JSON"));
        (0..count).map(|_| normal.sample(random) as f32).collect()
    }

    /// Reads `config.json`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = ConfigFile {
            path: path.to_owned(),
            text: fs_err::read_to_string(path).map_err(Error::Read)?,
        };
        // The kind of model is judged first: a config of another kind may lack every other
        // field, and "missing field" would be a poor answer to it.
        let value: Value = file.fields()?;
        let model_type = value.get("model_type").cloned().unwrap_or(Value::Null);
        let family = model_type.as_str().and_then(Family::from_model_type);
        let family = family.ok_or_else(|| {
            file.unsupported("model_type", &model_type.to_string(), Family::supported())
        })?;
        let config = family.read(&file)?;
        config.check().map_err(|problem| file.problem(problem))?;
        Ok(config)
    }

    /// The longest sequence, special tokens included, that the position embeddings allow.
    pub fn longest_sequence(&self) -> usize {
        let first_position = match self.embeddings().positions {
            Some((_, Positions::AfterPadding)) => self.padding_id as usize + 1,
            Some((_, Positions::FromZero)) | None => 0,
        };
        self.position_embeddings.saturating_sub(first_position)
    }

    /// Width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.attention_heads
    }

    /// Width of the keys of all heads, and of their values.
    pub fn key_value_size(&self) -> usize {
        self.key_value_heads * self.head_size()
    }

    fn check(&self) -> Result<(), String> {
        let [width, layers, heads] = self.family.size_fields();
        let rates = self.dropout;
        let attention = rates.attention.unwrap_or(0.0);
        let rates = [
            rates.embeddings,
            rates.probabilities,
            attention,
            rates.feed_forward,
            rates.head,
        ];
        if self.hidden_size == 0 || self.layers == 0 || self.attention_heads == 0 {
            Err(format!(
                "`{width}`, `{layers}` and `{heads}` must be at least 1"
            ))
        } else if !self.hidden_size.is_multiple_of(self.attention_heads) {
            let (width_found, heads_found) = (self.hidden_size, self.attention_heads);
            Err(format!(
                "`{width}` {width_found} is not a multiple of `{heads}` {heads_found}"
            ))
        } else if self.key_value_heads == 0
            || !self.attention_heads.is_multiple_of(self.key_value_heads)
        {
            let (heads_found, shared) = (self.attention_heads, self.key_value_heads);
            Err(format!(
                "`{heads}` {heads_found} is not a multiple of `num_key_value_heads` {shared}"
            ))
        } else if self.rotary.is_some() && !self.head_size().is_multiple_of(2) {
            Err(format!(
                "`{width}` / `{heads}` is {}, rotary positions need an even number",
                self.head_size()
            ))
        } else if self.token_types == Some(0) {
            Err("`type_vocab_size` must be at least 1".into())
        } else if self.longest_sequence() < 3 {
            Err(format!(
                "`max_position_embeddings` {} leaves no room for a text",
                self.position_embeddings
            ))
        } else if let Some(rate) = rates.iter().find(|rate| !(0.0..1.0).contains(*rate)) {
            Err(format!("a dropout probability of {rate} is not in [0, 1)"))
        } else if self.padding_id as usize >= self.vocabulary_size {
            Err(format!(
                "`pad_token_id` {} is not below `vocab_size` {}",
                self.padding_id, self.vocabulary_size
            ))
        } else {
            Ok(())
        }
    }
}
