//! A whole model that writes text as one graph: embeddings, every layer with the keys and values of
//! earlier tokens, and the output matrix. Inputs and outputs have the names that Hugging Face's
//! optimum gives them.

use super::builder::{Attribute, Axis, GraphBuilder, Value};
use super::encoder::{ATTENTION_MASK, EncoderWriter, INPUT_IDS, Places, batch_by_length};
use super::scores::{Past, Reach, Shared};
use super::whole::{WholeModel, data_name};
use crate::checkpoint::{self, AttentionPattern, Checkpoint, OUTPUT_MATRIX};
use crate::frozen::FrozenPrecision;

/// The graph's name for where its tokens stand, i64 `[batch, length]`: rows of the position
/// embeddings, or what rotary angles are multiplied by.
pub const POSITION_IDS: &str = "position_ids";
/// The graph's name for which token of each sequence logits are wanted of, i64 `[batch]`: its input
/// in [`Decoding::LastToken`].
pub const LAST_TOKEN: &str = "last_token";
/// The graph's name for what it puts out, f32 `[batch, length, vocabulary]` or, in
/// [`Decoding::LastToken`], `[batch, vocabulary]`.
pub const LOGITS: &str = "logits";
/// What [`write_gather`]'s graph takes rows of, `[batch, key and value heads, tokens, head size]`.
pub(crate) const STATES: &str = "states";
/// Its name for the rows, i64 `[rows]`.
pub(crate) const ROWS: &str = "rows";
/// Its name for what it puts out, `[rows, key and value heads, tokens, head size]`.
pub(crate) const GATHERED: &str = "gathered";

/// Which tokens there are to be logits of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoding {
    /// Of all.
    AllTokens,
    /// Of one of each sequence, which [`LAST_TOKEN`] names.
    LastToken,
}

/// The graph's names for keys and values of earlier tokens in `layer`, both f32
/// `[batch, key and value heads, earlier tokens, head size]`.
pub fn past_names(layer: usize) -> [String; 2] {
    ["key", "value"].map(|part| format!("past_key_values.{layer}.{part}"))
}

/// The graph's names for keys and values of all tokens in `layer`, as [`past_names`].
pub fn present_names(layer: usize) -> [String; 2] {
    ["key", "value"].map(|part| format!("present.{layer}.{part}"))
}

/// Writes all of `checkpoint` as one graph that goes on with sequences: of [`INPUT_IDS`] tokens and
/// [`POSITION_IDS`] behind those of [`past_names`], an [`ATTENTION_MASK`] `[batch, earlier + length]`
/// over both, and of a model whose source is a prefix [`PREFIX_LENGTHS`](super::PREFIX_LENGTHS), to
/// [`LOGITS`] and [`present_names`]. Sequences are padded on the right.
///
/// The output matrix is the checkpoint's, or `lm_head.weight` where that was trained. It is fp32 in
/// any `precision`.
///
/// # Panics
/// If every token attends to every token: such a model writes nothing.
pub fn write_decoder(
    checkpoint: &Checkpoint,
    decoding: Decoding,
    precision: FrozenPrecision,
    metadata: &[(&str, String)],
    file_name: &str,
) -> Result<WholeModel, checkpoint::Error> {
    let config = &checkpoint.config;
    let mut writer = EncoderWriter {
        graph: GraphBuilder::new("decoder", &data_name(file_name)),
        config,
        weights: &checkpoint.weights,
        precision,
    };
    let ids = writer.graph.input(INPUT_IDS, &batch_by_length());
    let axes = [Axis::Dynamic("batch"), Axis::Dynamic("total_length")];
    let mask = writer.graph.input(ATTENTION_MASK, &axes);
    let positions = writer.graph.input(POSITION_IDS, &batch_by_length());
    let prefix_lengths = match config.attention_pattern {
        AttentionPattern::Causal => writer.graph.int("no_prefix", &[1], &[0]),
        _ => writer
            .prefix_lengths()
            .unwrap_or_else(|| unreachable!("what attends both ways writes nothing")),
    };
    let last_token = (decoding == Decoding::LastToken)
        .then(|| writer.graph.input(LAST_TOKEN, &[Axis::Dynamic("batch")]));
    let before = (0..config.layers).map(|layer| {
        let axes = heads_axes(checkpoint, "past_length");
        past_names(layer).map(|name| writer.graph.float_input(&name, &axes))
    });
    let before = before.collect();

    let mut hidden = writer.embeddings(&ids, Places::Given(&positions))?;
    let reach = Reach {
        mask: &mask,
        prefix_lengths: Some(&prefix_lengths),
        last: Some(&ids),
    };
    let mut shared = Shared::new(&mut writer.graph, config, writer.weights, &reach, true)?;
    shared.set_positions(&positions);
    shared.past = Some(Past {
        before,
        present: Vec::new(),
    });
    for layer in 0..config.layers {
        // What was read before has been copied.
        checkpoint.weights.release();
        hidden = writer.layer(layer, &hidden, &mut shared)?;
    }
    if let Some(token) = &last_token {
        // Norm and matrix are for that token alone.
        hidden = state_of(&mut writer.graph, &hidden, token);
    }
    if let Some(norm) = config.final_norm() {
        hidden = writer.norm(&norm, &hidden)?;
    }
    let logits = writer.logits(&hidden, &ids, decoding)?;
    let vocabulary = Axis::Fixed(config.vocabulary_size);
    let [batch, length] = batch_by_length();
    let axes = match decoding {
        Decoding::AllTokens => vec![batch, length, vocabulary],
        Decoding::LastToken => vec![batch, vocabulary],
    };
    writer.graph.output(LOGITS, &logits, &axes);
    let present = shared.past.map(|past| past.present).unwrap_or_default();
    for (layer, states) in present.iter().enumerate() {
        for (name, states) in present_names(layer).iter().zip(states) {
            let axes = heads_axes(checkpoint, "total_length");
            writer.graph.output(name, states, &axes);
        }
    }
    Ok(WholeModel::of(writer.graph, metadata))
}

