//! Searching an index.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use half::f16;
use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::{Map, Value};

use super::{
    DESCRIPTION, Description, Error, FORMAT, Hit, OFFSETS, RECORDS, Top, VECTORS, VERSION,
    VectorType,
};
use crate::mapping::MappedFile;

/// Vectors compared at a time: with 512 queries and 768 numbers, 17 MB.
const BLOCK: usize = 4096;
/// Mapped bytes after which the pages that were read are given back.
const KEPT_BYTES: usize = 128 << 20;

/// A code base's vectors, mapped.
pub struct Index {
    folder: PathBuf,
    /// What it holds.
    pub description: Description,
    vectors: Tensors,
    offsets: Tensors,
    records: MappedFile,
}

/// The one tensor of a safetensors file.
struct Tensors {
    file: MappedFile,
    start: usize,
}

impl Index {
    /// Opens the index in `folder`, which must be of the model of `fingerprint`.
    pub fn open(folder: &Path, fingerprint: &str) -> Result<Self, Error> {
        let path = folder.join(DESCRIPTION);
        if !path.is_file() {
            let folder = folder.to_owned();
            return Err(Error::Missing { folder });
        }
        let text = fs_err::read_to_string(&path).map_err(Error::Read)?;
        let damaged = |problem: String| Error::Damaged {
            path: path.clone(),
            problem,
        };
        let description: Description =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if (description.format.as_str(), description.version) != (FORMAT, VERSION) {
            let (format, version) = (&description.format, description.version);
            let problem = format!("`{format}` version {version}, expected `{FORMAT}` {VERSION}");
            return Err(damaged(problem));
        }
        if description.fingerprint != fingerprint {
            return Err(Error::OtherModel {
                folder: folder.to_owned(),
                found: description.fingerprint,
                expected: fingerprint.into(),
            });
        }
        let Description {
            records,
            width,
            stored,
            ..
        } = description;
        let dtype = match stored {
            VectorType::F32 => Dtype::F32,
            VectorType::Fp16 => Dtype::F16,
        };
        let shape = [records, width];
        let vectors = Tensors::open(&folder.join(VECTORS), "vectors", dtype, &shape)?;
        let ends = [records + 1];
        let offsets = Tensors::open(&folder.join(OFFSETS), "offsets", Dtype::I64, &ends)?;
        let said = MappedFile::open(&folder.join(RECORDS)).map_err(Error::Read)?;
        vectors.file.in_no_order();
        Ok(Self {
            folder: folder.to_owned(),
            description,
            vectors,
            offsets,
            records: said,
        })
    }

    /// The `top` best records for each of `queries`, `[queries, width]` of unit length, best
    /// first; of equal scores the earlier record is the better one.
    pub fn search(
        &self,
        queries: &Tensor,
        top: usize,
    ) -> Result<Vec<Vec<Hit>>, crate::error::Error> {
        let tensor = |error: candle_core::Error| crate::error::Error::Trainable(error.into());
        let queries = queries.to_device(&Device::Cpu).map_err(tensor)?;
        let count = queries.dim(0).map_err(tensor)?;
        let mut tops: Vec<Top> = (0..count).map(|_| Top::new(top)).collect();
        let width = self.description.width;
        let row_bytes = width * self.description.stored.bytes();
        let mut kept = 0;
        for start in (0..self.description.records).step_by(BLOCK) {
            let rows = BLOCK.min(self.description.records - start);
            let place = self.vectors.start + start * row_bytes;
            let next = place + rows * row_bytes;
            let ahead = next..(next + BLOCK * row_bytes).min(self.vectors.file.len());
            self.vectors.file.will_need(&ahead);
            let block = self.numbers(&self.vectors.file[place..next]);
            let block = Tensor::from_vec(block, (rows, width), &Device::Cpu).map_err(tensor)?;
            let scores = block.t().and_then(|block| queries.matmul(&block));
            let scores = scores.and_then(|scores| scores.flatten_all()?.to_vec1::<f32>());
            let scores = scores.map_err(tensor)?;
            let by_query = tops.par_iter_mut().zip(scores.par_chunks(rows));
            by_query.for_each(|(top, scores)| {
                for (row, &score) in scores.iter().enumerate() {
                    let record = start + row;
                    top.offer(Hit { score, record });
                }
            });
            kept += rows * row_bytes;
            if kept >= KEPT_BYTES {
                self.vectors.file.release();
                kept = 0;
            }
        }
        self.vectors.file.release();
        Ok(tops.into_iter().map(Top::into_hits).collect())
    }

    /// What was said of record `number` when it was added.
    pub fn record(&self, number: usize) -> Result<Map<String, Value>, Error> {
        let damaged = |problem: String| Error::Damaged {
            path: self.folder.join(RECORDS),
            problem,
        };
        let (start, end) = (self.offset(number), self.offset(number + 1));
        let line = self.records.get(start..end);
        let line = line.ok_or_else(|| damaged(format!("record {number} lies outside of it")))?;
        serde_json::from_slice(line).map_err(|error| damaged(format!("record {number}: {error}")))
    }

    /// Where line `number` of the records begins; past any file where that is no place.
    fn offset(&self, number: usize) -> usize {
        let (offsets, _) = self.offsets.file[self.offsets.start..].as_chunks::<8>();
        usize::try_from(u64::from_le_bytes(offsets[number])).unwrap_or(usize::MAX)
    }

    fn numbers(&self, bytes: &[u8]) -> Vec<f32> {
        match self.description.stored {
            VectorType::F32 => {
                let (numbers, _) = bytes.as_chunks::<4>();
                numbers
                    .iter()
                    .map(|&number| f32::from_le_bytes(number))
                    .collect()
            }
            VectorType::Fp16 => {
                let (numbers, _) = bytes.as_chunks::<2>();
                let numbers = numbers.iter();
                numbers
                    .map(|&number| f16::from_le_bytes(number).to_f32())
                    .collect()
            }
        }
    }
}

impl Tensors {
    /// Maps `path`, which must hold the tensor `name` of this type and shape, and nothing else.
    fn open(path: &Path, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Self, Error> {
        let damaged = |problem: String| Error::Damaged {
            path: path.to_owned(),
            problem,
        };
        let file = MappedFile::open(path).map_err(Error::Read)?;
        let (header, metadata) =
            SafeTensors::read_metadata(&file).map_err(|error| damaged(error.to_string()))?;
        let info = metadata.info(name);
        let info = info.ok_or_else(|| damaged(format!("no tensor `{name}`")))?;
        if info.dtype != dtype || info.shape != shape {
            let (found, of) = (&info.shape, info.dtype);
            let problem = format!("`{name}` is {of:?} {found:?}, expected {dtype:?} {shape:?}");
            return Err(damaged(problem));
        }
        let start = size_of::<u64>() + header + info.data_offsets.0;
        Ok(Self { file, start })
    }
}
