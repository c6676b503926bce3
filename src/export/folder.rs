//! The files of an export.

use std::path::Path;

use super::Error;

/// Bytes of every file below `folder`.
pub(super) fn size(folder: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for entry in fs_err::read_dir(folder).map_err(Error::Write)? {
        let entry = entry.map_err(Error::Write)?;
        let metadata = entry.metadata().map_err(Error::Write)?;
        bytes += if metadata.is_dir() {
            size(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(bytes)
}

/// Writes the file `name` of an export.
pub(super) fn write_text(folder: &Path, name: &str, text: &str) -> Result<(), Error> {
    let path = folder.join(name);
    if let Some(above) = path.parent() {
        fs_err::create_dir_all(above).map_err(Error::Write)?;
    }
    fs_err::write(path, text).map_err(Error::Write)
}
