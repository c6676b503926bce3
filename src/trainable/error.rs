use crate::checkpoint;
use crate::error::Explain;

/// Why the trainable half failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error("a tensor operation failed")]
    Tensor(#[source] Box<candle_core::Error>),
    /// A weight could not be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// Stored tensors do not fit the model.
    #[error("tensor `{name}`: found {found}, expected {expected}")]
    Mismatch {
        /// The tensor.
        name: String,
        /// What is stored.
        found: String,
        /// What the model has.
        expected: String,
    },
    /// The written-out layers were asked for on another device than the CPU.
    #[error("`--ops fused` is written for the CPU, and cannot run on CUDA")]
    FusedElsewhere,
    /// The written-out layers were asked for in half types.
    #[error("`--ops fused` computes in fp32, and has no `--mixed-precision`")]
    FusedInHalf,
    /// A parameter that is being trained received no gradient: a bug, never the user's fault.
    #[error("parameter `{name}` received no gradient")]
    NoGradient {
        /// The parameter.
        name: String,
    },
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(Box::new(error))
    }
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Checkpoint(error) => error.hint(),
            Self::Mismatch { .. } => {
                Some("the run was made from another model or with another `--freeze`".into())
            }
            Self::FusedElsewhere => {
                Some("use `--ops auto` or `--ops composed`, or `--device cpu`".into())
            }
            Self::FusedInHalf => Some("use `--ops auto` or `--ops composed`".into()),
            Self::NoGradient { .. } => Some("this is a bug in Telly: please report it".into()),
            Self::Tensor(_) => None,
        }
    }

    fn is_input(&self) -> bool {
        matches!(
            self,
            Self::Checkpoint(_) | Self::Mismatch { .. } | Self::FusedElsewhere | Self::FusedInHalf
        )
    }
}
