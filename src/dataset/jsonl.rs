//! JSON: one object a line, or one array of objects.

use std::io::BufRead;
use std::iter;
use std::path::Path;

use serde_json::{Map, Value};

use super::array::Elements;
use super::lines::Lines;
use super::records::Rows;
use super::{Error, Record};

/// Most letters of what is no JSON that an error shows.
const SHOWN: usize = 20;

/// The records of `text`. An array is told by the bracket it begins with.
pub(super) fn rows(path: &Path, mut text: Box<dyn BufRead + Send>) -> Result<Rows, Error> {
    let head = text.fill_buf().map_err(|source| Error::Line {
        path: path.to_owned(),
        line: 1,
        source,
    })?;
    let head = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(head);
    if head.trim_ascii_start().starts_with(b"[") {
        return Ok(Box::new(Elements::new(path, text)));
    }
    let path = path.to_owned();
    let mut lines = Lines::new(&path, text);
    Ok(Box::new(iter::from_fn(move || {
        let (line, text) = match lines.next() {
            Ok(found) => found?,
            Err(error) => return Some(Err(error)),
        };
        Some(record(&path, (line, 1), text))
    })))
}

/// The record that `json` is, which begins at line and column `start`.
pub(super) fn record(path: &Path, start: (usize, usize), json: &str) -> Result<Record, Error> {
    let (line, column) = start;
    if !json.starts_with('{') {
        let head: String = json.chars().take(SHOWN).collect();
        return Err(Error::Json {
            path: path.to_owned(),
            line,
            column,
            problem: match head.as_str() {
                "" => "there is nothing".into(),
                head => format!("it begins with `{head}`"),
            },
        });
    }
    let fields: Map<String, Value> = serde_json::from_str(json).map_err(|error| {
        // The parser counts lines from the start of the record.
        let problem = error.to_string();
        let problem = problem.split(" at line ").next().unwrap_or_default();
        let first = error.line() <= 1;
        Error::Json {
            path: path.to_owned(),
            line: line + error.line().saturating_sub(1),
            column: error.column().max(1) + if first { column - 1 } else { 0 },
            problem: problem.into(),
        }
    })?;
    Ok(Record::new(line, fields))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::dataset::Dataset;

    fn file(content: &[u8], suffix: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::Builder::new()
            .suffix(suffix)
            .tempfile()
            .expect("a temporary file");
        file.write_all(content).expect("written");
        file
    }

    fn lines(content: &str) -> Result<Vec<usize>, Error> {
        let file = file(content.as_bytes(), ".jsonl");
        let data = Dataset::read(file.path())?;
        Ok(data.records.iter().map(|record| record.line).collect())
    }

    fn problem(content: &[u8]) -> String {
        let file = file(content, ".jsonl");
        let error = Dataset::read(file.path()).expect_err("broken");
        error.to_string()
    }

    #[test]
    fn blank_lines_and_a_byte_order_mark_are_skipped() {
        let found = lines("\u{feff}{\"a\": 1}\r\n\n{\"a\": 2}").expect("two records");
        assert_eq!(found, [1, 3]);
    }

    #[test]
    fn packed_files_are_unpacked() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"{\"a\": 1}\n").expect("packed");
        let zstd = zstd::encode_all(&b"{\"a\": 1}\n"[..], 3).expect("packed");
        for (bytes, suffix) in [
            (gzip.finish().expect("packed"), ".jsonl.gz"),
            (zstd, ".jsonl.zst"),
        ] {
            // Packed files may be laid end to end.
            let file = file(&bytes.repeat(2), suffix);
            let data = Dataset::read(file.path()).expect("two records");
            assert_eq!(data.records.len(), 2, "{suffix}");
            assert_eq!(data.records[1].line, 2, "{suffix}");
        }
    }

    #[test]
    fn an_array_gives_its_elements_with_their_lines() {
        let found = lines("[{\"a\": \"],{\\\"\"}, {\"a\":\n [2]},\n\n{\"a\": 3}\n]\n");
        assert_eq!(found.expect("three records"), [1, 1, 4]);
        assert_eq!(lines("\u{feff} [ {} ] ").expect("one record"), [1]);
        assert!(matches!(lines(" [\n] "), Err(Error::Empty { .. })));
    }

    #[test]
    fn a_broken_array_is_named_by_line_and_column() {
        for (content, words) in [
            (&b"[1, 2]\n"[..], "line 1, column 2"),
            (b"[{},\n  {\"a\": x}]", "line 2, column 9"),
            (b"[{},\n\n{\"a\":\n x}]", "line 4, column 2"),
            (b"[{}\n{}]", "line 2, column 1"),
            (b"[{},]", "line 1, column 5"),
            (b"[{}, {\"a\": 1}", "ends within its array"),
            (b"[{}]\n{}", "line 2, column 1"),
            (b"[{\"a\": \"\xff\"}]", "not UTF-8"),
        ] {
            let found = problem(content);
            assert!(found.contains(words), "{found}");
        }
    }

    #[test]
    fn a_broken_line_is_named() {
        for (content, words) in [
            (&b"{\"a\": 1}\n{\"a\": \n"[..], "line 2"),
            (b"{}\n{\"a\": \"\xff\"}\n", "line 2, column 8: not UTF-8"),
            (b"{}\n{\0}\n", "line 2, column 2: a NUL byte"),
            (b"\xff\xfe{\0}\0", "text in UTF-16"),
            (b"PK\x03\x04...", "a zip archive"),
            (b"PAR1...", "a Parquet file"),
        ] {
            let found = problem(content);
            assert!(found.contains(words), "{found}");
        }
    }
}
