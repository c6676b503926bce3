//! The flags that all runs of a sweep share: what they must have, may hold, and how two sets differ.

use std::ffi::OsString;

use serde::de::DeserializeOwned;
use toml::Table;

use crate::checkpoint::Freeze;
use crate::cli::options::missing;
use crate::cli::train::options::TrainOptions;
use crate::error::Error;

/// `--freeze` of `precompute`, with what goes with it.
pub(in crate::cli) fn freeze_flags(freezes: &[Freeze]) -> Vec<OsString> {
    let names: Vec<String> = freezes.iter().map(ToString::to_string).collect();
    let mut flags = vec![OsString::from("--freeze"), names.join(",").into()];
    if freezes == [Freeze::Nothing] {
        // There is nothing that another one could be of.
        flags.extend(["--frozen-precision", "fp32"].map(OsString::from));
    }
    flags
}

/// Takes `key` out of `shared`, if it is there, as what it is to be.
pub(super) fn taken<T: DeserializeOwned>(
    shared: &mut Table,
    key: &str,
) -> Result<Option<T>, Error> {
    let value = shared.remove(key);
    let read = |value: toml::Value| {
        let written = value.to_string();
        // A round number may be written without its point.
        let value = match value {
            toml::Value::Integer(number) => toml::Value::Float(number as f64),
            value => value,
        };
        value.try_into().map_err(|_| Error::Usage {
            problem: format!("`{key} = {written}` in the recipe cannot be read"),
            hint: "`lr` is a number and `seeds` a list of them; several rates go to `--lr`".into(),
        })
    };
    value.map(read).transpose()
}

/// Refuses flags without which nothing can be trained.
pub(super) fn check_shared(shared: &Table) -> Result<(), Error> {
    for (key, flag) in [
        ("task", "--task"),
        ("model", "--model"),
        ("train", "--train"),
    ] {
        let elsewhere = key == "train" && shared.contains_key("data");
        if !shared.contains_key(key) && !elsewhere {
            return Err(missing(flag));
        }
    }
    if !["valid", "test", "data"]
        .iter()
        .any(|key| shared.contains_key(*key))
    {
        return Err(Error::Usage {
            problem: "neither a validation nor a test split: nothing can be compared".into(),
            hint: "name one with `--valid`, or both with `--test` too".into(),
        });
    }
    Ok(())
}

/// Refuses numbers that no run could be trained with, before caches are filled and the flags are kept.
pub(in crate::cli) fn check_training(shared: &Table, lrs: &[f64]) -> Result<(), Error> {
    let options = toml::Value::Table(shared.clone()).try_into();
    let mut options: TrainOptions = options.map_err(|error: toml::de::Error| Error::Usage {
        problem: error.message().into(),
        hint: "a recipe's values are written as on the command line, texts in quotes".into(),
    })?;
    options.check()?;
    for &lr in lrs {
        options.lr = Some(lr);
        options.check()?;
    }
    Ok(())
}

/// The flags of which two recipes say different things.
pub(in crate::cli) fn differences(begun: &str, now: &str) -> String {
    let table = |text: &str| text.parse::<Table>().unwrap_or_default();
    let (begun, now) = (table(begun), table(now));
    let mut keys: Vec<&String> = begun.keys().chain(now.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let differ = keys
        .into_iter()
        .filter(|key| begun.get(*key) != now.get(*key));
    let say = |value: Option<&toml::Value>| value.map_or("nothing".into(), ToString::to_string);
    let told = differ.map(|key| {
        let flag = key.replace('_', "-");
        format!(
            "`--{flag}` {}, now {}",
            say(begun.get(key)),
            say(now.get(key))
        )
    });
    told.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told() {
        let told = differences(
            "epochs = 3\nlr = 1.0\n",
            "epochs = 4\nlr = 1.0\ntask = \"x\"\n",
        );
        assert_eq!(told, "`--epochs` 3, now 4; `--task` nothing, now \"x\"");
    }
}
