//! Where predictions go: stdout, or a file that is there whole or not at all. Until it is whole it
//! is called `FILE.partial`, and `FILE.partial.json` says how far it is, so that a command that
//! was stopped goes on.

use std::fs::{File, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::console;
use crate::dataset::Dataset;
use crate::error::Error;
use crate::publish::publish;

/// Where predictions go.
pub(super) enum Output {
    /// Line by line to whoever reads.
    Stdout,
    /// Chunk by chunk to a file.
    File(Box<PartialFile>),
}

impl Output {
    /// For `path`, `-` being stdout. `key` stands for all but the input that decides what is
    /// written.
    pub(super) fn open(path: &Path, key: String) -> Result<Self, Error> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        Ok(Self::File(Box::new(PartialFile::open(path, key)?)))
    }

    /// How many records are done already, and to be passed to [`skip`](Self::skip).
    pub(super) fn done(&self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::File(file) => file.earlier.as_ref().map_or(0, |earlier| earlier.records),
        }
    }

    /// Passes by `records`, which were done earlier.
    pub(super) fn skip(&mut self, records: &Dataset) {
        if let Self::File(file) = self {
            file.take_note(records);
        }
    }

    /// Whether what was passed by is what was done earlier, so that this goes on. If it is not,
    /// everything begins anew.
    pub(super) fn goes_on(&mut self) -> Result<bool, Error> {
        match self {
            Self::Stdout => Ok(true),
            Self::File(file) => file.goes_on().map_err(Error::Output),
        }
    }

    /// Adds the lines of `records`; whether anybody still reads.
    pub(super) fn add(&mut self, records: &Dataset, lines: &[Value]) -> Result<bool, Error> {
        let mut text = String::new();
        for line in lines {
            text.push_str(&line.to_string());
            text.push('\n');
        }
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                let written = stdout.write_all(text.as_bytes());
                match written.and_then(|()| stdout.flush()) {
                    // A reader that has seen enough, as `head`, is no failure.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
                    result => result.map(|()| true).map_err(Error::Output),
                }
            }
            Self::File(file) => {
                file.take_note(records);
                let added = file.add(text.as_bytes());
                added.map(|()| true).map_err(Error::Output)
            }
        }
    }

    /// What is kept when it is stopped now.
    pub(super) fn kept(&self) -> String {
        match self {
            Self::Stdout => "what was written is whole lines".into(),
            Self::File(file) => format!(
                "{} records are done; the same command goes on",
                file.position.records
            ),
        }
    }

    /// Nothing more comes.
    pub(super) fn finish(self) -> Result<(), Error> {
        match self {
            Self::Stdout => Ok(()),
            Self::File(file) => file.finish().map_err(Error::Output),
        }
    }
}

/// A file that is not whole yet.
pub(super) struct PartialFile {
    folder: PathBuf,
    name: String,
    file: File,
    position: Position,
    /// Of the records so far.
    content: blake3::Hasher,
    /// How far an earlier command came.
    earlier: Option<Position>,
}

/// How far a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// All but the input that decides what is written.
    key: String,
    /// Records done.
    records: usize,
    /// Bytes of their lines.
    bytes: u64,
    /// BLAKE3 of the records.
    content: String,
}

impl PartialFile {
    fn open(path: &Path, key: String) -> Result<Self, Error> {
        let name = path.file_name().ok_or_else(|| Error::Usage {
            problem: format!("`--output {}` is no file", path.display()),
            hint: "name a file, or `-` for stdout".into(),
        })?;
        let name = name.to_string_lossy().into_owned();
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let partial = folder.join(partial(&name));
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&partial);
        let file = file.map_err(|error| {
            let message = format!("{}: {error}", partial.display());
            Error::Output(io::Error::new(error.kind(), message))
        })?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Usage {
                    problem: format!("another telly is writing `{}`", path.display()),
                    hint: "wait for it, or name another `--output`".into(),
                });
            }
            // A file system without locks.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        let length = file.metadata().map_err(Error::Output)?.len();
        let said = fs_err::read(folder.join(position(&name))).ok();
        let earlier = said.and_then(|said| serde_json::from_slice::<Position>(&said).ok());
        // What was made by another model or with other flags is made again.
        let earlier = earlier.filter(|earlier| earlier.key == key && earlier.bytes <= length);
        Ok(Self {
            folder,
            name,
            file,
            position: Position {
                key,
                records: 0,
                bytes: 0,
                content: String::new(),
            },
            content: blake3::Hasher::new(),
            earlier,
        })
    }

    fn take_note(&mut self, records: &Dataset) {
        for record in &records.records {
            let fields = serde_json::to_vec(&record.fields);
            self.content.update(&fields.unwrap_or_default());
            self.content.update(b"\n");
        }
        self.position.records += records.records.len();
    }

    fn goes_on(&mut self) -> io::Result<bool> {
        let content = self.content.finalize().to_hex().to_string();
        let found = self.earlier.take().filter(|earlier| {
            earlier.records == self.position.records && earlier.content == content
        });
        let goes_on = found.is_some() || self.position.records == 0;
        let Some(earlier) = found else {
            self.position.records = 0;
            self.position.bytes = 0;
            self.content = blake3::Hasher::new();
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            return Ok(goes_on);
        };
        self.position = earlier;
        self.file.set_len(self.position.bytes)?;
        self.file.seek(SeekFrom::End(0))?;
        if self.position.records > 0 {
            console::say(&format!("going on after {} records", self.position.records));
        }
        Ok(goes_on)
    }

    fn add(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines)?;
        self.file.sync_data()?;
        self.position.bytes += lines.len() as u64;
        self.position.content = self.content.finalize().to_hex().to_string();
        let said = serde_json::to_vec(&self.position)?;
        publish(&self.folder, &position(&self.name), &said)
    }

    fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs_err::rename(
            self.folder.join(partial(&self.name)),
            self.folder.join(&self.name),
        )?;
        match fs_err::remove_file(self.folder.join(position(&self.name))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        crate::disk::sync_folder(&self.folder)
    }
}

fn partial(name: &str) -> String {
    format!("{name}.partial")
}

fn position(name: &str) -> String {
    format!("{name}.partial.json")
}
