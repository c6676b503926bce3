//! Records out of JSON Lines files, plain or gzip.

mod error;
mod record;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

pub use error::Error;
pub use record::{FieldChoice, Label, Record};

/// The records of one file, in its order.
#[derive(Debug)]
pub struct Dataset {
    /// The file.
    pub path: PathBuf,
    /// At least one.
    pub records: Vec<Record>,
}

impl Dataset {
    /// Reads a JSON Lines file: one object a line, blank lines skipped; `.gz` is unpacked.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = fs_err::File::open(path).map_err(Error::Read)?;
        let unpacked: Box<dyn Read> = if path.extension().is_some_and(|end| end == "gz") {
            Box::new(flate2::read::MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let mut records = Vec::new();
        for (index, line) in BufReader::new(unpacked).lines().enumerate() {
            let line_number = index + 1;
            let line = line.map_err(|source| Error::Line {
                path: path.to_owned(),
                line: line_number,
                source,
            })?;
            // Windows editors put a byte order mark at the start.
            let text = line.trim_start_matches('\u{feff}').trim();
            if text.is_empty() {
                continue;
            }
            let fields = serde_json::from_str(text).map_err(|error| {
                // The parser saw one line, so its own "line 1" would mislead.
                let problem = error.to_string();
                let problem = problem.split(" at line ").next().unwrap_or_default();
                Error::Json {
                    path: path.to_owned(),
                    line: line_number,
                    column: error.column(),
                    problem: problem.into(),
                }
            })?;
            records.push(Record {
                line: line_number,
                fields,
            });
        }
        if records.is_empty() {
            return Err(Error::Empty {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            records,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(content: &[u8], suffix: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::Builder::new()
            .suffix(suffix)
            .tempfile()
            .expect("a temporary file");
        file.write_all(content).expect("written");
        file
    }

    #[test]
    fn blank_lines_and_a_byte_order_mark_are_skipped() {
        let file = file("\u{feff}{\"a\": 1}\r\n\n{\"a\": 2}".as_bytes(), ".jsonl");
        let data = Dataset::read(file.path()).expect("two records");
        let lines: Vec<usize> = data.records.iter().map(|record| record.line).collect();
        assert_eq!(lines, [1, 3]);
    }

    #[test]
    fn gzip_is_unpacked() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"{\"a\": 1}\n").expect("packed");
        let file = file(&packed.finish().expect("packed"), ".jsonl.gz");
        assert_eq!(
            Dataset::read(file.path())
                .expect("one record")
                .records
                .len(),
            1
        );
    }

    #[test]
    fn a_broken_line_is_named() {
        let file = file(b"{\"a\": 1}\n{\"a\": \n", ".jsonl");
        let error = Dataset::read(file.path()).expect_err("line 2 is broken");
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn a_line_that_is_no_object_is_refused() {
        let file = file(b"[1, 2]\n", ".jsonl");
        assert!(matches!(
            Dataset::read(file.path()),
            Err(Error::Json { line: 1, .. })
        ));
    }
}
