//! Files that are there whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// What a file is called until it is whole; a killed process may leave one behind.
pub(crate) const TEMPORARY_PREFIX: &str = ".telly-";

/// Writes `bytes` as `folder/name`: temporary file, fsync, rename, fsync of the folder. What
/// stood there before stays until the rename.
pub(crate) fn publish(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    publish_with(folder, name, |path| {
        File::options().write(true).open(path)?.write_all(bytes)
    })
}

/// As [`publish`], of what `write_to` writes into the file whose path it is given.
pub(crate) fn publish_with(
    folder: &Path,
    name: &str,
    write_to: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let write = || -> io::Result<()> {
        let file = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .tempfile_in(folder)?;
        write_to(file.path())?;
        file.as_file().sync_all()?;
        set_ordinary_permissions(file.as_file())?;
        file.persist(folder.join(name))
            .map_err(|error| error.error)?;
        sync_folder(folder)
    };
    write().map_err(|error| {
        let path = folder.join(name);
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    })
}

/// Publishes the file `source` as `folder/name` too: as a second name of the same file where the
/// disk can do so, else as a copy. A file of that name is replaced.
pub(crate) fn publish_from(source: &Path, folder: &Path, name: &str) -> io::Result<()> {
    let target = folder.join(name);
    match fs_err::remove_file(&target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs_err::hard_link(source, &target) {
        Ok(()) => sync_folder(folder),
        Err(_) => publish_with(folder, name, |path| fs_err::copy(source, path).map(drop)),
    }
}

/// Temporary files are private to their owner; what is published is to be read by others too.
#[cfg(unix)]
fn set_ordinary_permissions(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn set_ordinary_permissions(_: &File) -> io::Result<()> {
    Ok(())
}

/// Makes a rename last through a power cut; a folder can be opened only on Unix.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
