//! What a cache was made from, field by field.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Named values, in order, that decide a cache's content: two caches with equal fingerprints
/// hold equal activations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(Map<String, Value>);

/// A field whose values differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The field.
    pub field: String,
    /// In the cache.
    pub cached: Value,
    /// Now.
    pub current: Value,
}

impl Difference {
    /// `differences`, each in a line of its own after a line that names what they are of.
    pub(crate) fn lines(differences: &[Self]) -> String {
        let mut lines = String::new();
        for difference in differences {
            lines.push_str("\n  ");
            lines.push_str(&difference.to_string());
        }
        lines
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let Self {
            field,
            cached,
            current,
        } = self;
        write!(formatter, "{field}: the cache has {cached}, now {current}")
    }
}

impl Fingerprint {
    /// Sets `field`.
    pub fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.0.insert(field.into(), value.into());
    }

    /// The value of `field`, null when it is not there.
    pub fn get(&self, field: &str) -> &Value {
        self.0.get(field).unwrap_or(&Value::Null)
    }

    /// Every field with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }

    /// Fields of `current` whose value here is another. Fields that `current` does not have are
    /// not compared: a command states only what it knows.
    pub fn differences(&self, current: &Self) -> Vec<Difference> {
        current
            .iter()
            .filter(|(field, value)| self.get(field) != *value)
            .map(|(field, value)| Difference {
                field: field.clone(),
                cached: self.get(field).clone(),
                current: value.clone(),
            })
            .collect()
    }

    /// As [`differences`](Self::differences), where `current` states all there is: a field that only
    /// the cache has differs too.
    pub fn all_differences(&self, current: &Self) -> Vec<Difference> {
        let mut differences = self.differences(current);
        let only_here = self.iter().filter(|(field, value)| {
            !value.is_null() && current.iter().all(|(other, _)| other != *field)
        });
        differences.extend(only_here.map(|(field, value)| Difference {
            field: field.clone(),
            cached: value.clone(),
            current: Value::Null,
        }));
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_the_field_and_both_values() {
        let mut cached = Fingerprint::default();
        cached.set("freeze", 4);
        cached.set("weights", "ab");
        let mut current = Fingerprint::default();
        current.set("freeze", 5);
        let differences = cached.differences(&current);
        assert_eq!(differences.len(), 1);
        assert_eq!(differences[0].to_string(), "freeze: the cache has 4, now 5");
        assert!(cached.differences(&cached.clone()).is_empty());
    }

    #[test]
    fn a_field_of_the_cache_alone_differs_where_all_is_stated() {
        let mut current = Fingerprint::default();
        current.set("freeze", 4);
        let mut cached = current.clone();
        cached.set("nothing", Value::Null);
        assert!(cached.all_differences(&current).is_empty());
        cached.set("derived_from", 2);
        assert!(cached.differences(&current).is_empty());
        let differences = cached.all_differences(&current);
        let said: Vec<String> = differences.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["derived_from: the cache has 2, now null"]);
    }
}
