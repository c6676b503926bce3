//! Decoders: Llama (Touvron et al., 2023; `SmolLM2` is one), Qwen2 and Qwen2.5, which have biases
//! in front of attention, and `StarCoder2` (Lozhkov et al., 2024), which has biases everywhere,
//! LayerNorms and a plain feed-forward block. All have rotary positions, heads of queries that
//! share keys and values, and norms in front of the blocks.

use serde::Deserialize;

use super::{
    BlockActivation, Description, Family, HeadConfig, Names, NormKind, NormPlacement,
    ProjectionNames, WideNames,
};
use crate::checkpoint::config::{Biases, ConfigFile, DropoutRates};
use crate::checkpoint::{AttentionPattern, EncoderConfig, Error, RotaryPositions, RotaryScaling};

pub(super) const LLAMA: Description = Description {
    model_type: "llama",
    prefix: "model.",
    read: |file| read(file, Family::Llama),
    size_fields: ["hidden_size", "num_hidden_layers", "num_attention_heads"],
    names: NAMES,
    positions: None,
    norms: NormPlacement::BeforeBlock,
    norm_kind: NormKind::RootMeanSquare,
    gated: true,
    class: "Llama",
    sequence_head: None,
};

pub(super) const QWEN2: Description = Description {
    model_type: "qwen2",
    read: |file| read(file, Family::Qwen2),
    class: "Qwen2",
    ..LLAMA
};

pub(super) const STARCODER2: Description = Description {
    model_type: "starcoder2",
    read: |file| read(file, Family::Starcoder2),
    names: Names {
        wide: WideNames::One("mlp.c_fc"),
        narrow: "mlp.c_proj",
        ..NAMES
    },
    norm_kind: NormKind::Layer,
    gated: false,
    class: "Starcoder2",
    ..LLAMA
};

const NAMES: Names = Names {
    words: "embed_tokens",
    // No tables by these names.
    positions: "",
    token_types: "",
    embeddings_norm: None,
    relative_positions: None,
    layers: "layers.",
    projections: ProjectionNames::Separate([
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
    ]),
    attention_output: "self_attn.o_proj",
    attention_norm: "input_layernorm",
    wide: WideNames::GateAndUp(["mlp.gate_proj", "mlp.up_proj"]),
    narrow: "mlp.down_proj",
    feed_forward_norm: "post_attention_layernorm",
    final_norm: Some("norm"),
    output_matrix: true,
};

/// The fields that are read; the defaults are what transformers assumes for one that is not there.
#[derive(Deserialize)]
struct Fields {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    hidden_act: Option<String>,
    rms_norm_eps: Option<f64>,
    norm_epsilon: Option<f64>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    use_bias: Option<bool>,
    #[serde(default)]
    attention_dropout: f64,
    #[serde(default)]
    residual_dropout: f64,
    #[serde(default)]
    embedding_dropout: f64,
    #[serde(default = "initializer_range")]
    initializer_range: f64,
    pad_token_id: Option<u32>,
    eos_token_id: Option<EndTokens>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RotaryFields>,
    rope_parameters: Option<RotaryFields>,
    tie_word_embeddings: Option<bool>,
}

/// `eos_token_id`: one token, or several that end a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum EndTokens {
    One(u32),
    Several(Vec<u32>),
}

impl EndTokens {
    fn all(&self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![*id],
            Self::Several(ids) => ids.clone(),
        }
    }
}

/// `rope_scaling`, or as newer versions of transformers write it, `rope_parameters`.
#[derive(Deserialize)]
struct RotaryFields {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    truncate: Option<bool>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    partial_rotary_factor: Option<f64>,
}

fn initializer_range() -> f64 {
    0.02
}

const EPSILON: f64 = 1e-6;
const STARCODER2_EPSILON: f64 = 1e-5;
const THETA: f64 = 10_000.0;
/// What a layer is called that attends to all of its sequence.
const GLOBAL: &str = "full_attention";

fn read(file: &ConfigFile, family: Family) -> Result<EncoderConfig, Error> {
    let found: Fields = file.fields()?;
    let heads = found.num_attention_heads;
    if let Some(size) = found.head_dim
        && size.saturating_mul(heads) != found.hidden_size
    {
        let supported = "`hidden_size` / `num_attention_heads`";
        return Err(file.unsupported("head_dim", &size.to_string(), supported));
    }
    refuse_local_layers(file, &found)?;
    let starcoder = family == Family::Starcoder2;
    let bias = starcoder && found.use_bias.unwrap_or(true);
    let epsilon = if starcoder {
        found.norm_epsilon.unwrap_or(STARCODER2_EPSILON)
    } else {
        found.rms_norm_eps.unwrap_or(EPSILON)
    };
    Ok(EncoderConfig {
        family,
        hidden_size: found.hidden_size,
        layers: found.num_hidden_layers,
        attention_heads: heads,
        key_value_heads: found.num_key_value_heads.unwrap_or(heads),
        intermediate_size: found.intermediate_size,
        vocabulary_size: found.vocab_size,
        position_embeddings: positions(&found, family),
        token_types: None,
        text_separator: None,
        biases: Biases {
            attention: match family {
                Family::Qwen2 => true,
                Family::Starcoder2 => bias,
                _ => found.attention_bias,
            },
            attention_output: match family {
                Family::Qwen2 => false,
                Family::Starcoder2 => bias,
                _ => found.attention_bias,
            },
            feed_forward: bias || (family == Family::Llama && found.mlp_bias),
            // Of LayerNorms; an RMSNorm has none.
            norms: starcoder,
        },
        rotary: Some(rotary(file, &found)?),
        attention_pattern: AttentionPattern::Causal,
        local: None,
        activation: activation(file, found.hidden_act.as_deref(), starcoder)?,
        layer_norm_epsilon: epsilon,
        dropout: DropoutRates {
            embeddings: found.embedding_dropout,
            probabilities: found.attention_dropout,
            attention: starcoder.then_some(found.residual_dropout),
            feed_forward: found.residual_dropout,
            head: 0.0,
        },
        initializer_range: found.initializer_range,
        padding_id: found.pad_token_id.unwrap_or(0),
        head: HeadConfig::USUAL,
        end_tokens: found
            .eos_token_id
            .as_ref()
            .map_or_else(Vec::new, EndTokens::all),
        // StarCoder2's are tied unless it says otherwise, the others' are not.
        tied_language_head: found.tie_word_embeddings.unwrap_or(starcoder),
    })
}

