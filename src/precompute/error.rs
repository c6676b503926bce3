use super::INT8_MEAN_COSINE;
use crate::cache::Precision;
use crate::error::Explain;
use crate::frozen::FrozenPrecision;

/// Why a cache was not filled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The frozen half puts out something else than the checkpoint says.
    #[error(
        "the frozen half in {precision} does not agree with the checkpoint computed in fp32: over {tokens} sampled tokens its {measure} is {found:.6}, expected {expected}"
    )]
    Parity {
        /// What it computes in.
        precision: FrozenPrecision,
        /// How many tokens were compared.
        tokens: usize,
        /// What was measured.
        measure: &'static str,
        /// Its value.
        found: f64,
        /// Its bound, in words.
        expected: String,
    },
    /// Layers over rounded states put out something else than the checkpoint says.
    #[error(
        "what is derived from this cache does not agree with the checkpoint computed in fp32: over {tokens} sampled tokens the mean cosine is {mean_cosine:.6}, expected at least {INT8_MEAN_COSINE}"
    )]
    DerivedParity {
        /// How many tokens were compared.
        tokens: usize,
        /// The mean over them.
        mean_cosine: f64,
    },
    /// The hidden states are not numbers.
    #[error("the frozen half put out a number that is not finite for {record}")]
    NotFinite {
        /// The first record with that text.
        record: String,
    },
    /// The hidden states are numbers that the cache cannot hold.
    #[error(
        "the frozen half put out a number for {record} that is too large for `--precision {precision}`"
    )]
    OutOfRange {
        /// The first record with that text.
        record: String,
        /// How it was to be stored.
        precision: Precision,
    },
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Parity {
                precision: FrozenPrecision::Fp32,
                ..
            } => "another ONNX Runtime (`--onnxruntime`) or `--provider cpu` may compute it right; please report it",
            Self::Parity {
                precision: FrozenPrecision::Fp16,
                ..
            } => "this model loses too much in 16 bits: leave out `--frozen-precision fp16`",
            Self::Parity {
                precision: FrozenPrecision::Int8,
                ..
            } => "this model loses too much in 8 bits: leave out `--frozen-precision int8`",
            Self::DerivedParity { .. } => {
                "derive from a cache in `--precision fp32`, or make the deeper one with `telly precompute`"
            }
            Self::NotFinite { .. } => {
                "the checkpoint's weights may be broken: look for NaN or infinity in them"
            }
            Self::OutOfRange { .. } => "`--precision bf16` or fp32 hold larger numbers",
        }
        .into())
    }

    fn is_input(&self) -> bool {
        false
    }
}
