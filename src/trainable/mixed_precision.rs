//! What the layers' matrix products compute in.

use candle_core::DType;
use serde::{Deserialize, Serialize};

/// `--mixed-precision`: matrix products and activations in a half type, forward and backward.
/// Parameters, their gradients, the optimizer, residual sums, LayerNorm, softmax, dropout, the head
/// and the loss stay in fp32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum MixedPrecision {
    /// All in fp32.
    #[default]
    None,
    /// In bf16: fp32's range, 8 bits of precision.
    Bf16,
    /// In fp16: 11 bits of precision; the loss is scaled so that small gradients do not vanish.
    Fp16,
}

impl MixedPrecision {
    /// What matrix products compute in.
    pub(super) fn number_type(self) -> DType {
        match self {
            Self::None => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::Fp16 => DType::F16,
        }
    }
}
