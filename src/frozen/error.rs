use std::path::PathBuf;

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
            Self::NoCuda(error) => return error.hint(),
            Self::Int8OnCuda => "pass `--provider cpu`, or run in fp32 on CUDA: `--frozen-precision fp32` where the cache is made".into(),
            Self::NotFinite { .. } => "the checkpoint's weights may be broken: look for NaN or infinity in them".into(),
            Self::Checkpoint(error) => return error.hint(),
            Self::Runtime { .. } => return None,
        })
    }

    fn is_input(&self) -> bool {
        matches!(
            self,
            Self::Checkpoint(_) | Self::NoCuda(_) | Self::Int8OnCuda
        )
    }
}
