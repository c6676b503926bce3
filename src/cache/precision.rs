//! How hidden states are stored.

use std::fmt;

use bytemuck::try_cast_slice;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};

use crate::simd;

/// The largest 8-bit number. -128 is left out, so that rounding is the same on both sides of 0.
const LARGEST: f32 = 127.0;

/// `--precision`: how activations are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Half precision, 2 bytes a number.
    Fp16,
    /// Single precision, 4 bytes a number.
    Fp32,
    /// Half precision with the range of single, 2 bytes a number and fewer digits.
    Bf16,
    /// 8-bit integers with one scale a token, 1 byte a number.
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fp16 => "fp16",
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

impl Precision {
    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::Fp16 => Dtype::F16,
            Self::Fp32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
            Self::Int8 => Dtype::I8,
        }
    }

    /// Bytes a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::Fp16 | Self::Bf16 => 2,
            Self::Fp32 => 4,
            Self::Int8 => 1,
        }
    }

    /// Whether each token has a scale, f32, beside its numbers.
    pub fn has_scales(self) -> bool {
        self == Self::Int8
    }

    /// Bytes a token of `width` numbers, its scale included.
    pub fn token_bytes(self, width: usize) -> usize {
        self.bytes() * width
            + if self.has_scales() {
                size_of::<f32>()
            } else {
                0
            }
    }

    /// Turns what [`EncodedStates`] keeps of some tokens back into `states` `[tokens, width]`.
    /// `scales` is empty where there are none.
    pub(super) fn decode(self, hidden: &[u8], scales: &[u8], states: &mut [f32]) {
        // Where the machine is little-endian and the map is aligned, the casts succeed and the
        // conversions use the processor's own instructions.
        let native = cfg!(target_endian = "little");
        match self {
            Self::Fp16 => match try_cast_slice::<u8, f16>(hidden) {
                Ok(numbers) if native => numbers.convert_to_f32_slice(states),
                _ => {
                    for (state, pair) in states.iter_mut().zip(hidden.as_chunks::<2>().0) {
                        *state = f16::from_le_bytes(*pair).to_f32();
                    }
                }
            },
            Self::Bf16 => match try_cast_slice::<u8, bf16>(hidden) {
                Ok(numbers) if native => numbers.convert_to_f32_slice(states),
                _ => {
                    for (state, pair) in states.iter_mut().zip(hidden.as_chunks::<2>().0) {
                        *state = bf16::from_le_bytes(*pair).to_f32();
                    }
                }
            },
            Self::Fp32 => {
                for (state, word) in states.iter_mut().zip(hidden.as_chunks::<4>().0) {
                    *state = f32::from_le_bytes(*word);
                }
            }
            Self::Int8 => {
                let (scales, _) = scales.as_chunks::<4>();
                // A sequence without tokens has no width.
                let width = (states.len() / scales.len().max(1)).max(1);
                let tokens = states
                    .chunks_exact_mut(width)
                    .zip(hidden.chunks_exact(width));
                simd::dispatch(
                    #[inline(always)]
                    || {
                        for ((states, numbers), scale) in tokens.zip(scales) {
                            let scale = f32::from_le_bytes(*scale);
                            for (state, number) in states.iter_mut().zip(numbers) {
                                *state = f32::from(number.cast_signed()) * scale;
                            }
                        }
                    },
                );
            }
        }
    }
}

/// Hidden states of a shard's tokens, as they are stored.
pub struct EncodedStates {
    precision: Precision,
    width: usize,
    pub(super) hidden: Vec<u8>,
    /// Empty where there are none.
    pub(super) scales: Vec<u8>,
}

impl EncodedStates {
    /// Room for `tokens` tokens of `width` numbers, all 0.
    pub fn new(precision: Precision, width: usize, tokens: usize) -> Self {
        let scales = if precision.has_scales() { tokens } else { 0 };
        Self {
            precision,
            width,
            hidden: vec![0; tokens * width * precision.bytes()],
            scales: vec![0; scales * size_of::<f32>()],
        }
    }

    /// Takes over what another cache stores of some tokens, from `first_token` on.
    pub(super) fn put_encoded(&mut self, first_token: usize, hidden: &[u8], scales: &[u8]) {
        let start = first_token * self.width * self.precision.bytes();
        self.hidden[start..][..hidden.len()].copy_from_slice(hidden);
        if self.precision.has_scales() {
            let start = first_token * size_of::<f32>();
            self.scales[start..][..scales.len()].copy_from_slice(scales);
        }
    }

