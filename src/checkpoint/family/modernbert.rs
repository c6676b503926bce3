//! ModernBERT (Warner et al., 2024): rotary positions, gated feed-forward blocks, most layers with
//! attention to near tokens only, norms in front of the blocks and one after the last layer.

use serde::Deserialize;
use serde_json::Value;

use super::{
    Activation, BlockActivation, Description, Family, HeadConfig, HeadFields, HeadInput, HeadNames,
    Names, NormKind, NormPlacement, ProjectionNames, WideNames,
};
use crate::checkpoint::config::{Biases, ConfigFile, DropoutRates, LayerKinds, LocalAttention};
use crate::checkpoint::{AttentionPattern, EncoderConfig, Error, RotaryPositions};

pub(super) const MODERNBERT: Description = Description {
    model_type: "modernbert",
    prefix: "model.",
    read,
    size_fields: ["hidden_size", "num_hidden_layers", "num_attention_heads"],
    names: Names {
        words: "embeddings.tok_embeddings",
        // No tables by these names.
        positions: "",
        token_types: "",
        embeddings_norm: Some("embeddings.norm"),
        relative_positions: None,
        layers: "layers.",
        projections: ProjectionNames::Fused("attn.Wqkv"),
        attention_output: "attn.Wo",
        attention_norm: "attn_norm",
        wide: WideNames::One("mlp.Wi"),
        narrow: "mlp.Wo",
        feed_forward_norm: "mlp_norm",
        final_norm: Some("final_norm"),
        output_matrix: false,
    },
    positions: None,
    norms: NormPlacement::BeforeBlock,
    norm_kind: NormKind::Layer,
    gated: true,
    class: "ModernBert",
    // Its token classifier has the same layers, on every token.
    sequence_head: Some(HeadNames {
        square: "head.dense",
        prefixed: false,
        drops_input: false,
        activation: Activation::Gelu,
        norm: Some("head.norm"),
        last: "classifier",
        fields: HeadFields {
            reads: Some("classifier_pooling"),
            activation: Some("classifier_activation"),
        },
    }),
};

/// What a layer is called that attends to all of its sequence.
const GLOBAL: &str = "full_attention";
/// What a layer is called that attends to near tokens only.
const LOCAL: &str = "sliding_attention";

/// The fields that are read; the defaults are what transformers assumes for one that is not there.
#[derive(Deserialize)]
struct Fields {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    hidden_activation: Option<Value>,
    #[serde(default = "epsilon")]
    norm_eps: f64,
    #[serde(default)]
    norm_bias: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    embedding_dropout: f64,
    #[serde(default)]
    attention_dropout: f64,
    #[serde(default)]
    mlp_dropout: f64,
    #[serde(default)]
    classifier_dropout: f64,
    #[serde(default = "initializer_range")]
    initializer_range: f64,
    pad_token_id: Option<u32>,
    #[serde(default = "window")]
    local_attention: usize,
    layer_types: Option<Vec<String>>,
    #[serde(default = "every")]
    global_attn_every_n_layers: usize,
    rope_parameters: Option<RotaryFields>,
    rope_scaling: Option<Value>,
    global_rope_theta: Option<f64>,
    local_rope_theta: Option<f64>,
}

/// What is read of the classifier.
#[derive(Deserialize)]
struct ClassifierFields {
    #[serde(rename = "classifier_pooling")]
    pooling: Option<String>,
    #[serde(rename = "classifier_bias", default)]
    bias: bool,
    #[serde(rename = "classifier_activation")]
    activation: Option<String>,
}

/// `rope_parameters`, as newer versions of transformers write it.
#[derive(Deserialize)]
struct RotaryFields {
    full_attention: Option<RotaryOfKind>,
    sliding_attention: Option<RotaryOfKind>,
}

#[derive(Deserialize)]
struct RotaryOfKind {
    rope_type: Option<Value>,
    rope_theta: Option<f64>,
}

