//! safetensors files that say in their metadata what they were made from.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{SafeTensors, TensorView};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;
use crate::mapping::MappedFile;
use crate::publish::publish;

/// Key of the metadata whose value is the source as JSON.
const SOURCE: &str = "telly";

/// Writes `tensors`, made from `source`, as `folder/name`, which is whole or not there at all.
pub(super) fn write_described<'a>(
    folder: &Path,
    name: &str,
    source: &impl Serialize,
    tensors: impl IntoIterator<Item = (String, TensorView<'a>)>,
) -> Result<(), Error> {
    let source = serde_json::to_string(source)
        .unwrap_or_else(|_| unreachable!("plain values can be written"));
    let metadata = HashMap::from([(SOURCE.to_owned(), source)]);
    let bytes = safetensors::serialize(tensors, Some(metadata))
        .unwrap_or_else(|_| unreachable!("names and shapes are good"));
    publish(folder, name, &bytes).map_err(Error::Write)
}

/// What `file`, which is that of `path`, was made from; `version` is how its form is numbered there, and
/// `expected` the only number that is read.
pub(super) fn source<T: DeserializeOwned>(
    path: &Path,
    file: &MappedFile,
    version: impl Fn(&T) -> u64,
    expected: u64,
) -> Result<T, Error> {
    let damaged = |problem: String| Error::Damaged {
        path: path.to_owned(),
        problem,
    };
    let (_, metadata) =
        SafeTensors::read_metadata(file).map_err(|error| damaged(error.to_string()))?;
    let text = metadata.metadata().as_ref();
    let text = text.and_then(|map| map.get(SOURCE));
    let text = text.ok_or_else(|| damaged(format!("its metadata has no `{SOURCE}`")))?;
    let source: T = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
    match version(&source) {
        found if found == expected => Ok(source),
        found => Err(damaged(format!(
            "it is of version {found}, expected {expected}"
        ))),
    }
}
