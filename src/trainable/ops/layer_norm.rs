//! Layer normalisation over the last dimension (Ba, Kiros, Hinton, 2016):
//! `y = (x - mean) / √(variance + ε) · weight + bias`.

use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::Ops;
use super::linear::add_up;
use super::storage::{slice, with_slice};

/// Rows a thread takes at a time.
const ROWS: usize = 32;

/// Normalises each row of `x` `[tokens, width]`; `weight` and `bias` are `[width]`.
#[allow(clippy::cast_possible_truncation)] // An epsilon is a round decimal number.
pub fn layer_norm(
    ops: Ops,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f64,
) -> Result<Tensor> {
    match ops {
        Ops::Fused => x.contiguous()?.apply_op3(
            weight,
            bias,
            Fused {
                epsilon: epsilon as f32,
            },
        ),
        Ops::Composed => {
            let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
            let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
            let deviation = (variance + epsilon)?.sqrt()?;
            centred
                .broadcast_div(&deviation)?
                .broadcast_mul(weight)?
                .broadcast_add(bias)
        }
    }
}

struct Fused {
    epsilon: f32,
}

impl Fused {
    /// Mean and 1 / √(variance + ε) of a row.
    fn moments(&self, row: &[f32]) -> (f32, f32) {
        let count = row.len() as f32;
        let mean = sum(row.iter().copied()) / count;
        let variance = sum(row.iter().map(|x| (x - mean) * (x - mean))) / count;
        (mean, 1.0 / (variance + self.epsilon).sqrt())
    }
}

/// A sum in eight lanes, which keeps it both vectorised and accurate.
fn sum(numbers: impl ExactSizeIterator<Item = f32>) -> f32 {
    let mut lanes = [0.0f32; 8];
    for (index, number) in numbers.enumerate() {
        lanes[index % 8] += number;
    }
    lanes.iter().sum()
}

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "layer-norm"
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
        let x = slice(x, x_layout)?;
        let (weight, bias) = (slice(weight, weight_layout)?, slice(bias, bias_layout)?);
        let width = weight.len();
        let mut output = vec![0.0; x.len()];
        let rows = ROWS * width;
        let chunks = output.par_chunks_mut(rows).zip(x.par_chunks(rows));
        chunks.for_each(|(output, x)| {
            for (y, x) in output.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                let (mean, scale) = self.moments(x);
                let parameters = weight.iter().zip(bias);
                for ((y, x), (weight, bias)) in y.iter_mut().zip(x).zip(parameters) {
                    *y = (x - mean) * scale * weight + bias;
                }
            }
        });
        Ok((CpuStorage::F32(output), x_layout.shape().clone()))
    }

    /// With `n = (x - mean) · scale` and `g` the gradient times the weight, the gradient of a
    /// row is `scale · (g - mean(g) - n · mean(g n))`.
    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let width = weight.elem_count();
        let mut of_x = vec![0.0; x.elem_count()];
        let (of_weight, of_bias) = with_slice(x, |x| {
            with_slice(gradient, |gradient| {
                with_slice(weight, |weight| {
                    self.backward(x, gradient, weight, &mut of_x)
                })
            })
        })???;
        debug_assert_eq!(of_weight.len(), width);
        Ok((
            Some(Tensor::from_vec(of_x, x.shape(), x.device())?),
            Some(Tensor::from_vec(
                of_weight,
                weight.shape(),
                weight.device(),
            )?),
            Some(Tensor::from_vec(of_bias, bias.shape(), bias.device())?),
        ))
    }
}

impl Fused {
    /// Fills `of_x`; returns the gradients of weight and bias.
    fn backward(
        &self,
        x: &[f32],
        gradient: &[f32],
        weight: &[f32],
        of_x: &mut [f32],
    ) -> (Vec<f32>, Vec<f32>) {
        let width = weight.len();
        let rows = ROWS * width;
        let partial: Vec<(Vec<f32>, Vec<f32>)> = of_x
            .par_chunks_mut(rows)
            .zip(x.par_chunks(rows).zip(gradient.par_chunks(rows)))
            .map(|(of_x, (x, gradient))| {
                let (mut of_weight, mut of_bias) = (vec![0.0; width], vec![0.0; width]);
                let inputs = x.chunks_exact(width).zip(gradient.chunks_exact(width));
                for (of_x, (x, gradient)) in of_x.chunks_exact_mut(width).zip(inputs) {
                    let (mean, scale) = self.moments(x);
                    for i in 0..width {
                        let normalised = (x[i] - mean) * scale;
                        of_weight[i] += gradient[i] * normalised;
                        of_bias[i] += gradient[i];
                        of_x[i] = gradient[i] * weight[i];
                    }
                    let count = width as f32;
                    let mean_gradient = sum(of_x.iter().copied()) / count;
                    let products = of_x.iter().zip(x).map(|(g, x)| g * (x - mean) * scale);
                    let mean_product = sum(products) / count;
                    for (g, x) in of_x.iter_mut().zip(x) {
                        *g = scale * (*g - mean_gradient - (x - mean) * scale * mean_product);
                    }
                }
                (of_weight, of_bias)
            })
            .collect();
        let (weights, biases) = partial.into_iter().unzip();
        (add_up(weights, width), add_up(biases, width))
    }
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{assert_close, check, random};
    use super::*;

    #[test]
    fn fused_and_composed_agree_and_gradients_are_true() -> Result<()> {
        for tokens in [1, 5, 70] {
            let x = random(&[tokens, 13], 1)?;
            let weight = random(&[13], 2)?;
            let bias = random(&[13], 3)?;
            let apply = |ops| {
                layer_norm(
                    ops,
                    x.as_tensor(),
                    weight.as_tensor(),
                    bias.as_tensor(),
                    1e-5,
                )
            };
            assert_close(&apply(Ops::Fused)?, &apply(Ops::Composed)?, 1e-5)?;
            check(&[&x, &weight, &bias], apply)?;
        }
        Ok(())
    }
}
