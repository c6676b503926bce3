//! The part of the data that a pilot of `telly advise` works on.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::path::Path;

use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::cli::console;
use crate::cli::options::missing;
use crate::cli::sweep::SweepOptions;
use crate::cli::sweep::folder::write;
use crate::dataset::{Label, Record, Source};
use crate::error::Error;
use crate::task::{CloneForm, Objective, TaskKind, label_field};

/// What its rows are drawn by.
const DRAW: u64 = 1;
/// Its files.
pub(super) const TRAIN: &str = "train.jsonl";
pub(super) const VALID: &str = "valid.jsonl";

/// The records that a pilot learns from and is validated on.
pub(super) struct Sample {
    /// Records of the training split.
    pub(super) records: usize,
    pub(super) train: Vec<String>,
    valid: Vec<String>,
}

impl Sample {
    /// `wanted` records of the training split and half as many to validate on: of the validation split
    /// if there is one, else of the rest. Of a classifier's validation, rows with a label that it cannot
    /// have learnt are left out. Of groups a row comes with another one of its group.
    pub(super) fn draw(
        options: &SweepOptions,
        data: Option<&Path>,
        wanted: usize,
    ) -> Result<Self, Error> {
        let train = training_split(options, data)?;
        let path = train.path().to_owned();
        let records = all_records(&train)?;
        let given = match (&options.valid, data) {
            (Some(files), _) => Some(Source::of_all(files, "valid")?),
            (None, Some(folder)) => Source::in_folder(folder, "valid")?,
            (None, None) => None,
        };
        let given = given.as_ref().map(all_records).transpose()?;
        let field = label_field(options.task.label_field.as_deref());
        // Without one the record is refused when it is encoded.
        let label = |record: &Record| field.label(record, &path).ok();
        let grouped = options.task.task == Some(TaskKind::Clone)
            && options.task.clone_form(Some(&train))? == CloneForm::Groups;
        let arranged = |order: Vec<usize>, records: &[Record]| {
            if grouped {
                with_partners(order, |row| label(&records[row]))
            } else {
                order
            }
        };
        let mut random = ChaCha8Rng::seed_from_u64(DRAW);
        let mut order = sample(&mut random, records.len(), records.len()).into_vec();
        let mut valid: Vec<&Record> = match &given {
            None => {
                let held_out = (wanted / 2).min(records.len() / 3);
                let from_the_end = order.iter().rev().copied().collect();
                let mut rows = arranged(from_the_end, &records);
                rows.truncate(held_out);
                let held_out: HashSet<usize> = rows.iter().copied().collect();
                order.retain(|row| !held_out.contains(row));
                rows.into_iter().rev().map(|row| &records[row]).collect()
            }
            Some(given) => {
                let count = (wanted / 2).min(given.len());
                let drawn = if grouped { given.len() } else { count };
                let drawn = sample(&mut random, given.len(), drawn).into_vec();
                let drawn = arranged(drawn, given).into_iter().take(count);
                drawn.map(|row| &given[row]).collect()
            }
        };
        let mut order = arranged(order, &records);
        order.truncate(wanted);
        let train: Vec<&Record> = order.iter().map(|&row| &records[row]).collect();
        let single_label = options.task.objective.unwrap_or_default() == Objective::SingleLabel;
        if options.task.task == Some(TaskKind::Classify) && single_label {
            let known: HashSet<Option<Label>> = train.iter().map(|record| label(record)).collect();
            let before = valid.len();
            valid.retain(|record| known.contains(&label(record)));
            if valid.is_empty() {
                return Err(Error::Usage {
                    problem: format!("none of the {before} records to validate on has a label that any of the {} of the sample has", train.len()),
                    hint: "name a validation split of the same classes with `--valid`, or pass more `--rows`".into(),
                });
            }
            if valid.len() < before {
                console::say(&format!(
                    "{} records to validate on have labels that none of the sample has, and are left out",
                    before - valid.len()
                ));
            }
        }
        let lines = |records: &[&Record]| -> Vec<String> {
            records
                .iter()
                .map(|record| json!(record.fields).to_string())
                .collect()
        };
        Ok(Self {
            records: records.len(),
            train: lines(&train),
            valid: lines(&valid),
        })
    }

