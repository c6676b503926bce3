//! BLEU of a whole corpus, as code generation is measured.

use super::TextPair;
use super::ngrams::Overlap;
use super::words::words;

/// The longest n-grams of BLEU-4.
pub const BLEU_ORDER: usize = 4;

/// The n-grams of one pair's words, which [`corpus_bleu`] takes the sum of.
pub fn bleu_overlap(pair: TextPair) -> Overlap<BLEU_ORDER> {
    Overlap::new(&words(pair.reference), &words(pair.hypothesis))
}

/// Corpus BLEU-4 (Papineni et al. 2002) of words between white space, 0 to 100.
///
/// The geometric mean of the precisions (shared + 1) / (hypothesis + 1) of orders 1 to 4, times
/// the brevity penalty exp(1 - r / h) where the hypotheses' h words are fewer than the references'
/// r: `compute_bleu(smooth=True)` of TensorFlow's `nmt`, which CodeXGLUE uses for text to code.
/// It adds 1 at order 1 too, unlike the smoothing of Lin and Och (2004). Without any word among the
/// hypotheses it divides by 0; here that is 0.
pub fn corpus_bleu(overlap: &Overlap<BLEU_ORDER>) -> f64 {
    let [reference, ..] = overlap.reference;
    let [hypothesis, ..] = overlap.hypothesis;
    if hypothesis == 0 {
        return 0.0;
    }
    let orders = overlap.shared.iter().zip(overlap.hypothesis);
    let logarithms = orders.map(|(&shared, all)| ((shared + 1) as f64 / (all + 1) as f64).ln());
    let mean = logarithms.sum::<f64>() / BLEU_ORDER as f64;
    let penalty = (1.0 - reference as f64 / hypothesis as f64).min(0.0);
    100.0 * (mean + penalty).exp()
}
