//! The form from before PyTorch 1.6: pickles of a magic number, a version, the machine's kind,
//! the state dict and the storages' keys; then, key by key, a count of eight bytes and as many
//! numbers.

use std::collections::HashMap;

use super::pickle::Pickle;
use super::value::Value;
use super::{PytorchError, Storages};
use crate::checkpoint::stored::StoredTensor;

/// 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;

/// The tensors in the pickles of `file`.
pub(super) fn read(file: &[u8]) -> Result<HashMap<String, StoredTensor>, PytorchError> {
    let format = |problem: &str| PytorchError::Format {
        problem: problem.to_owned(),
    };
    let mut start = 0;
    let mut next = || -> Result<Pickle, PytorchError> {
        let pickle = Pickle::read(&file[start..])?;
        start += pickle.bytes;
        Ok(pickle)
    };
    let magic = next()?;
    if !matches!(magic.root(), Value::LongInteger(number) if *number == MAGIC) {
        return Err(format(
            "it is neither a zip archive nor begins with PyTorch's number",
        ));
    }
    if !matches!(next()?.root(), Value::Integer(VERSION)) {
        return Err(format("it is of another version than 1001"));
    }
    if is_big_endian(&next()?) {
        return Err(format("its numbers are stored most significant byte first"));
    }
    let state = next()?;
    let keys = next()?;
    let widths = element_widths(&state);
    let mut storages = Storages::new();
    let Value::List(list) = keys.root() else {
        return Err(format("its storages have no list of keys"));
    };
    for key in list {
        let Value::Text(key) = keys.value(*key) else {
            return Err(format("one of its storages has a key that is no text"));
        };
        let broken = |what: &str| PytorchError::Format {
            problem: format!(
                "its storage `{}` {what}",
                key.escape_debug().take(100).collect::<String>()
            ),
        };
        // Without a width nothing behind it can be found.
        let width = widths.get(key).copied();
        let width = width.ok_or_else(|| broken("is named by no tensor"))?;
        let count = file.get(start..).and_then(<[u8]>::first_chunk);
        let range = count
            .and_then(|count| usize::try_from(u64::from_le_bytes(*count)).ok())
            .and_then(|count| count.checked_mul(width))
            .and_then(|bytes| Some(start + 8..(start + 8).checked_add(bytes)?))
            .filter(|range| range.end <= file.len());
        let range = range.ok_or_else(|| broken("is not whole: the file ends too early"))?;
        start = range.end;
        storages.insert(key, range);
    }
    super::tensors(&state, &storages)
}

fn is_big_endian(kind: &Pickle) -> bool {
    let Value::Dict(entries) = kind.root() else {
        return false;
    };
    entries.iter().any(|(key, value)| {
        matches!(kind.value(*key), Value::Text("little_endian"))
            && matches!(kind.value(*value), Value::Bool(false))
    })
}

/// Bytes of a number of each storage that `pickle` names.
fn element_widths<'a>(pickle: &Pickle<'a>) -> HashMap<&'a str, usize> {
    let storages = pickle.storages();
    storages
        .map(|storage| (storage.key, storage.element.bytes()))
        .collect()
}
