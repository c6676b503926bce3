//! The arithmetic of the frozen pass.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `--frozen-precision`: what the frozen half's linear layers compute in. How the cache stores
/// what comes out is another matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FrozenPrecision {
    /// 32-bit floats throughout.
    #[default]
    Fp32,
    /// Linear layers multiply 16-bit floats; everything else, sums with the bias and the residual
    /// among it, stays 32-bit. Made for CUDA, where it has not run yet.
    Fp16,
    /// Linear layers in 8-bit integers, a scale for every 128 numbers of a weight's row and of a
    /// token's activations; CPU only. These are ONNX Runtime's own operator MatMulNBits: the
    /// standard ones have one scale for a whole batch, of which outliers leave nothing (mean
    /// cosine 0.79 after ten layers of mpnet-base, here 0.9994).
    Int8,
}

impl fmt::Display for FrozenPrecision {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        })
    }
}
