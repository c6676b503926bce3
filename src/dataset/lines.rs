//! Lines of text with their numbers.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use super::{Error, compression};

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
            match self.read()? {
                None => return Ok(None),
                Some(line) if trimmed(line).is_empty() => {}
                Some(_) => break,
            }
        }
        let line = trimmed(text(&self.path, (self.number, 1), &self.line)?);
        Ok(Some((self.number, line)))
    }

    /// The next line, with its end.
    fn read(&mut self) -> Result<Option<&str>, Error> {
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
        text(&self.path, (self.number, 1), &self.line).map(Some)
    }
}

/// Every line of the text file `path`, the blank ones too, without its end; `-` is the standard
/// input. A file without any is an error.
pub fn text_lines(path: &Path) -> Result<Vec<String>, Error> {
    let mut lines = Lines::new(path, compression::open(path)?);
    let mut all = Vec::new();
    while let Some(line) = lines.read()? {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let mark = if all.is_empty() { "\u{feff}" } else { "" };
        all.push(line.strip_prefix(mark).unwrap_or(line).to_owned());
    }
    if all.is_empty() {
        let path = path.to_owned();
        return Err(Error::Empty { path });
    }
    Ok(all)
}

/// Windows editors put a byte order mark at the start.
fn trimmed(line: &str) -> &str {
    line.trim_start_matches('\u{feff}').trim()
}

/// `bytes`, which begin at line and column `start`, as text: UTF-8 without NUL.
#[allow(clippy::naive_bytecount, reason = "once, for an error")]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_of_a_text_file_count() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let lines = |content: &str| {
            fs_err::write(file.path(), content).expect("written");
            text_lines(file.path())
        };
        let found = lines("\u{feff}a \r\n\n\tb\n\n").expect("four lines");
        assert_eq!(found, ["a ", "", "\tb", ""]);
        assert_eq!(lines("a\nb").expect("two lines"), ["a", "b"]);
        assert!(matches!(lines(""), Err(Error::Empty { .. })));
    }
}