/// How long a sequence may be: where a layer attends to near tokens only, as far as that is all of
/// them.
fn positions(found: &Fields, family: Family) -> usize {
    // Qwen2 writes the window even when it is off.
    let on = found.use_sliding_window.unwrap_or(family != Family::Qwen2);
    let window = found.sliding_window.filter(|_| on);
    window.map_or(found.max_position_embeddings, |window| {
        window.min(found.max_position_embeddings)
    })
}

/// Of layers that attend to near tokens only between others, it is not told how long a sequence they
/// see whole.
fn refuse_local_layers(file: &ConfigFile, found: &Fields) -> Result<(), Error> {
    let mut kinds = found.layer_types.iter().flatten();
    match kinds.find(|kind| *kind != GLOBAL) {
        Some(local) if found.sliding_window.is_none() => {
            let found = format!("{local:?} in one layer");
            Err(file.unsupported("layer_types", &found, "\"full_attention\""))
        }
        _ => Ok(()),
    }
}

fn activation(
    file: &ConfigFile,
    named: Option<&str>,
    starcoder: bool,
) -> Result<BlockActivation, Error> {
    match named {
        None if starcoder => Ok(BlockActivation::GeluTanh),
        None | Some("silu" | "swish") => Ok(BlockActivation::Silu),
        Some("gelu") => Ok(BlockActivation::Gelu),
        Some("gelu_pytorch_tanh" | "gelu_new") => Ok(BlockActivation::GeluTanh),
        Some(other) => Err(file.unsupported(
            "hidden_act",
            &format!("{other:?}"),
            "\"silu\", \"gelu\", \"gelu_pytorch_tanh\"",
        )),
    }
}

/// How queries and keys are turned: by `rope_parameters`, or by `rope_theta` and `rope_scaling`.
fn rotary(file: &ConfigFile, found: &Fields) -> Result<RotaryPositions, Error> {
    let fields = found
        .rope_parameters
        .as_ref()
        .or(found.rope_scaling.as_ref());
    let theta = fields.and_then(|fields| fields.rope_theta);
    let theta = theta.or(found.rope_theta).unwrap_or(THETA);
    if theta <= 0.0 {
        return Err(file.problem(format!("a rotary theta of {theta} is not above 0")));
    }
    let Some(fields) = fields else {
        return Ok(RotaryPositions::unscaled(theta));
    };
    if fields
        .partial_rotary_factor
        .is_some_and(|share| share < 1.0)
    {
        let share = fields.partial_rotary_factor.unwrap_or_default();
        return Err(file.unsupported("partial_rotary_factor", &share.to_string(), "1.0"));
    }
    let number = |name: &str, number: Option<f64>| match number {
        Some(number) if number > 0.0 => Ok(number),
        Some(number) => Err(file.problem(format!("`{name}` {number} is not above 0"))),
        None => Err(file.problem(format!("`{name}` is missing beside `rope_type`"))),
    };
    let original = fields
        .original_max_position_embeddings
        .unwrap_or(found.max_position_embeddings);
    let scaling = match fields.rope_type.as_deref() {
        None | Some("default") => RotaryScaling::None,
        Some("linear") => RotaryScaling::Linear {
            factor: number("factor", fields.factor)?,
        },
        Some("llama3") => RotaryScaling::Llama3 {
            factor: number("factor", fields.factor)?,
            low_frequency_factor: number("low_freq_factor", fields.low_freq_factor)?,
            high_frequency_factor: number("high_freq_factor", fields.high_freq_factor)?,
            original_positions: original,
        },
        Some("yarn") => {
            let factor = number("factor", fields.factor)?;
            RotaryScaling::Yarn {
                factor,
                fast: fields.beta_fast.unwrap_or(32.0),
                slow: fields.beta_slow.unwrap_or(1.0),
                truncate: fields.truncate.unwrap_or(true),
                attention_factor: yarn_attention_factor(fields, factor),
                original_positions: original,
            }
        }
        Some(other) => {
            let supported = "\"default\", \"linear\", \"llama3\", \"yarn\"";
            return Err(file.unsupported("rope_type", &format!("{other:?}"), supported));
        }
    };
    Ok(RotaryPositions { theta, scaling })
}

/// What turned vectors are multiplied by: `0.1 ln(factor) + 1` (Peng et al., 2023, equation 22),
/// unless the file says otherwise.
fn yarn_attention_factor(fields: &RotaryFields, factor: f64) -> f64 {
    let length = |weight: f64| {
        if factor <= 1.0 {
            1.0
        } else {
            0.1 * weight * factor.ln() + 1.0
        }
    };
    match (
        fields.attention_factor,
        fields.mscale,
        fields.mscale_all_dim,
    ) {
        (Some(factor), ..) => factor,
        (None, Some(weight), Some(all)) if weight != 0.0 && all != 0.0 => {
            length(weight) / length(all)
        }
        _ => length(1.0),
    }
}