fn epsilon() -> f64 {
    1e-5
}

fn initializer_range() -> f64 {
    0.02
}

fn window() -> usize {
    128
}

fn every() -> usize {
    3
}

const PADDING_ID: u32 = 50_283;
const GLOBAL_THETA: f64 = 160_000.0;
const LOCAL_THETA: f64 = 10_000.0;

fn read(file: &ConfigFile) -> Result<EncoderConfig, Error> {
    let found: Fields = file.fields()?;
    file.require_gelu("hidden_activation", found.hidden_activation.as_ref())?;
    if let Some(scaling) = &found.rope_scaling {
        return Err(file.unsupported("rope_scaling", &scaling.to_string(), "none"));
    }
    let kinds = layer_kinds(file, &found)?;
    let parameters = found.rope_parameters.as_ref();
    let global = parameters.and_then(|kinds| kinds.full_attention.as_ref());
    let local = parameters.and_then(|kinds| kinds.sliding_attention.as_ref());
    let global = theta(file, global, found.global_rope_theta, GLOBAL_THETA)?;
    let local = theta(file, local, found.local_rope_theta, LOCAL_THETA)?;
    Ok(EncoderConfig {
        family: Family::ModernBert,
        hidden_size: found.hidden_size,
        layers: found.num_hidden_layers,
        attention_heads: found.num_attention_heads,
        key_value_heads: found.num_attention_heads,
        intermediate_size: found.intermediate_size,
        vocabulary_size: found.vocab_size,
        position_embeddings: found.max_position_embeddings,
        token_types: None,
        text_separator: None,
        biases: Biases {
            attention: found.attention_bias,
            attention_output: found.attention_bias,
            feed_forward: found.mlp_bias,
            norms: found.norm_bias,
        },
        rotary: Some(RotaryPositions::unscaled(global)),
        attention_pattern: AttentionPattern::Bidirectional,
        local: Some(LocalAttention {
            // The field is the width of the whole window.
            window: found.local_attention / 2,
            rotary: Some(RotaryPositions::unscaled(local)),
            layers: kinds,
        }),
        activation: BlockActivation::Gelu,
        layer_norm_epsilon: found.norm_eps,
        dropout: DropoutRates {
            embeddings: found.embedding_dropout,
            probabilities: found.attention_dropout,
            attention: Some(found.attention_dropout),
            feed_forward: found.mlp_dropout,
            head: found.classifier_dropout,
        },
        initializer_range: found.initializer_range,
        padding_id: found.pad_token_id.unwrap_or(PADDING_ID),
        head: classifier(file)?,
        end_tokens: Vec::new(),
        tied_language_head: true,
    })
}

/// What the file says of the classifier.
fn classifier(file: &ConfigFile) -> Result<HeadConfig, Error> {
    let found: ClassifierFields = file.fields()?;
    let reads = match found.pooling.as_deref() {
        None | Some("cls") => HeadInput::FirstToken,
        Some("mean") => HeadInput::MeanOfTokens,
        Some(other) => {
            let found = format!("{other:?}");
            return Err(file.unsupported("classifier_pooling", &found, "\"cls\", \"mean\""));
        }
    };
    Ok(HeadConfig {
        reads,
        bias: found.bias,
        activation: found.activation,
    })
}

/// Which layers attend to near tokens only.
fn layer_kinds(file: &ConfigFile, found: &Fields) -> Result<LayerKinds, Error> {
    let Some(types) = &found.layer_types else {
        return match found.global_attn_every_n_layers {
            0 => Err(file.problem("`global_attn_every_n_layers` must be at least 1".into())),
            every => Ok(LayerKinds::GlobalEvery(every)),
        };
    };
    if types.len() != found.num_hidden_layers {
        return Err(file.problem(format!(
            "`layer_types` names {} layers, `num_hidden_layers` is {}",
            types.len(),
            found.num_hidden_layers
        )));
    }
    let kinds = types.iter().map(|kind| match kind.as_str() {
        GLOBAL => Ok(false),
        LOCAL => Ok(true),
        other => Err(file.unsupported(
            "layer_types",
            &format!("{other:?} in one layer"),
            "\"full_attention\" and \"sliding_attention\"",
        )),
    });
    Ok(LayerKinds::Local(kinds.collect::<Result<_, _>>()?))
}

