//! Numbers as readers want them.

use serde_json::Value;

/// A number: whole ones as they are, others with four places, very small and very large ones by
/// powers of ten.
pub(super) fn number(number: f64) -> String {
    if !number.is_finite() {
        "-".into()
    } else if number.fract() == 0.0 && number.abs() < 1e15 {
        format!("{number:.0}")
    } else if (1e-3..1e15).contains(&number.abs()) {
        format!("{number:.4}")
    } else {
        format!("{number:.2e}")
    }
}

/// A time of so many seconds.
pub(super) fn seconds(seconds: f64) -> String {
    if !seconds.is_finite() {
        "-".into()
    } else if seconds < 1.0 {
        format!("{seconds:.3} s")
    } else if seconds < 1000.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{seconds:.0} s")
    }
}

/// A size of so many bytes, a kB being 1,000.
pub(super) fn bytes(bytes: f64) -> String {
    if !bytes.is_finite() {
        "-".into()
    } else if bytes < 1e6 {
        format!("{:.0} kB", bytes / 1e3)
    } else if bytes < 1e10 {
        format!("{:.0} MB", bytes / 1e6)
    } else {
        format!("{:.1} GB", bytes / 1e9)
    }
}

/// A count, its digits in threes.
pub(super) fn count(count: f64) -> String {
    let digits = number(count.round());
    if digits.contains('e') {
        return digits;
    }
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        let left = digits.len() - place;
        if place > 0 && left.is_multiple_of(3) && grouped != "-" {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// What `telly` calls `name`, by the unit that its name tells.
pub(super) fn named(name: &str, value: &Value) -> String {
    match (name, value) {
        (_, Value::String(text)) => text.clone(),
        (name, Value::Number(figure)) => {
            let figure = figure.as_f64().unwrap_or(f64::NAN);
            match name {
                "tokens_per_second" => count(figure),
                name if name.ends_with("seconds") => seconds(figure),
                name if name.ends_with("bytes") => bytes(figure),
                "steps" | "trainable_parameters" | "texts" => count(figure),
                _ => number(figure),
            }
        }
        (_, Value::Bool(true)) => "yes".into(),
        (_, Value::Bool(false)) => "no".into(),
        (_, other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(number(0.912_345), "0.9123");
        assert_eq!(number(0.000_05), "5.00e-5");
        assert_eq!(number(40.0), "40");
        assert_eq!(number(-1.5e300), "-1.50e300");
        assert_eq!(number(f64::NAN), "-");
        assert_eq!(seconds(0.123_4), "0.123 s");
        assert_eq!(seconds(38.002), "38.0 s");
        assert_eq!(seconds(12_345.6), "12346 s");
        assert_eq!(bytes(702_377_984.0), "702 MB");
        assert_eq!(count(21_241_152.0), "21,241,152");
        assert_eq!(count(999.6), "1,000");
        assert_eq!(count(-123_456.0), "-123,456");
        assert_eq!(count(1e15), "1.00e15");
    }
}
