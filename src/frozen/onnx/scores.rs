//! What is added to attention scores and how heads are turned, in the graph: made once, for all
//! layers that use it.

use super::builder::{Attribute, GraphBuilder, Value};
use super::positions::{self, count_up};
use super::relative_position;
use crate::checkpoint::{
    self, Attention, EncoderConfig, RotaryPositions, RotaryScaling, Rotation, Weights,
};

/// What the layers of a graph share.
pub(super) struct Shared {
    mask: Value,
    /// Added to the scores of layers whose tokens attend to all of their sequence.
    bias: Value,
    /// Of layers whose tokens attend to near tokens only, by how far.
    local: Vec<(usize, Value)>,
    /// Cosines and sines by how heads are turned.
    angles: Vec<(RotaryPositions, [Value; 2])>,
    /// Of the tokens whose states are computed: of other sequences than those of the mask, where
    /// earlier tokens are known by their keys and values.
    positions: Option<Value>,
    /// Keys and values of earlier tokens and, in their place when a layer is written, of all.
    pub(super) past: Option<Past>,
}

/// Keys and values of a decoder's layers, each `[batch, key and value heads, tokens, head size]`.
pub(super) struct Past {
    /// Of earlier tokens, layer after layer.
    pub(super) before: Vec<[Value; 2]>,
    /// Of all tokens, of the layers written so far.
    pub(super) present: Vec<[Value; 2]>,
}

/// What decides which tokens are attended to, in the graph.
pub(super) struct Reach<'a> {
    /// i64 `[batch, tokens]`: 1 for a token, 0 for padding.
    pub(super) mask: &'a Value,
    /// i64 `[batch]`: how many tokens of each sequence everything attends to; none where the
    /// pattern is bidirectional.
    pub(super) prefix_lengths: Option<&'a Value>,
    /// i64 `[batch, length]`: the ids of the tokens whose states are computed, where those are only
    /// the last of the mask's.
    pub(super) last: Option<&'a Value>,
}

impl Shared {
    /// For the tokens of `reach`. The table of relative positions, if there is
    /// one, is left out unless there are `layers` to use it.
    pub(super) fn new(
        graph: &mut GraphBuilder,
        config: &EncoderConfig,
        weights: &Weights,
        reach: &Reach,
        layers: bool,
    ) -> Result<Self, checkpoint::Error> {
        let mask = reach.mask;
        let mut bias = padding_bias(graph, mask);
        if let Some(prefix_lengths) = reach.prefix_lengths {
            let ahead = ahead_bias(graph, mask, prefix_lengths, reach.last);
            // The lower of both, not the sum: it stays finite.
            bias = graph.node("attention_pattern", "Min", &[&bias, &ahead], &[]);
        }
        if let Some(table) = config.relative_positions().filter(|_| layers) {
            let longest = config.longest_sequence();
            let relative = relative_position::bias(graph, weights, table, longest, mask)?;
            bias = graph.node("attention_bias", "Add", &[&bias, &relative], &[]);
        }
        Ok(Self {
            mask: mask.clone(),
            bias,
            local: Vec::new(),
            angles: Vec::new(),
            positions: None,
            past: None,
        })
    }

    /// What is added to the scores of `attention`, to be broadcast to
    /// `[batch, heads, length, length]`.
    pub(super) fn bias(&mut self, graph: &mut GraphBuilder, attention: &Attention) -> Value {
        let Some(window) = attention.window else {
            return self.bias.clone();
        };
        let made = self.local.iter().find(|(made, _)| *made == window);
        if let Some((_, bias)) = made {
            return bias.clone();
        }
        let far = window_bias(graph, &self.mask, window);
        // The lower of both, not the sum: it stays finite.
        let bias = graph.node("local_attention", "Min", &[&self.bias, &far], &[]);
        self.local.push((window, bias.clone()));
        bias
    }

    /// Cosines and sines by which the heads of `attention` are turned, if they are:
    /// [`positions::angles`].
    pub(super) fn angles(
        &mut self,
        graph: &mut GraphBuilder,
        attention: &Attention,
        head_size: usize,
    ) -> Option<[Value; 2]> {
        let rotary = attention.rotary?;
        let made = self.angles.iter().find(|(made, _)| *made == rotary);
        if let Some((_, angles)) = made {
            return Some(angles.clone());
        }
        let rotation = Rotation::new(&rotary, head_size);
        let theta = rotary.theta;
        let scope = match rotary.scaling {
            RotaryScaling::None => format!("rotary.{theta}"),
            _ => format!("rotary.{theta}.scaled"),
        };
        let positions = self.positions.as_ref();
        let angles = positions::angles(graph, &scope, &rotation, (&self.mask, positions));
        self.angles.push((rotary, angles.clone()));
        Some(angles)
    }