/// The base of a kind of layer's wavelengths: by `rope_parameters`, by the field of older versions,
/// or the family's own.
fn theta(
    file: &ConfigFile,
    parameters: Option<&RotaryOfKind>,
    field: Option<f64>,
    default: f64,
) -> Result<f64, Error> {
    let kind = parameters.and_then(|parameters| parameters.rope_type.as_ref());
    file.require("rope_type", kind, "default", "\"default\"")?;
    let theta = parameters.and_then(|parameters| parameters.rope_theta);
    let theta = theta.or(field).unwrap_or(default);
    if theta > 0.0 {
        Ok(theta)
    } else {
        Err(file.problem(format!("a rotary theta of {theta} is not above 0")))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use crate::checkpoint::{EncoderConfig, Error};

    /// The configuration with `more` fields.
    fn read(more: &str) -> Result<EncoderConfig, Error> {
        let sizes = "\"hidden_size\": 32, \"num_hidden_layers\": 7, \"num_attention_heads\": 4, \
                     \"intermediate_size\": 48, \"vocab_size\": 60000, \
                     \"max_position_embeddings\": 8192";
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let text = format!("{{\"model_type\": \"modernbert\", {sizes} {more}}}");
        file.write_all(text.as_bytes()).expect("written");
        EncoderConfig::read(file.path())
    }

    /// Window and base of each layer.
    fn kinds(config: &EncoderConfig) -> Vec<(Option<usize>, Option<f64>)> {
        let layers = (0..config.layers).map(|layer| config.layer(layer).attention);
        layers
            .map(|attention| {
                let theta = attention.rotary.map(|rotary| rotary.theta);
                (attention.window, theta)
            })
            .collect()
    }

    /// As the hub's checkpoints have it, made by an older version of transformers.
    #[test]
    fn fields_of_older_versions_are_read() {
        let older = ", \"global_rope_theta\": 170000.0, \"local_rope_theta\": 9000, \
                     \"global_attn_every_n_layers\": 2, \"local_attention\": 64, \
                     \"position_embedding_type\": \"absolute\"";
        let config = read(older).expect("a configuration");
        let (global, local) = ((None, Some(170_000.0)), (Some(32), Some(9000.0)));
        let expected = [global, local, global, local, global, local, global];
        assert_eq!(kinds(&config), expected);
    }

    #[test]
    fn what_is_left_out_is_what_transformers_assumes() {
        let config = read("").expect("a configuration");
        let (global, local) = ((None, Some(160_000.0)), (Some(64), Some(10_000.0)));
        let expected = [global, local, local, global, local, local, global];
        assert_eq!(kinds(&config), expected);
        assert_eq!(
            (config.padding_id, config.longest_sequence()),
            (50_283, 8192)
        );
        assert!(config.layer(0).attention.norm.is_none());
        assert!(config.layer(1).attention.norm.is_some());
        assert!(!config.biases.norms && !config.biases.attention);
    }

    #[test]
    fn nonsense_is_an_error() {
        for (more, word) in [
            (", \"global_attn_every_n_layers\": 0", "at least 1"),
            (", \"global_rope_theta\": -1.0", "not above 0"),
            (", \"rope_scaling\": {\"type\": \"linear\"}", "rope_scaling"),
            (", \"classifier_pooling\": \"max\"", "classifier_pooling"),
        ] {
            let said = read(more).expect_err("nonsense").to_string();
            assert!(said.contains(word), "{said}");
        }
    }
}
