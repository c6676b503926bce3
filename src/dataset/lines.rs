//! Lines of text with their numbers.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use super::Error;

/// Most bytes of one record: a file without line ends is not read into memory whole.
pub(super) const LONGEST: usize = 64 << 20;

/// The lines of a text.
pub(super) struct Lines {
    path: PathBuf,
    text: Box<dyn BufRead + Send>,
    number: usize,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn new(path: &Path, text: Box<dyn BufRead + Send>) -> Self {
        Self {
            path: path.to_owned(),
            text,
            number: 0,
            line: Vec::new(),
        }
    }

    /// The next line that is not blank, without white space around it, and its number from 1.
    pub(super) fn next(&mut self) -> Result<Option<(usize, &str)>, Error> {
        loop {
            self.line.clear();
            self.number += 1;
            let mut most = self.text.by_ref().take(LONGEST as u64);
            let read = most.read_until(b'\n', &mut self.line);
            let read = read.map_err(|source| Error::Line {
                path: self.path.clone(),
                line: self.number,
                source,
            })?;
            if read == 0 {
                return Ok(None);
            }
            if read == LONGEST && !self.line.ends_with(b"\n") {
                return Err(Error::LongRecord {
                    path: self.path.clone(),
                    line: self.number,
                });
            }
            if !trimmed(text(&self.path, (self.number, 1), &self.line)?).is_empty() {
                break;
            }
        }
        let line = trimmed(text(&self.path, (self.number, 1), &self.line)?);
        Ok(Some((self.number, line)))
    }
}

/// Windows editors put a byte order mark at the start.
fn trimmed(line: &str) -> &str {
    line.trim_start_matches('\u{feff}').trim()
}

/// `bytes`, which begin at line and column `start`, as text: UTF-8 without NUL.
pub(super) fn text<'a>(
    path: &Path,
    start: (usize, usize),
    bytes: &'a [u8],
) -> Result<&'a str, Error> {
    let broken = |place: usize, problem| {
        let before = &bytes[..place];
        let last_break = before.iter().rposition(|&byte| byte == b'\n');
        Error::NotText {
            path: path.to_owned(),
            line: start.0 + breaks(before),
            column: last_break.map_or(start.1 + place, |last| place - last),
            problem,
        }
    };
    if let Some(place) = bytes.iter().position(|&byte| byte == 0) {
        return Err(broken(place, "a NUL byte"));
    }
    std::str::from_utf8(bytes).map_err(|error| broken(error.valid_up_to(), "not UTF-8"))
}

/// How many lines end in `bytes`.
pub(super) fn breaks(bytes: &[u8]) -> usize {
    bytes.split(|&byte| byte == b'\n').count() - 1
}
