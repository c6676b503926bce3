//! The activation cache: what the frozen half put out, on disk. `docs/cache-format.md` is the
//! specification; this module knows nothing of models.

mod error;
mod fingerprint;
mod manifest;
mod reader;
mod shard;
mod writer;

pub use error::Error;
pub use fingerprint::{Difference, Fingerprint};
pub use manifest::{MANIFEST, Manifest, Parity, ShardEntry, SplitEntry};
pub use reader::{Cache, Split};
pub use shard::Precision;
pub use writer::{SHARD_BYTES, SplitRows, Writer};
