//! The edit similarity of code completion. It is fuzzywuzzy's `ratio`, which has two back ends that
//! differ by near a point.

use super::TextPair;
use super::matching_blocks::matching_ratio;

/// fuzzywuzzy's `ratio(hypothesis, reference)` where python-Levenshtein is not installed, a whole
/// number 0 to 100: [`matching_ratio`] in percent, rounded half to even. The published numbers of
/// Telly are means of this one.
pub fn edit_similarity(pair: TextPair) -> f64 {
    percent(pair, || matching_ratio(pair.hypothesis, pair.reference))
}

/// fuzzywuzzy's `ratio` where python-Levenshtein is installed, a whole number 0 to 100:
/// 1 - d / T, where d letters have to be inserted or deleted and T are in both, in percent, rounded
/// half to even.
pub fn edit_similarity_levenshtein(pair: TextPair) -> f64 {
    percent(pair, || {
        let [reference, hypothesis] = [pair.reference, pair.hypothesis].map(str::chars);
        rapidfuzz::distance::indel::normalized_similarity(hypothesis, reference)
    })
}

/// What fuzzywuzzy makes of `ratio`: equal texts are 100 even if both are empty, and an empty one is
/// 0 to any other.
fn percent(pair: TextPair, ratio: impl Fn() -> f64) -> f64 {
    if pair.reference == pair.hypothesis {
        return 100.0;
    }
    if pair.reference.is_empty() || pair.hypothesis.is_empty() {
        return 0.0;
    }
    (100.0 * ratio()).round_ties_even()
}
