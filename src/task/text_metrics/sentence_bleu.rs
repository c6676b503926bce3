//! BLEU of one sentence, as code summarization is measured.

use std::sync::LazyLock;

use regex::Regex;

use super::TextPair;
use super::corpus_bleu::BLEU_ORDER;
use super::ngrams::Overlap;

/// A run of letters and digits, or any other letter but white space.
///
/// The reference splits by `[\w]+|[^\s\w]` and then by the rules of NIST's mteval-v11a. After the
/// first, those find one thing more to do: `_`, which is a letter to `\w` and a sign to NIST.
/// `\p{L}\p{N}` is what Python's `\w` has beside it; the `regex` crate's has marks too.
static TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[\p{L}\p{N}]+|[^\s\x1C-\x1F]")
        .unwrap_or_else(|_| unreachable!("it is well formed"))
});

/// Sentence BLEU-4 of small letters, smoothed, 0 to 100: the mean over a corpus is the BLEU of
/// CodeXGLUE's code-to-text evaluator, which comes from Moses.
///
/// The geometric mean of the precisions of orders 1 to 4, with 1 added to both numbers of a quotient
/// from order 2 on (Lin and Och 2004), times exp(min(0, 1 - (r + 1) / (h + 1))) for r words of the
/// reference and h of the hypothesis. The evaluator adds the least positive number to what it takes the
/// logarithm of, so that an empty hypothesis has precision 1 and only the brevity penalty: exp(-r).
pub fn sentence_bleu(pair: TextPair) -> f64 {
    let [reference, hypothesis] = [pair.reference, pair.hypothesis].map(str::to_lowercase);
    let [reference, hypothesis] = [&reference, &hypothesis].map(|text| tokens(text));
    let overlap = Overlap::<BLEU_ORDER>::new(&reference, &hypothesis);
    let mut mean = 0.0;
    for (order, (shared, all)) in overlap.shared.iter().zip(overlap.hypothesis).enumerate() {
        let added = f64::from(u8::from(order > 0)) + f64::MIN_POSITIVE;
        mean += (*shared as f64 + added).ln() - (all as f64 + added).ln();
    }
    mean /= BLEU_ORDER as f64;
    let lengths = (reference.len() + 1) as f64 / (hypothesis.len() + 1) as f64;
    100.0 * (mean + (1.0 - lengths).min(0.0)).exp()
}

fn tokens(text: &str) -> Vec<&str> {
    TOKEN.find_iter(text).map(|token| token.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the evaluator gives where other programs give 0, by its formula.
    #[test]
    fn an_empty_hypothesis_pays_for_its_brevity_alone() {
        for (reference, hypothesis, wanted) in [
            ("", "", 100.0),
            ("close it", "", 100.0 * (-2.0f64).exp()),
            ("", "close it", 0.0),
            ("close it", "open that", 0.0),
        ] {
            let pair = TextPair {
                reference,
                hypothesis,
            };
            assert!((sentence_bleu(pair) - wanted).abs() < 1e-12, "{pair:?}");
        }
    }

    #[test]
    fn an_underscore_is_a_token_of_its_own() {
        assert_eq!(
            tokens("foo_bar(1.5)"),
            ["foo", "_", "bar", "(", "1", ".", "5", ")"]
        );
    }
}