    fn files(&self) -> [(&'static str, String); 2] {
        [(TRAIN, &self.train), (VALID, &self.valid)]
            .map(|(name, lines)| (name, lines.iter().map(|line| line.clone() + "\n").collect()))
    }

    /// Refuses a folder of another sample.
    pub(super) fn check(&self, out: &Path) -> Result<(), Error> {
        for (name, text) in self.files() {
            let path = out.join(name);
            if fs_err::read_to_string(&path).is_ok_and(|found| found != text) {
                return Err(Error::Usage {
                    problem: format!(
                        "`{}` was drawn from other data, with another `--rows`, or by another version of Telly",
                        path.display()
                    ),
                    hint: "choose another `--out`, or remove the folder".into(),
                });
            }
        }
        Ok(())
    }

    pub(super) fn write(&self, out: &Path) -> Result<(), Error> {
        self.files()
            .iter()
            .try_for_each(|(name, text)| write(out, name, text))
    }
}

/// The training split, named or in the folder `data`, of records that can be drawn one by one.
pub(super) fn training_split(options: &SweepOptions, data: Option<&Path>) -> Result<Source, Error> {
    let train = match (&options.train, data) {
        (Some(files), _) => Source::of_all(files, "train")?,
        (None, Some(folder)) => Source::of(folder, "train")?,
        (None, None) => return Err(missing("--train")),
    };
    if train.text_file().is_some() {
        return Err(Error::Usage {
            problem: "a file of pairs is no file of records".into(),
            hint: "give records of two functions and a label, or run `telly sweep` on a part of the pairs".into(),
        });
    }
    Ok(train)
}

/// The rows of `order`, each followed by the next one of its `group` unless one stands before it: those
/// drawn from the beginning have partners, however many groups there are.
fn with_partners<G: Hash + Eq>(order: Vec<usize>, group: impl Fn(usize) -> G) -> Vec<usize> {
    let mut members: HashMap<G, Vec<usize>> = HashMap::new();
    for &row in &order {
        members.entry(group(row)).or_default().push(row);
    }
    let mut taken = HashSet::new();
    let mut arranged = Vec::with_capacity(order.len());
    for row in order {
        if !taken.insert(row) {
            continue;
        }
        arranged.push(row);
        // The first of a group that is met is the first of its members.
        let waiting = members.remove(&group(row));
        if let Some(&partner) = waiting.as_ref().and_then(|members| members.get(1)) {
            taken.insert(partner);
            arranged.push(partner);
        }
    }
    arranged
}

/// Writes `text` of each record of the sample's file `from` in `folder` into its file `to`, as the field
/// `name` of records.
pub(super) fn write_texts(
    folder: &Path,
    (from, to): (&str, &str),
    name: &str,
    text: impl Fn(&Record, &Path) -> Result<String, Error>,
) -> Result<(), Error> {
    let source = Source::of_all(&[folder.join(from)], from)?;
    let records = all_records(&source)?;
    let mut lines = String::new();
    for record in &records {
        lines += &json!({ name: text(record, source.path())? }).to_string();
        lines.push('\n');
    }
    write(folder, to, &lines)
}

fn all_records(source: &Source) -> Result<Vec<Record>, Error> {
    let mut chunks = source.records()?;
    let mut records = Vec::new();
    while let Some(chunk) = chunks.chunk()? {
        records.extend(chunk.records);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_with_a_partner() {
        // Groups of ten, and one row by itself.
        let order: Vec<usize> = (0..31).map(|place| place * 7 % 31).collect();
        let arranged = with_partners(order.clone(), |row| row / 10);
        let mut sorted = arranged.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..31).collect::<Vec<_>>());
        assert_eq!(arranged[..7], [0, 7, 14, 11, 21, 28, 4]);
        // Many groups of two: so many rows are so many halves of pairs.
        let order: Vec<usize> = (0..1001).map(|place| place * 377 % 1001).collect();
        let arranged = with_partners(order, |row| row / 2);
        let mut halves: Vec<usize> = arranged[..100].iter().map(|row| row / 2).collect();
        halves.sort_unstable();
        halves.dedup();
        assert!(halves.len() <= 51, "{halves:?}");
    }
}
