//! An encoder's embeddings and bottom layers, or some of its layers alone, as an ONNX graph of
//! standard operators.

use super::builder::{Attribute, Axis, GraphBuilder, OnnxModel, Value};
use super::scores::Shared;
use super::{linear, positions};
use crate::checkpoint::{self, Checkpoint, EncoderConfig, Linear, Norm, Positions, Table, Weights};
use crate::frozen::FrozenPrecision;

/// The graph's name for its token ids, i64 `[batch, length]`.
pub const INPUT_IDS: &str = "input_ids";
/// The graph's name for its mask, i64 `[batch, length]`: 1 for a token, 0 for padding.
pub const ATTENTION_MASK: &str = "attention_mask";
/// The name of the external data file while the model is in memory.
pub const DATA_FILE: &str = "frozen.onnx.data";

/// The graph's name for the hidden state after `layers` layers, f32 `[batch, length, hidden]`.
pub fn hidden_state(layers: usize) -> String {
    format!("hidden_states.{layers}")
}

/// What a graph starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Token ids: the embeddings are part of it.
    TokenIds,
    /// The hidden states after so many layers, its input of that [`hidden_state`]'s name.
    HiddenStates(usize),
}

/// Writes what leads from `start` to the deepest of `depths`, with one output for each of `depths`:
/// the hidden state after that many layers.
///
/// Matrices keep their names but are stored `[inputs, outputs]`, as MatMul reads them. All
/// operators are standard in fp32 and fp16; in int8, linear layers are ONNX Runtime's MatMulNBits, see
/// [`FrozenPrecision::Int8`], and everything else stays fp32, as it does in fp16.
///
/// # Panics
/// If `depths` is empty, asks for more layers than the checkpoint has, or for none from hidden
/// states on.
pub fn write(
    checkpoint: &Checkpoint,
    start: Start,
    depths: &[usize],
    precision: FrozenPrecision,
    data_location: &str,
) -> Result<OnnxModel, checkpoint::Error> {
    let deepest = *depths.iter().max().expect("at least one depth");
    assert!(
        deepest <= checkpoint.config.layers,
        "more layers than there are"
    );
    let mut writer = EncoderWriter {
        graph: GraphBuilder::new("encoder", data_location),
        config: &checkpoint.config,
        weights: &checkpoint.weights,
        precision,
    };
    let (first, input) = match start {
        Start::TokenIds => (0, writer.graph.input(INPUT_IDS, &batch_by_length())),
        Start::HiddenStates(layers) => {
            let shallowest = *depths.iter().min().expect("at least one depth");
            assert!(shallowest > layers, "no layers in between");
            // The names of the sizes are those of what the embeddings put out, see `count_up`:
            // they decide what ONNX Runtime fuses, and only the same kernels give the same bits.
            let length = match checkpoint.config.embeddings().positions {
                Some((_, Positions::FromZero)) => Axis::Unnamed,
                Some((_, Positions::AfterPadding)) | None => Axis::Dynamic("length"),
            };
            let width = Axis::Fixed(checkpoint.config.hidden_size);
            let axes = [Axis::Dynamic("batch"), length, width];
            let input = writer.graph.float_input(&hidden_state(layers), &axes);
            (layers, input)
        }
    };
    let mask = writer.graph.input(ATTENTION_MASK, &batch_by_length());
    let mut hidden = match start {
        Start::TokenIds => writer.embeddings(&input, &mask)?,
        Start::HiddenStates(_) => input,
    };
    let EncoderWriter {
        graph,
        config,
        weights,
        ..
    } = &mut writer;
    let mut shared = Shared::new(graph, config, weights, &mask, deepest > first)?;
    for layer in first..=deepest {
        if depths.contains(&layer) {
            let axes = [
                Axis::Dynamic("batch"),
                Axis::Dynamic("length"),
                Axis::Fixed(checkpoint.config.hidden_size),
            ];
            writer.graph.output(&hidden_state(layer), &hidden, &axes);
        }
        if layer < deepest {
            hidden = writer.layer(layer, &hidden, &mut shared)?;
        }
    }
    Ok(writer.graph.finish())
}

/// A graph under construction that computes all of `checkpoint`'s layers.
pub(super) struct OpenGraph {
    pub(super) graph: GraphBuilder,
    /// The mask, i64 `[batch, length]`.
    pub(super) mask: Value,
    /// The last layer's output, f32 `[batch, length, hidden]`.
    pub(super) hidden: Value,
}

