//! Files that are there whole or not at all.

use std::io;
use std::path::Path;

use crate::disk;

/// What a file is called until it is whole; a killed process may leave one behind.
pub(crate) const TEMPORARY_PREFIX: &str = ".telly-";

/// Writes `bytes` as `folder/name`: temporary file, fsync, rename, fsync of the folder. What
/// stood there before stays until the rename.
pub(crate) fn publish(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    publish_with(folder, name, |path| disk::write(path, bytes))
}

/// As [`publish`], of what `write_to` writes into the file whose path it is given.
pub(crate) fn publish_with(
    folder: &Path,
    name: &str,
    write_to: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let path = folder.join(name);
    let write = || -> io::Result<()> {
        let (file, temporary) = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .make_in(folder, disk::create_file)?
            .keep()
            .map_err(|error| error.error)?;
        let renamed = write_to(&temporary)
            .and_then(|()| disk::sync_file(&temporary, &file))
            .and_then(|()| disk::rename(&temporary, &path));
        if renamed.is_err() {
            // The first error is the one to report; what stays, the next writer removes.
            let _ = disk::remove_file(&temporary);
        }
        renamed.and_then(|()| disk::sync_folder(folder))
    };
    write().map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Publishes the file `source` as `folder/name` too: as a second name of the same file where the
/// disk can do so, else as a copy. A file of that name is replaced.
pub(crate) fn publish_from(source: &Path, folder: &Path, name: &str) -> io::Result<()> {
    let target = folder.join(name);
    match disk::remove_file(&target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match disk::link(source, &target) {
        Ok(()) => disk::sync_folder(folder),
        Err(_) => publish(folder, name, &fs_err::read(source)?),
    }
}
