//! From a sequence back to the user's own record.

use super::Error;
use crate::cache::SplitRows;
use crate::{error, frozen};

/// Knows which records the distinct sequences come from.
#[derive(Clone, Copy)]
pub struct Records<'a>(pub &'a [SplitRows]);

impl Records<'_> {
    /// The first record of sequence `sequence`, in words.
    pub fn of(self, sequence: usize) -> String {
        let place = self.0.iter().find_map(|split| {
            let mut sequences = split.rows.iter();
            let place = sequences.position(|&other| other as usize == sequence)?;
            let record = place / split.columns + 1;
            Some(format!("record {record} of the {} split", split.name))
        });
        place.unwrap_or_else(|| format!("sequence {sequence}"))
    }

    /// `error` of the frozen half, with the record in place of the sequence's number.
    pub fn name(self, error: frozen::Error) -> error::Error {
        match error {
            frozen::Error::NotFinite { sequence } => Error::NotFinite {
                record: self.of(sequence),
            }
            .into(),
            frozen::Error::OutOfMemory {
                sequence,
                tokens,
                source,
            } => Error::OutOfMemory {
                record: self.of(sequence),
                tokens,
                source,
            }
            .into(),
            other => other.into(),
        }
    }
}
