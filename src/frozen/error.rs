use std::path::PathBuf;

use super::{FrozenPrecision, Provider};
use crate::checkpoint;
use crate::error::Explain;

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
    #[error("`--provider cuda` was asked for, but ONNX Runtime cannot use CUDA here: {reason}")]
    NoCuda {
        /// ONNX Runtime's own words.
        reason: String,
    },
    /// TensorRT was asked for by name and cannot be had.
    #[error(
        "`--provider tensorrt` was asked for, but ONNX Runtime cannot use TensorRT here: {reason}"
    )]
    NoTensorrt {
        /// ONNX Runtime's own words.
        reason: String,
    },
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
            Self::NoCuda { reason } => no_cuda_hint(reason),
            Self::NoTensorrt { reason } => no_tensorrt_hint(reason),
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
            Self::Checkpoint(_) | Self::Elsewhere { .. } | Self::TensorrtInTf32
        )
    }
}

/// What to do when a single sequence does not fit.
pub(crate) const OUT_OF_MEMORY_HINT: &str = "end what else takes memory there, cut sequences shorter (`--max-length` and its like), or pass `--provider cpu`; what a cache has already is kept";

fn no_tensorrt_hint(reason: &str) -> String {
    missing_library(reason).map_or_else(
        || "ONNX Runtime's library must be one with TensorRT, and TensorRT must be installed: use `--provider cuda`, which needs neither".into(),
        |library| format!(
            "`{library}` is missing: install TensorRT, or CUDA, of that version and add its library folder to `LD_LIBRARY_PATH`, or use `--provider cuda`"
        ),
    )
}

/// What to do about `reason`, by the library that the system's loader did not find, if it is that.
fn no_cuda_hint(reason: &str) -> String {
    match missing_library(reason) {
        Some(driver) if driver.starts_with("libcuda.so") => format!(
            "`{driver}` comes with NVIDIA's driver, which is not installed: install it, or use `--provider cpu`"
        ),
        Some(library) => format!(
            "`{library}` is missing: install CUDA and cuDNN of that version and add their library folders to `LD_LIBRARY_PATH`, or use `--provider cpu`"
        ),
        None if reason.contains("invalid device ordinal") => "CUDA counts its cards from 0, among those of `CUDA_VISIBLE_DEVICES` if that is set: `nvidia-smi -L` lists them".into(),
        None => "run `scripts/setup.sh --gpu` on a machine with an NVIDIA driver, or use `--provider auto`".into(),
    }
}

/// The file that the system's loader names in `reason` as not found.
fn missing_library(reason: &str) -> Option<&str> {
    let (before, _) = reason.split_once(": cannot open shared object file")?;
    before.split_whitespace().next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_library_is_named() {
        let reason = |library: &str| {
            format!(
                "Failed to load library libonnxruntime_providers_cuda.so with error: {library}: cannot open shared object file: No such file or directory"
            )
        };
        let cublas = no_cuda_hint(&reason("libcublasLt.so.13"));
        assert!(
            cublas.contains("`libcublasLt.so.13` is missing"),
            "{cublas}"
        );
        let driver = no_cuda_hint(&reason("libcuda.so.1"));
        assert!(driver.contains("NVIDIA's driver"), "{driver}");
        let other = no_cuda_hint("CUDA failure 100: no CUDA-capable device is detected");
        assert!(other.contains("scripts/setup.sh --gpu"), "{other}");
    }
}
