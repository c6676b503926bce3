//! Locks on files, by which a folder is for one process at a time.

use std::fs::{File, TryLockError};
use std::io;

/// Holds a file's lock until it is dropped.
pub(crate) struct Lock(File);

impl Lock {
    /// That of `file`; none where another process, or another lock in this one, holds it.
    pub(crate) fn of(file: File) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// A process that is being started has a copy of every open file until it has become its own program:
/// merely closed, this one's would leave it the lock for that long.
impl Drop for Lock {
    fn drop(&mut self) {
        // Where it cannot be unlocked, closing the file has to do.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_when_it_is_dropped_whoever_has_a_copy_of_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let open = || {
            File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .expect("a file")
        };
        let file = open();
        let copy = file.try_clone().expect("a copy");
        let lock = Lock::of(file).expect("a lock").expect("nobody has it");
        assert!(Lock::of(open()).expect("a file").is_none(), "it is held");
        drop(lock);
        assert!(Lock::of(open()).expect("a file").is_some(), "it is free");
        drop(copy);
    }
}
