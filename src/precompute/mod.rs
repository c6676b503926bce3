//! `telly precompute`: records through the frozen half into a cache.

mod fill;
mod plan;

pub use fill::fill;
pub use plan::{EncodedSplits, Plan, content_hash};
