//! An encoder's embeddings and bottom layers, or some of its layers alone, as an ONNX graph of
//! standard operators.

use super::builder::{Attribute, Axis, GraphBuilder, OnnxModel, Value};
use super::linear;
use super::relative_position;
use crate::checkpoint::{self, Checkpoint, EncoderConfig, Positions, Weights};
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
/// operators are standard in fp32; in int8, linear layers are ONNX Runtime's MatMulNBits, see
/// [`FrozenPrecision::Int8`], and everything else stays fp32.
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
            let length = match checkpoint.config.family.positions() {
                Positions::FromZero => Axis::Unnamed,
                Positions::AfterPadding => Axis::Dynamic("length"),
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
    let mut bias = writer.attention_bias(&mask);
    // The embeddings alone do not use the table, which is trained then.
    if deepest > first && checkpoint.config.family.has_relative_positions() {
        bias = writer.with_relative_positions(&bias, &mask)?;
    }
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
            hidden = writer.layer(layer, &hidden, &bias)?;
        }
    }
    Ok(writer.graph.finish())
}

fn batch_by_length() -> [Axis; 2] {
    [Axis::Dynamic("batch"), Axis::Dynamic("length")]
}

struct EncoderWriter<'a> {
    graph: GraphBuilder,
    config: &'a EncoderConfig,
    weights: &'a Weights,
    precision: FrozenPrecision,
}

