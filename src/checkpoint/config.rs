//! `config.json`: the encoder's sizes, and a refusal of what Telly does not compute.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::relative_position::RELATIVE_BUCKETS;
use super::{Error, Family};

/// An encoder's sizes and constants.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// BERT, RoBERTa or MPNet.
    pub family: Family,
    /// Width of a hidden state.
    pub hidden_size: usize,
    /// Number of encoder layers, L.
    pub layers: usize,
    /// Attention heads a layer.
    pub attention_heads: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// Rows of the word embeddings.
    pub vocabulary_size: usize,
    /// Rows of the position embeddings.
    pub position_embeddings: usize,
    /// Rows of the token type embeddings, in a family that has them; type 0 is the one used.
    pub token_types: Option<usize>,
    /// Added to the variance in every LayerNorm.
    pub layer_norm_epsilon: f64,
    /// Dropout probability on hidden states.
    pub hidden_dropout: f64,
    /// Dropout probability on attention probabilities.
    pub attention_dropout: f64,
    /// Standard deviation of freshly drawn weights.
    pub initializer_range: f64,
    /// Token id of padding.
    pub padding_id: u32,
}

/// The fields of `config.json` that are read.
#[derive(Deserialize)]
struct HuggingFaceConfig {
    model_type: Option<Value>,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "bert_token_types")]
    type_vocab_size: usize,
    relative_attention_num_buckets: Option<usize>,
    hidden_act: Option<Value>,
    #[serde(default = "bert_epsilon")]
    layer_norm_eps: f64,
    #[serde(default = "bert_dropout")]
    hidden_dropout_prob: f64,
    #[serde(default = "bert_dropout")]
    attention_probs_dropout_prob: f64,
    #[serde(default = "bert_initializer_range")]
    initializer_range: f64,
    pad_token_id: Option<u32>,
    position_embedding_type: Option<Value>,
    is_decoder: Option<bool>,
}

// The values that transformers assumes for a field that is not there.
fn bert_token_types() -> usize {
    2
}

fn bert_epsilon() -> f64 {
    1e-12
}

fn bert_dropout() -> f64 {
    0.1
}

fn bert_initializer_range() -> f64 {
    0.02
}

impl EncoderConfig {
    /// Reads `config.json`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs_err::read_to_string(path).map_err(Error::Read)?;
        let json_error = |source| Error::Json {
            path: path.to_owned(),
            source,
        };
        let unsupported = |field, found: String, supported| Error::Unsupported {
            path: path.to_owned(),
            field,
            found,
            supported,
        };
        // The kind of model is judged first: a config of another kind may lack every other
        // field, and "missing field" would be a poor answer to it.
        let value: Value = serde_json::from_str(&text).map_err(json_error)?;
        let model_type = value.get("model_type").cloned().unwrap_or(Value::Null);
        let family = model_type
            .as_str()
            .and_then(Family::from_model_type)
            .ok_or_else(|| unsupported("model_type", model_type.to_string(), Family::SUPPORTED))?;
        let found: HuggingFaceConfig = serde_json::from_str(&text).map_err(json_error)?;
        debug_assert!(found.model_type.is_some());
        require(found.hidden_act.as_ref(), "gelu").map_err(|value| {
            unsupported("hidden_act", value, "\"gelu\" (the exact one, by erf)")
        })?;
        require(found.position_embedding_type.as_ref(), "absolute")
            .map_err(|value| unsupported("position_embedding_type", value, "\"absolute\""))?;
        if found.is_decoder == Some(true) {
            return Err(unsupported("is_decoder", "true".into(), "false (encoders)"));
        }
        if family.has_relative_positions()
            && let Some(buckets) = found.relative_attention_num_buckets
            && buckets != RELATIVE_BUCKETS
        {
            let field = "relative_attention_num_buckets";
            return Err(unsupported(field, buckets.to_string(), "32"));
        }
        let config = Self {
            family,
            hidden_size: found.hidden_size,
            layers: found.num_hidden_layers,
            attention_heads: found.num_attention_heads,
            intermediate_size: found.intermediate_size,
            vocabulary_size: found.vocab_size,
            position_embeddings: found.max_position_embeddings,
            token_types: family.has_token_types().then_some(found.type_vocab_size),
            layer_norm_epsilon: found.layer_norm_eps,
            hidden_dropout: found.hidden_dropout_prob,
            attention_dropout: found.attention_probs_dropout_prob,
            initializer_range: found.initializer_range,
            padding_id: family.padding_id(found.pad_token_id),
        };
        config.check(path)?;
        Ok(config)
    }

    /// The longest sequence, special tokens included, that the position embeddings allow.
    pub fn longest_sequence(&self) -> usize {
        self.position_embeddings
            .saturating_sub(self.family.first_position(self.padding_id))
    }

    /// Width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.attention_heads
    }

    fn check(&self, path: &Path) -> Result<(), Error> {
        let problem = if self.hidden_size == 0 || self.layers == 0 || self.attention_heads == 0 {
            "`hidden_size`, `num_hidden_layers` and `num_attention_heads` must be at least 1".into()
        } else if !self.hidden_size.is_multiple_of(self.attention_heads) {
            format!(
                "`hidden_size` {} is not a multiple of `num_attention_heads` {}",
                self.hidden_size, self.attention_heads
            )
        } else if self.token_types == Some(0) {
            "`type_vocab_size` must be at least 1".into()
        } else if self.longest_sequence() < 3 {
            format!(
                "`max_position_embeddings` {} leaves no room for a text",
                self.position_embeddings
            )
        } else {
            return Ok(());
        };
        Err(Error::Config {
            path: path.to_owned(),
            problem,
        })
    }
}

/// `Err` with the value found when it is neither absent, null nor `expected`.
fn require(found: Option<&Value>, expected: &str) -> Result<(), String> {
    match found {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(text)) if text == expected => Ok(()),
        Some(other) => Err(other.to_string()),
    }
}
