//! N-grams that two sequences share.

use std::collections::HashMap;
use std::hash::Hash;
use std::iter::Sum;

/// How many n-grams a reference and a hypothesis have and share, order after order from 1 to
/// `ORDER`. Those of several pairs add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlap<const ORDER: usize> {
    /// Of the reference.
    pub reference: [usize; ORDER],
    /// Of the hypothesis.
    pub hypothesis: [usize; ORDER],
    /// Of both: each as often as it occurs in the one that has fewer.
    pub shared: [usize; ORDER],
}

impl<const ORDER: usize> Overlap<ORDER> {
    pub(super) fn new<T: Eq + Hash>(reference: &[T], hypothesis: &[T]) -> Self {
        let count = |items: &[T]| {
            let mut counts = [0; ORDER];
            for (order, count) in (1..).zip(&mut counts) {
                *count = (items.len() + 1).saturating_sub(order);
            }
            counts
        };
        let mut shared = [0; ORDER];
        for (order, shared) in (1..).zip(&mut shared) {
            let mut left: HashMap<&[T], usize> = HashMap::new();
            for ngram in reference.windows(order) {
                *left.entry(ngram).or_default() += 1;
            }
            for ngram in hypothesis.windows(order) {
                if let Some(left @ 1..) = left.get_mut(ngram) {
                    *left -= 1;
                    *shared += 1;
                }
            }
        }
        Self {
            reference: count(reference),
            hypothesis: count(hypothesis),
            shared,
        }
    }
}

impl<const ORDER: usize> Sum for Overlap<ORDER> {
    fn sum<I: Iterator<Item = Self>>(pairs: I) -> Self {
        let mut total = Self {
            reference: [0; ORDER],
            hypothesis: [0; ORDER],
            shared: [0; ORDER],
        };
        for pair in pairs {
            for order in 0..ORDER {
                total.reference[order] += pair.reference[order];
                total.hypothesis[order] += pair.hypothesis[order];
                total.shared[order] += pair.shared[order];
            }
        }
        total
    }
}
