//! DistilBERT (Sanh et al., 2019): BERT's layers under other names, no token types, and no dropout
//! of what attention puts out.

use serde::Deserialize;
use serde_json::Value;

use super::bert::{BERT, NAMES};
use super::{
    Activation, BlockActivation, Description, Family, HeadConfig, HeadFields, HeadNames, Names,
    ProjectionNames, WideNames,
};
use crate::checkpoint::config::{Biases, ConfigFile, DropoutRates};
use crate::checkpoint::{AttentionPattern, EncoderConfig, Error};

pub(super) const DISTILBERT: Description = Description {
    model_type: "distilbert",
    prefix: "distilbert.",
    read,
    size_fields: ["dim", "n_layers", "n_heads"],
    names: Names {
        layers: "transformer.layer.",
        projections: ProjectionNames::Separate([
            "attention.q_lin",
            "attention.k_lin",
            "attention.v_lin",
        ]),
        attention_output: "attention.out_lin",
        attention_norm: "sa_layer_norm",
        wide: WideNames::One("ffn.lin1"),
        narrow: "ffn.lin2",
        feed_forward_norm: "output_layer_norm",
        ..NAMES
    },
    class: "DistilBert",
    sequence_head: Some(HeadNames {
        square: "pre_classifier",
        prefixed: false,
        drops_input: false,
        activation: Activation::Relu,
        norm: None,
        last: "classifier",
        fields: HeadFields::NONE,
    }),
    ..BERT
};

/// Added to the variance in every LayerNorm; no field of `config.json` says otherwise.
const EPSILON: f64 = 1e-12;

/// The fields that are read; the defaults are what transformers assumes for one that is not there.
#[derive(Deserialize)]
struct Fields {
    dim: usize,
    n_layers: usize,
    n_heads: usize,
    hidden_dim: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    activation: Option<Value>,
    #[serde(default = "dropout")]
    dropout: f64,
    #[serde(default = "dropout")]
    attention_dropout: f64,
    #[serde(default = "head_dropout")]
    seq_classif_dropout: f64,
    #[serde(default = "initializer_range")]
    initializer_range: f64,
    pad_token_id: Option<u32>,
}

fn dropout() -> f64 {
    0.1
}

fn head_dropout() -> f64 {
    0.2
}

fn initializer_range() -> f64 {
    0.02
}

fn read(file: &ConfigFile) -> Result<EncoderConfig, Error> {
    let found: Fields = file.fields()?;
    file.require_gelu("activation", found.activation.as_ref())?;
    Ok(EncoderConfig {
        family: Family::DistilBert,
        hidden_size: found.dim,
        layers: found.n_layers,
        attention_heads: found.n_heads,
        key_value_heads: found.n_heads,
        intermediate_size: found.hidden_dim,
        vocabulary_size: found.vocab_size,
        position_embeddings: found.max_position_embeddings,
        token_types: None,
        text_separator: None,
        biases: Biases::ALL,
        rotary: None,
        attention_pattern: AttentionPattern::Bidirectional,
        local: None,
        activation: BlockActivation::Gelu,
        layer_norm_epsilon: EPSILON,
        dropout: DropoutRates {
            embeddings: found.dropout,
            probabilities: found.attention_dropout,
            attention: None,
            feed_forward: found.dropout,
            head: found.seq_classif_dropout,
        },
        initializer_range: found.initializer_range,
        padding_id: found.pad_token_id.unwrap_or(0),
        head: HeadConfig::USUAL,
        end_tokens: Vec::new(),
        tied_language_head: true,
    })
}
