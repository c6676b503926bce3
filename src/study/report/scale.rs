//! From numbers to places on an axis, and the numbers beside it.

/// Numbers that differ by less are taken for one: steps between them would be 0.
const LEAST: f64 = 1e-300;

/// A range of numbers and the marks beside it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    /// The least number that is shown.
    pub low: f64,
    /// The largest.
    pub high: f64,
    /// Where there are marks, and what stands beside them.
    pub marks: Vec<(f64, String)>,
}

/// What a scale has to show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Wanted {
    /// The least number.
    pub low: f64,
    /// The largest.
    pub high: f64,
    /// About so many marks.
    pub marks: u32,
    /// Whether 0 is shown, whatever the numbers.
    pub from_zero: bool,
    /// Whether numbers between whole ones mean nothing.
    pub whole: bool,
}

impl Scale {
    /// Of `wanted`, with a little room on both sides.
    pub(super) fn new(wanted: Wanted) -> Self {
        let Wanted { low, high, .. } = wanted;
        let (mut low, mut high) = (low.min(high), low.max(high));
        if wanted.from_zero {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        if high - low <= (high.abs().max(low.abs()) * 1e-9).max(LEAST) {
            // All are one number: it comes into the middle.
            let around = if high.abs() <= LEAST {
                1.0
            } else {
                high.abs() * 0.1
            };
            let floor = if wanted.from_zero { 0.0 } else { low - around };
            (low, high) = (floor.min(low), high + around);
        }
        let room = (high - low) * 0.05;
        let at_zero = |end: f64| wanted.from_zero && end == 0.0;
        if !at_zero(low) {
            low -= room;
        }
        if !at_zero(high) {
            high += room;
        }
        let step = step((high - low) / f64::from(wanted.marks.max(1)), wanted.whole);
        Self {
            low,
            high,
            marks: marks(low, high, step),
        }
    }

    /// With marks at given numbers, as many of `names` as `fit`.
    pub(super) fn named(names: &[(f64, String)], fit: usize) -> Self {
        let ends = names.iter().map(|(number, _)| *number);
        let low = ends.clone().fold(f64::INFINITY, f64::min);
        let high = ends.fold(f64::NEG_INFINITY, f64::max);
        let room = ((high - low) * 0.05).max(0.25);
        let every = names.len().div_ceil(fit.max(1)).max(1);
        Self {
            low: low - room,
            high: high + room,
            marks: names.iter().step_by(every).cloned().collect(),
        }
    }

    /// Where `number` is, on a line from `start` (the low end) to `end`.
    pub(super) fn place(&self, number: f64, start: f64, end: f64) -> f64 {
        start + (number - self.low) / (self.high - self.low) * (end - start)
    }
}

/// The least of 1, 2 and 5 times a power of ten that is not below `at_least`.
fn step(at_least: f64, whole: bool) -> f64 {
    let power = 10f64.powf(at_least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = steps
        .into_iter()
        .find(|step| *step >= at_least * (1.0 - 1e-9));
    let step = step.unwrap_or(10.0 * power);
    if whole { step.max(1.0) } else { step }
}

/// The multiples of `step` from `low` to `high`, written alike.
fn marks(low: f64, high: f64, step: f64) -> Vec<(f64, String)> {
    let first = (low / step - 1e-9).ceil();
    let last = (high / step + 1e-9).floor();
    let mut numbers = Vec::new();
    let mut multiple = first;
    while multiple <= last {
        numbers.push(multiple * step);
        multiple += 1.0;
    }
    let most = numbers
        .iter()
        .fold(0.0, |most: f64, number| most.max(number.abs()));
    let exponent = decimal_exponent(step);
    let powers = most > 0.0 && !(1e-3..1e6).contains(&most);
    let write = |number: f64| {
        // Not -0, nor what is left of 0 by rounding.
        if number.abs() < step * 1e-6 {
            return "0".to_owned();
        }
        let digits = if powers {
            decimal_exponent(number) - exponent
        } else {
            -exponent
        };
        let digits = usize::try_from(digits.max(0)).unwrap_or(0);
        if powers {
            format!("{number:.digits$e}")
        } else {
            format!("{number:.digits$}")
        }
    };
    let texts: Vec<String> = numbers.iter().map(|&number| write(number)).collect();
    numbers.into_iter().zip(texts).collect()
}

/// The power of ten of the first digit.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a float's power of ten is a small number"
)]
fn decimal_exponent(number: f64) -> i64 {
    (number.abs().log10() + 1e-9).floor() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(low: f64, high: f64) -> Wanted {
        Wanted {
            low,
            high,
            marks: 5,
            from_zero: false,
            whole: false,
        }
    }

    fn texts(scale: &Scale) -> Vec<&str> {
        scale.marks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn marks_are_round_numbers_written_alike() {
        let scale = Scale::new(wanted(0.0, 1.0));
        assert_eq!(texts(&scale), ["0", "0.5", "1.0"]);
        let scale = Scale::new(wanted(0.9012, 0.9187));
        assert_eq!(texts(&scale), ["0.905", "0.910", "0.915"]);
        let scale = Scale::new(wanted(-3.0, 40.0));
        assert_eq!(texts(&scale), ["0", "10", "20", "30", "40"]);
    }

    #[test]
    fn small_and_large_numbers_are_powers_of_ten() {
        let scale = Scale::new(Wanted {
            from_zero: true,
            ..wanted(1e-6, 5e-5)
        });
        assert_eq!(texts(&scale), ["0", "2e-5", "4e-5"]);
        let scale = Scale::new(wanted(2e6, 8e6));
        assert_eq!(texts(&scale), ["2e6", "4e6", "6e6", "8e6"]);
    }

    #[test]
    fn every_number_is_inside() {
        for (low, high) in [
            (0.0, 0.0),
            (3.0, 3.0),
            (-1.0, 1.0),
            (1e-9, 2e-9),
            (-5.0, -5.0),
            (-5e-324, 5e-324),
        ] {
            for from_zero in [false, true] {
                let scale = Scale::new(Wanted {
                    from_zero,
                    ..wanted(low, high)
                });
                assert!(scale.low <= low && scale.high >= high, "{scale:?}");
                assert!(scale.low < scale.high, "{scale:?}");
                assert!((1..20).contains(&scale.marks.len()), "{scale:?}");
                let inside = |mark: &(f64, String)| {
                    let slack = (scale.high - scale.low) * 1e-6;
                    (scale.low - slack..=scale.high + slack).contains(&mark.0)
                };
                assert!(scale.marks.iter().all(inside), "{scale:?}");
            }
        }
    }

    #[test]
    fn whole_numbers_have_no_marks_between() {
        let scale = Scale::new(Wanted {
            whole: true,
            ..wanted(1.0, 2.0)
        });
        assert_eq!(texts(&scale), ["1", "2"]);
    }

    #[test]
    fn as_many_names_as_fit() {
        let names: Vec<(f64, String)> = (-1..=12).map(|k| (f64::from(k), k.to_string())).collect();
        assert_eq!(Scale::named(&names, 20).marks.len(), 14);
        assert_eq!(Scale::named(&names, 7).marks.len(), 7);
        let one = Scale::named(&names[..1], 7);
        assert!(one.low < one.high);
        assert!((one.place(-1.0, 0.0, 100.0) - 50.0).abs() < 1e-9);
    }
}
