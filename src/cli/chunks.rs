//! A file's records, some hundred at a time: what is held does not grow with the file.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::dataset::{Dataset, Records, Source};
use crate::error::Error;

/// Records of a chunk: enough to sort them by length, few enough to lose when a command is killed.
pub(super) const RECORDS: usize = 512;
/// The same where a text is written for each, which takes longer.
pub(super) const RECORDS_TO_WRITE: usize = 64;

/// A split's records in chunks.
pub(super) struct Chunks {
    path: PathBuf,
    records: Records,
    at_a_time: usize,
}

impl Chunks {
    /// Of `source`, so many records `at_a_time`.
    pub(super) fn open(source: &Source, at_a_time: usize) -> Result<Self, Error> {
        Ok(Self {
            path: source.path().to_owned(),
            records: source.records()?,
            at_a_time,
        })
    }

    /// The next records; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Dataset>, Error> {
        let records = self.records.by_ref().take(self.at_a_time);
        let records = records.collect::<Result<Vec<_>, _>>()?;
        let path = self.path.clone();
        Ok((!records.is_empty()).then_some(Dataset { path, records }))
    }
}

/// About how many records `path` holds, by its lines; 0 where that is not known.
#[allow(
    clippy::naive_bytecount,
    reason = "reading the file takes longer than counting"
)]
pub(super) fn count(path: &Path) -> u64 {
    let lines = || -> std::io::Result<u64> {
        let mut text = BufReader::with_capacity(1 << 20, File::open(path)?);
        let mut lines = 0;
        loop {
            let piece = text.fill_buf()?;
            if piece.is_empty() {
                return Ok(lines);
            }
            lines += piece.iter().filter(|&&byte| byte == b'\n').count() as u64;
            let length = piece.len();
            text.consume(length);
        }
    };
    match path.extension() {
        Some(end) if end == "jsonl" && path.is_file() => lines().unwrap_or(0),
        _ => 0,
    }
}
