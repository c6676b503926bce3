//! How near a generated text comes to the one that was wanted.
//!
//! [`TextScores`] scores the pairs of a task; the measures themselves are functions of their own.
//! Shares are in percent, 0 to 100.

mod chrf;
mod corpus_bleu;
mod edit_similarity;
mod exact_match;
mod literals;
mod matching_blocks;
mod metrics;
mod ngrams;
mod perplexity;
mod rouge_l;
mod scores;
mod sentence_bleu;
mod words;

pub use chrf::{CHRF_ORDER, chrf, chrf_overlap};
pub use corpus_bleu::{BLEU_ORDER, bleu_overlap, corpus_bleu};
pub use edit_similarity::{edit_similarity, edit_similarity_levenshtein};
pub use exact_match::exact_match;
pub use literals::plain_literals;
pub use matching_blocks::matching_ratio;
pub use metrics::TextMetrics;
pub use ngrams::Overlap;
pub use perplexity::perplexity;
pub use rouge_l::rouge_l;
pub use scores::{ExampleScores, TextScores, TextTask};
pub use sentence_bleu::sentence_bleu;

/// What was wanted and what came. Names tell them apart, as BLEU and the edit similarity change
/// when they are swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextPair<'a> {
    /// What was wanted.
    pub reference: &'a str,
    /// What was generated.
    pub hypothesis: &'a str,
}
