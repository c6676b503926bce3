//! `--freeze` of `telly precompute`: how much is frozen, once or several times over.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::checkpoint::Freeze;
use crate::error::Error;

/// One way to freeze, or several numbers of layers, rising. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FreezeList(Vec<Freeze>);

impl FreezeList {
    fn new(mut freezes: Vec<Freeze>) -> Result<Self, String> {
        if freezes.len() > 1 && freezes.contains(&Freeze::Nothing) {
            return Err("`none` is one of several: it has no depth, make its cache alone".into());
        }
        freezes.sort_by_key(|freeze| freeze.layers());
        let mut neighbours = freezes.iter().zip(freezes.iter().skip(1));
        if let Some((twice, _)) = neighbours.find(|(freeze, next)| freeze == next) {
            return Err(format!("{twice} is there twice"));
        }
        if freezes.is_empty() {
            return Err("the list is empty".into());
        }
        Ok(Self(freezes))
    }

    /// Refuses more layers than the `layers` that the model in `folder` has.
    pub(super) fn check(&self, folder: &Path, layers: usize) -> Result<(), Error> {
        let deepest = self.0.iter().map(|freeze| freeze.layers()).max();
        check_depth(self, deepest.unwrap_or(0), folder, layers)
    }

    /// Each of them.
    pub(super) fn freezes(&self) -> &[Freeze] {
        &self.0
    }

    /// The numbers of layers; none when nothing is frozen.
    pub(super) fn depths(&self) -> Option<Vec<usize>> {
        let depths = self.0.iter().map(|freeze| match freeze {
            Freeze::Nothing => None,
            Freeze::Layers(layers) => Some(*layers),
        });
        depths.collect()
    }
}

impl fmt::Display for FreezeList {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let freezes: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        formatter.write_str(&freezes.join(","))
    }
}

/// What a list says, in its order: numbers of layers, ranges as 2..5 with both ends, and none.
pub(super) fn freezes(text: &str) -> Result<Vec<Freeze>, String> {
    let mut freezes = Vec::new();
    for part in text.split(',').map(str::trim) {
        let told = || format!("`{part}`: expected none, a number of layers, or a range as 2..5");
        if let Some((first, last)) = part.split_once("..") {
            let depth = |text: &str| text.parse::<usize>().map_err(|_| told());
            let (first, last) = (depth(first)?, depth(last)?);
            if last < first || last - first > 1_000 {
                return Err(format!("`{part}` is no range of layers"));
            }
            freezes.extend((first..=last).map(Freeze::Layers));
        } else {
            freezes.push(part.parse::<Freeze>().map_err(|_| told())?);
        }
    }
    Ok(freezes)
}

/// Refuses `freeze`, whose deepest number of layers is `deepest`, where the model in `folder` has but
/// `layers`.
pub(super) fn check_depth(
    freeze: &dyn fmt::Display,
    deepest: usize,
    folder: &Path,
    layers: usize,
) -> Result<(), Error> {
    if deepest <= layers {
        return Ok(());
    }
    Err(Error::Usage {
        problem: format!(
            "`--freeze {freeze}`: `{}` has {layers} layers",
            folder.display()
        ),
        hint: format!("pass a number from 0 to {layers}, or none"),
    })
}

impl FromStr for FreezeList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(freezes(text)?)
    }
}

impl Serialize for FreezeList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [freeze] => freeze.serialize(serializer),
            freezes => freezes.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for FreezeList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected `none`, a number of layers, or a list of such numbers"
        )]
        enum Written {
            One(usize),
            Several(Vec<usize>),
            Text(String),
        }
        let list = match Written::deserialize(deserializer)? {
            Written::One(layers) => Self::new(vec![Freeze::Layers(layers)]),
            Written::Several(layers) => Self::new(layers.into_iter().map(Freeze::Layers).collect()),
            Written::Text(text) => text.parse(),
        };
        list.map_err(|problem| serde::de::Error::custom(format!("`freeze`: {problem}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        text.parse().map(|list: FreezeList| list.to_string())
    }

    #[test]
    fn lists_are_sorted_and_hold_each_depth_once() {
        assert_eq!(parsed("5,2, 4"), Ok("2,4,5".into()));
        assert_eq!(parsed("none"), Ok("none".into()));
        assert_eq!(parsed("0"), Ok("0".into()));
        assert_eq!(parsed("0..3,5"), Ok("0,1,2,3,5".into()));
        assert_eq!(parsed("2,4,2"), Err("2 is there twice".into()));
        for wrong in [
            "none,2",
            "2,none",
            "none,none",
            "",
            "2,",
            "x",
            "3..1",
            "1..",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn recipes_write_them_in_any_way() {
        #[derive(Deserialize)]
        struct Recipe {
            freeze: FreezeList,
        }
        let read = |text: &str| -> Result<String, String> {
            let recipe = toml::from_str(text);
            let recipe: Recipe = recipe.map_err(|error| error.message().to_owned())?;
            Ok(recipe.freeze.to_string())
        };
        for (text, expected) in [
            ("freeze = 4", "4"),
            ("freeze = \"none\"", "none"),
            ("freeze = [4, 2, 5]", "2,4,5"),
            ("freeze = \"2,4,5\"", "2,4,5"),
        ] {
            assert_eq!(read(text), Ok(expected.into()));
        }
        assert_eq!(
            read("freeze = [2, 2]"),
            Err("`freeze`: 2 is there twice".into())
        );
        for wrong in ["freeze = []", "freeze = true", "freeze = -1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
