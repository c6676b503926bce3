//! Tensors out of what `torch.save` writes: `pytorch_model.bin`, as a zip archive or, from before
//! PyTorch 1.6, as pickles one behind the other. Numbers are read where they lie in the mapped
//! file; nothing that the file says is run.

mod archive;
mod construct;
mod error;
mod global;
mod legacy;
mod pickle;
mod rebuild;
#[cfg(test)]
mod tests;
mod value;

use std::collections::HashMap;
use std::ops::Range;

pub use error::PytorchError;
use pickle::Pickle;
use value::Value;

use super::stored::StoredTensor;

/// A longer name is no tensor's.
const LONGEST_NAME: usize = 1024;

/// Where each storage's bytes lie in the file, by key.
type Storages<'a> = HashMap<&'a str, Range<usize>>;

/// The tensors of the state dict in `file`, by name.
pub(super) fn read(file: &[u8]) -> Result<HashMap<String, StoredTensor>, PytorchError> {
    if file.starts_with(b"PK") {
        archive::read(file)
    } else {
        legacy::read(file)
    }
}

/// The tensors that `pickle` names, found in `storages` and checked to lie within them.
fn tensors(
    pickle: &Pickle,
    storages: &Storages,
) -> Result<HashMap<String, StoredTensor>, PytorchError> {
    let Value::Dict(entries) = pickle.root() else {
        return Err(PytorchError::Format {
            problem: "it holds something else than a state dict".into(),
        });
    };
    let mut tensors = HashMap::new();
    for (key, value) in entries {
        let (Value::Text(name), Value::Tensor(tensor)) = (pickle.value(*key), pickle.value(*value))
        else {
            continue;
        };
        if name.len() > LONGEST_NAME {
            continue;
        }
        let wrong = |problem| PytorchError::Tensor {
            name: (*name).to_owned(),
            problem,
        };
        let storage = &tensor.storage;
        let range = storages.get(storage.key).ok_or_else(|| {
            let key = storage.key.escape_debug().take(100).collect::<String>();
            wrong(format!("its storage `{key}` is not in the file"))
        })?;
        let bytes = storage.elements.checked_mul(storage.element.bytes());
        if bytes.is_none_or(|bytes| bytes > range.len()) {
            let problem = format!(
                "its storage has {} bytes, {} of {} were expected",
                range.len(),
                storage.elements,
                storage.element
            );
            return Err(wrong(problem));
        }
        let stored = StoredTensor::strided(
            storage.element,
            &tensor.shape,
            &tensor.strides,
            tensor.first,
            storage.elements,
            range.start,
        );
        tensors.insert((*name).to_owned(), stored.map_err(wrong)?);
    }
    Ok(tensors)
}
