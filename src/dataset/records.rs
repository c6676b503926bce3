//! The records of a file, one after the other.

use std::fmt;
use std::path::{Path, PathBuf};

use super::compression::{self, Format};
use super::{Dataset, Error, Record, jsonl};

/// Most records of a chunk: enough to keep every core busy.
const CHUNK_RECORDS: usize = 4096;
/// A chunk ends once its texts are this large.
const CHUNK_BYTES: usize = 16 << 20;

/// What a format's reader gives.
pub(super) type Rows = Box<dyn Iterator<Item = Result<Record, Error>> + Send>;

/// Reads a file record by record, in its order. After an error nothing more comes; a file without
/// any record is an error too.
pub struct Records {
    path: PathBuf,
    rows: Rows,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has been read.
    Fresh,
    /// At least one record has.
    Reading,
    /// The end, or an error, has been reached.
    Over,
}

impl Records {
    /// Opens `path`; its name says which format it is in.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let rows = match compression::format(path) {
            Format::Json => jsonl::rows(path, compression::open(path)?)?,
        };
        Ok(Self {
            path: path.to_owned(),
            rows,
            state: State::Fresh,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next few thousand records; none at the end.
    pub fn chunk(&mut self) -> Result<Option<Dataset>, Error> {
        let mut records = Vec::new();
        let mut bytes = 0;
        while records.len() < CHUNK_RECORDS && bytes < CHUNK_BYTES {
            let Some(record) = self.next() else {
                break;
            };
            let record = record?;
            bytes += record.text_bytes();
            records.push(record);
        }
        let path = self.path.clone();
        Ok((!records.is_empty()).then_some(Dataset { path, records }))
    }
}

impl Iterator for Records {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Over {
            return None;
        }
        let next = self.rows.next();
        let before = self.state;
        self.state = match &next {
            Some(Ok(_)) => State::Reading,
            Some(Err(_)) | None => State::Over,
        };
        if next.is_none() && before == State::Fresh {
            let path = self.path.clone();
            return Some(Err(Error::Empty { path }));
        }
        next
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_tuple("Records").field(&self.path).finish()
    }
}
