//! Tables of text: a line of column names, then a row a record, separated by commas or tabs.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use serde_json::{Map, Value};

use super::lines::{self, LONGEST};
use super::{Error, Record};

/// Most columns.
const COLUMNS: usize = 1 << 12;

/// The rows of a table.
///
/// Values are text: whether `1` is a number is decided where it is used.
pub(super) struct Table {
    path: PathBuf,
    text: Box<dyn BufRead + Send>,
    parser: Reader,
    /// Of the next byte, from 1.
    line: usize,
    names: Vec<String>,
    row: Row,
}

/// A row's values, laid end to end.
struct Row {
    /// Where it begins.
    line: usize,
    bytes: Vec<u8>,
    /// Where each value ends.
    ends: Vec<usize>,
    length: usize,
    columns: usize,
}

impl Table {
    /// Reads the names; `delimiter` is between the values.
    pub(super) fn new(
        path: &Path,
        text: Box<dyn BufRead + Send>,
        delimiter: u8,
    ) -> Result<Self, Error> {
        let mut table = Self {
            path: path.to_owned(),
            text,
            parser: ReaderBuilder::new().delimiter(delimiter).build(),
            line: 1,
            names: Vec::new(),
            row: Row {
                line: 1,
                bytes: vec![0; 1 << 12],
                ends: vec![0; 1 << 4],
                length: 0,
                columns: 0,
            },
        };
        let path = path.to_owned();
        if table.fill()?.starts_with("\u{feff}".as_bytes()) {
            table.text.consume("\u{feff}".len());
        }
        if table.fill()?.starts_with(b"{") || table.fill()?.starts_with(b"[{") {
            return Err(Error::Foreign {
                path,
                found: "JSON",
                advice: "name it .jsonl, or .json for an array",
            });
        }
        if !table.read_row()? {
            return Err(Error::Empty { path });
        }
        table.names = table.values()?;
        for name in &mut table.names {
            *name = name.trim().to_owned();
        }
        check_names(&path, &table.names, delimiter)?;
        Ok(table)
    }

    fn fill(&mut self) -> Result<&[u8], Error> {
        let (path, line) = (&self.path, self.line);
        self.text.fill_buf().map_err(|source| Error::Line {
            path: path.clone(),
            line,
            source,
        })
    }

    /// Takes line ends, so that a row begins where its own text does.
    fn skip_blank_lines(&mut self) -> Result<(), Error> {
        while let Some(&byte @ (b'\n' | b'\r')) = self.fill()?.first() {
            self.text.consume(1);
            self.line += usize::from(byte == b'\n');
        }
        Ok(())
    }

    /// Reads the next row; false at the end.
    fn read_row(&mut self) -> Result<bool, Error> {
        self.skip_blank_lines()?;
        if self.fill()?.is_empty() {
            return Ok(false);
        }
        let row = &mut self.row;
        (row.line, row.length, row.columns) = (self.line, 0, 0);
        loop {
            let (path, line) = (&self.path, self.line);
            let input = self.text.fill_buf().map_err(|source| Error::Line {
                path: path.clone(),
                line,
                source,
            })?;
            let ended = input.is_empty();
            // The last row need not end with a line; within quotes this does not end it either.
            let input = if ended { b"\n" } else { input };
            let row = &mut self.row;
            let (result, read, written, columns) = self.parser.read_record(
                input,
                &mut row.bytes[row.length..],
                &mut row.ends[row.columns..],
            );
            row.length += written;
            row.columns += columns;
            if !ended {
                self.line += lines::breaks(&input[..read]);
                self.text.consume(read);
            }
            let too_long = || Error::LongRecord {
                path: self.path.clone(),
                line: row.line,
            };
            match result {
                ReadRecordResult::Record => return Ok(true),
                ReadRecordResult::InputEmpty if ended => {
                    return Err(Error::OpenQuote {
                        path: self.path.clone(),
                        line: row.line,
                    });
                }
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if row.bytes.len() < LONGEST => {
                    row.bytes.resize(2 * row.bytes.len(), 0);
                }
                ReadRecordResult::OutputEndsFull if row.ends.len() < COLUMNS => {
                    row.ends.resize(2 * row.ends.len(), 0);
                }
                ReadRecordResult::OutputFull
                | ReadRecordResult::OutputEndsFull
                | ReadRecordResult::End => return Err(too_long()),
            }
        }
    }

    /// The row's values.
    fn values(&self) -> Result<Vec<String>, Error> {
        let row = &self.row;
        let text = lines::text(&self.path, (row.line, 1), &row.bytes[..row.length])?;
        let mut start = 0;
        let values = row.ends[..row.columns].iter().map(|&end| {
            let value = text.get(start..end);
            start = end;
            // Two values together may be UTF-8 where each is not.
            let value = value.ok_or_else(|| Error::NotText {
                path: self.path.clone(),
                line: row.line,
                column: end,
                problem: "not UTF-8",
            })?;
            Ok(value.to_owned())
        });
        values.collect()
    }

