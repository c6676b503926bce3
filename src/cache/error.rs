use std::io;
use std::path::{Path, PathBuf};

use super::{Difference, MANIFEST, Share};
use crate::error::Explain;

/// Why a cache could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder holds no manifest.
    #[error("no activation cache at `{folder}`")]
    Missing {
        /// As given.
        folder: PathBuf,
    },
    /// The cache has not been filled to the end.
    #[error("the cache `{folder}` is incomplete: {written} of {planned} shards are written")]
    Incomplete {
        /// The cache.
        folder: PathBuf,
        /// Shards on disk.
        written: usize,
        /// Shards in all.
        planned: usize,
    },
    /// The cache was made from something else.
    #[error("the cache `{folder}` does not match:{}", Difference::lines(.differences))]
    Stale {
        /// The cache.
        folder: PathBuf,
        /// Every field that differs.
        differences: Vec<Difference>,
        /// What to do.
        hint: String,
    },
    /// The manifest is of a version that this Telly does not read.
    #[error(
        "`{path}` is of cache format version {found}, this Telly reads versions up to {expected}"
    )]
    Version {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The newest that is read.
        expected: u64,
    },
    /// A file of the cache is not what the manifest says.
    #[error("`{path}` is damaged: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Found and expected.
        problem: String,
    },
    /// The split was not given to `telly precompute`.
    #[error("the cache `{folder}` has no {split} split")]
    NoSplit {
        /// The cache.
        folder: PathBuf,
        /// Which.
        split: String,
    },
    /// Another process is writing.
    #[error("another telly is writing the cache `{folder}`")]
    Locked {
        /// The cache.
        folder: PathBuf,
    },
    /// The folder holds something that is no cache.
    #[error("`{folder}` is not empty and holds no activation cache")]
    Foreign {
        /// As given.
        folder: PathBuf,
    },
    /// There is not enough room.
    #[error("the cache needs {needed} bytes and the disk of `{folder}` has {free} free")]
    DiskSpace {
        /// The cache.
        folder: PathBuf,
        /// Still to be written.
        needed: u64,
        /// Free for this user.
        free: u64,
    },
    /// There is nothing to put together.
    #[error("`{folder}` holds no shares of a cache")]
    NoShares {
        /// As given.
        folder: PathBuf,
    },
    /// One of the shares is not finished.
    #[error("share {share} of the cache `{folder}` is not finished: {written} of {} shards are written", planned_shards(*.planned))]
    Share {
        /// Which.
        share: Share,
        /// The cache.
        folder: PathBuf,
        /// Its shards on disk.
        written: usize,
        /// Its shards in all, if they are known.
        planned: Option<usize>,
    },
    /// An earlier Telly made it, and did not keep what a repair needs.
    #[error("the cache `{folder}` does not say which files it was made from")]
    Unrepairable {
        /// As given.
        folder: PathBuf,
    },
    /// A file could not be read.
    #[error("cannot read the cache")]
    Read(#[source] io::Error),
    /// A file could not be written.
    #[error("cannot write the cache")]
    Write(#[source] io::Error),
}

/// The first cache that lies right in `folder`, by name.
fn cache_in(folder: &Path) -> Option<PathBuf> {
    let entries = fs_err::read_dir(folder).ok()?.flatten();
    let folders = entries.map(|entry| entry.path());
    folders.filter(|path| path.join(MANIFEST).is_file()).min()
}

fn planned_shards(planned: Option<usize>) -> String {
    planned.map_or("its".into(), |planned| planned.to_string())
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { folder } => match cache_in(folder) {
                Some(cache) => format!(
                    "caches of several depths lie in it: name one of them, as `{}`",
                    cache.display()
                ),
                None => "make one with `telly precompute`".into(),
            },
            Self::Incomplete { .. } => {
                "run the same `telly precompute` or `telly cache derive` again: it goes on where it stopped"
                    .into()
            }
            Self::Stale { hint, .. } => hint.clone(),
            Self::Version { .. } => "make it anew with `telly precompute --force`".into(),
            Self::Damaged { path, .. } if path.ends_with(MANIFEST) => {
                "make the cache anew with `telly precompute --force`".into()
            }
            Self::Damaged { .. } => {
                "run `telly cache verify --repair`, or the same `telly precompute` again: damaged files are made anew, the others kept"
                    .into()
            }
            Self::Unrepairable { .. } => {
                "run the same `telly precompute` again: damaged files are made anew, the others kept"
                    .into()
            }
            Self::NoSplit { .. } => "pass the split's file to `telly precompute`".into(),
            Self::Locked { .. } => "wait until it is done, or choose another `--cache`".into(),
            Self::Foreign { .. } => "choose an empty or new folder for `--cache`".into(),
            Self::DiskSpace { .. } => {
                "free some space or choose a `--cache` on another disk; fewer or shorter texts take less"
                    .into()
            }
            Self::Write(error) if error.kind() == io::ErrorKind::StorageFull => {
                "free some space and run the same command again: finished shards are kept".into()
            }
            Self::Write(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                "choose a `--cache` folder that you may write to".into()
            }
            Self::NoShares { .. } => "make them with `telly precompute --shard i/n`".into(),
            Self::Share { share, .. } => {
                format!("run the same `telly precompute` with `--shard {share}` again")
            }
            Self::Read(_) | Self::Write(_) => return None,
        })
    }

    fn is_input(&self) -> bool {
        !matches!(
            self,
            Self::Read(_) | Self::Write(_) | Self::DiskSpace { .. } | Self::Locked { .. }
        )
    }
}
