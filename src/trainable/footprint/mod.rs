//! What passes over the trainable half take, told from shapes alone.
//!
//! [`fused`] is told by lending the same buffers in the same order as the written-out layers do,
//! [`composed`] by adding up what candle keeps. Tests compare both with the real passes, to the byte.

mod composed;
mod fused;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use composed::Composed;

use super::{MixedPrecision, Pooling};
use crate::checkpoint::{
    AttentionPattern, DropoutRates, Embeddings, EncoderConfig, Freeze, Layer, Linear, Norm,
    Projections,
};

/// Bytes of a number in fp32.
const FULL: usize = size_of::<f32>();

/// The sizes of what is trained, without the head.
#[derive(Debug, Clone)]
pub struct Footprint {
    hidden: usize,
    heads: usize,
    key_value_heads: usize,
    pattern: AttentionPattern,
    layers: Vec<Layer>,
    embeddings: Option<Embeddings>,
    final_norm: Option<Norm>,
    dropout: DropoutRates,
    /// Whether positions are told apart by a bias of the scores, and its table is trained.
    relative_positions: Option<bool>,
    /// Tokens that the model knows.
    pub vocabulary: usize,
    /// Numbers of the parameters.
    pub parameters: usize,
    /// Numbers of the largest linear layer's weight.
    pub widest: usize,
}

/// The part of a batch that is worked on at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartShape {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of all of them.
    pub tokens: usize,
    /// Tokens of the longest.
    pub longest: usize,
    /// What is read of the last states.
    pub pooling: Pooling,
    /// Tokens that are read where those are that are scored.
    pub scored: usize,
    /// What matrix products compute in.
    pub mixed_precision: MixedPrecision,
    /// Whether of each layer but the top one its input alone is kept.
    pub recompute: bool,
}

impl PartShape {
    /// Vectors that are read of the last states.
    fn vectors(&self) -> usize {
        match self.pooling {
            Pooling::Cls | Pooling::Mean => self.sequences,
            Pooling::Scored => self.scored,
        }
    }

    /// Rows of the last states that are read, if not all.
    fn rows_read(&self) -> Option<usize> {
        match self.pooling {
            Pooling::Cls => Some(self.sequences),
            Pooling::Mean => None,
            Pooling::Scored => (self.scored < self.tokens).then_some(self.scored),
        }
    }
}

impl Footprint {
    /// What `freeze` leaves to train of an encoder.
    pub fn new(config: &EncoderConfig, freeze: Freeze) -> Self {
        let layers = freeze.layers()..config.layers;
        let trained = freeze.layers() == 0;
        let relative_positions = (!layers.is_empty()).then_some(trained);
        let mut footprint = Self::of(config, freeze == Freeze::Nothing, layers);
        let relative = config.relative_positions();
        let (_, table) = relative
            .as_ref()
            .map_or(("", [0, 0]), |(name, shape)| (name, *shape));
        footprint.relative_positions = relative.and(relative_positions);
        if footprint.relative_positions == Some(true) {
            footprint.parameters += table[0] * table[1];
        }
        footprint.final_norm = config.final_norm();
        footprint.parameters += footprint
            .final_norm
            .as_ref()
            .map_or(0, |norm| of_norm(norm, config.hidden_size));
        footprint
    }

    /// What the frozen half is compared with: the embeddings and the bottom `layers` layers.
    pub fn bottom(config: &EncoderConfig, layers: usize) -> Self {
        let mut footprint = Self::of(config, true, 0..layers);
        if let Some((_, [buckets, heads])) = config.relative_positions() {
            footprint.relative_positions = Some(true);
            footprint.parameters += buckets * heads;
        }
        footprint.dropout.set_all(0.0);
        footprint
    }

    fn of(config: &EncoderConfig, embeddings: bool, layers: Range<usize>) -> Self {
        let hidden = config.hidden_size;
        let embeddings = embeddings.then(|| config.embeddings());
        let layers: Vec<Layer> = layers.map(|layer| config.layer(layer)).collect();
        let of_layers = layers.iter().map(|layer| of_layer(layer, hidden));
        let of_embeddings = embeddings
            .as_ref()
            .map_or(0, |tables| of_embeddings(tables, hidden));
        let linears = layers.iter().flat_map(linears);
        Self {
            parameters: of_embeddings + of_layers.sum::<usize>(),
            widest: linears
                .map(|linear| linear.outputs * linear.inputs)
                .max()
                .unwrap_or(0),
            vocabulary: config.vocabulary_size,
            hidden,
            heads: config.attention_heads,
            key_value_heads: config.key_value_heads,
            pattern: config.attention_pattern,
            layers,
            embeddings,
            final_norm: None,
            dropout: config.dropout,
            relative_positions: None,
        }
    }

    /// The same without dropout, as it is evaluated.
    #[must_use]
    pub fn evaluated(&self) -> Self {
        let mut footprint = self.clone();
        footprint.dropout.set_all(0.0);
        footprint
    }

    /// Width of all heads' keys.
    fn key_value_size(&self) -> usize {
        self.hidden / self.heads * self.key_value_heads
    }

    /// Width of a hidden state.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Numbers of the parameters of the largest layer.
    pub fn layer_parameters(&self) -> usize {
        let layers = self.layers.iter();
        let layers = layers.map(|layer| of_layer(layer, self.hidden));
        layers.max().unwrap_or(0)
    }

    /// Numbers of the table of words, where it is trained.
    pub fn words(&self) -> usize {
        let rows = self
            .embeddings
            .as_ref()
            .map_or(0, |tables| tables.words.rows);
        rows * self.hidden
    }
}

/// Numbers of the embeddings' parameters.
fn of_embeddings(tables: &Embeddings, hidden: usize) -> usize {
    let positions = tables.positions.as_ref().map_or(0, |(table, _)| table.rows);
    let types = tables
        .token_types
        .as_ref()
        .map_or(0, |(table, _)| table.rows);
    let norm = tables.norm.as_ref();
    let norm = norm.map_or(0, |norm| of_norm(norm, hidden));
    (tables.words.rows + positions + types) * hidden + norm
}

/// Numbers of a layer's parameters.
fn of_layer(layer: &Layer, hidden: usize) -> usize {
    let norms = layer
        .attention
        .norm
        .iter()
        .chain([&layer.feed_forward.norm]);
    let norms = norms.map(|norm| of_norm(norm, hidden));
    linears(layer).map(of_linear).chain(norms).sum()
}

fn linears(layer: &Layer) -> impl Iterator<Item = &Linear> {
    let feed_forward = &layer.feed_forward;
    let linears = layer.attention.projections.linears().iter();
    let linears = linears.chain([&layer.attention.output]);
    let linears = linears.chain(feed_forward.wide.linears());
    linears.chain([&feed_forward.narrow])
}

fn of_linear(linear: &Linear) -> usize {
    linear.outputs * linear.inputs + if linear.bias { linear.outputs } else { 0 }
}

fn of_norm(norm: &Norm, hidden: usize) -> usize {
    hidden * (1 + usize::from(norm.bias))
}

fn is_fused(projections: &Projections) -> bool {
    matches!(projections, Projections::Fused(_))
}

fn bytes(numbers: usize) -> u64 {
    (numbers * FULL) as u64
}
