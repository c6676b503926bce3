//! Read-only memory maps: the one file that holds `unsafe`.
//!
//! Mapping a file is unsafe because another process may truncate or rewrite it while the map
//! lives: reads past a truncated end raise `SIGBUS`, and rewritten bytes change under a `&[u8]`.
//! Telly accepts that for two kinds of file only, and never writes to either in place:
//!
//! - checkpoints (`*.safetensors`), of models and of runs, which their owners publish once and replace
//!   as a whole;
//! - cache shards, which Telly writes under a temporary name and renames. A rename gives the
//!   name a new inode, so a map of the old file stays whole.
//!
//! What a changed file could do is bounded: the bytes are only ever read as numbers, through
//! slices whose bounds were checked against the length at open.
#![allow(unsafe_code)]

use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::{Advice, UncheckedAdvice};

/// Linux reads no more ahead at a time than the disk's `read_ahead_kb`, which is 128 where nobody
/// has changed it, and forgets the rest of what it was asked for.
#[cfg(unix)]
const AHEAD_BYTES: usize = 128 << 10;

/// A file mapped read-only.
pub(crate) struct MappedFile(Mmap);

impl MappedFile {
    /// Maps `path`. An empty file gives an empty map.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = fs_err::File::open(path)?;
        // SAFETY: see the page's reasons; nothing in this process writes to a mapped file.
        unsafe { Mmap::map(file.file()) }.map(Self)
    }

    /// Tells the kernel that parts of the file will be read in no order, so that reading ahead
    /// is left to [`will_need`](Self::will_need).
    pub(crate) fn in_no_order(&self) {
        // Advice that is not taken costs time alone.
        #[cfg(unix)]
        let _ = self.0.advise(Advice::Random);
    }

    /// Has the kernel read `bytes` ahead.
    pub(crate) fn will_need(&self, bytes: &Range<usize>) {
        #[cfg(unix)]
        for start in bytes.clone().step_by(AHEAD_BYTES) {
            let length = AHEAD_BYTES.min(bytes.end - start);
            let _ = self.0.advise_range(Advice::WillNeed, start, length);
        }
        #[cfg(not(unix))]
        let _ = bytes;
    }

    /// Gives the pages that have been read back to the kernel, which may keep them in its own
    /// cache: the process holds no more of the file than it has read since.
    pub(crate) fn release(&self) {
        // SAFETY: the map is of a file, shared and read-only: what is read again after this
        // comes from the file, as the first time.
        #[cfg(unix)]
        let _ = unsafe { self.0.unchecked_advise(UncheckedAdvice::DontNeed) };
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
