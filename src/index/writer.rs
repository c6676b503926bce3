//! Writing an index, piece by piece: no more than a piece is in memory, besides eight bytes a
//! record.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::f16;
use serde_json::{Map, Value, json};

use super::{
    DESCRIPTION, Description, Error, FORMAT, OFFSETS, RECORDS, VECTORS, VERSION, VectorType,
};

/// Room before the vectors for their header, which is known at the end: a safetensors header may
/// end in spaces.
const HEADER: usize = 256;

/// An index being written into a folder that is there and empty.
pub struct IndexWriter {
    folder: PathBuf,
    description: Description,
    vectors: BufWriter<File>,
    records: BufWriter<File>,
    offsets: Vec<u64>,
}

impl IndexWriter {
    /// An index of vectors of `width` numbers, made by the model of `fingerprint`.
    pub fn new(
        folder: &Path,
        fingerprint: String,
        width: usize,
        stored: VectorType,
    ) -> Result<Self, Error> {
        let create = |name: &str| fs_err::File::create(folder.join(name)).map_err(Error::Write);
        let mut vectors = BufWriter::new(create(VECTORS)?.into_parts().0);
        let room = [b' '; HEADER];
        vectors.write_all(&room).map_err(Error::Write)?;
        Ok(Self {
            folder: folder.to_owned(),
            description: Description {
                format: FORMAT.into(),
                version: VERSION,
                fingerprint,
                records: 0,
                width,
                stored,
            },
            vectors,
            records: BufWriter::new(create(RECORDS)?.into_parts().0),
            offsets: vec![0],
        })
    }

    /// Adds a record: its vector, and what is to be said when it is found.
    pub fn add(&mut self, vector: &[f32], record: &Map<String, Value>) -> Result<(), Error> {
        let mut add = || -> io::Result<()> {
            match self.description.stored {
                VectorType::F32 => {
                    for number in vector {
                        self.vectors.write_all(&number.to_le_bytes())?;
                    }
                }
                VectorType::Fp16 => {
                    for &number in vector {
                        self.vectors
                            .write_all(&f16::from_f32(number).to_le_bytes())?;
                    }
                }
            }
            let line = serde_json::to_string(record)?;
            writeln!(self.records, "{line}")?;
            let start = self.offsets.last().copied().unwrap_or_default();
            self.offsets.push(start + line.len() as u64 + 1);
            Ok(())
        };
        add().map_err(Error::Write)?;
        self.description.records += 1;
        Ok(())
    }

    /// Writes what is known at the end only.
    pub fn finish(mut self) -> Result<Description, Error> {
        self.finish_files().map_err(Error::Write)?;
        Ok(self.description)
    }

    fn finish_files(&mut self) -> io::Result<()> {
        let Description {
            records,
            width,
            stored,
            ..
        } = self.description;
        let bytes = records * width * stored.bytes();
        let header = json!({
            "vectors": { "dtype": stored.name(), "shape": [records, width], "data_offsets": [0, bytes] },
        });
        self.vectors.flush()?;
        let file = self.vectors.get_mut();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&((HEADER - size_of::<u64>()) as u64).to_le_bytes())?;
        file.write_all(header.to_string().as_bytes())?;
        self.records.flush()?;

        let count = self.offsets.len();
        let header = json!({
            "offsets": { "dtype": "I64", "shape": [count], "data_offsets": [0, count * size_of::<u64>()] },
        });
        let mut header = header.to_string();
        while !header.len().is_multiple_of(size_of::<u64>()) {
            header.push(' ');
        }
        let mut offsets = BufWriter::new(fs_err::File::create(self.folder.join(OFFSETS))?);
        offsets.write_all(&(header.len() as u64).to_le_bytes())?;
        offsets.write_all(header.as_bytes())?;
        for offset in &self.offsets {
            offsets.write_all(&offset.to_le_bytes())?;
        }
        offsets.flush()?;
        let description = serde_json::to_string_pretty(&self.description)?;
        fs_err::write(self.folder.join(DESCRIPTION), description + "\n")
    }
}