impl EncoderWriter<'_> {
    /// Sum of word, position and, where there are any, token type embeddings, normalised.
    fn embeddings(&mut self, ids: &Value, mask: &Value) -> Result<Value, checkpoint::Error> {
        let hidden = self.config.hidden_size;
        let scope = "embeddings";
        let words = self.weight(
            "embeddings.word_embeddings.weight",
            &[self.config.vocabulary_size, hidden],
        )?;
        let positions = self.weight(
            "embeddings.position_embeddings.weight",
            &[self.config.position_embeddings, hidden],
        )?;
        let types = self
            .config
            .token_types
            .map(|rows| self.weight("embeddings.token_type_embeddings.weight", &[rows, hidden]));
        let types = types.transpose()?;
        let axis = || [Attribute::Int("axis", 0)];
        let mut sum = self.graph.node(scope, "Gather", &[&words, ids], &axis());
        let position_ids = self.position_ids(ids, mask);
        let position = self
            .graph
            .node(scope, "Gather", &[&positions, &position_ids], &axis());
        if let Some(types) = types {
            // Every token is of type 0: both of the tasks' families encode one segment at a time.
            let type_zero = self.graph.int("embeddings.token_type", &[], &[0]);
            let token_type = self
                .graph
                .node(scope, "Gather", &[&types, &type_zero], &axis());
            sum = self.graph.node(scope, "Add", &[&sum, &token_type], &[]);
        }
        let sum = self.graph.node(scope, "Add", &[&sum, &position], &[]);
        self.layer_norm("embeddings.LayerNorm", &sum)
    }

    /// Position of each token: `[length]` when they count from zero, as BERT's, and
    /// `[batch, length]` when only tokens that are not the padding id count, as RoBERTa's.
    fn position_ids(&mut self, ids: &Value, mask: &Value) -> Value {
        let scope = "embeddings.position_ids";
        let graph = &mut self.graph;
        match self.config.family.positions() {
            Positions::FromZero => count_up(graph, scope, mask),
            Positions::AfterPadding => {
                let padding = graph.int("padding_id", &[], &[i64::from(self.config.padding_id)]);
                let is_padding = graph.node(scope, "Equal", &[ids, &padding], &[]);
                let is_token = graph.node(scope, "Not", &[&is_padding], &[]);
                let int64 = [Attribute::Int("to", 7)];
                let token = graph.node(scope, "Cast", &[&is_token], &int64);
                let axis = graph.int("length_axis", &[], &[1]);
                let count = graph.node(scope, "CumSum", &[&token, &axis], &[]);
                let count = graph.node(scope, "Mul", &[&count, &token], &[]);
                graph.node(scope, "Add", &[&count, &padding], &[])
            }
        }
    }

    /// What is added to attention scores: 0 for a token, the lowest f32 for padding,
    /// `[batch, 1, 1, length]`.
    fn attention_bias(&mut self, mask: &Value) -> Value {
        let scope = "attention_bias";
        let graph = &mut self.graph;
        let axes = graph.int("attention_bias_axes", &[2], &[1, 2]);
        let mask = graph.node(scope, "Unsqueeze", &[mask, &axes], &[]);
        let mask = graph.node(scope, "Cast", &[&mask], &[Attribute::Int("to", 1)]);
        let one = graph.float("one_float", 1.0);
        let inverted = graph.node(scope, "Sub", &[&one, &mask], &[]);
        let lowest = graph.float("lowest_float", f32::MIN);
        graph.node(scope, "Mul", &[&inverted, &lowest], &[])
    }

    /// The attention bias and that of relative positions in one, `[batch, heads, length, length]`.
    fn with_relative_positions(
        &mut self,
        bias: &Value,
        mask: &Value,
    ) -> Result<Value, checkpoint::Error> {
        let graph = &mut self.graph;
        let by_distance = relative_position::bias(graph, self.config, self.weights, mask)?;
        Ok(graph.node("attention_bias", "Add", &[bias, &by_distance], &[]))
    }

    /// One encoder layer, post-norm as in BERT (Devlin et al., 2019).
    fn layer(
        &mut self,
        layer: usize,
        hidden: &Value,
        bias: &Value,
    ) -> Result<Value, checkpoint::Error> {
        let prefix = checkpoint::layer_prefix(layer);
        let (width, intermediate) = (self.config.hidden_size, self.config.intermediate_size);
        let context = self.self_attention(&prefix, hidden, bias)?;
        let names = self.config.family.attention();
        let output = format!("{prefix}{}", names.output);
        let projected = self.linear(&output, &context, width, width)?;
        let scope = format!("{prefix}attention.output");
        let sum = self.graph.node(&scope, "Add", &[&projected, hidden], &[]);
        let attended = self.layer_norm(&format!("{prefix}{}", names.norm), &sum)?;

        let scope = format!("{prefix}intermediate");
        let wide = self.linear(&format!("{scope}.dense"), &attended, width, intermediate)?;
        let wide = self.graph.node(&scope, "Gelu", &[&wide], &[]);
        let output = format!("{prefix}output");
        let narrow = self.linear(&format!("{output}.dense"), &wide, intermediate, width)?;
        let sum = self.graph.node(&output, "Add", &[&narrow, &attended], &[]);
        self.layer_norm(&format!("{output}.LayerNorm"), &sum)
    }

    /// Multi-head scaled dot-product attention, heads joined again: `[batch, length, hidden]`.
    fn self_attention(
        &mut self,
        prefix: &str,
        hidden: &Value,
        bias: &Value,
    ) -> Result<Value, checkpoint::Error> {
        let scope = format!("{prefix}attention.self");
        let names = self.config.family.attention();
        let queries = self.heads(&format!("{prefix}{}", names.query), hidden, &[0, 2, 1, 3])?;
        let keys = self.heads(&format!("{prefix}{}", names.key), hidden, &[0, 2, 3, 1])?;
        let values = self.heads(&format!("{prefix}{}", names.value), hidden, &[0, 2, 1, 3])?;
        let graph = &mut self.graph;
        let scores = graph.node(&scope, "MatMul", &[&queries, &keys], &[]);
        let root = graph.float("head_size_root", (self.config.head_size() as f32).sqrt());
        let scores = graph.node(&scope, "Div", &[&scores, &root], &[]);
        let scores = graph.node(&scope, "Add", &[&scores, bias], &[]);
        let last = [Attribute::Int("axis", -1)];
        let probabilities = graph.node(&scope, "Softmax", &[&scores], &last);
        let context = graph.node(&scope, "MatMul", &[&probabilities, &values], &[]);
        let order = [Attribute::Ints("perm", &[0, 2, 1, 3])];
        let context = graph.node(&scope, "Transpose", &[&context], &order);
        let joined = graph.int(
            "joined_shape",
            &[3],
            &[0, 0, self.config.hidden_size as i64],
        );
        Ok(graph.node(&scope, "Reshape", &[&context, &joined], &[]))
    }

    /// A projection split into heads, its axes `[batch, length, heads, head size]` put in `order`.
    fn heads(
        &mut self,
        name: &str,
        hidden: &Value,
        order: &'static [i64],
    ) -> Result<Value, checkpoint::Error> {
        let width = self.config.hidden_size;
        let projected = self.linear(name, hidden, width, width)?;
        let split = [
            0,
            0,
            self.config.attention_heads as i64,
            self.config.head_size() as i64,
        ];
        let split = self.graph.int("heads_shape", &[4], &split);
        let heads = self.graph.node(name, "Reshape", &[&projected, &split], &[]);
        Ok(self.graph.node(
            name,
            "Transpose",
            &[&heads],
            &[Attribute::Ints("perm", order)],
        ))
    }

    fn linear(
        &mut self,
        name: &str,
        input: &Value,
        inputs: usize,
        outputs: usize,
    ) -> Result<Value, checkpoint::Error> {
        let sizes = [inputs, outputs];
        let (graph, weights) = (&mut self.graph, self.weights);
        linear::write(graph, weights, self.precision, name, input, sizes)
    }

    #[allow(clippy::cast_possible_truncation)] // An epsilon is a round decimal number.
    fn layer_norm(&mut self, name: &str, input: &Value) -> Result<Value, checkpoint::Error> {
        let weight = self.weight(&format!("{name}.weight"), &[self.config.hidden_size])?;
        let bias = self.weight(&format!("{name}.bias"), &[self.config.hidden_size])?;
        let attributes = [
            Attribute::Int("axis", -1),
            Attribute::Float("epsilon", self.config.layer_norm_epsilon as f32),
        ];
        Ok(self.graph.node(
            name,
            "LayerNormalization",
            &[input, &weight, &bias],
            &attributes,
        ))
    }

    fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Value, checkpoint::Error> {
        let numbers = self.weights.tensor(name, shape)?;
        Ok(self.graph.weight(name, shape, &numbers))
    }
}

/// 0, 1, 2, … up to the batch's length, `[length]`, by the shape of `mask`.
///
/// The length that a Range puts out has no name, so ONNX Runtime does not see that residuals
/// have the same shape and leaves SkipLayerNormalization alone; on the CPU, that takes longer
/// than Add and LayerNormalization.
pub(super) fn count_up(graph: &mut GraphBuilder, scope: &str, mask: &Value) -> Value {
    let shape = graph.node(scope, "Shape", &[mask], &[Attribute::Int("start", 1)]);
    let scalar = graph.int("scalar_shape", &[0], &[]);
    let length = graph.node(scope, "Reshape", &[&shape, &scalar], &[]);
    let zero = graph.int("zero", &[], &[0]);
    let one = graph.int("one", &[], &[1]);
    graph.node(scope, "Range", &[&zero, &length, &one], &[])
}
