//! safetensors files that say in their metadata what they were made from.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{SafeTensors, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;
use crate::mapping::MappedFile;
use crate::publish::publish;

/// Key of the metadata whose value is the source as JSON.
const SOURCE: &str = "telly";

/// Of the form of all kinds.
const VERSION: u64 = 1;

#[derive(Serialize, Deserialize)]
struct Described<T> {
    kind: String,
    version: u64,
    source: T,
}

/// Writes `tensors` of a `kind`, made from `source`, as `folder/name`, which is whole or not there at all.
pub(super) fn write_described<'a>(
    folder: &Path,
    name: &str,
    kind: &'static str,
    source: &impl Serialize,
    tensors: impl IntoIterator<Item = (String, TensorView<'a>)>,
) -> Result<(), Error> {
    let described = Described {
        kind: kind.into(),
        version: VERSION,
        source,
    };
    let source = serde_json::to_string(&described)
        .unwrap_or_else(|_| unreachable!("plain values can be written"));
    let metadata = HashMap::from([(SOURCE.to_owned(), source)]);
    let bytes = safetensors::serialize(tensors, Some(metadata))
        .unwrap_or_else(|_| unreachable!("names and shapes are good"));
    publish(folder, name, &bytes).map_err(Error::Write)
}

/// The numbers of the float32 `tensor`, unless one of them is not finite.
pub(super) fn finite_numbers(tensor: &TensorView) -> Option<Vec<f32>> {
    let (numbers, _) = tensor.data().as_chunks();
    let numbers = numbers.iter().copied().map(f32::from_le_bytes);
    let numbers: Vec<f32> = numbers.collect();
    let finite = numbers.iter().all(|number| number.is_finite());
    finite.then_some(numbers)
}

/// What `file`, which is that of `path`, was made from: it is to be of this `kind`.
pub(super) fn source<T: DeserializeOwned>(
    path: &Path,
    file: &MappedFile,
    kind: &'static str,
) -> Result<T, Error> {
    let damaged = |problem: String| Error::Damaged {
        path: path.to_owned(),
        problem,
    };
    let (_, metadata) = SafeTensors::read_metadata(file)
        .map_err(|error| damaged(format!("it does not begin as a safetensors file: {error}")))?;
    let text = metadata.metadata().as_ref();
    let text = text.and_then(|map| map.get(SOURCE));
    let described = text.and_then(|text| serde_json::from_str::<Described<Value>>(text).ok());
    let Some(described) = described.filter(|described| described.kind == kind) else {
        let path = path.to_owned();
        return Err(Error::OtherKind { path, kind });
    };
    if described.version != VERSION {
        let found = described.version;
        return Err(damaged(format!(
            "it is of version {found}, expected {VERSION}"
        )));
    }
    serde_json::from_value(described.source).map_err(|error| damaged(error.to_string()))
}
