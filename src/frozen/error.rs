use std::path::PathBuf;

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
    /// The 8-bit graph is for the CPU alone.
    #[error("a frozen half in int8 runs on the CPU only, found provider cuda, expected cpu")]
    Int8OnCuda,
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
            Self::Load { .. } => "the library must be ONNX Runtime 1.18 or newer for this machine; `scripts/setup.sh` brings one that fits".into(),
            Self::NoCuda { reason } => no_cuda_hint(reason),
            Self::Int8OnCuda => "pass `--provider cpu`, or run in fp32 on CUDA: `--frozen-precision fp32` where the cache is made".into(),
            Self::NotFinite { .. } => "the checkpoint's weights may be broken: look for NaN or infinity in them".into(),
            Self::Checkpoint(error) => return error.hint(),
            Self::Runtime { .. } => return None,
        })
    }

    fn is_input(&self) -> bool {
        matches!(self, Self::Checkpoint(_) | Self::Int8OnCuda)
    }
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