    /// Encodes `states` `[tokens, width]` as those of `first_token` and what follows. Says whether
    /// all of them can be stored: no NaN, no infinity, nothing beyond the precision's range.
    #[must_use]
    pub fn put(&mut self, first_token: usize, states: &[f32]) -> bool {
        let start = first_token * self.width * self.precision.bytes();
        let hidden = &mut self.hidden[start..][..states.len() * self.precision.bytes()];
        match self.precision {
            Precision::Fp16 => {
                let mut halves = vec![f16::ZERO; states.len()];
                halves.convert_from_f32_slice(states);
                for (pair, half) in hidden.as_chunks_mut::<2>().0.iter_mut().zip(&halves) {
                    *pair = half.to_le_bytes();
                }
                halves.iter().all(|half| half.is_finite())
            }
            Precision::Bf16 => {
                let mut halves = vec![bf16::ZERO; states.len()];
                halves.convert_from_f32_slice(states);
                for (pair, half) in hidden.as_chunks_mut::<2>().0.iter_mut().zip(&halves) {
                    *pair = half.to_le_bytes();
                }
                halves.iter().all(|half| half.is_finite())
            }
            Precision::Fp32 => {
                for (word, state) in hidden.as_chunks_mut::<4>().0.iter_mut().zip(states) {
                    *word = state.to_le_bytes();
                }
                states.iter().all(|state| state.is_finite())
            }
            Precision::Int8 => {
                let scales = &mut self.scales.as_chunks_mut::<4>().0[first_token..];
                let tokens = states.chunks_exact(self.width);
                let tokens = tokens.zip(hidden.chunks_exact_mut(self.width));
                for ((states, numbers), scale) in tokens.zip(scales) {
                    *scale = token_to_int8(states, numbers).to_le_bytes();
                }
                states.iter().all(|state| state.is_finite())
            }
        }
    }
}

/// Rounds a token's `states` to `numbers`, i8, times the scale that it returns.
#[allow(
    clippy::cast_possible_truncation,
    reason = "rounded, and within ±127 by the choice of scale"
)]
fn token_to_int8(states: &[f32], numbers: &mut [u8]) -> f32 {
    let magnitudes = states.iter().map(|state| state.abs());
    let scale = magnitudes.fold(0.0, f32::max) / LARGEST;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    for (number, state) in numbers.iter_mut().zip(states) {
        *number = ((state * inverse).round() as i8).cast_unsigned();
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Precision; 4] = [
        Precision::Fp16,
        Precision::Fp32,
        Precision::Bf16,
        Precision::Int8,
    ];

    /// Tokens of very different size: the first all 0.
    fn states() -> Vec<f32> {
        let token =
            |token: i32| (0..37).map(move |i| ((i * 29) % 37 - 18) as f32 * 10f32.powi(token - 3));
        [vec![0.0; 37], (0..6).flat_map(token).collect()].concat()
    }

    #[test]
    fn what_is_stored_comes_back_within_its_precision() {
        for (precision, tolerance) in ALL.into_iter().zip([5e-4, 0.0, 4e-3, 4e-3]) {
            let states = states();
            let mut encoded = EncodedStates::new(precision, 37, 7);
            // Two tokens, then the rest, as sequences come.
            assert!(encoded.put(2, &states[2 * 37..]));
            assert!(encoded.put(0, &states[..2 * 37]));
            let bytes = encoded.hidden.len() + encoded.scales.len();
            assert_eq!(bytes, 7 * precision.token_bytes(37));
            let mut found = vec![f32::NAN; states.len()];
            precision.decode(&encoded.hidden, &encoded.scales, &mut found);
            for (found, expected) in found.chunks(37).zip(states.chunks(37)) {
                let largest = expected
                    .iter()
                    .fold(0.0f32, |most, number| most.max(number.abs()));
                for (found, expected) in found.iter().zip(expected) {
                    let off = (found - expected).abs();
                    assert!(
                        off <= tolerance * largest,
                        "{precision:?}: {found}, was {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_sequence_without_tokens_is_empty() {
        for precision in ALL {
            precision.decode(&[], &[], &mut []);
        }
    }

    #[test]
    fn what_cannot_be_stored_is_told() {
        for precision in ALL {
            let mut encoded = EncodedStates::new(precision, 2, 1);
            assert!(encoded.put(0, &[1.0, -65504.0]));
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                assert!(!encoded.put(0, &[1.0, bad]), "{precision:?} {bad}");
            }
            assert_eq!(
                encoded.put(0, &[1.0, 70_000.0]),
                precision != Precision::Fp16
            );
        }
    }
}
