//! The arithmetic of the frozen pass.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Error, Provider};

/// `--frozen-precision`: what the frozen half's linear layers compute in. How the cache stores
/// what comes out is another matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FrozenPrecision {
    /// 32-bit floats throughout.
    #[default]
    Fp32,
    /// The graph of fp32, but matrix products round what they multiply to 10 bits of fraction, as
    /// PyTorch's `allow_tf32`; CUDA only, where it has not run yet.
    Tf32,
    /// Linear layers multiply 16-bit floats; everything else, sums with the bias and the residual
    /// among it, stays 32-bit. Made for CUDA, where it has not run yet.
    Fp16,
    /// As fp16, in bfloat16: numbers as large as in fp32, with 7 bits of fraction; CUDA only, where
    /// it has not run yet.
    Bf16,
    /// Linear layers in 8-bit integers, a scale for every 128 numbers of a weight's row and of a
    /// token's activations; CPU only. These are ONNX Runtime's own operator MatMulNBits: the
    /// standard ones have one scale for a whole batch, of which outliers leave nothing (mean
    /// cosine 0.79 after ten layers of mpnet-base, here 0.9994).
    Int8,
}

impl FrozenPrecision {
    /// Where it can run. On the CPU, ONNX Runtime 1.31 has no product of bfloat16 matrices, and
    /// TF32 is a thing of NVIDIA's cards.
    fn providers(self) -> &'static [Provider] {
        match self {
            Self::Fp32 | Self::Fp16 => &[Provider::Cpu, Provider::Cuda, Provider::Tensorrt],
            Self::Tf32 => &[Provider::Cuda, Provider::Tensorrt],
            Self::Bf16 => &[Provider::Cuda],
            Self::Int8 => &[Provider::Cpu],
        }
    }

    /// Refuses a `provider` that cannot run it; `fallback` is why that is not CUDA.
    pub(super) fn check(self, provider: Provider, fallback: Option<&str>) -> Result<(), Error> {
        let providers = self.providers();
        if providers.contains(&provider) {
            return Ok(());
        }
        Err(Error::Elsewhere {
            precision: self,
            expected: providers[0],
            provider,
            fallback: fallback.map(|reason| format!(" ({reason})")),
        })
    }
}

impl fmt::Display for FrozenPrecision {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}
