//! What tells one family of encoders from another: the one place that knows.
//!
//! All share BERT's post-norm layer and most of their tensors' names. Each family's page is one
//! [`Description`].

use serde::{Deserialize, Serialize};

use super::EncoderConfig;
use super::relative_position::{RELATIVE_BIAS, RELATIVE_BUCKETS};

/// A family of encoders, by `model_type` in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// BERT: positions count from 0.
    Bert,
    /// RoBERTa (CodeBERT, GraphCodeBERT, UniXcoder): positions count from `padding_idx + 1`.
    Roberta,
    /// MPNet (all-mpnet-base-v2): positions as RoBERTa's, and a bias by relative position that
    /// all layers share.
    Mpnet,
}

/// How a family numbers the positions of a sequence's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// 0, 1, 2, …
    FromZero,
    /// `padding_idx + 1`, `padding_idx + 2`, …, counting only tokens that are not the padding id.
    AfterPadding,
}

/// What the tensors of a layer's attention are called, after the layer's prefix.
pub(crate) struct AttentionNames {
    pub(crate) query: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: &'static str,
    pub(crate) output: &'static str,
    pub(crate) norm: &'static str,
}

/// All that is particular to a family.
struct Description {
    /// What a model with a head on top puts before the encoder's own tensor names.
    prefix: &'static str,
    positions: Positions,
    token_types: bool,
    relative_positions: bool,
    attention: AttentionNames,
}

const BERT_ATTENTION: AttentionNames = AttentionNames {
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    output: "attention.output.dense",
    norm: "attention.output.LayerNorm",
};

const BERT: Description = Description {
    prefix: "bert.",
    positions: Positions::FromZero,
    token_types: true,
    relative_positions: false,
    attention: BERT_ATTENTION,
};

const ROBERTA: Description = Description {
    prefix: "roberta.",
    positions: Positions::AfterPadding,
    ..BERT
};

const MPNET: Description = Description {
    prefix: "mpnet.",
    positions: Positions::AfterPadding,
    token_types: false,
    relative_positions: true,
    attention: AttentionNames {
        query: "attention.attn.q",
        key: "attention.attn.k",
        value: "attention.attn.v",
        output: "attention.attn.o",
        norm: "attention.LayerNorm",
    },
};

impl Family {
    /// Every family, for messages.
    pub const SUPPORTED: &'static str = "bert, roberta, mpnet";

    /// The family of a `model_type`.
    pub fn from_model_type(model_type: &str) -> Option<Self> {
        match model_type {
            "bert" => Some(Self::Bert),
            "roberta" => Some(Self::Roberta),
            "mpnet" => Some(Self::Mpnet),
            _ => None,
        }
    }

    fn description(self) -> &'static Description {
        match self {
            Self::Bert => &BERT,
            Self::Roberta => &ROBERTA,
            Self::Mpnet => &MPNET,
        }
    }

    /// What a model with a head on top puts before the encoder's own tensor names.
    pub fn prefix(self) -> &'static str {
        self.description().prefix
    }

    /// How positions are numbered.
    pub fn positions(self) -> Positions {
        self.description().positions
    }

    /// The position of a sequence's first token.
    pub fn first_position(self, padding_id: u32) -> usize {
        match self.positions() {
            Positions::FromZero => 0,
            Positions::AfterPadding => padding_id as usize + 1,
        }
    }

    /// The padding token's id, where `config.json` says `configured`. MPNet's position
    /// embeddings have it built in, whatever the configuration says.
    pub fn padding_id(self, configured: Option<u32>) -> u32 {
        match self {
            Self::Bert => configured.unwrap_or(0),
            Self::Roberta => configured.unwrap_or(1),
            Self::Mpnet => 1,
        }
    }

    /// Whether there are token type embeddings.
    pub fn has_token_types(self) -> bool {
        self.description().token_types
    }

    /// Whether a bias by relative position, which all layers share, is added to the attention
    /// scores.
    pub fn has_relative_positions(self) -> bool {
        self.description().relative_positions
    }

    /// What the tensors of a layer's attention are called.
    pub(crate) fn attention(self) -> &'static AttentionNames {
        &self.description().attention
    }
}

/// Names and shapes of the embeddings' tensors.
pub(crate) fn embedding_tensors(config: &EncoderConfig) -> Vec<(String, Vec<usize>)> {
    let hidden = config.hidden_size;
    let tables = [
        ("word_embeddings", Some(config.vocabulary_size)),
        ("position_embeddings", Some(config.position_embeddings)),
        ("token_type_embeddings", config.token_types),
    ];
    let tables = tables.into_iter().filter_map(|(name, rows)| {
        rows.map(|rows| (format!("embeddings.{name}.weight"), vec![rows, hidden]))
    });
    let norm =
        ["weight", "bias"].map(|part| (format!("embeddings.LayerNorm.{part}"), vec![hidden]));
    tables.chain(norm).collect()
}

/// Names and shapes of the tensors of layer `layer`.
pub(crate) fn layer_tensors(config: &EncoderConfig, layer: usize) -> Vec<(String, Vec<usize>)> {
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let attention = config.family.attention();
    let mut tensors = Vec::new();
    for (name, outputs, inputs) in [
        (attention.query, hidden, hidden),
        (attention.key, hidden, hidden),
        (attention.value, hidden, hidden),
        (attention.output, hidden, hidden),
        ("intermediate.dense", intermediate, hidden),
        ("output.dense", hidden, intermediate),
    ] {
        tensors.push((
            format!("{}{name}.weight", layer_prefix(layer)),
            vec![outputs, inputs],
        ));
        tensors.push((format!("{}{name}.bias", layer_prefix(layer)), vec![outputs]));
    }
    for name in [attention.norm, "output.LayerNorm"] {
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
///
/// One after the other: a broken configuration may ask for more layers than fit in memory.
pub(crate) fn encoder_tensors(
    config: &EncoderConfig,
) -> impl Iterator<Item = (String, Vec<usize>)> {
    let layers = (0..config.layers).flat_map(|layer| layer_tensors(config, layer));
    let relative = config.family.has_relative_positions().then(|| {
        let shape = vec![RELATIVE_BUCKETS, config.attention_heads];
        (RELATIVE_BIAS.into(), shape)
    });
    embedding_tensors(config)
        .into_iter()
        .chain(layers)
        .chain(relative)
}
