//! `--train`, `--valid` and `--test`: one or more files or folders a split; in a recipe a text, or
//! a list of them.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(PathBuf),
    More(Vec<PathBuf>),
}

/// One path as it is, several as a list.
#[allow(clippy::ref_option, reason = "serde calls it so")]
pub(super) fn serialize<S: Serializer>(
    paths: &Option<Vec<PathBuf>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match paths.as_deref() {
        Some([path]) => OneOrMore::One(path.clone()).serialize(serializer),
        other => other.serialize(serializer),
    }
}

/// As it is written; an empty list is as good as none.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<PathBuf>>, D::Error> {
    let found = Option::<OneOrMore>::deserialize(deserializer)?;
    let paths = found.map(|found| match found {
        OneOrMore::One(path) => vec![path],
        OneOrMore::More(paths) => paths,
    });
    Ok(paths.filter(|paths| !paths.is_empty()))
}
