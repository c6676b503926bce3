//! Parquet: columns of strings, numbers, truth values and lists of them, a row a record.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use serde_json::{Map, Number, Value};

use super::{Error, Record};

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
            let file = SerializedFileReader::new(file.into_file())?;
            Ok(file.into_iter())
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
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or(panic.downcast_ref::<&str>().copied());
        let message = message.unwrap_or("the parquet library panicked");
        Err(ParquetError::General(message.into()))
    })
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
