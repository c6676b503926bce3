//! The activation cache: what the frozen half put out, on disk. `docs/cache-format.md` is the
//! specification; this module knows nothing of models.

mod catalog;
mod error;
mod fingerprint;
mod freshness;
mod manifest;
mod medium;
#[cfg(test)]
mod power_cut;
mod precision;
mod previous;
mod reader;
mod shard;
mod share;
mod verify;
mod writer;

pub use catalog::{Found, find, remove};
pub use error::Error;
pub use fingerprint::{Difference, Fingerprint};
pub use freshness::Freshness;
pub use manifest::{MANIFEST, Manifest, Parity, ShardEntry, SplitEntry};
pub use medium::Medium;
pub use precision::{EncodedStates, Precision};
pub use previous::Previous;
pub use reader::{Cache, Split};
pub use share::{Share, all_finished, merge};
pub use verify::{Verification, verify};
pub use writer::{SHARD_BYTES, SplitRows, Writer, free_bytes, require_space};
