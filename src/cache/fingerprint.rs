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
}
