//! Functions of one number that compilers can vectorise, where the standard library's cannot.
//!
//! They multiply and add in one instruction, which every processor that `pulp` compiles for has
//! but the oldest x86.

/// e to the power of `x`, to 2 units in the last place; 0 below -87.3.
///
/// Cephes' `expf` (Moshier, 1992): `x = n ln 2 + r` with `|r| <= ln 2 / 2`, a polynomial of
/// degree 6 for `e^r`, and `2^n` put straight into the exponent bits.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // 1.5 · 2²³: added to a small number it leaves no bits for a fraction, so that the sum's
    // lowest bits are the nearest integer. Faster than rounding and converting.
    const ROUNDER: f32 = 12_582_912.0;
    let x = x.clamp(-87.336_54, 88.376_26);
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let n = rounded - ROUNDER;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let mut p = 1.987_569_2e-4f32;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = p.mul_add(r, coefficient);
    }
    let power = (p * r).mul_add(r, r) + 1.0;
    // Within the clamp n is between -126 and 127, so the exponent stays that of a normal number.
    let scale = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    power * scale
}

/// The error function, to 4e-7 absolute.
///
/// A rational minimax approximation on [-4, 4], beyond which erf is 1 in f32; the coefficients
/// are those of Eigen's and XLA's f32 kernels.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let mut numerator = -2.726_142_4e-10f32;
    for coefficient in [
        2.770_681_3e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_5e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ] {
        numerator = numerator.mul_add(square, coefficient);
    }
    let mut denominator = -1.456_607_2e-5f32;
    for coefficient in [
        -2.133_740_6e-4,
        -1.682_827e-3,
        -7.373_329e-3,
        -1.426_473_9e-2,
    ] {
        denominator = denominator.mul_add(square, coefficient);
    }
    x * numerator / denominator
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_standard_library() {
        for step in -87_000..=88_000 {
            let x = step as f32 / 1000.0;
            let expected = x.exp();
            assert!((exp(x) - expected).abs() <= 3e-7 * expected, "exp({x})");
        }
        assert!(exp(-1000.0) < 2e-38);
        assert!((exp(0.0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn erf_agrees_with_candle() {
        for step in -6000..=6000 {
            let x = step as f32 / 1000.0;
            let expected = candle_core::cpu::erf::erf_f64(f64::from(x));
            let difference = (f64::from(erf(x)) - expected).abs();
            assert!(difference < 4e-7, "erf({x}) is off by {difference}");
        }
    }
}
