//! `telly precompute`: records through the frozen half into a cache.

mod error;
mod fill;
mod plan;
mod probe;

pub use error::Error;
pub use fill::fill;
pub use plan::{EncodedSplits, Plan, content_hash};
pub use probe::{
    FP32_MAX_ABSOLUTE_ERROR, INT8_MEAN_COSINE, PROBE_SEQUENCES, PROBE_TOKENS, check_parity, probe,
};
