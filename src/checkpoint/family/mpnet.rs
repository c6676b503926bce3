//! MPNet (Song et al., 2020: all-mpnet-base-v2): BERT's layers, RoBERTa's positions, no token types
//! and a bias by relative position that all layers share.

use serde::Deserialize;

use super::bert::{self, BERT, NAMES};
use super::roberta::HEAD;
use super::{Description, Family, Names, Positions, ProjectionNames};
use crate::checkpoint::config::ConfigFile;
use crate::checkpoint::relative_position::RELATIVE_BUCKETS;
use crate::checkpoint::{EncoderConfig, Error};

pub(super) const MPNET: Description = Description {
    model_type: "mpnet",
    prefix: "mpnet.",
    read,
    names: Names {
        relative_positions: Some("encoder.relative_attention_bias.weight"),
        projections: ProjectionNames::Separate([
            "attention.attn.q",
            "attention.attn.k",
            "attention.attn.v",
        ]),
        attention_output: "attention.attn.o",
        attention_norm: "attention.LayerNorm",
        ..NAMES
    },
    positions: Some(Positions::AfterPadding),
    class: "MPNet",
    sequence_head: Some(HEAD),
    ..BERT
};

/// What its position embeddings have built in as the padding token's id, whatever `config.json`
/// says.
const PADDING_ID: u32 = 1;

#[derive(Deserialize)]
struct Fields {
    relative_attention_num_buckets: Option<usize>,
}

fn read(file: &ConfigFile) -> Result<EncoderConfig, Error> {
    let config = bert::read(file, Family::Mpnet, PADDING_ID)?;
    let found: Fields = file.fields()?;
    if let Some(buckets) = found.relative_attention_num_buckets
        && buckets != RELATIVE_BUCKETS
    {
        let field = "relative_attention_num_buckets";
        return Err(file.unsupported(field, &buckets.to_string(), "32"));
    }
    Ok(EncoderConfig {
        token_types: None,
        padding_id: PADDING_ID,
        ..config
    })
}
