//! The Gaussian error linear unit, exact: `x Φ(x)` with `Φ(x) = (1 + erf(x / √2)) / 2`
//! (Hendrycks and Gimpel, 2016).

use rayon::prelude::*;

use super::CHUNK;
use super::math::{erf, exp};
use crate::simd;

/// 1 / √(2π)
const DENSITY_AT_ZERO: f32 = 0.398_942_3;

/// `output ← gelu(x)`, element by element.
pub(super) fn forward(x: &[f32], output: &mut [f32]) {
    let pairs = output.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
    pairs.for_each(|(output, x)| {
        simd::dispatch(
            #[inline(always)]
            || {
                for (output, &x) in output.iter_mut().zip(x) {
                    *output = value(x);
                }
            },
        );
    });
}

/// Turns `x` into `gelu(x)`, and `gradient` with respect to the latter into that with respect to
/// the former: times `Φ(x) + x φ(x)`, `φ(x) = exp(-x²/2) / √(2π)`.
pub(super) fn backward(x: &mut [f32], gradient: &mut [f32]) {
    let pairs = x.par_chunks_mut(CHUNK).zip(gradient.par_chunks_mut(CHUNK));
    pairs.for_each(|(x, gradient)| {
        simd::dispatch(
            #[inline(always)]
            || {
                for (number, gradient) in x.iter_mut().zip(gradient) {
                    let slope;
                    (*number, slope) = with_slope(*number);
                    *gradient *= slope;
                }
            },
        );
    });
}

/// gelu(x)
#[inline(always)]
pub(super) fn value(x: f32) -> f32 {
    x * cumulative(x)
}

/// gelu(x) and its derivative.
#[inline(always)]
pub(super) fn with_slope(x: f32) -> (f32, f32) {
    let cumulative = cumulative(x);
    let density = DENSITY_AT_ZERO * exp(-0.5 * x * x);
    (x * cumulative, cumulative + x * density)
}

/// Φ(x), the standard normal distribution function.
#[inline(always)]
fn cumulative(x: f32) -> f32 {
    0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}
