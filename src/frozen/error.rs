use std::path::PathBuf;

use super::{FrozenPrecision, Provider};
use crate::error::Explain;
use crate::{checkpoint, cuda};

/// Why the frozen half could not be built or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no ONNX Runtime shared library.
    #[error("no ONNX Runtime library found; looked at: {}", .looked_at.join(", "))]
    NoLibrary {
        /// Every place that was tried, in order.
        looked_at: Vec<String>,
    },
    /// The library is there but cannot be used.
    #[error("cannot load ONNX Runtime from `{path}`: {reason}")]
    Load {
        /// The library.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// CUDA was asked for by name and cannot be had.
    #[error("`--provider cuda` was asked for, and cannot be had here")]
    NoCuda(#[source] cuda::Error),
    /// TensorRT was asked for by name and cannot be had.
    #[error("`--provider tensorrt` was asked for, and cannot be had here")]
    NoTensorrt(#[source] cuda::Error),
    /// ONNX Runtime has no way to tell TensorRT to leave TF32 alone.
    #[error(
        "TensorRT would compute fp32 in TF32: `NVIDIA_TF32_OVERRIDE` is not 0 in the environment"
    )]
    TensorrtInTf32,
    /// The provider cannot compute in that precision.
    #[error(
        "a frozen half in {precision} runs on {} only, found provider {provider}{}, expected {expected}",
        if *.expected == Provider::Cpu { "the CPU" } else { "CUDA" },
        .fallback.as_deref().unwrap_or_default()
    )]
    Elsewhere {
        /// What was to be computed in.
        precision: FrozenPrecision,
        /// Where it can be.
        expected: Provider,
        /// Where it was to be.
        provider: Provider,
        /// Why that is not CUDA, in parentheses.
        fallback: Option<String>,
    },
    /// One sequence alone is too much for the memory there is.
    #[error("ONNX Runtime ran out of memory over sequence {sequence} alone, of {tokens} tokens")]
    OutOfMemory {
        /// Which sequence.
        sequence: usize,
        /// Its length.
        tokens: usize,
        /// ONNX Runtime's own words.
        source: ort::Error,
    },
    /// ONNX Runtime refused the graph or failed while running it.
    #[error("ONNX Runtime failed to {action}")]
    Runtime {
        /// What it was doing.
        action: &'static str,
        /// Its own words.
        source: ort::Error,
    },
    /// A weight could not be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The hidden states are not numbers.
    #[error("the frozen half put out a number that is not finite for sequence {sequence}")]
    NotFinite {
        /// Which sequence.
        sequence: usize,
    },
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoLibrary { .. } => {
                "run `scripts/setup.sh`, or pass the path of libonnxruntime with `--onnxruntime` or in `ORT_DYLIB_PATH`".into()
            }
            Self::Load { .. } => "the library must be ONNX Runtime 1.23 or newer for this machine; `scripts/setup.sh` brings one that fits".into(),
            Self::NoTensorrt(cuda::Error::Refused { reason }) => no_tensorrt_hint(reason),
            Self::NoCuda(error) | Self::NoTensorrt(error) => return error.hint(),
            Self::TensorrtInTf32 => "set `NVIDIA_TF32_OVERRIDE=0`, or pass `--frozen-precision tf32`, which says what is computed".into(),
            Self::Elsewhere { expected: Provider::Cpu, .. } => "pass `--provider cpu`, or run in fp32 on CUDA: `--frozen-precision fp32` where the cache is made".into(),
            Self::Elsewhere { precision, .. } => format!(
                "pass `--provider cuda` on a machine with an NVIDIA card, or another `--frozen-precision` than {precision}: fp32 and fp16 run everywhere"
            ),
            Self::OutOfMemory { .. } => OUT_OF_MEMORY_HINT.into(),
            Self::NotFinite { .. } => "the checkpoint's weights may be broken: look for NaN or infinity in them".into(),
            Self::Checkpoint(error) => return error.hint(),
            Self::Runtime { .. } => return None,
        })
    }

    fn is_input(&self) -> bool {
        matches!(
            self,
            Self::Checkpoint(_)
                | Self::NoCuda(_)
                | Self::NoTensorrt(_)
                | Self::Elsewhere { .. }
                | Self::TensorrtInTf32
        )
    }
}

/// What to do when a single sequence does not fit.
pub(crate) const OUT_OF_MEMORY_HINT: &str = "end what else takes memory there, cut sequences shorter (`--max-length` and its like), or pass `--provider cpu`; what a cache has already is kept";

fn no_tensorrt_hint(reason: &str) -> String {
    cuda::missing_library(reason).map_or_else(
        || "ONNX Runtime's library must be one with TensorRT, and TensorRT must be installed: use `--provider cuda`, which needs neither".into(),
        |library| format!(
            "`{library}` is missing: install TensorRT, or CUDA, of that version and add its library folder to `LD_LIBRARY_PATH`, or use `--provider cuda`"
        ),
    )
}
