//! Devign as its authors gave it: all functions in one array, and files of the places of each
//! split's functions in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::lines::Lines;
use super::records::Rows;
use super::{Error, Record, compression, jsonl};

/// Where the functions are looked for beside a file of places.
const FUNCTIONS: [&str; 3] = ["function.json", "function.json.gz", "function.json.zst"];

/// The functions' file beside `split`, if `split` can be a file of places in it.
pub(super) fn functions_beside(split: &Path) -> Option<PathBuf> {
    let beside = FUNCTIONS.iter().map(|name| split.with_file_name(name));
    let mut beside = beside.filter(|path| path.is_file());
    let is_text = compression::ending_unpacked(split) == "txt";
    is_text.then(|| beside.next()).flatten()
}

/// The records of `functions` whose place, from 0, `split` names; in the order of `functions`, as
/// CodeXGLUE's own script has them.
pub(super) struct Chosen {
    split: PathBuf,
    rows: Rows,
    place: u64,
    /// Places still to come, with their lines.
    wanted: BTreeMap<u64, usize>,
}

impl Chosen {
    pub(super) fn open(split: &Path, functions: &Path) -> Result<Self, Error> {
        let mut lines = Lines::new(split, compression::open(split)?);
        let mut wanted = BTreeMap::new();
        while let Some((line, text)) = lines.next()? {
            let place = text.parse().map_err(|_| Error::NoPlace {
                path: split.to_owned(),
                line,
                found: text.chars().take(60).collect(),
                functions: functions.to_owned(),
            })?;
            wanted.entry(place).or_insert(line);
        }
        Ok(Self {
            split: split.to_owned(),
            rows: jsonl::rows(functions, compression::open(functions)?)?,
            place: 0,
            wanted,
        })
    }
}

impl Iterator for Chosen {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&last, &line) = self.wanted.last_key_value()?;
        loop {
            let Some(record) = self.rows.next() else {
                return Some(Err(Error::BeyondFunctions {
                    path: self.split.clone(),
                    line,
                    found: last,
                    functions: self.place,
                }));
            };
            let place = self.place;
            self.place += 1;
            if record.is_err() || self.wanted.remove(&place).is_some() {
                return Some(record);
            }
        }
    }
}
