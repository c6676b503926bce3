//! ROUGE-L: the longest common subsequence of words.

use std::collections::HashMap;

use rapidfuzz::distance::lcs_seq;

use super::TextPair;

/// ROUGE-L (Lin 2004), F1, 0 to 100: 2 P R / (P + R), where the longest common subsequence is P of
/// the hypothesis' words and R of the reference's. β is 1, as in the `rouge-score` package without
/// stemming; image captioning's has 1.2.
///
/// Words are runs of a-z and 0-9 after turning to small letters: an accented letter divides a word.
pub fn rouge_l(pair: TextPair) -> f64 {
    let [reference, hypothesis] = [pair.reference, pair.hypothesis].map(str::to_lowercase);
    let mut numbers = HashMap::new();
    let [reference, hypothesis] = [&reference, &hypothesis].map(|text| -> Vec<u64> {
        let words = text.split(|letter: char| !matches!(letter, 'a'..='z' | '0'..='9'));
        let words = words.filter(|word| !word.is_empty());
        words
            .map(|word| {
                let next = numbers.len() as u64;
                *numbers.entry(word).or_insert(next)
            })
            .collect()
    });
    let common = lcs_seq::similarity(reference.iter().copied(), hypothesis.iter().copied());
    if common == 0 {
        return 0.0;
    }
    let precision = common as f64 / hypothesis.len() as f64;
    let recall = common as f64 / reference.len() as f64;
    100.0 * 2.0 * precision * recall / (precision + recall)
}
