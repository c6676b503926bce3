//! The records of a file, one after the other.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};

use super::compression::{self, Format};
use super::csv::Table;
use super::indices::{self, Chosen};
use super::{Dataset, Error, Record, jsonl, parquet};

/// Most records of a chunk: enough to keep every core busy.
const CHUNK_RECORDS: usize = 4096;
/// A chunk ends once its texts are this large.
const CHUNK_BYTES: usize = 16 << 20;

/// What a format's reader gives.
pub(super) type Rows = Box<dyn Iterator<Item = Result<Record, Error>> + Send>;

/// Reads files record by record, in their order. After an error nothing more comes; a file without
/// any record is an error too.
pub struct Records {
    /// Of the file that is being read; of the last one at the end.
    path: PathBuf,
    rows: Option<Rows>,
    /// Whether the file gave a record.
    any: bool,
    rest: VecDeque<PathBuf>,
}

impl Records {
    /// Opens `path`; its name says which format it is in. `-` is JSON Lines on the standard input.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let (path, rows) = open(path)?;
        Ok(Self {
            path,
            rows: Some(rows),
            any: false,
            rest: VecDeque::new(),
        })
    }

    /// Opens `files`, at least one, to be read one after the other.
    pub(super) fn open_all(files: &[PathBuf]) -> Result<Self, Error> {
        let mut records = Self::open(&files[0])?;
        records.rest = files[1..].iter().cloned().collect();
        Ok(records)
    }

    /// The file that is being read: where the last record stands.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next few thousand records of one file; none at the end.
    pub fn chunk(&mut self) -> Result<Option<Dataset>, Error> {
        loop {
            let mut records = Vec::new();
            let mut bytes = 0;
            while records.len() < CHUNK_RECORDS && bytes < CHUNK_BYTES {
                let Some(record) = self.next_here() else {
                    break;
                };
                let record = record?;
                bytes += record.text_bytes();
                records.push(record);
            }
            if !records.is_empty() {
                let path = self.path.clone();
                return Ok(Some(Dataset { path, records }));
            }
            if !self.next_file()? {
                return Ok(None);
            }
        }
    }

    /// The next record of the file that is being read.
    fn next_here(&mut self) -> Option<Result<Record, Error>> {
        let next = self.rows.as_mut()?.next();
        match next {
            Some(Ok(_)) => self.any = true,
            Some(Err(_)) => self.stop(),
            None => {
                self.rows = None;
                if !self.any {
                    self.stop();
                    let path = self.path.clone();
                    return Some(Err(Error::Empty { path }));
                }
            }
        }
        next
    }

    /// Opens the next file, if there is one.
    fn next_file(&mut self) -> Result<bool, Error> {
        let Some(path) = self.rest.pop_front() else {
            return Ok(false);
        };
        let opened = open(&path).inspect_err(|_| self.stop());
        let (path, rows) = opened?;
        (self.path, self.rows, self.any) = (path, Some(rows), false);
        Ok(true)
    }

    /// Nothing more comes.
    fn stop(&mut self) {
        self.rows = None;
        self.rest.clear();
    }
}

impl Iterator for Records {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.next_here() {
                return Some(record);
            }
            match self.next_file() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_tuple("Records").field(&self.path).finish()
    }
}

/// The rows of `path`, and the file where they stand.
fn open(path: &Path) -> Result<(PathBuf, Rows), Error> {
    if let Some(functions) = indices::functions_beside(path) {
        let rows = Chosen::open(path, &functions)?;
        return Ok((functions, Box::new(rows)));
    }
    let rows: Rows = match compression::format(path) {
        Format::Json => jsonl::rows(path, compression::open(path)?)?,
        Format::Table(delimiter) => {
            Box::new(Table::new(path, compression::open(path)?, delimiter)?)
        }
        Format::Parquet if compression::is_packed(path) => {
            let path = path.to_owned();
            return Err(Error::PackedParquet { path });
        }
        Format::Parquet => Box::new(parquet::Rows::open(path)?),
    };
    Ok((path.to_owned(), rows))
}
