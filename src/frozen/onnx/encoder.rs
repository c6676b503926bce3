//! An encoder's embeddings and bottom layers, or some of its layers alone, as an ONNX graph of
//! standard operators.

use super::builder::{Attribute, Axis, GraphBuilder, OnnxModel, Value};
use super::scores::{Reach, Shared};
use super::{linear, positions};
use crate::checkpoint::{
    self, AttentionPattern, Checkpoint, EncoderConfig, Linear, Norm, NormKind, Positions,
    PrefixRule, Table, Weights,
};
use crate::frozen::FrozenPrecision;

/// The graph's name for its token ids, i64 `[batch, length]`.
pub const INPUT_IDS: &str = "input_ids";
/// The graph's name for its mask, i64 `[batch, length]`: 1 for a token, 0 for padding.
pub const ATTENTION_MASK: &str = "attention_mask";
/// The graph's name for the number of tokens of each sequence that all of its tokens attend to, i64
/// `[batch]`: its input where the attention pattern is not bidirectional. With it a graph computes
/// all three patterns.
pub const PREFIX_LENGTHS: &str = "prefix_lengths";
/// The name of the external data file while the model is in memory.
pub const DATA_FILE: &str = "frozen.onnx.data";

/// Rows of a table of embeddings that are copied at a time.
const TABLE_PART_ROWS: usize = 2048;

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
/// operators are standard but for int8, where linear layers are ONNX Runtime's MatMulNBits, see
/// [`FrozenPrecision::Int8`]; everything else stays fp32, as it does in fp16 and bf16. The graph of
/// tf32 is that of fp32.
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
    let prefix_lengths = writer.prefix_lengths();
    let prefix_lengths = prefix_lengths.as_ref();
    let mut hidden = match start {
        Start::TokenIds => {
            let places = Places::Counted {
                mask: &mask,
                prefix_lengths,
            };
            writer.embeddings(&input, places)?
        }
        Start::HiddenStates(_) => input,
    };
    let EncoderWriter {
        graph,
        config,
        weights,
        ..
    } = &mut writer;
    let reach = Reach {
        mask: &mask,
        prefix_lengths,
        last: None,
    };
    let mut shared = Shared::new(graph, config, weights, &reach, deepest > first)?;
    for layer in first..=deepest {
        // What was read before has been copied.
        checkpoint.weights.release();
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
    // What is put on top reads one vector a sequence: that of a decoder has no prefix.
    let no_prefix = (!writer.config.attention_pattern.is_bidirectional())
        .then(|| writer.graph.int("no_prefix", &[1], &[0]));
    let places = Places::Counted {
        mask: &mask,
        prefix_lengths: no_prefix.as_ref(),
    };
    let mut hidden = writer.embeddings(&ids, places)?;
    let EncoderWriter {
        graph,
        config,
        weights,
        ..
    } = &mut writer;
    let reach = Reach {
        mask: &mask,
        prefix_lengths: no_prefix.as_ref(),
        last: None,
    };
    let mut shared = Shared::new(graph, config, weights, &reach, true)?;
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

pub(super) fn batch_by_length() -> [Axis; 2] {
    [Axis::Dynamic("batch"), Axis::Dynamic("length")]
}

/// Where the tokens of a sequence stand.
#[derive(Clone, Copy)]
pub(super) enum Places<'a> {
    /// Each at its place among those of the mask `[batch, length]`, behind a prefix as the attention
    /// pattern says.
    Counted {
        mask: &'a Value,
        prefix_lengths: Option<&'a Value>,
    },
    /// At these rows of the position embeddings, `[batch, length]`.
    Given(&'a Value),
}

pub(super) struct EncoderWriter<'a> {
    pub(super) graph: GraphBuilder,
    pub(super) config: &'a EncoderConfig,
    pub(super) weights: &'a Weights,
    pub(super) precision: FrozenPrecision,
}

impl EncoderWriter<'_> {
    /// Declares [`PREFIX_LENGTHS`] where the attention pattern asks for them.
    pub(super) fn prefix_lengths(&mut self) -> Option<Value> {
        let wanted = !self.config.attention_pattern.is_bidirectional();
        let axes = [Axis::Dynamic("batch")];
        wanted.then(|| self.graph.input(PREFIX_LENGTHS, &axes))
    }

    /// Sum of word and, where there are any, position and token type embeddings, normalised where
    /// the family does so.
    pub(super) fn embeddings(
        &mut self,
        ids: &Value,
        places: Places,
    ) -> Result<Value, checkpoint::Error> {
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
            let rows = match places {
                Places::Given(rows) => rows.clone(),
                Places::Counted {
                    mask,
                    prefix_lengths,
                } => {
                    let padding = self.config.padding_id;
                    let rows = positions::rows(graph, numbering, padding, [ids, mask]);
                    match (prefix_lengths, self.config.attention_pattern) {
                        (
                            Some(prefix_lengths),
                            AttentionPattern::Prefix(PrefixRule {
                                padded_source: Some(padded),
                                ..
                            }),
                        ) => {
                            let lengths = [mask, prefix_lengths];
                            positions::behind_padding(graph, &rows, padded, lengths)
                        }
                        _ => rows,
                    }
                }
            };
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
        self.norm_if_any(blocks.norm.as_ref(), &sum)
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
        let (name, shape) = (
            format!("{}.weight", table.name),
            [table.rows, self.config.hidden_size],
        );
        let weights = self.weights;
        let mut first = 0;
        let parts = std::iter::from_fn(|| {
            // That of the words is most of a small model: in parts it is in memory once.
            weights.release();
            let rows = first..table.rows.min(first + TABLE_PART_ROWS);
            first = rows.end;
            (!rows.is_empty()).then(|| weights.rows(&name, shape, rows))
        });
        self.graph.weight_of_parts(&name, &shape, parts)
    }

    pub(super) fn weight(
        &mut self,
        name: &str,
        shape: &[usize],
    ) -> Result<Value, checkpoint::Error> {
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
    if norm.kind == NormKind::RootMeanSquare {
        return Ok(root_mean_square(
            graph,
            config,
            norm,
            [inputs[0], inputs[1]],
        ));
    }
    let attributes = [
        Attribute::Int("axis", -1),
        Attribute::Float("epsilon", config.layer_norm_epsilon as f32),
    ];
    let operator = "LayerNormalization";
    Ok(graph.node(&norm.name, operator, &inputs, &attributes))
}

/// `x / √(mean of x² + ε) · weight`, in operators that ONNX Runtime knows to put together.
#[allow(clippy::cast_possible_truncation)] // An epsilon is a round decimal number.
fn root_mean_square(
    graph: &mut GraphBuilder,
    config: &EncoderConfig,
    norm: &Norm,
    [x, weight]: [&Value; 2],
) -> Value {
    let scope = &norm.name;
    let two = graph.float("two_float", 2.0);
    let squares = graph.node(scope, "Pow", &[x, &two], &[]);
    let axis = graph.int("width_axis", &[1], &[-1]);
    let mean = graph.node(scope, "ReduceMean", &[&squares, &axis], &[]);
    let epsilon = graph.float("norm_epsilon", config.layer_norm_epsilon as f32);
    let mean = graph.node(scope, "Add", &[&mean, &epsilon], &[]);
    let root = graph.node(scope, "Sqrt", &[&mean], &[]);
    let scaled = graph.node(scope, "Div", &[x, &root], &[]);
    graph.node(scope, "Mul", &[&scaled, weight], &[])
}
