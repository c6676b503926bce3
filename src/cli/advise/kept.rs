//! What a pilot has had other commands find, kept in its folder: the same advice, asked for again with more
//! minutes, need not have them look again.

use std::ffi::OsString;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::sweep::folder::write;
use crate::error::Error;
use crate::train::RunIdentity;

/// What was found, and what that follows from.
#[derive(Serialize, Deserialize)]
struct Kept<T> {
    of: Value,
    found: T,
}

/// What a command with `flags` finds of the `run`, whose weights may have been trained anew.
pub(super) fn of_run(run: &Path, flags: &[OsString]) -> Result<Value, Error> {
    let weights = RunIdentity::read(run)?.map(|(_, weights)| weights);
    let flags: Vec<_> = flags.iter().map(|flag| flag.to_string_lossy()).collect();
    Ok(json!({ "run": weights, "flags": flags, "telly": env!("CARGO_PKG_VERSION") }))
}

/// What `folder/name` keeps, if that is `of` the same; else what `find` finds, which is kept then.
pub(super) fn kept<T: Serialize + DeserializeOwned>(
    folder: &Path,
    name: &str,
    of: Value,
    find: impl FnOnce() -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    if let Some(found) = last(folder, name, |found| *found == of) {
        return Ok(Some(found));
    }
    let Some(found) = find()? else {
        return Ok(None);
    };
    let kept = Kept { of, found };
    let text = serde_json::to_string(&kept).map_err(|error| Error::Output(error.into()))?;
    write(folder, name, &text)?;
    Ok(Some(kept.found))
}

/// What `folder/name` keeps, if it `is` of what is meant. What cannot be read is found anew.
pub(super) fn last<T: DeserializeOwned>(
    folder: &Path,
    name: &str,
    is: impl FnOnce(&Value) -> bool,
) -> Option<T> {
    let text = fs_err::read(folder.join(name)).ok()?;
    let kept: Kept<T> = serde_json::from_slice(&text).ok()?;
    is(&kept.of).then_some(kept.found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_the_same_is_found_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let found = |of: u8, finds: Option<u8>| {
            kept(folder.path(), "it.json", json!(of), || Ok(finds)).expect("a result")
        };
        assert_eq!(found(1, None), None);
        assert_eq!(found(1, Some(10)), Some(10));
        assert_eq!(found(1, Some(11)), Some(10));
        assert_eq!(found(2, Some(12)), Some(12));
        fs_err::write(folder.path().join("it.json"), "{").expect("written");
        assert_eq!(found(2, Some(13)), Some(13));
    }
}