/// Writes a graph that puts rows of keys or values together anew: from [`STATES`] and [`ROWS`] to
/// [`GATHERED`], those rows in that order. One may come several times.
pub(crate) fn write_gather(checkpoint: &Checkpoint, file_name: &str) -> WholeModel {
    let mut graph = GraphBuilder::new("gather", &data_name(file_name));
    let states = graph.float_input(STATES, &heads_axes(checkpoint, "length"));
    let rows = graph.input(ROWS, &[Axis::Dynamic("rows")]);
    let along = [Attribute::Int("axis", 0)];
    let gathered = graph.node("gather", "Gather", &[&states, &rows], &along);
    let mut axes = heads_axes(checkpoint, "length");
    axes[0] = Axis::Dynamic("rows");
    graph.output(GATHERED, &gathered, &axes);
    WholeModel::of(graph, &[])
}

/// Of keys or values of so many tokens as the axis `length` has.
fn heads_axes(checkpoint: &Checkpoint, length: &'static str) -> [Axis; 4] {
    let config = &checkpoint.config;
    [
        Axis::Dynamic("batch"),
        Axis::Fixed(config.key_value_heads),
        Axis::Dynamic(length),
        Axis::Fixed(config.head_size()),
    ]
}

/// The state of the token `token` `[batch]` of each sequence of `hidden` `[batch, length, hidden]`:
/// `[batch, hidden]`.
fn state_of(graph: &mut GraphBuilder, hidden: &Value, token: &Value) -> Value {
    let scope = "last_token";
    let axis = graph.int("column_axis", &[1], &[1]);
    let token = graph.node(scope, "Unsqueeze", &[token, &axis], &[]);
    let by_sequence = [Attribute::Int("batch_dims", 1)];
    graph.node(scope, "GatherND", &[hidden, &token], &by_sequence)
}

impl EncoderWriter<'_> {
    /// `hidden` `[…, hidden]` times the output matrix, `[…, vocabulary]`.
    fn logits(
        &mut self,
        hidden: &Value,
        ids: &Value,
        decoding: Decoding,
    ) -> Result<Value, checkpoint::Error> {
        let scope = "lm_head";
        let shape = [self.config.vocabulary_size, self.config.hidden_size];
        let head = self.config.language_head();
        let matrix = if self.weights.is_replaced(OUTPUT_MATRIX) {
            self.weight(OUTPUT_MATRIX, &shape)?
        } else if head.tied {
            // In the graph already.
            head.name
        } else {
            self.weight(&head.name, &shape)?
        };
        // Gemm takes the matrix as it lies there, so that a tied one is there once.
        let turned = [Attribute::Int("transB", 1)];
        let graph = &mut self.graph;
        if decoding == Decoding::LastToken {
            return Ok(graph.node(scope, "Gemm", &[hidden, &matrix], &turned));
        }
        let [vocabulary, width] = shape.map(|size| size as i64);
        let rows = graph.int("state_rows_shape", &[2], &[-1, width]);
        let rows = graph.node(scope, "Reshape", &[hidden, &rows], &[]);
        let logits = graph.node(scope, "Gemm", &[&rows, &matrix], &turned);
        let vocabulary = graph.int("vocabulary_size", &[1], &[vocabulary]);
        let tokens = graph.node(scope, "Shape", &[ids], &[]);
        let along = [Attribute::Int("axis", 0)];
        let shape = graph.node(scope, "Concat", &[&tokens, &vocabulary], &along);
        Ok(graph.node(scope, "Reshape", &[&logits, &shape], &[]))
    }
}
