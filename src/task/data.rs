//! A split as it lies on disk: records, or pairs of functions that lie in a file of their own.

use std::path::Path;

use super::{CloneForm, Error, TaskKind, classify};
use crate::dataset::{Dataset, Functions, PairFile, Record};

/// What a data file holds.
pub enum Data {
    /// Records with fields.
    Records(Dataset),
    /// `CodeXGLUE`'s shape of BigCloneBench: pairs that name functions by id.
    Pairs(Functions, PairFile),
}

impl Data {
    /// Reads `path` for `task`. Of a `.txt` file for `clone` the functions are read too: `data.jsonl`
    /// beside it, their text in `text_field`.
    pub fn read(path: &Path, task: TaskKind, text_field: Option<&str>) -> Result<Self, Error> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_text = [".txt", ".txt.gz", ".txt.zst"]
            .iter()
            .any(|end| name.ends_with(end));
        if task != TaskKind::Clone || !is_text {
            return Ok(Self::Records(Dataset::read(path)?));
        }
        let field = classify::text_field(text_field);
        let functions = Functions::read(&Functions::beside(path)?, &field)?;
        let pairs = PairFile::read(path, &functions)?;
        Ok(Self::Pairs(functions, pairs))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Records(data) => &data.path,
            Self::Pairs(_, file) => &file.path,
        }
    }

    /// What a row is for `clone`, by the first one's looks.
    pub fn clone_form(&self) -> CloneForm {
        match self {
            Self::Records(data) => data
                .records
                .first()
                .map_or(CloneForm::Groups, CloneForm::of),
            Self::Pairs(..) => CloneForm::Pairs,
        }
    }

    /// The records; none of pairs.
    pub fn records(&self) -> &[Record] {
        match self {
            Self::Records(data) => &data.records,
            Self::Pairs(..) => &[],
        }
    }

    /// What to tell the user of rows that were left out.
    pub fn notice(&self) -> Option<String> {
        match self {
            Self::Records(_) => None,
            Self::Pairs(_, file) => file.notice(),
        }
    }
}
