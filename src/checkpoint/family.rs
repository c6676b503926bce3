//! What tells one family of encoders from another.
//!
//! BERT and RoBERTa share their blocks and, but for a prefix, the names of their tensors; they
//! differ in where positions start.

use serde::{Deserialize, Serialize};

use super::EncoderConfig;

/// A family of encoders, by `model_type` in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// BERT: positions count from 0.
    Bert,
    /// RoBERTa (CodeBERT, GraphCodeBERT, UniXcoder): positions count from `padding_idx + 1`.
    Roberta,
}

impl Family {
    /// Every family, for messages.
    pub const SUPPORTED: &'static str = "bert, roberta";

    /// The family of a `model_type`.
    pub fn from_model_type(model_type: &str) -> Option<Self> {
        match model_type {
            "bert" => Some(Self::Bert),
            "roberta" => Some(Self::Roberta),
            _ => None,
        }
    }

    /// What a model with a head on top puts before the encoder's own tensor names.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert.",
            Self::Roberta => "roberta.",
        }
    }

    /// The position of a sequence's first token.
    pub fn first_position(self, padding_id: u32) -> usize {
        match self {
            Self::Bert => 0,
            Self::Roberta => padding_id as usize + 1,
        }
    }
}

/// Names and shapes of the embeddings' tensors.
pub(crate) fn embedding_tensors(config: &EncoderConfig) -> Vec<(String, Vec<usize>)> {
    let hidden = config.hidden_size;
    [
        (
            "word_embeddings.weight",
            vec![config.vocabulary_size, hidden],
        ),
        (
            "position_embeddings.weight",
            vec![config.position_embeddings, hidden],
        ),
        (
            "token_type_embeddings.weight",
            vec![config.token_types, hidden],
        ),
        ("LayerNorm.weight", vec![hidden]),
        ("LayerNorm.bias", vec![hidden]),
    ]
    .map(|(name, shape)| (format!("embeddings.{name}"), shape))
    .into()
}

/// Names and shapes of the tensors of layer `layer`.
pub(crate) fn layer_tensors(config: &EncoderConfig, layer: usize) -> Vec<(String, Vec<usize>)> {
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let mut tensors = Vec::new();
    for (name, outputs, inputs) in [
        ("attention.self.query", hidden, hidden),
        ("attention.self.key", hidden, hidden),
        ("attention.self.value", hidden, hidden),
        ("attention.output.dense", hidden, hidden),
        ("intermediate.dense", intermediate, hidden),
        ("output.dense", hidden, intermediate),
    ] {
        tensors.push((
            format!("{}{name}.weight", layer_prefix(layer)),
            vec![outputs, inputs],
        ));
        tensors.push((format!("{}{name}.bias", layer_prefix(layer)), vec![outputs]));
    }
    for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
        for part in ["weight", "bias"] {
            tensors.push((
                format!("{}{name}.{part}", layer_prefix(layer)),
                vec![hidden],
            ));
        }
    }
    tensors
}

/// What the names of layer `layer`'s tensors start with.
pub(crate) fn layer_prefix(layer: usize) -> String {
    format!("encoder.layer.{layer}.")
}

/// Names and shapes of every tensor of the encoder; the pooler is not part of it.
pub(crate) fn encoder_tensors(config: &EncoderConfig) -> Vec<(String, Vec<usize>)> {
    let mut tensors = embedding_tensors(config);
    for layer in 0..config.layers {
        tensors.extend(layer_tensors(config, layer));
    }
    tensors
}
