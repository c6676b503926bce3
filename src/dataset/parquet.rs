//! Parquet: columns of strings, numbers, truth values and lists of them, a row a record.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use serde_json::{Map, Number, Value};

use super::{Error, Record};
use crate::caught::caught;

/// The rows of a file, row group after row group, a page of each column at a time.
pub(super) struct Rows {
    path: PathBuf,
    reader: RowIter<'static>,
    /// Of the last row, from 1.
    row: usize,
}

impl Rows {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = fs_err::File::open(path).map_err(Error::Read)?;
        if file.metadata().map_err(Error::Read)?.is_dir() {
            let path = path.to_owned();
            return Err(Error::Folder { path });
        }
        let reader = guarded(|| {
            let file = SerializedFileReader::new(Pages(file.into_file()))?;
            Ok(RowIter::from_file_into(Box::new(file)))
        });
        let reader = reader.map_err(|source| Error::Parquet {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            reader,
            row: 0,
        })
    }
}

impl Iterator for Rows {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.row += 1;
        let row = guarded(|| self.reader.next().transpose()).transpose()?;
        let row = row.map_err(|source| Error::ParquetRow {
            path: self.path.clone(),
            row: self.row,
            source,
        });
        Some(row.map(|row| Record::new(self.row, fields(row))))
    }
}

/// What `call` of the library returns; an error too if it panics, as it does at some broken files.
fn guarded<T>(call: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    // After an error the reader is not used again.
    caught(call).unwrap_or_else(|message| Err(ParquetError::General(message)))
}

/// A file whose pages do not say that they unpack to what they cannot: the library reserves what a
/// page says before it unpacks it.
struct Pages(File);

impl Length for Pages {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Pages {
    type T = BufReader<File>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let mut read = self.0.get_read(start)?;
        if let Some((packed, unpacked)) = page_sizes(read.fill_buf()?) {
            let most = EXPANSION.saturating_mul(packed.min(self.0.len()));
            if unpacked > LARGEST_PAGE.min(most.saturating_add(SMALL_PAGE)) {
                let problem =
                    format!("a page of {packed} bytes says that it unpacks to {unpacked}");
                return Err(ParquetError::General(problem));
            }
        }
        Ok(read)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.0.get_bytes(start, length)
    }
}

/// Most bytes of a page, unpacked.
const LARGEST_PAGE: u64 = 512 << 20;
/// A page of so many bytes is let through whatever it was packed from.
const SMALL_PAGE: u64 = 4 << 20;
/// What zstd makes of a byte at the very most.
const EXPANSION: u64 = 1 << 15;

/// Bytes packed and unpacked, if `head` begins a page: a struct of Thrift's compact protocol whose
/// first fields are kind, size unpacked, size packed, each an integer of 32 bits.
fn page_sizes(head: &[u8]) -> Option<(u64, u64)> {
    /// The next field's number is one more; it is an integer of 32 bits.
    const NEXT_INTEGER: u8 = 0x15;
    let mut bytes = head.iter().copied();
    let mut integer = || {
        if bytes.next() != Some(NEXT_INTEGER) {
            return None;
        }
        let (mut number, mut shift) = (0u64, 0);
        loop {
            let byte = bytes.next()?;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            match byte & 0x80 {
                // The lowest bit is the sign; what is negative the library refuses itself.
                0 => return Some(number >> 1),
                _ if shift > 28 => return None,
                _ => {}
            }
        }
    };
    let _kind = integer()?;
    let unpacked = integer()?;
    Some((integer()?, unpacked))
}

fn fields(row: Row) -> Map<String, Value> {
    let columns = row.into_columns().into_iter();
    columns.map(|(name, field)| (name, value(field))).collect()
}

/// As the same value would stand in JSON; dates and decimals as text.
fn value(field: Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(truth) => truth.into(),
        Field::Byte(number) => number.into(),
        Field::Short(number) => number.into(),
        Field::Int(number) => number.into(),
        Field::Long(number) => number.into(),
        Field::UByte(number) => number.into(),
        Field::UShort(number) => number.into(),
        Field::UInt(number) => number.into(),
        Field::ULong(number) => number.into(),
        Field::Float16(number) => float(number.into()),
        Field::Float(number) => float(number.into()),
        Field::Double(number) => float(number),
        Field::Str(text) => text.into(),
        // Some writers leave out that a column is text.
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => text.into(),
            Err(_) => bytes.data().into(),
        },
        Field::Group(row) => Value::Object(fields(row)),
        Field::ListInternal(list) => list.elements().iter().cloned().map(value).collect(),
        Field::MapInternal(map) => {
            let entries = map.entries().iter().cloned();
            let entries = entries.map(|(key, entry)| match value(key) {
                Value::String(key) => (key, value(entry)),
                key => (key.to_string(), value(entry)),
            });
            Value::Object(entries.collect())
        }
        other @ (Field::Decimal(_)
        | Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_)) => other.to_string().into(),
    }
}

/// JSON has no infinities.
fn float(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_where_a_page_begins() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/formats");
        let bytes = fs_err::read(golden.join("rows.plain.parquet")).expect("bytes");
        // The first page follows the file's four letters, and is not packed.
        let (packed, unpacked) = page_sizes(&bytes[4..]).expect("a page");
        assert!(packed == unpacked && packed > 0, "{packed} {unpacked}");
        assert_eq!(
            page_sizes(&[0x15, 0, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 2]),
            Some((1, 0x7fff_ffff))
        );
        for no_page in [&b"PAR1"[..], &[0x15, 0, 0x15], &[0x15, 0x80], &[]] {
            assert_eq!(page_sizes(no_page), None);
        }
    }
}
