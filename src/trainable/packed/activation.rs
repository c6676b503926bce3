//! The activations of feed-forward blocks, element by element, forward and backward.

use rayon::prelude::*;

use super::CHUNK;
use super::math::{erf, exp};
use crate::simd;

/// A function of one number.
pub(super) trait Activation {
    /// What it is at `x`.
    fn value(x: f32) -> f32;

    /// That, and its derivative there.
    fn with_slope(x: f32) -> (f32, f32);
}

/// The Gaussian error linear unit, exact: `x Φ(x)` with `Φ(x) = (1 + erf(x / √2)) / 2`
/// (Hendrycks and Gimpel, 2016).
pub(super) struct Gelu;

/// Its approximation `x (1 + tanh u) / 2`, `u = √(2/π) (x + 0.044715 x³)`, of the same paper:
/// `x σ(2u)` with the logistic function σ.
pub(super) struct GeluTanh;

/// The sigmoid linear unit, `x σ(x)` (the same paper; Swish of Ramachandran, Zoph and Le, 2017).
pub(super) struct Silu;

/// Runs `$work` with `$kind` standing for the type of a [`BlockActivation`].
///
/// [`BlockActivation`]: crate::checkpoint::BlockActivation
macro_rules! with_activation {
    ($activation:expr, $kind:ident => $work:expr) => {
        match $activation {
            $crate::checkpoint::BlockActivation::Gelu => {
                type $kind = $crate::trainable::packed::activation::Gelu;
                $work
            }
            $crate::checkpoint::BlockActivation::GeluTanh => {
                type $kind = $crate::trainable::packed::activation::GeluTanh;
                $work
            }
            $crate::checkpoint::BlockActivation::Silu => {
                type $kind = $crate::trainable::packed::activation::Silu;
                $work
            }
        }
    };
}
pub(super) use with_activation;

/// `output ← activation(x)`, element by element.
pub(super) fn forward<A: Activation>(x: &[f32], output: &mut [f32]) {
    let pairs = output.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
    pairs.for_each(|(output, x)| {
        simd::dispatch(
            #[inline(always)]
            || {
                for (output, &x) in output.iter_mut().zip(x) {
                    *output = A::value(x);
                }
            },
        );
    });
}

/// Turns `x` into `activation(x)`, and `gradient` with respect to the latter into that with respect
/// to the former.
pub(super) fn backward<A: Activation>(x: &mut [f32], gradient: &mut [f32]) {
    let pairs = x.par_chunks_mut(CHUNK).zip(gradient.par_chunks_mut(CHUNK));
    pairs.for_each(|(x, gradient)| {
        simd::dispatch(
            #[inline(always)]
            || {
                for (number, gradient) in x.iter_mut().zip(gradient) {
                    let slope;
                    (*number, slope) = A::with_slope(*number);
                    *gradient *= slope;
                }
            },
        );
    });
}

/// 1 / √(2π)
const DENSITY_AT_ZERO: f32 = 0.398_942_3;

impl Activation for Gelu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * cumulative(x)
    }

    /// `Φ(x) + x φ(x)`, `φ(x) = exp(-x²/2) / √(2π)`.
    #[inline(always)]
    fn with_slope(x: f32) -> (f32, f32) {
        let cumulative = cumulative(x);
        let density = DENSITY_AT_ZERO * exp(-0.5 * x * x);
        (x * cumulative, cumulative + x * density)
    }
}

/// Φ(x), the standard normal distribution function.
#[inline(always)]
fn cumulative(x: f32) -> f32 {
    0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// 2 √(2/π)
const TWICE_ROOT: f32 = 1.595_769;
/// Of x³.
const CUBIC: f32 = 0.044_715;

impl Activation for GeluTanh {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * logistic(twice_u(x))
    }

    /// `σ + x σ (1 - σ) · 2u'`.
    #[inline(always)]
    fn with_slope(x: f32) -> (f32, f32) {
        let share = logistic(twice_u(x));
        let inner = TWICE_ROOT * (1.0 + 3.0 * CUBIC * x * x);
        (x * share, share + x * share * (1.0 - share) * inner)
    }
}

#[inline(always)]
fn twice_u(x: f32) -> f32 {
    TWICE_ROOT * x * (1.0 + CUBIC * x * x)
}

impl Activation for Silu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * logistic(x)
    }

    /// `σ + x σ (1 - σ)`.
    #[inline(always)]
    fn with_slope(x: f32) -> (f32, f32) {
        let share = logistic(x);
        (x * share, share + x * share * (1.0 - share))
    }
}

/// `σ(x) = 1 / (1 + e^-x)`.
#[inline(always)]
fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}
