//! Peak memory told from shapes before anything is run.
//!
//! Every term has a name, so that a user sees what to change. On the CPU the peak is that of the
//! process's resident memory, on CUDA that of the device. `scripts/bench/estimate.py` measures the
//! CPU's; none of it has been measured on a GPU.

use serde_json::{Map, Value, json};

// The two figures that follow are fitted to the shapes of `scripts/bench/estimate.py --set fit` with
// nothing frozen, whose precompute runs no model.

/// The binary and the stacks of its threads.
const PROGRAM_BYTES: u64 = 16_000_000;
/// What a tokenizer keeps of each entry of its vocabulary, for both directions.
const VOCABULARY_ENTRY_BYTES: u64 = 300;
/// A CUDA context with cuBLAS's handles and workspace: a round figure, not measured.
pub(crate) const CUDA_CONTEXT_BYTES: u64 = 400_000_000;

/// Bytes of the program with a tokenizer of so many entries.
pub(crate) fn program_bytes(vocabulary: usize) -> u64 {
    PROGRAM_BYTES + vocabulary as u64 * VOCABULARY_ENTRY_BYTES
}

/// Where the memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The process's own.
    Cpu,
    /// The card's.
    Cuda,
}

/// Some of the memory, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// What it is for.
    pub name: &'static str,
    /// How much.
    pub bytes: u64,
}

/// The terms that are there at a command's fullest moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// When that is.
    pub moment: &'static str,
    /// One each.
    pub terms: Vec<Term>,
}

impl Estimate {
    /// Of `moment`; terms of no bytes are left out.
    pub(crate) fn new(moment: &'static str, terms: &[(&'static str, u64)]) -> Self {
        let terms = terms.iter().filter(|(_, bytes)| *bytes > 0);
        Self {
            moment,
            terms: terms.map(|&(name, bytes)| Term { name, bytes }).collect(),
        }
    }

    /// All terms together.
    pub fn peak(&self) -> u64 {
        self.terms.iter().map(|term| term.bytes).sum()
    }

    /// The fullest of several moments.
    pub(crate) fn fullest(moments: impl IntoIterator<Item = Self>) -> Self {
        let fullest = moments.into_iter().max_by_key(Self::peak);
        fullest.unwrap_or_else(|| Self::new("at rest", &[]))
    }

    /// As `--json` has it.
    pub fn to_json(&self) -> Value {
        let terms = self.terms.iter();
        let terms: Map<String, Value> = terms
            .map(|term| (term.name.replace(' ', "_"), json!(term.bytes)))
            .collect();
        json!({ "peak_bytes": self.peak(), "moment": self.moment, "terms": terms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_moment_counts() {
        let early = Estimate::new("early", &[("weights", 5), ("nothing", 0)]);
        let late = Estimate::new("late", &[("weights", 3), ("gradients", 3)]);
        assert_eq!((early.terms.len(), early.peak()), (1, 5));
        let fullest = Estimate::fullest([early, late]);
        assert_eq!((fullest.moment, fullest.peak()), ("late", 6));
    }
}
