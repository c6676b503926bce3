//! The best so far of many.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A record, and how close it is to a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// The cosine.
    pub score: f32,
    /// The record's place in the index.
    pub record: usize,
}

impl Eq for Hit {}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Hit {
    /// More is better; of equal scores the earlier record is.
    fn cmp(&self, other: &Self) -> Ordering {
        let scores = self.score.total_cmp(&other.score);
        scores.then(other.record.cmp(&self.record))
    }
}

/// The best hits of a query, no more than a given number.
pub struct Top {
    most: usize,
    worst_first: BinaryHeap<Reverse<Hit>>,
}

impl Top {
    /// None yet.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            worst_first: BinaryHeap::new(),
        }
    }

    /// Takes `hit` in if it is among the best.
    pub fn offer(&mut self, hit: Hit) {
        if self.worst_first.len() < self.most {
            self.worst_first.push(Reverse(hit));
        } else if let Some(mut worst) = self.worst_first.peek_mut()
            && worst.0 < hit
        {
            *worst = Reverse(hit);
        }
    }

    /// The best hits, best first.
    pub fn into_hits(self) -> Vec<Hit> {
        let sorted = self.worst_first.into_sorted_vec();
        sorted.into_iter().map(|Reverse(hit)| hit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_stay_and_ties_keep_their_order() {
        let scores = [0.1, 0.7, 0.7, -1.0, 0.7, 0.9, f32::MIN];
        for most in 0..=scores.len() + 1 {
            let mut top = Top::new(most);
            for (record, score) in scores.into_iter().enumerate() {
                top.offer(Hit { score, record });
            }
            let found: Vec<usize> = top.into_hits().iter().map(|hit| hit.record).collect();
            let expected = [5, 1, 2, 4, 0, 3, 6];
            assert_eq!(found, expected[..most.min(expected.len())]);
        }
    }
}
