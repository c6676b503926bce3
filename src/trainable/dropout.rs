//! Dropout whose mask is a function of a key and an element's number: nothing is stored for the
//! backward pass, and every device and thread count draws the same mask.

use candle_core::{Device, Result, Shape, Tensor};

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

    /// What element `number` is multiplied by: 0, or the scale.
    ///
    /// The random number is the SplitMix64 output function (Steele, Lea, Flood, 2014) of the
    /// key and the element's number.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn factor(&self, number: usize) -> f32 {
        let bits = mix(self.key.wrapping_add(number as u64)) >> 32;
        if (bits as u32) < self.threshold {
            0.0
        } else {
            self.scale
        }
    }

    /// The factors of a tensor of `shape` whose first element has the number `first`.
    pub(super) fn mask(&self, first: usize, shape: &Shape, device: &Device) -> Result<Tensor> {
        let numbers = first..first + shape.elem_count();
        let factors: Vec<f32> = numbers.map(|number| self.factor(number)).collect();
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

#[cfg(test)]
mod tests {
    use super::Dropout;

    #[test]
    fn drops_its_share_and_scales_the_rest() {
        let count = 200_000;
        let factors = |key| -> Vec<f32> {
            let dropout = Dropout::new(0.1, key);
            (0..count).map(|number| dropout.factor(number)).collect()
        };
        let drawn = factors(7);
        let zeros = drawn.iter().filter(|&&factor| factor == 0.0).count() as f64;
        // Six standard deviations of a binomial are 0.004.
        assert!((zeros / count as f64 - 0.1).abs() < 0.004);
        let kept = drawn.iter().filter(|&&factor| factor != 0.0);
        assert!(
            kept.into_iter()
                .all(|factor| (factor - 1.0 / 0.9).abs() < 1e-6)
        );
        assert_ne!(drawn, factors(8));
    }
}
