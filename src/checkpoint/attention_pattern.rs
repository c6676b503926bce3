//! Which tokens of its sequence a token attends to.

use crate::ragged::Ragged;

/// Which tokens of its sequence a token attends to. A sequence's prefix, its first so many tokens,
/// is what all three kinds differ in: every token attends to the whole prefix, and beyond that to
/// the tokens up to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionPattern {
    /// All of them: the prefix is the whole sequence. That of encoders.
    #[default]
    Bidirectional,
    /// Those up to itself: no prefix. That of decoders.
    Causal,
    /// The source of a sequence is its prefix, as in a prefix language model (Raffel et al., 2020,
    /// section 3.2.1), the target is behind it.
    Prefix(PrefixRule),
}

/// Where the source of a sequence ends, and where the target's positions start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixRule {
    /// The token that ends a source. No text is encoded to it.
    pub separator: u32,
    /// With which of them in a sequence the source ends, counted from 1.
    pub occurrence: usize,
    /// Positions of the target's tokens are counted as if the source had so many tokens; from where
    /// it ends when absent.
    pub padded_source: Option<usize>,
}

impl AttentionPattern {
    /// How many tokens of the sequence `ids` are its prefix.
    pub fn prefix_length(&self, ids: &[u32]) -> usize {
        match self {
            Self::Bidirectional => ids.len(),
            Self::Causal => 0,
            Self::Prefix(rule) => {
                let separators = ids.iter().enumerate();
                let separators = separators.filter(|&(_, &id)| id == rule.separator);
                let last = separators.map(|(place, _)| place).nth(rule.occurrence - 1);
                last.map_or(ids.len(), |place| place + 1)
            }
        }
    }

    /// The prefix of each of some sequences; none where every token attends to every token. Only where
    /// it ends in the sequence itself are `ids` asked for.
    pub fn prefixes(
        &self,
        sequences: usize,
        ids: impl FnOnce() -> Ragged<u32>,
    ) -> Option<Vec<usize>> {
        match self {
            Self::Bidirectional => None,
            Self::Causal => Some(vec![0; sequences]),
            Self::Prefix(_) => Some(ids().iter().map(|ids| self.prefix_length(ids)).collect()),
        }
    }

    /// By how much the positions of the tokens behind a prefix of `prefix_length` tokens are moved
    /// on.
    pub fn position_shift(&self, prefix_length: usize) -> usize {
        match self {
            Self::Prefix(PrefixRule {
                padded_source: Some(padded),
                ..
            }) => padded.saturating_sub(prefix_length),
            _ => 0,
        }
    }

    /// Whether every token attends to every token.
    pub fn is_bidirectional(&self) -> bool {
        *self == Self::Bidirectional
    }
}

#[cfg(test)]
mod tests {
    use super::{AttentionPattern, PrefixRule};

    const IDS: [u32; 7] = [0, 5, 2, 9, 2, 19, 2];

    fn prefix(padded_source: Option<usize>) -> AttentionPattern {
        AttentionPattern::Prefix(PrefixRule {
            separator: 2,
            occurrence: 2,
            padded_source,
        })
    }

    #[test]
    fn a_source_ends_with_its_separator() {
        assert_eq!(prefix(None).prefix_length(&IDS), 5);
        assert_eq!(prefix(None).prefix_length(&IDS[..4]), 4);
        assert_eq!(AttentionPattern::Causal.prefix_length(&IDS), 0);
        assert_eq!(AttentionPattern::Bidirectional.prefix_length(&IDS), 7);
    }

    #[test]
    fn positions_are_moved_on_to_behind_the_padding() {
        assert_eq!(prefix(None).position_shift(5), 0);
        assert_eq!(prefix(Some(256)).position_shift(5), 251);
        assert_eq!(prefix(Some(4)).position_shift(5), 0);
    }
}
