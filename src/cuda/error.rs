use std::path::PathBuf;

use super::{NEEDED, OLDEST_CAPABILITY, Version};
use crate::error::Explain;

/// Which piece is missing where CUDA cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The driver's library is not there.
    #[error("NVIDIA's driver is not installed: {reason}")]
    NoDriver {
        /// What the system's loader said.
        reason: String,
    },
    /// The driver does not answer questions.
    #[error("NVIDIA's driver does not answer: {reason}")]
    NoManagement {
        /// What its management library, or the loader, said.
        reason: String,
    },
    /// The driver runs an older CUDA only.
    #[error(
        "NVIDIA's driver {version} is too old: it runs CUDA {cuda}, expected CUDA {NEEDED} or newer"
    )]
    OldDriver {
        /// Of the driver.
        version: String,
        /// What it runs.
        cuda: Version,
    },
    /// A driver without a card.
    #[error("NVIDIA's driver {version} finds no card")]
    NoCard {
        /// Of the driver.
        version: String,
    },
    /// CUDA 13 has no code for any of the cards.
    #[error(
        "the card `{name}` has compute capability {capability}, expected {OLDEST_CAPABILITY} or higher"
    )]
    OldCard {
        /// The newest of them.
        name: String,
        /// What it can do.
        capability: Version,
    },
    /// ONNX Runtime's library is the one for CPUs.
    #[error("ONNX Runtime's library `{library}` was built without CUDA")]
    LibraryWithout {
        /// Which one.
        library: PathBuf,
    },
    /// A library that was brought cannot be loaded.
    #[error("the CUDA library `{path}` cannot be loaded: {reason}")]
    Library {
        /// Which one.
        path: PathBuf,
        /// What the system's loader said.
        reason: String,
    },
    /// candle was compiled for CPUs alone.
    #[error("this telly is built without CUDA")]
    BuiltWithout,
    /// It was not asked for a card, as there is no driver that can be used.
    #[error("not tried: the driver cannot be used")]
    NotTried,
    /// Driver and libraries are there, and it still does not work.
    #[error("{reason}")]
    Refused {
        /// The words of the library that failed.
        reason: String,
    },
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoDriver { .. } => {
                "install NVIDIA's driver (in a container, start it with the cards passed through), or stay on the CPU".into()
            }
            Self::NoManagement { .. } => "see what `nvidia-smi` says: the driver's kernel module may not be loaded, or not be the one of its libraries; a container needs `libnvidia-ml.so.1` as well".into(),
            Self::OldDriver { .. } => format!("install a driver that runs CUDA {NEEDED}: 580 or newer"),
            Self::NoCard { .. } => "see whether `nvidia-smi` lists one; a container must be started with the cards passed through".into(),
            Self::OldCard { .. } => "stay on the CPU: CUDA 13 has no code for this card".into(),
            Self::LibraryWithout { .. } => "run `scripts/setup.sh --gpu`, which brings the one with CUDA and the CUDA libraries it needs".into(),
            Self::Library { .. } => "delete the folder it lies in and run `scripts/setup.sh --gpu` again".into(),
            Self::BuiltWithout => "build it with `scripts/cuda-build.sh`, or with `cargo build --release --features cuda` where CUDA is installed; or use `--device auto`".into(),
            Self::NotTried => return None,
            Self::Refused { reason } => refused_hint(reason),
        })
    }

    fn is_input(&self) -> bool {
        true
    }
}

/// What to do about `reason`, by the library that is not found, if it is that.
fn refused_hint(reason: &str) -> String {
    match missing_library(reason) {
        Some(library) => format!(
            "`{library}` is missing: `scripts/setup.sh --gpu` brings it, or install CUDA and cuDNN of that version and add their library folders to `LD_LIBRARY_PATH`"
        ),
        None if reason.contains("invalid device ordinal") => "CUDA counts its cards from 0, among those of `CUDA_VISIBLE_DEVICES` if that is set: `nvidia-smi -L` lists them".into(),
        None => "`telly doctor` says what is there and what is missing; `scripts/setup.sh --gpu` brings the libraries".into(),
    }
}

/// The library that the system's loader, or candle's, names in `reason` as not found.
pub(crate) fn missing_library(reason: &str) -> Option<&str> {
    if let Some((before, _)) = reason.split_once(": cannot open shared object file") {
        return before.split_whitespace().next_back();
    }
    let (_, after) = reason.split_once("dynamically load the \"")?;
    Some(after.split_once('"')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_library_is_named() {
        let hint = |reason: &str| {
            let reason = reason.into();
            Error::Refused { reason }.hint().expect("a hint")
        };
        let runtime = hint(
            "Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file: No such file or directory",
        );
        assert!(
            runtime.starts_with("`libcublasLt.so.13` is missing"),
            "{runtime}"
        );
        let candle = hint(
            "Unable to dynamically load the \"cublas\" shared library - searched for library names: [\"libcublas.so\"].",
        );
        assert!(candle.starts_with("`cublas` is missing"), "{candle}");
        let other = hint("CUDA failure 100: no CUDA-capable device is detected");
        assert!(other.contains("telly doctor"), "{other}");
    }
}
