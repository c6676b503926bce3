//! Equal sequences once.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::ragged::Ragged;

/// Gives equal sequences the same number, in order of first appearance.
pub(crate) struct Distinct {
    /// Each once.
    pub sequences: Ragged<u32>,
    /// Numbers by a hash of the sequence: the sequences are not kept a second time.
    numbers: HashMap<u64, u32>,
    hasher: RandomState,
}

impl Default for Distinct {
    fn default() -> Self {
        Self {
            sequences: Ragged::new(1),
            numbers: HashMap::new(),
            hasher: RandomState::new(),
        }
    }
}

impl Distinct {
    /// The number of `ids`.
    pub(crate) fn index(&mut self, ids: &[u32]) -> u32 {
        let mut key = self.hasher.hash_one(ids);
        while let Some(&number) = self.numbers.get(&key) {
            if self.sequences.sequence(number as usize) == ids {
                return number;
            }
            // Another sequence with the same hash: they stand in a row.
            key = key.wrapping_add(1);
        }
        let number = u32::try_from(self.sequences.len()).unwrap_or_else(|_| {
            unreachable!("four thousand million sequences do not fit in memory")
        });
        self.sequences.push(ids);
        self.numbers.insert(key, number);
        number
    }
}
