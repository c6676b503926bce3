//! BERT (Devlin et al., 2019): absolute positions from 0, token types, norms behind the residuals.

use serde::Deserialize;
use serde_json::Value;

use super::{
    Activation, BlockActivation, Description, Family, HeadConfig, HeadFields, HeadNames, Names,
    NormKind, NormPlacement, Positions, ProjectionNames, WideNames,
};
use crate::checkpoint::config::{Biases, ConfigFile, DropoutRates};
use crate::checkpoint::{AttentionPattern, EncoderConfig, Error};

pub(super) const BERT: Description = Description {
    model_type: "bert",
    prefix: "bert.",
    read: |file| read(file, Family::Bert, 0),
    size_fields: ["hidden_size", "num_hidden_layers", "num_attention_heads"],
    names: NAMES,
    positions: Some(Positions::FromZero),
    norms: NormPlacement::AfterResidual,
    norm_kind: NormKind::Layer,
    gated: false,
    class: "Bert",
    sequence_head: Some(HeadNames {
        square: "pooler.dense",
        prefixed: true,
        drops_input: false,
        activation: Activation::Tanh,
        norm: None,
        last: "classifier",
        fields: HeadFields::NONE,
    }),
};

pub(super) const NAMES: Names = Names {
    words: "embeddings.word_embeddings",
    positions: "embeddings.position_embeddings",
    token_types: "embeddings.token_type_embeddings",
    embeddings_norm: Some("embeddings.LayerNorm"),
    relative_positions: None,
    layers: "encoder.layer.",
    projections: ProjectionNames::Separate([
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
    ]),
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    wide: WideNames::One("intermediate.dense"),
    narrow: "output.dense",
    feed_forward_norm: "output.LayerNorm",
    final_norm: None,
    output_matrix: false,
};

/// The fields that are read; the defaults are what transformers assumes for one that is not there.
#[derive(Deserialize)]
struct Fields {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "token_types")]
    type_vocab_size: usize,
    hidden_act: Option<Value>,
    #[serde(default = "epsilon")]
    layer_norm_eps: f64,
    #[serde(default = "dropout")]
    hidden_dropout_prob: f64,
    #[serde(default = "dropout")]
    attention_probs_dropout_prob: f64,
    #[serde(default = "initializer_range")]
    initializer_range: f64,
    pad_token_id: Option<u32>,
    position_embedding_type: Option<Value>,
    is_decoder: Option<bool>,
}

fn token_types() -> usize {
    2
}

fn epsilon() -> f64 {
    1e-12
}

fn dropout() -> f64 {
    0.1
}

fn initializer_range() -> f64 {
    0.02
}

/// Reads the `config.json` of BERT or of a family with its fields, `family`, whose padding token
/// has the id `padding_id` when the file does not say.
pub(super) fn read(
    file: &ConfigFile,
    family: Family,
    padding_id: u32,
) -> Result<EncoderConfig, Error> {
    let found: Fields = file.fields()?;
    file.require_gelu("hidden_act", found.hidden_act.as_ref())?;
    let kind = found.position_embedding_type.as_ref();
    file.require("position_embedding_type", kind, "absolute", "\"absolute\"")?;
    if found.is_decoder == Some(true) {
        return Err(file.unsupported("is_decoder", "true", "false (encoders)"));
    }
    Ok(EncoderConfig {
        family,
        hidden_size: found.hidden_size,
        layers: found.num_hidden_layers,
        attention_heads: found.num_attention_heads,
        key_value_heads: found.num_attention_heads,
        intermediate_size: found.intermediate_size,
        vocabulary_size: found.vocab_size,
        position_embeddings: found.max_position_embeddings,
        token_types: Some(found.type_vocab_size),
        text_separator: None,
        biases: Biases::ALL,
        rotary: None,
        attention_pattern: AttentionPattern::Bidirectional,
        local: None,
        activation: BlockActivation::Gelu,
        layer_norm_epsilon: found.layer_norm_eps,
        dropout: DropoutRates {
            embeddings: found.hidden_dropout_prob,
            probabilities: found.attention_probs_dropout_prob,
            attention: Some(found.hidden_dropout_prob),
            feed_forward: found.hidden_dropout_prob,
            head: found.hidden_dropout_prob,
        },
        initializer_range: found.initializer_range,
        padding_id: found.pad_token_id.unwrap_or(padding_id),
        head: HeadConfig::USUAL,
        end_tokens: Vec::new(),
        tied_language_head: true,
    })
}
