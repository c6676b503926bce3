//! Comparing every file of a cache with the manifest's checksums.

use std::io;
use std::path::Path;

use rayon::prelude::*;

use super::{Error, Manifest};
use crate::mapping::MappedFile;

/// What [`verify`] found.
#[derive(Debug)]
pub struct Verification {
    /// Files compared.
    pub files: usize,
    /// Their bytes, as the manifest says.
    pub bytes: u64,
    /// Shards that have never been written.
    pub unwritten: usize,
    /// What is wrong with each damaged file, in the manifest's order.
    pub problems: Vec<Error>,
}

/// A file that should be there.
struct Expected<'a> {
    name: &'a str,
    bytes: u64,
    blake3: &'a str,
}

/// Checks the manifest and every file that it says is written, several at a time; calls `done`
/// with the bytes of each as it is finished.
pub fn verify(folder: &Path, done: impl Fn(u64) + Sync) -> Result<Verification, Error> {
    let manifest = Manifest::read(folder)?;
    let shards = manifest.shards.iter().filter_map(|shard| {
        Some(Expected {
            name: &shard.file,
            bytes: shard.bytes,
            blake3: shard.blake3.as_deref()?,
        })
    });
    let splits = manifest.splits.iter().map(|split| Expected {
        name: &split.file,
        bytes: split.bytes,
        blake3: &split.blake3,
    });
    let files: Vec<Expected> = shards.chain(splits).collect();
    let problems = files
        .par_iter()
        .filter_map(|file| {
            let problem = check(folder, file, &files).err();
            done(file.bytes);
            problem
        })
        .collect();
    let written = files.len() - manifest.splits.len();
    Ok(Verification {
        files: files.len(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        unwritten: manifest.shards.len() - written,
        problems,
    })
}

fn check(folder: &Path, file: &Expected, all: &[Expected]) -> Result<(), Error> {
    let path = folder.join(file.name);
    let damaged = |problem: String| Error::Damaged {
        path: path.clone(),
        problem,
    };
    let bytes = MappedFile::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => damaged("it is missing".into()),
        _ => Error::Read(error),
    })?;
    if bytes.len() as u64 != file.bytes {
        return Err(damaged(format!(
            "it has {} bytes, the manifest says {}",
            bytes.len(),
            file.bytes
        )));
    }
    let found = blake3::hash(&bytes).to_hex();
    if found.as_str() == file.blake3 {
        return Ok(());
    }
    let twin = all.iter().find(|other| found.as_str() == other.blake3);
    Err(damaged(match twin {
        Some(twin) => format!("its content is that of {}", twin.name),
        None => format!("its BLAKE3 is {found}, the manifest says {}", file.blake3),
    }))
}
