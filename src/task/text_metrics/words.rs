//! White space as Python sees it, whose programs the references are.

/// Whether Python's `str.split()` splits here: it takes the four separators of ASCII for white
/// space, Unicode does not.
pub(super) fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter)
}

/// The words of `text` with white space between, as Python's `split()`.
pub(super) fn words(text: &str) -> Vec<&str> {
    let words = text.split(is_space);
    words.filter(|word| !word.is_empty()).collect()
}

/// `text` without white space around it, as Python's `strip()`.
pub(super) fn stripped(text: &str) -> &str {
    text.trim_matches(is_space)
}