    fn record(&mut self) -> Result<Option<Record>, Error> {
        if !self.read_row()? {
            return Ok(None);
        }
        let values = self.values()?;
        if values.len() != self.names.len() {
            return Err(Error::Columns {
                path: self.path.clone(),
                line: self.row.line,
                found: values.len(),
                expected: self.names.len(),
            });
        }
        let named = self.names.iter().zip(values);
        // Pandas writes row numbers under no name.
        let named = named.filter(|(name, _)| !name.is_empty());
        let fields: Map<String, Value> = named
            .map(|(name, value)| (name.clone(), Value::String(value)))
            .collect();
        Ok(Some(Record {
            line: self.row.line,
            fields,
            untyped: true,
        }))
    }
}

impl Iterator for Table {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.record().transpose()
    }
}

/// Refuses names that cannot name columns.
fn check_names(path: &Path, names: &[String], delimiter: u8) -> Result<(), Error> {
    let refused = |problem: String, advice| Error::Header {
        path: path.to_owned(),
        problem,
        advice,
    };
    if let [only] = names {
        let others = [(b';', "a semicolon"), (b'\t', "a tab"), (b',', "a comma")];
        let other = others
            .iter()
            .find(|&&(other, _)| other != delimiter && only.as_bytes().contains(&other));
        if let Some((_, other)) = other {
            return Err(refused(
                format!("one column, `{only}`, with {other} in its name"),
                "columns are separated by commas in .csv, by tabs in .tsv",
            ));
        }
    }
    let twice = names
        .iter()
        .enumerate()
        .find(|&(place, name)| !name.is_empty() && names[..place].contains(name));
    match twice {
        Some((_, name)) => Err(refused(
            format!("the column `{name}` twice"),
            "the first line names the columns, each differently",
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(content: &[u8], delimiter: u8) -> Result<Vec<(usize, String)>, Error> {
        // A small buffer, so that rows lie across its ends.
        let text = std::io::BufReader::with_capacity(3, std::io::Cursor::new(content.to_vec()));
        Table::new(Path::new("f"), Box::new(text), delimiter)?
            .map(|record| {
                let record = record?;
                let fields = Value::Object(record.fields).to_string();
                Ok((record.line, fields))
            })
            .collect()
    }

    #[test]
    fn rows_have_the_line_they_begin_in() {
        let row = |line, fields: &str| (line, fields.to_owned());
        for content in [
            "\u{feff}code, label\na,1\n\n\"b\n\"\"c\"\"\",2\n,\n",
            "code,label\r\na,1\r\n\r\n\"b\n\"\"c\"\"\",2\r\n,",
        ] {
            assert_eq!(
                table(content.as_bytes(), b',').expect("rows"),
                [
                    row(2, r#"{"code":"a","label":"1"}"#),
                    row(4, r#"{"code":"b\n\"c\"","label":"2"}"#),
                    row(6, r#"{"code":"","label":""}"#),
                ]
            );
        }
        assert_eq!(
            table(b"\tcode\n0\ta,b\n", b'\t').expect("a row"),
            [row(2, r#"{"code":"a,b"}"#)]
        );
        let long = format!("a\n\"{}\"\n", "x,".repeat(20_000));
        assert_eq!(table(long.as_bytes(), b',').expect("a row").len(), 1);
    }

    #[test]
    fn broken_tables_are_named_by_line() {
        for (content, words) in [
            (
                &b"a,b\n1,2\n3\n"[..],
                "line 3: the row has 1 of the 2 columns",
            ),
            (b"a,b\n1,2\n3,\"x\n4,5\n", "line 3: a quote"),
            (b"a;b\n1;2\n", "one column, `a;b`, with a semicolon"),
            (b"a\tb\n", "with a tab"),
            (b"a,b,a\n", "the column `a` twice"),
            (b"a\nb\n\xff\n", "line 3, column 1: not UTF-8"),
            (b"a,b\n\xc3,\xa9\n", "line 2"),
            (b"a\n\n b\0\n", "line 3, column 3: a NUL byte"),
            (b"{\"a\": 1}\n", "holds JSON"),
            (b"", "no records"),
        ] {
            let error = table(content, b',').expect_err("broken").to_string();
            assert!(error.contains(words), "{error}");
        }
        let wide = format!("a\n{}\n", ",".repeat(2 * COLUMNS));
        let error = table(wide.as_bytes(), b',').expect_err("too wide");
        assert!(
            matches!(error, Error::LongRecord { line: 2, .. }),
            "{error}"
        );
    }
}
