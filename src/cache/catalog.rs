//! Finding and removing whole caches.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Error, MANIFEST, Manifest, writer};
use crate::disk;

/// Folders below the one that is searched.
const DEPTH: usize = 3;

/// A cache that was found.
#[derive(Debug)]
pub struct Found {
    /// Where it lies.
    pub folder: PathBuf,
    /// What it holds, if its manifest can be read.
    pub manifest: Result<Manifest, Error>,
    /// When its manifest was last written.
    pub modified: SystemTime,
    /// Bytes of its files.
    pub bytes_on_disk: u64,
}

/// Every cache in `folder` and up to three folders deeper, by path.
pub fn find(folder: &Path) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    search(folder, DEPTH, &mut found).map_err(Error::Read)?;
    found.sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok(found)
}

fn search(folder: &Path, depth: usize, found: &mut Vec<Found>) -> io::Result<()> {
    if folder.join(MANIFEST).is_file() {
        found.push(Found {
            folder: folder.to_owned(),
            manifest: Manifest::read(folder),
            modified: fs_err::metadata(folder.join(MANIFEST))?.modified()?,
            bytes_on_disk: bytes_in(folder)?,
        });
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        // Links are not followed: they may lead in a circle.
        if entry.file_type()?.is_dir() {
            search(&entry.path(), depth - 1, found)?;
        }
    }
    Ok(())
}

fn bytes_in(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs_err::read_dir(folder)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

/// Removes the cache in `folder`, and the folder if nothing else lies in it. Refused while
/// another process writes to it; one that reads keeps what it has mapped.
pub fn remove(folder: &Path) -> Result<(), Error> {
    if !folder.join(MANIFEST).is_file() {
        return Err(Error::Missing {
            folder: folder.to_owned(),
        });
    }
    writer::remove(folder)?;
    match disk::remove_folder(folder) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(Error::Write(error)),
        _ => Ok(()),
    }
}
