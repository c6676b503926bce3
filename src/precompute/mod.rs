//! `telly precompute`: records through the frozen half into a cache, and `telly cache derive`: one
//! cache through more layers into another.

mod derive;
mod error;
mod estimate;
mod fill;
mod memory;
mod plan;
mod probe;
mod records;
mod states;

pub use derive::is_inexact;
pub use error::Error;
pub use estimate::{
    SplitEstimate, Verdict, existing_ancestor, frozen_rate, read_rate, split_estimates,
};
pub use fill::fill;
pub use memory::{FrozenShape, shards_in_memory};
pub use plan::{EncodedSplits, Plan, content_hash, runtime_name};
pub use probe::{
    FP32_MAX_ABSOLUTE_ERROR, INT8_MEAN_COSINE, PROBE_SEQUENCES, PROBE_TOKENS, check_derived_parity,
    check_parity, probe,
};
pub use records::Records;
pub use states::{FromCache, FromTokens, States};
