//! One vector a text at every layer, out of one pass.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Error;
use super::each_sequence::each_sequence;
use crate::frozen::FrozenEncoder;
use crate::ragged::Ragged;

/// What a text's vector is the mean over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TextPooling {
    /// Its tokens, special ones included.
    #[default]
    Masked,
    /// All positions up to the greatest length, padding included, as in the paper's study.
    Unmasked,
}

impl fmt::Display for TextPooling {
    /// As on the command line.
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Masked => "masked",
            Self::Unmasked => "unmasked",
        })
    }
}

/// The vectors of some texts at every layer of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerVectors {
    /// How many texts.
    pub texts: usize,
    /// Numbers a vector.
    pub width: usize,
    /// From the embeddings on, `[texts, width]` flat.
    pub layers: Vec<Vec<f32>>,
}

/// The mean of the hidden states of each text, at every depth of `frozen`, whose order is kept. Text
/// `i` is the sequence `rows[i]` of `sequences`.
///
/// With [`TextPooling::Unmasked`] the mean is over as many positions as `frozen` pads to. Batches are
/// pooled as they are done: what is held is a vector a text and layer. `label` stands before the
/// progress.
pub fn layer_vectors(
    frozen: &mut FrozenEncoder,
    sequences: &Ragged<u32>,
    rows: &[u32],
    pooling: TextPooling,
    label: &str,
) -> Result<LayerVectors, Error> {
    let text_of = |sequence: usize| {
        let text = rows.iter().position(|&row| row as usize == sequence);
        text.map_or(0, |text| text + 1)
    };
    let (width, depths) = (frozen.hidden_size(), frozen.depths().len());
    let mut layers = vec![vec![0.0; sequences.len() * width]; depths];
    let pool = &mut |index: usize, states: &[&[f32]]| {
        for (vectors, states) in layers.iter_mut().zip(states) {
            mean(states, &mut vectors[index * width..][..width]);
        }
    };
    each_sequence(frozen, sequences, pooling, label, pool).map_err(|error| match error {
        Error::NoTokens { text } => Error::NoTokens {
            text: text_of(text - 1),
        },
        Error::NotFinite { text } => Error::NotFinite {
            text: text_of(text - 1),
        },
        other => other,
    })?;
    for vectors in &mut layers {
        *vectors = of_rows(vectors, rows, width);
    }
    Ok(LayerVectors {
        texts: rows.len(),
        width,
        layers,
    })
}

/// The mean of `states` `[positions, width]` into `vector`.
#[allow(clippy::cast_possible_truncation, reason = "rounded from 64 bits")]
pub(super) fn mean(states: &[f32], vector: &mut [f32]) {
    let mut sums = vec![0.0f64; vector.len()];
    for state in states.chunks_exact(vector.len()) {
        for (sum, &number) in sums.iter_mut().zip(state) {
            *sum += f64::from(number);
        }
    }
    let positions = (states.len() / vector.len()) as f64;
    for (number, sum) in vector.iter_mut().zip(sums) {
        *number = (sum / positions) as f32;
    }
}

/// The vectors named by `rows` out of `vectors` `[sequences, width]`.
fn of_rows(vectors: &[f32], rows: &[u32], width: usize) -> Vec<f32> {
    let rows = rows.iter().map(|&row| row as usize * width);
    rows.flat_map(|start| &vectors[start..start + width])
        .copied()
        .collect()
}
