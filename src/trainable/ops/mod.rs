//! Differentiable operations on packed sequences.
//!
//! Each exists twice: `Fused` for the CPU, a candle custom operation with its own backward, and
//! `Composed` of candle's primitives, for CUDA and as the reference that the fused one is
//! tested against. candle-nn's own `LayerNorm` and `softmax_last_dim` are not used anywhere:
//! they have no backward and cut the gradient without a word.

mod attention;
mod dropout;
mod gelu;
#[cfg(test)]
mod gradient_check;
mod layer_norm;
mod linear;
mod math;
mod pooling;
mod storage;

use candle_core::Device;

pub use attention::attention;
pub(crate) use dropout::mix;
pub use dropout::{Dropout, dropout};
pub use gelu::gelu;
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use pooling::{first_token, mean};

/// Which implementation of the operations runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ops {
    /// One pass over the data each, with a backward of its own; CPU only.
    Fused,
    /// candle's differentiable primitives; any device.
    Composed,
}

impl Ops {
    /// The one for `device`.
    pub fn for_device(device: &Device) -> Self {
        if device.is_cpu() {
            Self::Fused
        } else {
            Self::Composed
        }
    }
}
