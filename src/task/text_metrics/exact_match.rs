use super::TextPair;
use super::words::words;

/// Whether both are the same words; white space between them does not count.
pub fn exact_match(pair: TextPair) -> bool {
    words(pair.reference) == words(pair.hypothesis)
}
