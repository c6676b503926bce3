//! Whether paired measurements differ: Student's test.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// What is said of the mean difference of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedTest {
    /// Mean of the differences, the first of a pair less the second.
    pub difference: f64,
    /// Its 95 % confidence interval.
    pub interval: [f64; 2],
    /// Probability, from 0 to 1, of a mean as far from 0 where there is no difference; two-sided.
    pub p_value: f64,
}

impl PairedTest {
    /// Student's t-test of `pairs` (Student, 1908), with one degree of freedom fewer than there are
    /// pairs. None of fewer than two, or of numbers that are none. Differences that are all the same
    /// number have no deviation to judge them by: p is 1 if that number is 0, and else 0.
    pub fn new(pairs: &[(f64, f64)]) -> Option<Self> {
        let count = pairs.len() as f64;
        let differences = pairs.iter().map(|(one, other)| one - other);
        let difference = differences.clone().sum::<f64>() / count;
        if pairs.len() < 2 || !difference.is_finite() {
            return None;
        }
        let squares = differences.map(|each| (each - difference).powi(2));
        let error = (squares.sum::<f64>() / (count - 1.0) / count).sqrt();
        // Equal numbers are off by the rounding of their mean.
        let rounding = 8.0
            * f64::EPSILON
            * pairs.iter().fold(0.0, |most: f64, (one, other)| {
                most.max(one.abs()).max(other.abs())
            });
        if error <= rounding {
            return Some(Self {
                difference,
                interval: [difference; 2],
                p_value: if difference.abs() <= rounding {
                    1.0
                } else {
                    0.0
                },
            });
        }
        let student = StudentsT::new(0.0, 1.0, count - 1.0).ok()?;
        let reach = student.inverse_cdf(0.975) * error;
        Some(Self {
            difference,
            interval: [difference - reach, difference + reach],
            p_value: 2.0 * student.sf((difference / error).abs()),
        })
    }

    /// p with three places; none is written as 0.
    pub fn p_value_text(&self) -> String {
        if self.p_value < 0.001 {
            "< 0.001".into()
        } else {
            format!("{:.3}", self.p_value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against `scipy.stats.ttest_rel` of `SciPy` 1.17 and its `confidence_interval`.
    #[test]
    fn scipy_says_the_same() {
        let pairs = [(0.91, 0.90), (0.88, 0.90), (0.93, 0.89), (0.90, 0.88)];
        let test = PairedTest::new(&pairs).expect("a test");
        assert!(
            (test.p_value - 0.391_002_218_955_77).abs() < 1e-10,
            "{test:?}"
        );
        assert!((test.interval[0] + 0.027_280_578_816_046).abs() < 1e-10);
        assert!((test.interval[1] - 0.052_280_578_816_046).abs() < 1e-10);
    }

    #[test]
    fn equal_differences_are_certain() {
        let test = PairedTest::new(&[(0.3, 0.1), (0.4, 0.2)]).expect("a test");
        assert!(test.p_value.abs() < f64::MIN_POSITIVE);
        let test = PairedTest::new(&[(0.3, 0.3), (0.7, 0.7)]).expect("a test");
        assert_eq!((test.p_value, test.interval), (1.0, [0.0, 0.0]));
        assert_eq!(PairedTest::new(&[(0.3, 0.3)]), None);
        assert_eq!(PairedTest::new(&[(f64::NAN, 0.3), (0.1, 0.2)]), None);
    }
}
