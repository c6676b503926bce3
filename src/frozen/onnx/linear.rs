//! Linear layers in the graph, in floats or in 8-bit integers.

use std::collections::HashMap;

use super::builder::{Attribute, GraphBuilder, Value};
use crate::checkpoint::{self, Weights};
use crate::frozen::FrozenPrecision;

/// ONNX's number for the type f32.
const FLOAT: i64 = 1;
/// The largest 8-bit weight. -128 is left out, so that the zero point is 0.
const LARGEST: f32 = 127.0;

/// Writes linear layers in one precision.
pub(super) struct Linears {
    precision: FrozenPrecision,
    /// Inputs in 8 bits, by their name in floats: several layers may read the same one.
    quantized: HashMap<Value, Quantized>,
}

/// A value in 8 bits: `(numbers - zero_point) * scale`.
#[derive(Clone)]
struct Quantized {
    /// u8, of the shape of the floats.
    numbers: Value,
    /// f32 scalar.
    scale: Value,
    /// u8 scalar.
    zero_point: Value,
}

impl Linears {
    pub(super) fn new(precision: FrozenPrecision) -> Self {
        Self {
            precision,
            quantized: HashMap::new(),
        }
    }

    /// The layer `name` applied to `input` `[batch, length, inputs]`: `[batch, length, outputs]`.
    pub(super) fn write(
        &mut self,
        graph: &mut GraphBuilder,
        weights: &Weights,
        name: &str,
        input: &Value,
        [inputs, outputs]: [usize; 2],
    ) -> Result<Value, checkpoint::Error> {
        let weight_name = format!("{name}.weight");
        let weight = weights.tensor(&weight_name, &[outputs, inputs])?;
        let bias_name = format!("{name}.bias");
        let bias = weights.tensor(&bias_name, &[outputs])?;
        let product = match self.precision {
            FrozenPrecision::Fp32 => {
                let weight = transposed(&weight, outputs, inputs);
                let weight = graph.weight(&weight_name, &[inputs, outputs], &weight);
                graph.node(name, "MatMul", &[input, &weight], &[])
            }
            FrozenPrecision::Int8 => {
                let (weight, scales) = per_row(&weight, inputs);
                let weight = transposed(&weight, outputs, inputs);
                let weight = graph.weight_int8(&weight_name, &[inputs, outputs], &weight);
                let scales = graph.weight(&format!("{name}.weight_scale"), &[outputs], &scales);
                self.product(graph, name, input, &weight, &scales)
            }
        };
        let bias = graph.weight(&bias_name, &[outputs], &bias);
        Ok(graph.node(name, "Add", &[&product, &bias], &[]))
    }

    /// `input` times an 8-bit matrix, in the order of nodes that ONNX Runtime fuses into one.
    fn product(
        &mut self,
        graph: &mut GraphBuilder,
        name: &str,
        input: &Value,
        weight: &Value,
        scales: &Value,
    ) -> Value {
        let quantized = self.quantized.entry(input.clone()).or_insert_with(|| {
            let parts = ["", "_scale", "_zero_point"];
            let [numbers, scale, zero_point] =
                graph.node_of(input, "DynamicQuantizeLinear", &[input], &[], parts);
            Quantized {
                numbers,
                scale,
                zero_point,
            }
        });
        let sums = [&quantized.numbers, weight, &quantized.zero_point];
        let sums = graph.node(name, "MatMulInteger", &sums, &[]);
        let sums = graph.node(name, "Cast", &[&sums], &[Attribute::Int("to", FLOAT)]);
        let scales = graph.node(name, "Mul", &[&quantized.scale, scales], &[]);
        graph.node(name, "Mul", &[&sums, &scales], &[])
    }
}

/// Each row of `matrix`, `columns` wide, in 8 bits, and its scale: `row = numbers * scale`.
#[allow(
    clippy::cast_possible_truncation,
    reason = "rounded, and within ±127 by the choice of scale"
)]
fn per_row(matrix: &[f32], columns: usize) -> (Vec<i8>, Vec<f32>) {
    let mut numbers = Vec::with_capacity(matrix.len());
    let scales = matrix.chunks_exact(columns).map(|row| {
        let largest = row
            .iter()
            .fold(0.0f32, |largest, weight| largest.max(weight.abs()));
        // Any scale will do for a row of zeros, but it must divide.
        let scale = if largest > 0.0 {
            largest / LARGEST
        } else {
            1.0
        };
        numbers.extend(row.iter().map(|weight| (weight / scale).round() as i8));
        scale
    });
    let scales = scales.collect();
    (numbers, scales)
}

/// `[rows, columns]` to `[columns, rows]`, both row-major.
fn transposed<T: Copy>(matrix: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut result = Vec::with_capacity(matrix.len());
    for column in 0..columns {
        result.extend((0..rows).map(|row| matrix[row * columns + column]));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_its_own_scale() {
        let (numbers, scales) = per_row(&[1.0, -0.5, 0.0, 0.0, -127.0, 63.4], 2);
        assert_eq!(numbers, [127, -64, 0, 0, -127, 63]);
        assert_eq!(scales, [1.0 / 127.0, 1.0, 1.0]);
    }

    #[test]
    fn transposing_swaps_rows_and_columns() {
        assert_eq!(transposed(&[1, 2, 3, 4, 5, 6], 2, 3), [1, 4, 2, 5, 3, 6]);
    }
}
