//! chrF: n-grams of letters.

use super::TextPair;
use super::ngrams::Overlap;
use super::words::is_space;

/// The longest n-grams of chrF.
pub const CHRF_ORDER: usize = 6;
/// How much more recall counts than precision: chrF2.
const BETA: f64 = 2.0;

/// The n-grams of one pair's letters without white space, which [`chrf`] takes the sum of. Those of the
/// hypothesis do not count where the reference is too short to have any, as in sacreBLEU.
pub fn chrf_overlap(pair: TextPair) -> Overlap<CHRF_ORDER> {
    let [reference, hypothesis] = [pair.reference, pair.hypothesis]
        .map(|text| -> Vec<char> { text.chars().filter(|&letter| !is_space(letter)).collect() });
    let mut overlap = Overlap::new(&reference, &hypothesis);
    for (hypothesis, reference) in overlap.hypothesis.iter_mut().zip(overlap.reference) {
        if reference == 0 {
            *hypothesis = 0;
        }
    }
    overlap
}

/// chrF2 (Popović 2015, 2016) of a corpus, 0 to 100, as sacreBLEU computes it (signature
/// `nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no`): (1 + β²) P R / (β² P + R) with β = 2 of the mean
/// precision and recall over the orders 1 to 6 that occur on both sides.
pub fn chrf(overlap: &Overlap<CHRF_ORDER>) -> f64 {
    let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
    for order in 0..CHRF_ORDER {
        let [reference, hypothesis, shared] =
            [overlap.reference, overlap.hypothesis, overlap.shared].map(|of| of[order] as f64);
        if reference > 0.0 && hypothesis > 0.0 {
            precision += shared / hypothesis;
            recall += shared / reference;
            orders += 1.0;
        }
    }
    if precision + recall == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (precision / orders, recall / orders);
    let weight = BETA * BETA;
    100.0 * (1.0 + weight) * precision * recall / (weight * precision + recall)
}
