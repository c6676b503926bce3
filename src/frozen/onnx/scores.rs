//! What is added to attention scores and how heads are turned, in the graph: made once, for all
//! layers that use it.

use super::builder::{Attribute, GraphBuilder, Value};
use super::positions::{self, count_up};
use super::relative_position;
use crate::checkpoint::{self, Attention, EncoderConfig, Rotation, Weights};

/// What the layers of a graph share.
pub(super) struct Shared {
    mask: Value,
    /// Added to the scores of layers whose tokens attend to all of their sequence.
    bias: Value,
    /// Of layers whose tokens attend to near tokens only, by how far.
    local: Vec<(usize, Value)>,
    /// Cosines and sines by the base of the wavelengths, as bits.
    angles: Vec<(u64, [Value; 2])>,
}

impl Shared {
    /// For the length of `mask` `[batch, length]`. The table of relative positions, if there is
    /// one, is left out unless there are `layers` to use it.
    pub(super) fn new(
        graph: &mut GraphBuilder,
        config: &EncoderConfig,
        weights: &Weights,
        mask: &Value,
        layers: bool,
    ) -> Result<Self, checkpoint::Error> {
        let mut bias = padding_bias(graph, mask);
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
        let base = attention.rotary?;
        let made = self.angles.iter().find(|(made, _)| *made == base.to_bits());
        if let Some((_, angles)) = made {
            return Some(angles.clone());
        }
        let rotation = Rotation::new(base, head_size);
        let scope = format!("rotary.{base}");
        let angles = positions::angles(graph, &scope, &rotation, &self.mask);
        self.angles.push((base.to_bits(), angles.clone()));
        Some(angles)
    }
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
