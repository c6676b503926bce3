//! Every operation that changes the disk under a cache, in one list: tests put a disk in its place
//! that fails, or whose power is cut (`lossy`).

#[cfg(test)]
pub(crate) mod lossy;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// One operation that changes the disk, or makes what was changed last.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change<'a> {
    /// Fails if there is anything of that name.
    CreateFolder(&'a Path),
    /// An empty file; fails if there is anything of that name.
    CreateFile(&'a Path),
    /// These bytes at the start of an empty file.
    Write(&'a Path, &'a [u8]),
    /// What was written to the file, which is open as this one, stays.
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "the tests' disk knows a file by its path")
    )]
    SyncFile(&'a Path, &'a File),
    /// What was created, renamed, linked and removed in the folder stays so.
    SyncFolder(&'a Path),
    /// In place of what has the new name.
    Rename(&'a Path, &'a Path),
    /// A second name of the same file; fails if there is anything of that name.
    Link(&'a Path, &'a Path),
    RemoveFile(&'a Path),
    /// Fails unless it is empty.
    RemoveFolder(&'a Path),
}

impl Change<'_> {
    /// Has the operating system do it.
    fn perform(self) -> io::Result<()> {
        match self {
            Self::CreateFolder(path) => fs_err::create_dir(path),
            Self::CreateFile(path) => fs_err::File::create_new(path).map(drop),
            // `publish` names the file that this will be.
            Self::Write(path, bytes) => File::options().write(true).open(path)?.write_all(bytes),
            Self::SyncFile(_, file) => file.sync_all(),
            // A folder can be opened only on Unix.
            Self::SyncFolder(path) if cfg!(unix) => File::open(path)?.sync_all(),
            Self::SyncFolder(_) => Ok(()),
            Self::Rename(from, to) => std::fs::rename(from, to),
            Self::Link(from, to) => fs_err::hard_link(from, to),
            Self::RemoveFile(path) => fs_err::remove_file(path),
            Self::RemoveFolder(path) => fs_err::remove_dir(path),
        }
    }
}

fn perform(change: Change) -> io::Result<()> {
    #[cfg(test)]
    if let Some(outcome) = lossy::perform(change) {
        return outcome;
    }
    change.perform()
}

/// Creates the empty file `path`, which must not be there.
pub(crate) fn create_file(path: &Path) -> io::Result<File> {
    perform(Change::CreateFile(path))?;
    File::options().write(true).open(path)
}

/// Writes `bytes` to the empty file `path`.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    perform(Change::Write(path, bytes))
}

/// Makes what was written to `path` last through a power cut. `file` has been open since before:
/// the system tells it of what could not be written.
pub(crate) fn sync_file(path: &Path, file: &File) -> io::Result<()> {
    perform(Change::SyncFile(path, file))
}

/// Makes the names in `folder` last through a power cut.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    perform(Change::SyncFolder(folder))
}

/// Gives the file `from` the name `to`, in place of what has it.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    perform(Change::Rename(from, to))
}

/// Gives the file `from` the name `to` too.
pub(crate) fn link(from: &Path, to: &Path) -> io::Result<()> {
    perform(Change::Link(from, to))
}

/// Removes the file `path`.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    perform(Change::RemoveFile(path))
}

/// Removes the empty folder `path`.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    perform(Change::RemoveFolder(path))
}

/// Creates `folder` and those above it that are not there, each to last through a power cut.
pub(crate) fn create_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    // The folder above a relative path's first name is the current one.
    let above = match folder.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    create_folders(above)?;
    match perform(Change::CreateFolder(folder)) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        created => created?,
    }
    sync_folder(above)
}
