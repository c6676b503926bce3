//! Dropout whose mask is a function of a key and an element's index: nothing is stored for the
//! backward pass, and every device and thread count draws the same mask.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::Ops;
use super::storage::{slice, with_slice};

/// Elements a thread takes at a time.
const CHUNK: usize = 1 << 14;

/// One application of dropout.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    threshold: u32,
    scale: f32,
    key: u64,
}

impl Dropout {
    /// Drops each element with `probability` in `[0, 1)`; those kept are scaled by
    /// `1 / (1 - probability)`. The same `key` gives the same mask.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn new(probability: f64, key: u64) -> Self {
        Self {
            threshold: (probability * f64::from(u32::MAX)) as u32,
            scale: (1.0 / (1.0 - probability)) as f32,
            key,
        }
    }

    /// What element `index` is multiplied by: 0, or the scale.
    ///
    /// The random number is the SplitMix64 output function (Steele, Lea, Flood, 2014) of the
    /// key and the index.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn factor(&self, index: usize) -> f32 {
        let bits = mix(self.key.wrapping_add(index as u64)) >> 32;
        if (bits as u32) < self.threshold {
            0.0
        } else {
            self.scale
        }
    }

    /// The mask of a tensor of `shape`: each element's factor.
    pub(super) fn mask(&self, shape: &Shape, device: &candle_core::Device) -> Result<Tensor> {
        let factors: Vec<f32> = (0..shape.elem_count()).map(|i| self.factor(i)).collect();
        Tensor::from_vec(factors, shape, device)
    }
}

/// SplitMix64's finaliser over a Weyl step of `counter`.
#[inline(always)]
pub(crate) fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Applies `settings` to `x` of any shape; `None` is the identity.
pub fn dropout(ops: Ops, x: &Tensor, settings: Option<Dropout>) -> Result<Tensor> {
    match (settings, ops) {
        (None, _) => Ok(x.clone()),
        (Some(settings), Ops::Fused) => x.contiguous()?.apply_op1(Fused(settings)),
        (Some(settings), Ops::Composed) => x * settings.mask(x.shape(), x.device())?,
    }
}

struct Fused(Dropout);

impl Fused {
    fn apply(&self, numbers: &[f32]) -> Vec<f32> {
        let mut output = vec![0.0; numbers.len()];
        output
            .par_chunks_mut(CHUNK)
            .zip(numbers.par_chunks(CHUNK))
            .enumerate()
            .for_each(|(chunk, (output, numbers))| {
                let start = chunk * CHUNK;
                for (offset, (output, number)) in output.iter_mut().zip(numbers).enumerate() {
                    *output = number * self.0.factor(start + offset);
                }
            });
        output
    }
}

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let output = self.apply(slice(storage, layout)?);
        Ok((CpuStorage::F32(output), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let numbers = with_slice(gradient, |gradient| self.apply(gradient))?;
        Tensor::from_vec(numbers, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{assert_close, check, random};
    use super::*;

    #[test]
    fn fused_and_composed_agree_and_gradients_are_true() -> Result<()> {
        let x = random(&[7, 5], 1)?;
        let settings = Some(Dropout::new(0.3, 42));
        let fused = dropout(Ops::Fused, x.as_tensor(), settings)?;
        assert_close(
            &fused,
            &dropout(Ops::Composed, x.as_tensor(), settings)?,
            0.0,
        )?;
        check(&[&x], |ops| dropout(ops, x.as_tensor(), settings))
    }

    #[test]
    fn drops_its_share_and_keeps_the_mean() -> Result<()> {
        let x = Tensor::ones(200_000, candle_core::DType::F32, &candle_core::Device::Cpu)?;
        let kept = dropout(Ops::Fused, &x, Some(Dropout::new(0.1, 7)))?.to_vec1::<f32>()?;
        let zeros = kept.iter().filter(|&&number| number == 0.0).count() as f64;
        // Six standard deviations of a binomial are 0.004.
        assert!((zeros / 200_000.0 - 0.1).abs() < 0.004);
        let other = dropout(Ops::Fused, &x, Some(Dropout::new(0.1, 8)))?.to_vec1::<f32>()?;
        assert_ne!(kept, other);
        Ok(())
    }
}
