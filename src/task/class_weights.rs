//! `--class-weights`: how much the rows of each class count in training.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A weight a class, or the rule that gives them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ClassWeights {
    /// Rows of every class weigh the same together: `rows / (classes · rows of the class)`, as
    /// scikit-learn's `balanced`.
    Balanced,
    /// These, in the order of the classes: integers by value, then words by the alphabet.
    Given(Vec<f64>),
}

impl ClassWeights {
    /// The weights for a training split with the classes `labels`, all below `classes`. Of those
    /// given there must be as many.
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation)]
    pub fn of(&self, labels: &[i64], classes: usize) -> Option<Vec<f64>> {
        match self {
            Self::Given(weights) => (weights.len() == classes).then(|| weights.clone()),
            Self::Balanced => {
                let mut counts = vec![0usize; classes];
                for &label in labels {
                    counts[label as usize] += 1;
                }
                let all = labels.len() as f64 / classes as f64;
                // A class without rows has nothing to weigh.
                let weight = |count: usize| all / count.max(1) as f64;
                Some(counts.into_iter().map(weight).collect())
            }
        }
    }
}

impl FromStr for ClassWeights {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "balanced" {
            return Ok(Self::Balanced);
        }
        let weights = text.split(',').map(|weight| weight.trim().parse::<f64>());
        let weights = weights.collect::<Result<Vec<_>, _>>().unwrap_or_default();
        if weights.is_empty()
            || weights
                .iter()
                .any(|&weight| !(weight.is_finite() && weight > 0.0))
        {
            return Err("expected `balanced`, or a number above 0 for each class, as 1,2.5".into());
        }
        Ok(Self::Given(weights))
    }
}

impl fmt::Display for ClassWeights {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Balanced => formatter.write_str("balanced"),
            Self::Given(weights) => {
                let weights: Vec<String> = weights.iter().map(f64::to_string).collect();
                formatter.write_str(&weights.join(","))
            }
        }
    }
}

impl TryFrom<String> for ClassWeights {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ClassWeights> for String {
    fn from(weights: ClassWeights) -> Self {
        weights.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::ClassWeights;

    #[test]
    fn balanced_as_scikit_learn_has_it() {
        // compute_class_weight("balanced", classes=[0, 1, 2], y=[0, 0, 0, 1, 1, 2])
        let weights = ClassWeights::Balanced.of(&[0, 0, 0, 1, 1, 2], 3);
        assert_eq!(weights, Some(vec![2.0 / 3.0, 1.0, 2.0]));
    }

    #[test]
    fn a_weight_a_class() {
        let given: ClassWeights = "1, 2.5".parse().expect("weights");
        assert_eq!(given.of(&[0, 1], 2), Some(vec![1.0, 2.5]));
        assert_eq!(given.of(&[0, 1, 2], 3), None);
        assert_eq!(given.to_string(), "1,2.5");
        for wrong in ["", "1,", "equal", "1,-1", "0,1", "NaN,1"] {
            assert!(wrong.parse::<ClassWeights>().is_err(), "{wrong}");
        }
    }
}
