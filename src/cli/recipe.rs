//! `--recipe FILE.toml`: any of the flags of `precompute` and `train`, by their long names with
//! `_` for `-`. A flag typed wins over the recipe, the recipe over a default.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::error::Error;

/// What was typed, over what the recipe says.
pub(super) fn resolve<T: Serialize + DeserializeOwned>(
    typed: &T,
    recipe: Option<&Path>,
) -> Result<T, Error> {
    let table = table(typed, recipe)?;
    T::deserialize(Value::Table(table)).map_err(|error| Error::Usage {
        problem: match recipe {
            Some(path) => format!("`{}`: {}", path.display(), error.message()),
            None => error.message().into(),
        },
        hint: "a recipe's values are written as on the command line, texts in quotes".into(),
    })
}

/// The same as a table, with what the recipe says beyond `typed`.
pub(super) fn table<T: Serialize>(typed: &T, recipe: Option<&Path>) -> Result<Table, Error> {
    let mut table = match recipe {
        Some(path) => read(path)?,
        None => Table::new(),
    };
    let typed = Table::try_from(typed).unwrap_or_else(|_| unreachable!("flags are plain values"));
    table.extend(typed);
    Ok(table)
}

fn read(path: &Path) -> Result<Table, Error> {
    let text = fs_err::read_to_string(path).map_err(|error| Error::Usage {
        problem: error.to_string(),
        hint: "`--recipe` names a TOML file".into(),
    })?;
    let table: Table = toml::from_str(&text).map_err(|error| Error::Usage {
        problem: format!("`{}` is not TOML: {}", path.display(), error.message()),
        hint: "a recipe holds lines as `batch_size = 32`".into(),
    })?;
    let known = super::recipe_keys();
    let mut normalised = Table::new();
    for (key, value) in table {
        let key = key.replace('-', "_");
        if !known.contains(&key) {
            return Err(Error::Usage {
                problem: format!(
                    "`{}`: no flag `--{}`",
                    path.display(),
                    key.replace('_', "-")
                ),
                hint: "a recipe's keys are the long flags of `telly precompute` and `telly train`"
                    .into(),
            });
        }
        normalised.insert(key, value);
    }
    Ok(normalised)
}
