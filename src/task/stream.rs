//! Files of any size to token sequences: a chunk of records at a time, whose text is dropped before
//! the next is read. What stays are token ids and targets.

use std::path::Path;

use super::clone::Groups;
use super::labels::LabelCollector;
use super::{EncodedSplit, Encoding, Error, Known, Labels, Role, classify};
use crate::checkpoint::Checkpoint;
use crate::dataset::{Functions, PairFile, Records, Source};
use crate::distinct::Distinct;
use crate::targets::Targets;

impl Encoding {
    /// Encodes the split in `source`. Of a text file for `clone` the functions that it names are
    /// read too, as `CodeXGLUE` has BigCloneBench: from `data.jsonl` beside it.
    pub fn encode_source(
        &self,
        source: &Source,
        checkpoint: &Checkpoint,
        role: Role,
        known: Known,
    ) -> Result<EncodedSplit, Error> {
        match (self, self.pair_file(source)) {
            (Self::Clone(clone), Some(path)) => {
                let field = classify::text_field(clone.text_field.as_deref());
                let functions = Functions::read(&Functions::beside(path)?, &field)?;
                let pairs = PairFile::read(path, &functions)?;
                clone.encode_pairs(&functions, &pairs, self.encoder(checkpoint))
            }
            _ => self.encode_records(source.records()?, checkpoint, role, known),
        }
    }

    /// The file of pairs that `source` is, if this reads such files.
    pub fn pair_file<'a>(&self, source: &'a Source) -> Option<&'a Path> {
        let is_clone = matches!(self, Self::Clone(_));
        source.text_file().filter(|_| is_clone)
    }

    /// Encodes all of `records`, as [`encode`](Self::encode) does.
    pub fn encode_records(
        &self,
        mut records: Records,
        checkpoint: &Checkpoint,
        role: Role,
        known: Known,
    ) -> Result<EncodedSplit, Error> {
        if let Self::Search(search) = self
            && role == Role::Training
            && search.negative_field.is_some()
        {
            // How many hard negatives a row has follows from all of them.
            let mut chunks = Vec::new();
            while let Some(chunk) = records.chunk()? {
                chunks.push(chunk);
            }
            let negatives = search.negatives(&chunks)?;
            let row = negatives.first().and_then(|rows| rows.first());
            let mut split = Collector::new(2 + row.map_or(0, Vec::len));
            for (chunk, negatives) in chunks.iter().zip(negatives) {
                split.add(search.encode_rows(chunk, self.encoder(checkpoint), negatives)?);
            }
            return Ok(split.finish());
        }
        let groups = match self {
            Self::Clone(clone) => clone.group_choice(),
            _ => None,
        };
        let mut split = Collector::new(self.columns(role, known));
        let mut numbers = Groups::default();
        while let Some(chunk) = records.chunk()? {
            match &groups {
                Some(field) => {
                    numbers.add(&chunk, field)?;
                    split.add(self.encode_queries(&chunk, checkpoint)?);
                }
                None => split.add(self.encode(&chunk, checkpoint, role, known)?),
            }
        }
        let mut split = split.finish();
        if groups.is_some() {
            split.targets = numbers.finish(records.path())?;
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
        let (role, known) = (Role::Training, Known::default());
        let Some((field, objective)) = self.label_choice() else {
            return Ok((self.encode_records(records, checkpoint, role, known)?, None));
        };
        let mut split = Collector::new(self.columns(role, known));
        let mut collector = LabelCollector::new(objective);
        while let Some(chunk) = records.chunk()? {
            collector.add(&chunk, &field)?;
            split.add(self.encode(&chunk, checkpoint, role, known)?);
        }
        let (labels, targets) = collector.finish(records.path())?;
        let mut split = split.finish();
        split.targets = targets;
        Ok((split, Some(labels)))
    }
}

/// A split that is put together chunk by chunk.
struct Collector {
    distinct: Distinct,
    rows: Vec<u32>,
    columns: usize,
    targets: Targets,
}

impl Collector {
    fn new(columns: usize) -> Self {
        Self {
            distinct: Distinct::default(),
            rows: Vec::new(),
            columns,
            targets: Targets::None,
        }
    }

    /// Appends the rows of `chunk`.
    fn add(&mut self, chunk: EncodedSplit) {
        let numbers = chunk.sequences.iter().map(|ids| self.distinct.index(ids));
        let numbers: Vec<u32> = numbers.collect();
        let rows = chunk.rows.iter().map(|&number| numbers[number as usize]);
        self.rows.extend(rows);
        self.targets.append(chunk.targets);
    }

    fn finish(self) -> EncodedSplit {
        EncodedSplit {
            sequences: self.distinct.sequences,
            rows: self.rows,
            columns: self.columns,
            targets: self.targets,
            notice: None,
        }
    }
}
