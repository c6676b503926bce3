//! `y = x Wᵀ + b`.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::Ops;
use super::storage::{slice, with_slice};

/// Rows a thread sums or adds at a time.
const ROWS: usize = 64;

/// Applies a linear layer: `x` `[tokens, inputs]`, `weight` `[outputs, inputs]`, `bias`
/// `[outputs]` to `[tokens, outputs]`.
pub fn linear(ops: Ops, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    match ops {
        Ops::Fused => x.contiguous()?.apply_op3(weight, bias, Fused),
        Ops::Composed => x.matmul(&weight.t()?)?.broadcast_add(bias),
    }
}

struct Fused;

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (tokens, inputs) = x_layout.shape().dims2()?;
        let (outputs, _) = weight_layout.shape().dims2()?;
        let sizes = (1, tokens, outputs, inputs);
        let transposed = weight_layout.transpose(0, 1)?;
        let mut product = x.matmul(weight, sizes, x_layout, &transposed)?;
        let bias = slice(bias, bias_layout)?;
        if let CpuStorage::F32(product) = &mut product {
            product.par_chunks_mut(ROWS * outputs).for_each(|rows| {
                for row in rows.chunks_exact_mut(outputs) {
                    row.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
                }
            });
        }
        Ok((product, (tokens, outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        // Nothing below cached activations is trained: their gradient is never asked for.
        let of_x = x.track_op().then(|| gradient.matmul(weight)).transpose()?;
        let of_weight = gradient.t()?.matmul(x)?;
        let sums = with_slice(gradient, |rows| column_sums(rows, bias.elem_count()))?;
        let of_bias = Tensor::from_vec(sums, bias.shape(), bias.device())?;
        Ok((of_x, Some(of_weight), Some(of_bias)))
    }
}

/// Sum over the rows of `[rows, columns]`, in an order that does not depend on the number of
/// threads.
pub(super) fn column_sums(matrix: &[f32], columns: usize) -> Vec<f32> {
    let partial: Vec<Vec<f32>> = matrix
        .par_chunks(ROWS * columns)
        .map(|rows| {
            let mut sums = vec![0.0; columns];
            for row in rows.chunks_exact(columns) {
                sums.iter_mut()
                    .zip(row)
                    .for_each(|(sum, number)| *sum += number);
            }
            sums
        })
        .collect();
    add_up(partial, columns)
}

/// Adds up rows of `columns` numbers in their order.
pub(super) fn add_up(partial: Vec<Vec<f32>>, columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0; columns];
    for part in partial {
        sums.iter_mut()
            .zip(part)
            .for_each(|(sum, number)| *sum += number);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{assert_close, check, random};
    use super::*;

    #[test]
    fn fused_and_composed_agree_and_gradients_are_true() -> Result<()> {
        for tokens in [1, 2, 131] {
            let x = random(&[tokens, 6], 1)?;
            let weight = random(&[4, 6], 2)?;
            let bias = random(&[4], 3)?;
            let apply = |ops| linear(ops, x.as_tensor(), weight.as_tensor(), bias.as_tensor());
            assert_close(&apply(Ops::Fused)?, &apply(Ops::Composed)?, 1e-5)?;
            check(&[&x, &weight, &bias], apply)?;
        }
        Ok(())
    }

    #[test]
    fn no_gradient_reaches_an_input_that_is_not_trained() -> Result<()> {
        let x = random(&[3, 6], 1)?.as_detached_tensor();
        let weight = random(&[4, 6], 2)?;
        let bias = random(&[4], 3)?;
        let y = linear(Ops::Fused, &x, weight.as_tensor(), bias.as_tensor())?;
        let gradients = y.sum_all()?.backward()?;
        assert!(gradients.get(&x).is_none());
        assert!(gradients.get(weight.as_tensor()).is_some());
        Ok(())
    }
}
