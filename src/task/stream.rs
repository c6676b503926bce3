//! Files of any size to token sequences: a chunk of records at a time, whose text is dropped before
//! the next is read. What stays are token ids and classes.

use super::labels::LabelCollector;
use super::{EncodedSplit, Encoding, Error, Labels};
use crate::checkpoint::Checkpoint;
use crate::dataset::Records;
use crate::ragged::Ragged;

impl Encoding {
    /// Encodes all of `records`, as [`encode`](Self::encode) does.
    pub fn encode_records(
        &self,
        mut records: Records,
        checkpoint: &Checkpoint,
        labels: Option<&Labels>,
    ) -> Result<EncodedSplit, Error> {
        let mut split = EncodedSplit::empty(self.columns());
        while let Some(chunk) = records.chunk()? {
            split.append(&self.encode(&chunk, checkpoint, labels)?);
        }
        Ok(split)
    }

    /// Encodes the training split `records`, which says what classes there are, for a task that has
    /// them. It is read once, so it may be a pipe.
    pub fn encode_training(
        &self,
        mut records: Records,
        checkpoint: &Checkpoint,
    ) -> Result<(EncodedSplit, Option<Labels>), Error> {
        let Some(field) = self.label_choice() else {
            return Ok((self.encode_records(records, checkpoint, None)?, None));
        };
        let mut split = EncodedSplit::empty(self.columns());
        let mut collector = LabelCollector::default();
        while let Some(chunk) = records.chunk()? {
            collector.add(&chunk, &field)?;
            split.append(&self.encode(&chunk, checkpoint, None)?);
        }
        let (labels, rows) = collector.finish(records.path())?;
        split.labels = rows;
        Ok((split, Some(labels)))
    }
}

impl EncodedSplit {
    /// No rows, each to be of `columns` sequences.
    fn empty(columns: usize) -> Self {
        Self {
            sequences: Ragged::new(1),
            columns,
            labels: Vec::new(),
        }
    }

    /// Appends the rows of `other`.
    fn append(&mut self, other: &Self) {
        self.sequences.append(&other.sequences);
        self.labels.extend_from_slice(&other.labels);
    }
}
