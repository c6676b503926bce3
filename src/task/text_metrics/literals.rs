//! Literals of completed code, which the data set has in brackets.

use std::sync::LazyLock;

use regex::Regex;

/// A literal that was kept.
static KEPT: LazyLock<Regex> = LazyLock::new(|| {
    let literal = r"(?s)<(?:STR|NUM|CHAR)_LIT:(.*?)>";
    Regex::new(literal).unwrap_or_else(|_| unreachable!("it is well formed"))
});

/// `code` with its literals as they were: `<STR_LIT:x>` becomes x, as do `<NUM_LIT:x>` and
/// `<CHAR_LIT:x>`; of those that were taken out, `<NUM_LIT>` becomes 0 and `<STR_LIT>` and
/// `<CHAR_LIT>` nothing. So does CodeXGLUE's evaluator for line completion, in that order.
pub fn plain_literals(code: &str) -> String {
    let mut plain = code.replace("<NUM_LIT>", "0");
    for gone in ["<STR_LIT>", "<CHAR_LIT>"] {
        plain = plain.replace(gone, "");
    }
    let filled = plain.clone();
    for literal in KEPT.captures_iter(&filled) {
        let (whole, [content]) = literal.extract();
        plain = plain.replace(whole, content);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_written_out() {
        for (code, wanted) in [
            (
                "f ( <NUM_LIT:13> , \"<STR_LIT:a > b>\" )",
                "f ( 13 , \"a  b>\" )",
            ),
            ("<NUM_LIT> + '<CHAR_LIT>' + \"<STR_LIT>\"", "0 + '' + \"\""),
            ("<CHAR_LIT:x> <STR_LIT:a\nb>", "x a\nb"),
            ("<STR_LIT:<NUM_LIT>>", "0"),
            ("<STR_LIT:open", "<STR_LIT:open"),
        ] {
            assert_eq!(plain_literals(code), wanted, "{code}");
        }
    }
}
