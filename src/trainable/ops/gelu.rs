//! The Gaussian error linear unit, exact: `x Φ(x)` with `Φ(x) = (1 + erf(x / √2)) / 2`
//! (Hendrycks and Gimpel, 2016).

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use pulp::Arch;
use rayon::prelude::*;

use super::Ops;
use super::math::{erf, exp};
use super::storage::{slice, with_slice};

/// Elements a thread takes at a time.
const CHUNK: usize = 1 << 14;
/// 1 / √(2π)
const DENSITY_AT_ZERO: f32 = 0.398_942_3;

/// GELU of every element of `x`.
pub fn gelu(ops: Ops, x: &Tensor) -> Result<Tensor> {
    match ops {
        Ops::Fused => x.contiguous()?.apply_op1(Fused),
        Ops::Composed => x.gelu_erf(),
    }
}

struct Fused;

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let mut output = vec![0.0; x.len()];
        let pairs = output.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
        pairs.for_each(|(output, x)| {
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    for (output, &x) in output.iter_mut().zip(x) {
                        *output = x * cumulative(x);
                    }
                },
            );
        });
        Ok((CpuStorage::F32(output), layout.shape().clone()))
    }

    /// The derivative is `Φ(x) + x φ(x)` with `φ(x) = exp(-x²/2) / √(2π)`.
    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let mut output = vec![0.0; x.elem_count()];
        with_slice(x, |x| {
            with_slice(gradient, |gradient| {
                output
                    .par_chunks_mut(CHUNK)
                    .zip(x.par_chunks(CHUNK).zip(gradient.par_chunks(CHUNK)))
                    .for_each(|(output, (x, gradient))| {
                        Arch::new().dispatch(
                            #[inline(always)]
                            || {
                                let inputs = x.iter().zip(gradient);
                                for (output, (&x, gradient)) in output.iter_mut().zip(inputs) {
                                    let density = DENSITY_AT_ZERO * exp(-0.5 * x * x);
                                    *output = gradient * (cumulative(x) + x * density);
                                }
                            },
                        );
                    });
            })
        })??;
        Tensor::from_vec(output, x.shape(), x.device()).map(Some)
    }
}

/// Φ(x), the standard normal distribution function.
#[inline(always)]
fn cumulative(x: f32) -> f32 {
    0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{assert_close, check, random};
    use super::*;

    #[test]
    fn fused_and_composed_agree_and_gradients_are_true() -> Result<()> {
        let x = random(&[9, 11], 1)?;
        let wide = (x.as_tensor() * 3.0)?;
        assert_close(
            &gelu(Ops::Fused, &wide)?,
            &gelu(Ops::Composed, &wide)?,
            2e-6,
        )?;
        check(&[&x], |ops| gelu(ops, x.as_tensor()))
    }
}
