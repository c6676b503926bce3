//! The trainable half written out for the CPU: forward and backward passes over packed sequences,
//! in memory that is used again from step to step.
//!
//! candle's automatic differentiation starts above this: it gets the pooled vectors as a
//! variable, and its gradient with respect to them is what [`backward`](encoder) starts from.
//! Each function is tested against the same in candle's primitives ([`ops`](super::ops)) and
//! against finite differences.
//!
//! Results depend on the number of threads at most through the matrix products: every other
//! sum is taken over parts of a fixed size, in their order.

mod activation;
mod attention;
mod attention_block;
mod bias;
mod buffers;
mod encoder;
mod feed_forward;
mod gated;
pub(super) mod language_loss;
mod layer;
mod layer_norm;
mod linear;
mod math;
mod matrix;
mod norm;
mod pooling;
mod post_norm;
mod pre_norm;
mod profile;
mod reach;
mod relative_bias;
mod rotary;
mod rows;
mod sums;
#[cfg(test)]
mod tests;
mod values;

pub(super) use buffers::{Buffer, Buffers};
pub(super) use encoder::{Tape, backward, forward};
pub(super) use matrix::Target;
pub use matrix::peak_flops;
pub use profile::{Part, Profile};
pub(super) use reach::Reach;
pub(super) use sums::dot;
pub(super) use values::values;

/// Numbers a thread works on at a time in element-wise passes.
const CHUNK: usize = 1 << 14;

/// What the passes share: memory, and where their time is written down.
#[derive(Default)]
pub(super) struct Workspace {
    /// Memory for everything that a pass keeps or needs for a moment.
    pub(super) buffers: Buffers,
    /// Where time went.
    pub(super) profile: Profile,
}
