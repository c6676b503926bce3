//! One vector a sequence, out of packed tokens.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::Ops;
use super::storage::{slice, with_slice};

/// The first token's state of each sequence: `[tokens, width]` to `[sequences, width]`.
#[allow(clippy::cast_possible_truncation)]
pub fn first_token(x: &Tensor, offsets: &[usize]) -> Result<Tensor> {
    let firsts = offsets[..offsets.len() - 1].iter();
    // Packed batches are far below 2³² tokens.
    let firsts: Vec<u32> = firsts.map(|&offset| offset as u32).collect();
    let rows = firsts.len();
    x.index_select(&Tensor::from_vec(firsts, rows, x.device())?, 0)
}

/// The mean over all tokens of each sequence: `[tokens, width]` to `[sequences, width]`.
pub fn mean(ops: Ops, x: &Tensor, offsets: &Arc<[usize]>) -> Result<Tensor> {
    match ops {
        Ops::Fused => x.contiguous()?.apply_op1(FusedMean {
            offsets: Arc::clone(offsets),
        }),
        Ops::Composed => averaging_matrix(offsets, x)?.matmul(x),
    }
}

/// `[sequences, tokens]`: 1 / length where the token belongs to the sequence.
fn averaging_matrix(offsets: &[usize], x: &Tensor) -> Result<Tensor> {
    let (sequences, tokens) = (offsets.len() - 1, offsets[offsets.len() - 1]);
    let mut matrix = vec![0.0f32; sequences * tokens];
    for (sequence, bounds) in offsets.windows(2).enumerate() {
        let row = &mut matrix[sequence * tokens..][bounds[0]..bounds[1]];
        row.fill(1.0 / (bounds[1] - bounds[0]) as f32);
    }
    Tensor::from_vec(matrix, (sequences, tokens), x.device())
}

struct FusedMean {
    offsets: Arc<[usize]>,
}

impl CustomOp1 for FusedMean {
    fn name(&self) -> &'static str {
        "mean-pooling"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let (_, width) = layout.shape().dims2()?;
        let sequences = self.offsets.len() - 1;
        let mut output = vec![0.0; sequences * width];
        output
            .par_chunks_exact_mut(width)
            .zip(self.offsets.par_windows(2))
            .for_each(|(mean, bounds)| {
                for row in x[bounds[0] * width..bounds[1] * width].chunks_exact(width) {
                    mean.iter_mut()
                        .zip(row)
                        .for_each(|(sum, number)| *sum += number);
                }
                let share = 1.0 / (bounds[1] - bounds[0]) as f32;
                for sum in mean {
                    *sum *= share;
                }
            });
        Ok((CpuStorage::F32(output), (sequences, width).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, width) = x.dims2()?;
        let mut output = Vec::with_capacity(x.elem_count());
        with_slice(gradient, |gradient| {
            for (mean, bounds) in gradient.chunks_exact(width).zip(self.offsets.windows(2)) {
                let length = bounds[1] - bounds[0];
                let share = 1.0 / length as f32;
                let row: Vec<f32> = mean.iter().map(|number| number * share).collect();
                for _ in 0..length {
                    output.extend_from_slice(&row);
                }
            }
        })?;
        Tensor::from_vec(output, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{assert_close, check, random};
    use super::*;

    #[test]
    fn fused_and_composed_agree_and_gradients_are_true() -> Result<()> {
        let offsets: Arc<[usize]> = [0, 1, 6, 8].into();
        let x = random(&[8, 3], 1)?;
        let apply = |ops| mean(ops, x.as_tensor(), &offsets);
        assert_close(&apply(Ops::Fused)?, &apply(Ops::Composed)?, 1e-6)?;
        check(&[&x], apply)?;
        check(&[&x], |_| first_token(x.as_tensor(), &offsets))
    }
}
