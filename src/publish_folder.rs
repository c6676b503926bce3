//! A folder that is there whole or not at all.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::publish::TEMPORARY_PREFIX;

/// Why a folder is not there.
#[derive(Debug)]
pub(crate) enum FolderError {
    /// There is something already.
    Exists(PathBuf),
    /// What is there is of another kind, and is not deleted.
    Foreign(PathBuf),
    /// It could not be written.
    Write(io::Error),
}

/// Has `fill` fill a folder that has another name until it is whole, then names it `out`. One that
/// is there is replaced only with `force`, and only if it holds `marker`.
pub(crate) fn publish_folder<T, E: From<FolderError>>(
    out: &Path,
    marker: &str,
    force: bool,
    fill: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let occupied = match fs_err::read_dir(out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        // A file of that name, or a folder that may not be read.
        Err(_) => true,
    };
    if occupied && !force {
        return Err(FolderError::Exists(out.into()).into());
    }
    if occupied && !out.join(marker).is_file() {
        return Err(FolderError::Foreign(out.into()).into());
    }
    let beside = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    disk::create_folders(&beside).map_err(FolderError::Write)?;
    let new = temporary(&beside).map_err(FolderError::Write)?;
    let result = fill(new.path())?;
    let publish = || -> io::Result<()> {
        sync(new.path())?;
        // What is moved away goes when this is dropped.
        let old = temporary(&beside)?;
        if occupied {
            fs_err::rename(out, old.path().join("replaced"))?;
        }
        // An empty folder is replaced by the rename itself.
        fs_err::rename(new.path(), out)?;
        disk::sync_folder(&beside)
    };
    publish().map_err(FolderError::Write)?;
    Ok(result)
}

/// A folder in `beside` that is removed when it is dropped, unless it has another name by then.
fn temporary(beside: &Path) -> io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX);
    // Left alone, a temporary folder is for its owner only, and would stay so under its new name.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o777));
    }
    builder.tempdir_in(beside)
}

/// Makes every file below `folder` last through a power cut.
fn sync(folder: &Path) -> io::Result<()> {
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync(&entry.path())?;
        } else {
            fs_err::File::open(entry.path())?.sync_all()?;
        }
    }
    disk::sync_folder(folder)
}
