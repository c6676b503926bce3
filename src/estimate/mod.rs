//! Peak memory of both commands, told from shapes before anything is run.
//!
//! Every term has a name, so that a user sees what to change. On the CPU the peak is that of the
//! process's resident memory, on CUDA that of the device. `scripts/bench/estimate.py` measures the
//! CPU's.

mod frozen;
mod training;

use serde_json::{Map, Value, json};

pub use frozen::{FrozenShape, precompute};
pub use training::{Pick, TrainingShape, pick, train};

/// The binary, its allocator's pools, the thread stacks.
const PROCESS_BYTES: u64 = 24_000_000;
/// A CUDA context with cuBLAS's handles and workspace: a round figure, not measured.
const CUDA_CONTEXT_BYTES: u64 = 400_000_000;
/// What a tokenizer keeps of each entry of its vocabulary, for both directions and its merges.
const VOCABULARY_ENTRY_BYTES: u64 = 300;

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
    fn new(moment: &'static str, terms: Vec<(&'static str, u64)>) -> Self {
        let terms = terms.into_iter().filter(|(_, bytes)| *bytes > 0);
        Self {
            moment,
            terms: terms.map(|(name, bytes)| Term { name, bytes }).collect(),
        }
    }

    /// All terms together.
    pub fn peak(&self) -> u64 {
        self.terms.iter().map(|term| term.bytes).sum()
    }

    /// The fullest of several moments.
    fn fullest(moments: impl IntoIterator<Item = Self>) -> Self {
        let fullest = moments.into_iter().max_by_key(Self::peak);
        fullest.unwrap_or_else(|| Self::new("at rest", Vec::new()))
    }

    /// As `--json` has it.
    pub fn to_json(&self) -> Value {
        let terms = self.terms.iter();
        let terms: Map<String, Value> = terms
            .map(|term| (term.name.replace(' ', "_") + "_bytes", json!(term.bytes)))
            .collect();
        json!({ "peak_bytes": self.peak(), "moment": self.moment, "terms": terms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_moment_counts() {
        let early = Estimate::new("early", vec![("weights", 5), ("nothing", 0)]);
        let late = Estimate::new("late", vec![("weights", 3), ("gradients", 3)]);
        assert_eq!((early.terms.len(), early.peak()), (1, 5));
        let fullest = Estimate::fullest([early, late]);
        assert_eq!((fullest.moment, fullest.peak()), ("late", 6));
    }
}
