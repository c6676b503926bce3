//! Whether rows are shuffled one by one or in blocks.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::cache::Medium;

/// How rows are shuffled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shuffle {
    /// Every order is as likely as any other.
    #[default]
    Exact,
    /// Blocks of rows that lie side by side, and the rows of each few blocks that follow each
    /// other: the cache is read in large pieces.
    Block,
}

impl Shuffle {
    /// Why a cache of `bytes` on `medium` is to be read in blocks on a machine of `memory` bytes;
    /// nothing if the exact order does: what fits into memory is read from the disk once, and
    /// other media are as fast in any order. Exact as well where the system does not tell.
    pub fn reason_for_blocks(bytes: u64, memory: Option<u64>, medium: Medium) -> Option<String> {
        let memory = memory.filter(|&memory| bytes > memory)?;
        let lies_on = match medium {
            Medium::Rotating => "a disk that the system calls rotating",
            Medium::Network => "a network or FUSE file system",
            Medium::Other => return None,
        };
        Some(format!(
            "the cache ({}) is larger than memory ({}) and lies on {lies_on}",
            ByteSize(bytes),
            ByteSize(memory)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::Shuffle;
    use crate::cache::Medium;

    #[test]
    fn in_blocks_where_memory_is_short_and_the_medium_slow() {
        let reason = Shuffle::reason_for_blocks;
        for medium in [Medium::Rotating, Medium::Network] {
            assert!(reason(11, Some(10), medium).is_some());
            assert_eq!(reason(10, Some(10), medium), None);
            assert_eq!(reason(11, None, medium), None);
        }
        assert_eq!(reason(11, Some(10), Medium::Other), None);
        assert_eq!(
            reason(3 << 30, Some(1 << 30), Medium::Network).as_deref(),
            Some(
                "the cache (3.0 GiB) is larger than memory (1.0 GiB) and lies on a network or FUSE file system"
            )
        );
    }
}