/// Writes all of `checkpoint`'s layers, from token ids on, for more to be put on top.
pub(super) fn write_all_layers(
    checkpoint: &Checkpoint,
    name: &str,
    precision: FrozenPrecision,
    data_location: &str,
) -> Result<OpenGraph, checkpoint::Error> {
    let mut writer = EncoderWriter {
        graph: GraphBuilder::new(name, data_location),
        config: &checkpoint.config,
        weights: &checkpoint.weights,
        precision,
    };
    let ids = writer.graph.input(INPUT_IDS, &batch_by_length());
    let mask = writer.graph.input(ATTENTION_MASK, &batch_by_length());
    let mut hidden = writer.embeddings(&ids, &mask)?;
    let EncoderWriter {
        graph,
        config,
        weights,
        ..
    } = &mut writer;
    let mut shared = Shared::new(graph, config, weights, &mask, true)?;
    for layer in 0..checkpoint.config.layers {
        hidden = writer.layer(layer, &hidden, &mut shared)?;
    }
    if let Some(norm) = checkpoint.config.final_norm() {
        hidden = writer.norm(&norm, &hidden)?;
    }
    Ok(OpenGraph {
        graph: writer.graph,
        mask,
        hidden,
    })
}

fn batch_by_length() -> [Axis; 2] {
    [Axis::Dynamic("batch"), Axis::Dynamic("length")]
}

pub(super) struct EncoderWriter<'a> {
    pub(super) graph: GraphBuilder,
    pub(super) config: &'a EncoderConfig,
    weights: &'a Weights,
    precision: FrozenPrecision,
}

impl EncoderWriter<'_> {
    /// Sum of word and, where there are any, position and token type embeddings, normalised.
    fn embeddings(&mut self, ids: &Value, mask: &Value) -> Result<Value, checkpoint::Error> {
        let blocks = self.config.embeddings();
        let scope = "embeddings";
        let words = self.table(&blocks.words)?;
        let positions = match &blocks.positions {
            Some((table, numbering)) => Some((self.table(table)?, *numbering)),
            None => None,
        };
        let types = match &blocks.token_types {
            Some((table, types)) => Some((self.table(table)?, *types)),
            None => None,
        };
        let graph = &mut self.graph;
        let axis = || [Attribute::Int("axis", 0)];
        let mut sum = graph.node(scope, "Gather", &[&words, ids], &axis());
        let position = positions.map(|(table, numbering)| {
            let rows = positions::rows(graph, numbering, self.config.padding_id, [ids, mask]);
            graph.node(scope, "Gather", &[&table, &rows], &axis())
        });
        if let Some((table, types)) = types {
            let rows = positions::types(graph, types, ids);
            let token_type = graph.node(scope, "Gather", &[&table, &rows], &axis());
            sum = graph.node(scope, "Add", &[&sum, &token_type], &[]);
        }
        if let Some(position) = position {
            sum = graph.node(scope, "Add", &[&sum, &position], &[]);
        }
        self.norm(&blocks.norm, &sum)
    }

    pub(super) fn linear(
        &mut self,
        linear: &Linear,
        input: &Value,
    ) -> Result<Value, checkpoint::Error> {
        let (graph, weights) = (&mut self.graph, self.weights);
        linear::write(graph, weights, self.precision, linear, input)
    }

    /// `input` as it is where there is no norm.
    pub(super) fn norm_if_any(
        &mut self,
        norm: Option<&Norm>,
        input: &Value,
    ) -> Result<Value, checkpoint::Error> {
        norm.map_or_else(|| Ok(input.clone()), |norm| self.norm(norm, input))
    }

    pub(super) fn norm(&mut self, norm: &Norm, input: &Value) -> Result<Value, checkpoint::Error> {
        write_norm(&mut self.graph, self.config, self.weights, norm, input)
    }

    fn table(&mut self, table: &Table) -> Result<Value, checkpoint::Error> {
        let shape = [table.rows, self.config.hidden_size];
        self.weight(&format!("{}.weight", table.name), &shape)
    }

    fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Value, checkpoint::Error> {
        let numbers = self.weights.tensor(name, shape)?;
        Ok(self.graph.weight(name, shape, &numbers))
    }
}

/// The norm `norm` over the last axis of `input`, which is as wide as a hidden state.
#[allow(clippy::cast_possible_truncation)] // An epsilon is a round decimal number.
pub(super) fn write_norm(
    graph: &mut GraphBuilder,
    config: &EncoderConfig,
    weights: &Weights,
    norm: &Norm,
    input: &Value,
) -> Result<Value, checkpoint::Error> {
    let mut inputs = vec![input.clone()];
    for (name, shape) in norm.tensors(config.hidden_size) {
        let numbers = weights.tensor(&name, &shape)?;
        inputs.push(graph.weight(&name, &shape, &numbers));
    }
    let inputs: Vec<&Value> = inputs.iter().collect();
    let attributes = [
        Attribute::Int("axis", -1),
        Attribute::Float("epsilon", config.layer_norm_epsilon as f32),
    ];
    let operator = "LayerNormalization";
    Ok(graph.node(&norm.name, operator, &inputs, &attributes))
}
