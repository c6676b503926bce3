//! One vector a text at every layer, out of one pass.

use std::ops::ControlFlow;

use serde::Serialize;

use super::Error;
use crate::frozen::{self, ComputedBatch, FrozenEncoder};
use crate::interrupt;
use crate::progress::Progress;
use crate::ragged::Ragged;

/// What a text's vector is the mean over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TextPooling {
    /// Its tokens, special ones included.
    #[default]
    Masked,
    /// All positions up to the greatest length, padding included, as in the paper's study.
    Unmasked,
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
    let lengths: Vec<usize> = (0..sequences.len())
        .map(|index| sequences.length(index))
        .collect();
    if let Some(sequence) = lengths.iter().position(|&length| length == 0) {
        let text = text_of(sequence);
        return Err(Error::NoTokens { text });
    }
    let padded: Vec<usize> = lengths
        .iter()
        .map(|&length| length.max(frozen.padded_length()))
        .collect();
    let batches = frozen.batch_size().batches(&padded);
    let (width, depths) = (frozen.hidden_size(), frozen.depths().len());
    let mut layers = vec![vec![0.0; sequences.len() * width]; depths];
    let mut progress = Progress::new(label, sequences.tokens() as u64, "tokens");
    let (mut beyond, mut stopped) = (None, false);
    let run = frozen.run(sequences, &batches, &mut |batch| {
        let mut pool = |(index, states): (usize, Vec<&[f32]>)| {
            for (vectors, states) in layers.iter_mut().zip(states) {
                let vector = &mut vectors[index * width..][..width];
                mean(states, vector);
                if vector.iter().any(|number| !number.is_finite()) {
                    beyond.get_or_insert(index);
                }
            }
        };
        match pooling {
            TextPooling::Masked => ComputedBatch::iter(batch).for_each(&mut pool),
            TextPooling::Unmasked => batch.padded().for_each(&mut pool),
        }
        progress.advance(batch.tokens() as u64);
        stopped = interrupt::requested();
        if stopped || beyond.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    run.map_err(|error| match error {
        frozen::Error::NotFinite { sequence } => Error::NotFinite {
            text: text_of(sequence),
        },
        other => other.into(),
    })?;
    if let Some(sequence) = beyond {
        let text = text_of(sequence);
        return Err(Error::NotFinite { text });
    }
    if stopped {
        return Err(Error::Interrupted);
    }
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
fn mean(states: &[f32], vector: &mut [f32]) {
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
