//! Where tokens stand, and in which of two texts, in the graph.

use super::builder::{Attribute, GraphBuilder, Value};
use crate::checkpoint::{Positions, Rotation, TokenTypes};

/// Row of the position embeddings of each token: `[length]` when they count from zero, as BERT's,
/// and `[batch, length]` when only tokens that are not the padding id count, as RoBERTa's.
pub(super) fn rows(
    graph: &mut GraphBuilder,
    numbering: Positions,
    padding_id: u32,
    [ids, mask]: [&Value; 2],
) -> Value {
    let scope = "embeddings.position_ids";
    match numbering {
        Positions::FromZero => count_up(graph, scope, mask),
        Positions::AfterPadding => {
            let padding = graph.int("padding_id", &[], &[i64::from(padding_id)]);
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

/// `rows` `[batch, length]` of the position embeddings, those of the tokens behind the prefix moved
/// on as if the prefix had `padded` tokens.
pub(super) fn behind_padding(
    graph: &mut GraphBuilder,
    rows: &Value,
    padded: usize,
    [mask, prefix_lengths]: [&Value; 2],
) -> Value {
    let scope = "embeddings.position_shift";
    let axis = graph.int("column_axis", &[1], &[1]);
    let prefix = graph.node(scope, "Unsqueeze", &[prefix_lengths, &axis], &[]);
    let places = count_up(graph, scope, mask);
    let beyond = graph.node(scope, "GreaterOrEqual", &[&places, &prefix], &[]);
    let beyond = graph.node(scope, "Cast", &[&beyond], &[Attribute::Int("to", 7)]);
    let padded = graph.int("padded_source", &[], &[padded as i64]);
    let shift = graph.node(scope, "Sub", &[&padded, &prefix], &[]);
    let zero = graph.int("zero", &[], &[0]);
    let shift = graph.node(scope, "Max", &[&shift, &zero], &[]);
    let shift = graph.node(scope, "Mul", &[&beyond, &shift], &[]);
    graph.node(scope, "Add", &[rows, &shift], &[])
}

/// Row of the token type embeddings of each token: a single one where all are of the same type, else
/// `[batch, length]`.
pub(super) fn types(graph: &mut GraphBuilder, types: TokenTypes, ids: &Value) -> Value {
    match types {
        TokenTypes::Zero => graph.int("embeddings.token_type", &[], &[0]),
        TokenTypes::OneAfter(separator) => {
            let scope = "embeddings.token_types";
            let separator = graph.int("text_separator", &[], &[i64::from(separator)]);
            let is_separator = graph.node(scope, "Equal", &[ids, &separator], &[]);
            let int64 = [Attribute::Int("to", 7)];
            let separators = graph.node(scope, "Cast", &[&is_separator], &int64);
            let axis = graph.int("length_axis", &[], &[1]);
            let before = [Attribute::Int("exclusive", 1)];
            let before = graph.node(scope, "CumSum", &[&separators, &axis], &before);
            let one = graph.int("one", &[], &[1]);
            graph.node(scope, "Min", &[&before, &one], &[])
        }
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

/// Cosine and sine of the angles by which `rotation` turns each of `positions` `[batch, length]`,
/// both `[batch, length, 1, head size / 2]`; without those each place in the sequences of `mask`,
/// `[length, 1, head size / 2]`.
pub(super) fn angles(
    graph: &mut GraphBuilder,
    scope: &str,
    rotation: &Rotation,
    (mask, positions): (&Value, Option<&Value>),
) -> [Value; 2] {
    let given = positions.is_some();
    let positions = positions.map_or_else(|| count_up(graph, scope, mask), Clone::clone);
    let float = [Attribute::Int("to", 1)];
    let positions = graph.node(scope, "Cast", &[&positions], &float);
    let axes = if given { [2, 3] } else { [1, 2] };
    let axes = graph.int("rotary_axes", &[2], &axes);
    let positions = graph.node(scope, "Unsqueeze", &[&positions, &axes], &[]);
    let steps = graph.floats(&format!("{scope}.steps"), &rotation.steps);
    let angles = graph.node(scope, "Mul", &[&positions, &steps], &[]);
    ["Cos", "Sin"].map(|function| {
        let numbers = graph.node(scope, function, &[&angles], &[]);
        if rotation.scale.to_bits() == 1.0f32.to_bits() {
            return numbers;
        }
        let scale = graph.float(&format!("{scope}.scale"), rotation.scale);
        graph.node(scope, "Mul", &[&numbers, &scale], &[])
    })
}

/// Turns each head of `heads` `[batch, length, heads, head size]` by its position's [`angles`].
pub(super) fn turn(
    graph: &mut GraphBuilder,
    scope: &str,
    heads: &Value,
    [cosine, sine]: &[Value; 2],
) -> Value {
    let [first, second] = graph.split(scope, heads);
    let along = graph.node(scope, "Mul", &[&first, cosine], &[]);
    let across = graph.node(scope, "Mul", &[&second, sine], &[]);
    let turned_first = graph.node(scope, "Sub", &[&along, &across], &[]);
    let along = graph.node(scope, "Mul", &[&second, cosine], &[]);
    let across = graph.node(scope, "Mul", &[&first, sine], &[]);
    let turned_second = graph.node(scope, "Add", &[&along, &across], &[]);
    let last = [Attribute::Int("axis", -1)];
    graph.node(scope, "Concat", &[&turned_first, &turned_second], &last)
}
