//! Dropout whose mask is a function of a key and an element's number: nothing is stored for the
//! backward pass, and every device and thread count draws the same mask.

use candle_core::{Device, Result, Shape, Tensor};

/// One application of dropout.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    threshold: u32,
    scale: f32,
    /// Keys of two words, mixed in before and between the rounds.
    keys: [u32; 2],
}

impl Dropout {
    /// Drops each element with `probability` in `[0, 1)`; those kept are scaled by
    /// `1 / (1 - probability)`. The same `key` gives the same mask.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn new(probability: f64, key: u64) -> Self {
        let key = mix(key);
        Self {
            threshold: (probability * f64::from(u32::MAX)) as u32,
            scale: (1.0 / (1.0 - probability)) as f32,
            keys: [key as u32, (key >> 32) as u32],
        }
    }

    /// What element `number` is multiplied by: 0, or the scale.
    ///
    /// The random number is a hash of 32 bits of the element's number under the keys: the rounds
    /// that the Hash Prospector found (Wellons, 2018; with the constants later found best), which a
    /// processor does for as many elements at once as a vector has 32-bit lanes. Numbers count
    /// modulo 2³²: more elements than that repeat the mask.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn factor(&self, number: usize) -> f32 {
        let [first, second] = self.keys;
        let mut bits = number as u32 ^ first;
        bits = (bits ^ (bits >> 16)).wrapping_mul(0x21f0_aaad) ^ second;
        bits = (bits ^ (bits >> 15)).wrapping_mul(0xd35a_2d97);
        bits ^= bits >> 15;
        if bits < self.threshold {
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

    #[test]
    fn neighbours_and_neighbouring_keys_are_independent() {
        let count: usize = 1 << 20;
        let dropped = |key: u64, number: usize| Dropout::new(0.1, key).factor(number) == 0.0;
        let both = |other: &dyn Fn(usize) -> bool| {
            let pairs = (0..count).filter(|&number| dropped(7, number) && other(number));
            pairs.count() as f64 / count as f64
        };
        // A hundredth of pairs, within five standard deviations.
        let within = 5.0 * (0.01 * 0.99 / count as f64).sqrt();
        for distance in [1, 2, 16, 64, 256, 768, 65_536] {
            let share = both(&|number| dropped(7, number + distance));
            assert!((share - 0.01).abs() < within, "at {distance}: {share}");
        }
        for bit in [0, 1, 31, 32, 63] {
            let share = both(&|number| dropped(7 ^ (1 << bit), number));
            assert!((share - 0.01).abs() < within, "bit {bit}: {share}");
        }
    }
}
