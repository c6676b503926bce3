//! The elements of a JSON array that is larger than memory.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use super::lines::{self, LONGEST};
use super::{Error, Record, jsonl};

/// Finds where elements begin and end; what they hold is the parser's business.
pub(super) struct Elements {
    path: PathBuf,
    text: Box<dyn BufRead + Send>,
    /// Of the next byte, both from 1.
    line: usize,
    column: usize,
    element: Vec<u8>,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the opening bracket.
    Before,
    /// After it: an element or the closing bracket.
    First,
    /// After a comma.
    Next,
    /// After the closing bracket.
    After,
}

/// What may come between the elements.
enum Separator {
    Comma,
    End,
}

impl Elements {
    /// `text` begins with a bracket, but for white space.
    pub(super) fn new(path: &Path, text: Box<dyn BufRead + Send>) -> Self {
        Self {
            path: path.to_owned(),
            text,
            line: 1,
            column: 1,
            element: Vec::new(),
            place: Place::Before,
        }
    }

    /// The next byte, not taken.
    fn peek(&mut self) -> Result<Option<u8>, Error> {
        let bytes = self.text.fill_buf().map_err(|source| Error::Line {
            path: self.path.clone(),
            line: self.line,
            source,
        })?;
        Ok(bytes.first().copied())
    }

    fn take(&mut self, byte: u8) {
        self.text.consume(1);
        if byte == b'\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
    }

    /// The next byte that is no white space, not taken.
    fn skip_space(&mut self) -> Result<Option<u8>, Error> {
        while let Some(byte) = self.peek()? {
            // A byte order mark counts as white space: the parser has no other use for it.
            if !byte.is_ascii_whitespace() && !"\u{feff}".as_bytes().contains(&byte) {
                return Ok(Some(byte));
            }
            self.take(byte);
        }
        Ok(None)
    }

    fn problem(&self, problem: &str) -> Error {
        Error::Json {
            path: self.path.clone(),
            line: self.line,
            column: self.column,
            problem: problem.into(),
        }
    }

    /// Reads one element and what ends it.
    fn element(&mut self) -> Result<Separator, Error> {
        let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
        self.element.clear();
        while let Some(byte) = self.peek()? {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                _ if in_string => {}
                b'{' | b'[' => depth += 1,
                b',' | b']' if depth == 0 => {
                    self.take(byte);
                    return Ok(match byte {
                        b',' => Separator::Comma,
                        _ => Separator::End,
                    });
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if self.element.len() == LONGEST {
                return Err(Error::LongRecord {
                    path: self.path.clone(),
                    line: self.line,
                });
            }
            self.element.push(byte);
            self.take(byte);
        }
        Err(self.problem("the file ends within its array"))
    }

    fn read(&mut self) -> Result<Option<Record>, Error> {
        let mut found = self.skip_space()?;
        if self.place == Place::Before {
            // The caller saw the bracket.
            self.take(b'[');
            self.place = Place::First;
            found = self.skip_space()?;
        }
        match (self.place, found) {
            (Place::After, None) => return Ok(None),
            (Place::After, Some(_)) => {
                return Err(self.problem("something follows the array"));
            }
            (Place::First, Some(b']')) => {
                self.take(b']');
                self.place = Place::After;
                return self.read();
            }
            _ => {}
        }
        let start = (self.line, self.column);
        self.place = match self.element()? {
            Separator::Comma => Place::Next,
            Separator::End => Place::After,
        };
        let text = lines::text(&self.path, start, &self.element)?;
        jsonl::record(&self.path, start, text.trim_end()).map(Some)
    }
}

impl Iterator for Elements {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
