//! Read-only memory maps: the one file that holds `unsafe`.
//!
//! Mapping a file is unsafe because another process may truncate or rewrite it while the map
//! lives: reads past a truncated end raise `SIGBUS`, and rewritten bytes change under a `&[u8]`.
//! Telly accepts that for two kinds of file only, and never writes to either in place:
//!
//! - checkpoints (`*.safetensors`), which their owners publish once and replace as a whole;
//! - cache shards, which Telly writes under a temporary name and renames. A rename gives the
//!   name a new inode, so a map of the old file stays whole.
//!
//! What a changed file could do is bounded: the bytes are only ever read as numbers, through
//! slices whose bounds were checked against the length at open.
#![allow(unsafe_code)]

use std::io;
use std::path::Path;

use memmap2::Mmap;

/// Maps `path` read-only. An empty file gives an empty map.
pub(crate) fn map_read_only(path: &Path) -> io::Result<Mmap> {
    let file = fs_err::File::open(path)?;
    // SAFETY: see the page's reasons; nothing in this process writes to a mapped file.
    unsafe { Mmap::map(file.file()) }
}
