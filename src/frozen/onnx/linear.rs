//! Linear layers in the graph, in floats of 32 or 16 bits or in 8-bit integers.

use super::builder::{Attribute, GraphBuilder, Value};
use super::proto::DataType;
use crate::checkpoint::{self, Linear, Weights};
use crate::frozen::FrozenPrecision;

/// The largest 8-bit weight. -128 is left out, so that rounding is the same on both sides of 0.
const LARGEST: f32 = 127.0;
/// What an 8-bit weight of 0 is stored as.
const ZERO_POINT: f32 = 128.0;
/// Numbers along the inputs that share a scale, in weights and in activations. Outlying
/// activations spoil no more than their own block; 32 would halve the error again, at three
/// quarters of the speed.
const BLOCK: usize = 128;
/// MatMulNBits' number for 8-bit activations.
const ACCURACY_LEVEL_INT8: i64 = 4;

/// The layer `linear` applied to `input` `[batch, length, inputs]`: `[batch, length, outputs]`.
pub(super) fn write(
    graph: &mut GraphBuilder,
    weights: &Weights,
    precision: FrozenPrecision,
    linear: &Linear,
    input: &Value,
) -> Result<Value, checkpoint::Error> {
    let (name, inputs, outputs) = (&linear.name, linear.inputs, linear.outputs);
    let weight_name = format!("{name}.weight");
    let weight = weights.tensor(&weight_name, &[outputs, inputs])?;
    let product = match precision {
        FrozenPrecision::Fp32 => {
            let weight = transposed(&weight, outputs, inputs);
            let weight = graph.weight(&weight_name, &[inputs, outputs], &weight);
            graph.node(name, "MatMul", &[input, &weight], &[])
        }
        FrozenPrecision::Fp16 => {
            let weight = transposed(&weight, outputs, inputs);
            let weight = graph.weight_float16(&weight_name, &[inputs, outputs], &weight);
            let half = [Attribute::Int("to", DataType::Float16 as i64)];
            let input = graph.node(name, "Cast", &[input], &half);
            let product = graph.node(name, "MatMul", &[&input, &weight], &[]);
            let float = [Attribute::Int("to", DataType::Float as i64)];
            graph.node(name, "Cast", &[&product], &float)
        }
        FrozenPrecision::Int8 => {
            let (numbers, scales) = in_blocks(&weight, inputs);
            let blocks = inputs.div_ceil(BLOCK);
            let numbers = graph.weight_uint8(&weight_name, &[outputs, blocks, BLOCK], &numbers);
            let scales = graph.weight(&format!("{name}.weight_scale"), &[outputs, blocks], &scales);
            let attributes = [
                Attribute::Int("K", inputs as i64),
                Attribute::Int("N", outputs as i64),
                Attribute::Int("accuracy_level", ACCURACY_LEVEL_INT8),
                Attribute::Int("bits", 8),
                Attribute::Int("block_size", BLOCK as i64),
            ];
            graph.runtime_node(
                name,
                "MatMulNBits",
                &[input, &numbers, &scales],
                &attributes,
            )
        }
    };
    if !linear.bias {
        return Ok(product);
    }
    let bias_name = format!("{name}.bias");
    let bias = weights.tensor(&bias_name, &[outputs])?;
    let bias = graph.weight(&bias_name, &[outputs], &bias);
    Ok(graph.node(name, "Add", &[&product, &bias], &[]))
}

/// Each row of `matrix`, `columns` wide, in blocks of 8-bit numbers, the last filled up with
/// zeros, and the blocks' scales: `row = (numbers - zero point) * scale`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded, and within 128 ± 127 by the choice of scale"
)]
fn in_blocks(matrix: &[f32], columns: usize) -> (Vec<u8>, Vec<f32>) {
    let (mut numbers, mut scales) = (Vec::new(), Vec::new());
    for block in matrix
        .chunks_exact(columns)
        .flat_map(|row| row.chunks(BLOCK))
    {
        let magnitudes = block.iter().map(|weight| weight.abs());
        let largest = magnitudes.fold(0.0, f32::max);
        // Any scale will do for a block of zeros, but it must divide.
        let scale = if largest > 0.0 {
            largest / LARGEST
        } else {
            1.0
        };
        let rounded = block.iter().map(|weight| (weight / scale).round());
        numbers.extend(rounded.map(|number| (number + ZERO_POINT) as u8));
        numbers.resize(numbers.len().next_multiple_of(BLOCK), ZERO_POINT as u8);
        scales.push(scale);
    }
    (numbers, scales)
}

/// `[rows, columns]` to `[columns, rows]`, both row-major.
fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
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
    fn each_block_has_its_own_scale() {
        let mut matrix = vec![0.0; 2 * 130];
        matrix[..2].copy_from_slice(&[1.0, -0.5]);
        matrix[128..130].copy_from_slice(&[-127.0, 63.4]);
        let (numbers, scales) = in_blocks(&matrix, 130);
        assert_eq!(scales, [1.0 / 127.0, 1.0, 1.0, 1.0]);
        assert_eq!(numbers.len(), 2 * 2 * BLOCK);
        assert_eq!(numbers[..3], [255, 64, 128]);
        assert_eq!(numbers[BLOCK..BLOCK + 3], [1, 191, 128]);
        assert!(numbers[BLOCK + 2..].iter().all(|&number| number == 128));
    }

    #[test]
    fn transposing_swaps_rows_and_columns() {
        let numbers = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(transposed(&numbers, 2, 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