    /// Tells at which positions the tokens stand, i64 `[batch, length]`: unless told, each at its
    /// place in its sequence.
    pub(super) fn set_positions(&mut self, positions: &Value) {
        self.positions = Some(positions.clone());
    }

    /// `keys` and `values` `[batch, heads, length, head size]` of the next layer behind those of
    /// earlier tokens, if there are any.
    pub(super) fn behind_past(
        &mut self,
        graph: &mut GraphBuilder,
        scope: &str,
        [keys, values]: [Value; 2],
    ) -> [Value; 2] {
        let Some(past) = &mut self.past else {
            return [keys, values];
        };
        let [keys_before, values_before] = &past.before[past.present.len()];
        let tokens = [Attribute::Int("axis", 2)];
        let keys = graph.node(scope, "Concat", &[keys_before, &keys], &tokens);
        let values = graph.node(scope, "Concat", &[values_before, &values], &tokens);
        past.present.push([keys.clone(), values.clone()]);
        [keys, values]
    }
}

/// 0 for a token that is not ahead of the one that asks or is in the prefix, the lowest f32 for
/// others, `[batch, 1, length, tokens]`.
fn ahead_bias(
    graph: &mut GraphBuilder,
    mask: &Value,
    prefix_lengths: &Value,
    last: Option<&Value>,
) -> Value {
    let scope = "attention_pattern";
    let keys = count_up(graph, scope, mask);
    let asking = match last {
        None => keys.clone(),
        Some(ids) => {
            let shape = graph.node(scope, "Shape", &[ids], &[Attribute::Int("start", 1)]);
            let start = graph.node(scope, "Neg", &[&shape], &[]);
            let end = graph.int("far_end", &[1], &[i64::MAX]);
            graph.node(scope, "Slice", &[&keys, &start, &end], &[])
        }
    };
    let column_axis = graph.int("column_axis", &[1], &[1]);
    let asking = graph.node(scope, "Unsqueeze", &[&asking, &column_axis], &[]);
    let ahead = graph.node(scope, "Greater", &[&keys, &asking], &[]);
    let axes = graph.int("prefix_axes", &[3], &[1, 2, 3]);
    let prefix = graph.node(scope, "Unsqueeze", &[prefix_lengths, &axes], &[]);
    let beyond = graph.node(scope, "GreaterOrEqual", &[&keys, &prefix], &[]);
    let hidden = graph.node(scope, "And", &[&ahead, &beyond], &[]);
    let hidden = graph.node(scope, "Cast", &[&hidden], &[Attribute::Int("to", 1)]);
    let lowest = graph.float("lowest_float", f32::MIN);
    graph.node(scope, "Mul", &[&hidden, &lowest], &[])
}

/// 0 for a token, the lowest f32 for padding, `[batch, 1, 1, length]`.
fn padding_bias(graph: &mut GraphBuilder, mask: &Value) -> Value {
    let scope = "attention_bias";
    let axes = graph.int("attention_bias_axes", &[2], &[1, 2]);
    let mask = graph.node(scope, "Unsqueeze", &[mask, &axes], &[]);
    let mask = graph.node(scope, "Cast", &[&mask], &[Attribute::Int("to", 1)]);
    let one = graph.float("one_float", 1.0);
    let inverted = graph.node(scope, "Sub", &[&one, &mask], &[]);
    let lowest = graph.float("lowest_float", f32::MIN);
    graph.node(scope, "Mul", &[&inverted, &lowest], &[])
}

/// 0 for two tokens at most `window` apart, the lowest f32 for others, `[length, length]`.
fn window_bias(graph: &mut GraphBuilder, mask: &Value, window: usize) -> Value {
    let scope = "local_attention";
    let positions = count_up(graph, scope, mask);
    let column_axis = graph.int("column_axis", &[1], &[1]);
    let queries = graph.node(scope, "Unsqueeze", &[&positions, &column_axis], &[]);
    let distances = graph.node(scope, "Sub", &[&positions, &queries], &[]);
    let distances = graph.node(scope, "Abs", &[&distances], &[]);
    let window = graph.int(&format!("window.{window}"), &[], &[window as i64]);
    let far = graph.node(scope, "Greater", &[&distances, &window], &[]);
    let far = graph.node(scope, "Cast", &[&far], &[Attribute::Int("to", 1)]);
    let lowest = graph.float("lowest_float", f32::MIN);
    graph.node(scope, "Mul", &[&far, &lowest], &[])
}
