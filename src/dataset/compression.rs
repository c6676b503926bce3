//! A file's format and packing, by its name; what it holds must agree.

use std::io::{BufRead, BufReader};
use std::path::Path;

use super::Error;

/// A stretch of a file that is read at a time.
const BUFFER: usize = 32 << 10;
/// The first bytes of files that people mistake for data: in words, and what to do.
const FOREIGN: [(&[u8], &str, &str); 11] = [
    (b"PAR1", "a Parquet file", "name it .parquet"),
    (
        b"PK\x03\x04",
        "a zip archive or a spreadsheet",
        "unpack it, or save the spreadsheet as .csv",
    ),
    (b"\x1f\x8b", "gzip", "name it .gz"),
    (b"\x28\xb5\x2f\xfd", "zstd", "name it .zst"),
    (b"BZh", "bzip2", "unpack it, or pack it with gzip or zstd"),
    (b"\xfd7zXZ", "xz", "unpack it, or pack it with gzip or zstd"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"ARROW1", "an Arrow file", "save it as .parquet"),
    (
        b"SQLite format 3",
        "an SQLite database",
        "export the table as .csv",
    ),
    (b"\xff\xfe", "text in UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "save it as UTF-8"),
];
/// Where a tar archive says so.
const TAR: (usize, &[u8]) = (257, b"ustar");

/// How a file's records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON Lines, or one array.
    Json,
    /// Columns with this byte between them.
    Table(u8),
    Parquet,
}

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// Endings of names that are told from others, without `.txt`.
const JSON: [&str; 3] = ["jsonl", "json", "ndjson"];

/// The format that the name says; what has no known ending is JSON Lines.
pub(super) fn format(path: &Path) -> Format {
    match ending_unpacked(path).as_str() {
        "csv" => Format::Table(b','),
        "tsv" | "tab" => Format::Table(b'\t'),
        "parquet" | "pq" => Format::Parquet,
        _ => Format::Json,
    }
}

/// Whether the name is that of a file of data.
pub(super) fn is_data(path: &Path) -> bool {
    let ending = ending_unpacked(path);
    format(path) != Format::Json || ending == "txt" || JSON.contains(&ending.as_str())
}

/// Whether the name is that of a file of records, not of text.
pub fn is_records(path: &Path) -> bool {
    is_data(path) && ending_unpacked(path) != "txt"
}

/// Whether the name says that the file is packed.
pub(super) fn is_packed(path: &Path) -> bool {
    packing(path) != Packing::Plain
}

/// The name without its endings, in small letters: `train` of `train.jsonl.gz`.
pub(super) fn stem(path: &Path) -> String {
    let stem = unpacked(path).file_stem().unwrap_or_default();
    stem.to_string_lossy().to_ascii_lowercase()
}

/// The ending under that of the packing: `jsonl` of `train.jsonl.gz`.
pub(super) fn ending_unpacked(path: &Path) -> String {
    ending(unpacked(path))
}

fn unpacked(path: &Path) -> &Path {
    match (packing(path), path.file_stem()) {
        (Packing::Gzip | Packing::Zstd, Some(stem)) => Path::new(stem),
        _ => path,
    }
}

fn packing(path: &Path) -> Packing {
    match ending(path).as_str() {
        "gz" => Packing::Gzip,
        "zst" | "zstd" => Packing::Zstd,
        _ => Packing::Plain,
    }
}

/// What follows the last dot, in small letters.
fn ending(path: &Path) -> String {
    let ending = path.extension().unwrap_or_default();
    ending.to_string_lossy().to_ascii_lowercase()
}

/// Opens a file of text, unpacked; `-` is the standard input. What cannot be text is refused.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead + Send>, Error> {
    if path == Path::new("-") {
        let mut text = BufReader::with_capacity(BUFFER, std::io::stdin());
        refuse_foreign(path, text.fill_buf().map_err(Error::Read)?)?;
        return Ok(Box::new(text));
    }
    let file = fs_err::File::open(path).map_err(Error::Read)?;
    if file.metadata().map_err(Error::Read)?.is_dir() {
        let path = path.to_owned();
        return Err(Error::Folder { path });
    }
    let mut packed = BufReader::with_capacity(BUFFER, file);
    let unreadable = |source| Error::Line {
        path: path.to_owned(),
        line: 1,
        source,
    };
    let head = packed.fill_buf().map_err(unreadable)?;
    let (name, magic): (_, &[u8]) = match packing(path) {
        Packing::Plain => ("", b""),
        Packing::Gzip => ("gzip", b"\x1f\x8b"),
        Packing::Zstd => ("zstd", b"\x28\xb5\x2f\xfd"),
    };
    if !head.starts_with(magic) {
        return Err(Error::NotPacked {
            path: path.to_owned(),
            expected: name,
        });
    }
    let mut text: Box<dyn BufRead + Send> = match packing(path) {
        Packing::Plain => Box::new(packed),
        Packing::Gzip => {
            let unpacked = flate2::bufread::MultiGzDecoder::new(packed);
            Box::new(BufReader::with_capacity(BUFFER, unpacked))
        }
        Packing::Zstd => {
            let unpacked = zstd::Decoder::with_buffer(packed).map_err(unreadable)?;
            Box::new(BufReader::with_capacity(BUFFER, unpacked))
        }
    };
    refuse_foreign(path, text.fill_buf().map_err(unreadable)?)?;
    Ok(text)
}

/// Refuses what begins like a file of another kind.
fn refuse_foreign(path: &Path, head: &[u8]) -> Result<(), Error> {
    let refused = |found, advice| Error::Foreign {
        path: path.to_owned(),
        found,
        advice,
    };
    let (place, tar) = TAR;
    if head.get(place..).is_some_and(|tail| tail.starts_with(tar)) {
        return Err(refused("a tar archive", "unpack it"));
    }
    match FOREIGN.iter().find(|(magic, ..)| head.starts_with(magic)) {
        Some(&(_, found, advice)) => Err(refused(found, advice)),
        None => Ok(()),
    }
}
