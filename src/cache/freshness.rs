//! Whether a cache is the one that is wanted.

use std::fmt;
use std::path::Path;

use super::{Difference, Error, Fingerprint, Manifest};

/// What there is in the place of a cache that is wanted.
#[derive(Debug)]
pub enum Freshness {
    /// No cache.
    Missing,
    /// The cache, though perhaps not all of it.
    Fresh,
    /// One that was made from something else: every field that differs.
    Stale(Vec<Difference>),
}

impl Freshness {
    /// Of the cache in `folder`, whose `differences` from the one that is wanted make it stale.
    pub fn of(
        folder: &Path,
        differences: impl FnOnce(&Fingerprint) -> Vec<Difference>,
    ) -> Result<Self, Error> {
        let differences = match Manifest::read(folder) {
            Ok(manifest) => differences(&manifest.fingerprint),
            Err(Error::Missing { .. }) => return Ok(Self::Missing),
            Err(error) => return Err(error),
        };
        Ok(if differences.is_empty() {
            Self::Fresh
        } else {
            Self::Stale(differences)
        })
    }
}

impl fmt::Display for Freshness {
    /// One line.
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Missing => formatter.write_str("Missing"),
            Self::Fresh => formatter.write_str("Fresh"),
            Self::Stale(differences) => {
                let fields: Vec<String> = differences.iter().map(ToString::to_string).collect();
                write!(formatter, "Stale ({})", fields.join("; "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::MANIFEST;

    #[test]
    fn a_cache_is_missing_fresh_or_stale() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut current = Fingerprint::default();
        current.set("freeze", 4);
        current.set("train", "ab");
        let told = |current: &Fingerprint| {
            let freshness = Freshness::of(folder.path(), |cached| cached.differences(current));
            freshness.map(|freshness| freshness.to_string())
        };
        assert_eq!(told(&current).expect("readable"), "Missing");
        let manifest = Manifest::new(current.clone()).to_bytes();
        fs_err::write(folder.path().join(MANIFEST), manifest).expect("written");
        assert_eq!(told(&current).expect("readable"), "Fresh");
        current.set("freeze", 5);
        current.set("train", "cd");
        assert_eq!(
            told(&current).expect("readable"),
            "Stale (freeze: the cache has 4, now 5; train: the cache has \"ab\", now \"cd\")"
        );
        fs_err::write(folder.path().join(MANIFEST), "{").expect("written");
        assert!(told(&current).is_err());
    }
}
