//! The zip form: `FOLDER/data.pkl` and a file `FOLDER/data/KEY` for each storage, none of them
//! compressed.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;

use zip::CompressionMethod;
use zip::result::ZipError;

use super::pickle::Pickle;
use super::{PytorchError, Storages};
use crate::checkpoint::stored::StoredTensor;

const PICKLE: &str = "/data.pkl";

/// An entry that is stored as it is.
struct Entry {
    name: String,
    range: Range<usize>,
}

/// The tensors in the archive `file`.
pub(super) fn read(file: &[u8]) -> Result<HashMap<String, StoredTensor>, PytorchError> {
    let entries = entries(file)?;
    let mut pickles = entries.iter().filter(|entry| entry.name.ends_with(PICKLE));
    let (Some(pickle), None) = (pickles.next(), pickles.next()) else {
        return Err(PytorchError::Format {
            problem: "it is a zip archive without one `data.pkl`, as `torch.save` writes".into(),
        });
    };
    let folder = pickle.name.strip_suffix(PICKLE).unwrap_or_default();
    let within = |entry: &'_ Entry| {
        let name = entry.name.strip_prefix(folder)?.strip_prefix('/')?;
        Some((name.to_owned(), entry.range.clone()))
    };
    let names: Vec<(String, Range<usize>)> = entries.iter().filter_map(within).collect();
    let mut storages = Storages::new();
    for (name, range) in &names {
        if let Some(key) = name.strip_prefix("data/") {
            storages.insert(key, range.clone());
        } else if name == "byteorder" && file[range.clone()] != *b"little" {
            return Err(PytorchError::Format {
                problem: "its numbers are stored most significant byte first".into(),
            });
        }
    }
    super::tensors(&Pickle::read(&file[pickle.range.clone()])?, &storages)
}

/// All entries of the archive, each checked to lie within `file`.
fn entries(file: &[u8]) -> Result<Vec<Entry>, PytorchError> {
    let damaged = |error: ZipError| PytorchError::Archive {
        problem: error.to_string(),
    };
    let mut archive = zip::ZipArchive::new(Cursor::new(file)).map_err(damaged)?;
    let mut entries = Vec::new();
    for number in 0..archive.len() {
        let entry = archive.by_index_raw(number).map_err(damaged)?;
        let name = entry.name().map_err(damaged)?.into_owned();
        // torch.save compresses nothing; a few compressed bytes could become anything.
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            return Err(PytorchError::Archive {
                problem: format!("`{}` is compressed or encrypted", name.escape_debug()),
            });
        }
        let start = entry
            .data_start()
            .and_then(|start| usize::try_from(start).ok());
        let end = usize::try_from(entry.size()).ok();
        let end = start.and_then(|start| start.checked_add(end?));
        let range = start.zip(end).map(|(start, end)| start..end);
        let range = range.filter(|range| range.end <= file.len());
        let range = range.ok_or_else(|| PytorchError::Archive {
            problem: format!("`{}` ends behind the file", name.escape_debug()),
        })?;
        entries.push(Entry { name, range });
    }
    Ok(entries)
}
