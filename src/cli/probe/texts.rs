//! The functions that probes learn from and are tested on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use clap::Args;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::cli::console;
use crate::cli::options::{first_passed, missing};
use crate::cli::studied::missing_data;
use crate::dataset::{FieldChoice, Label, Record, Source};
use crate::error::Error;
use crate::study::probe::{CodeText, Probe};
use crate::study::syntax::Language;
use crate::task::label_field;

/// With fewer a probe tells nothing.
const LEAST_FUNCTIONS: usize = 8;

/// Functions to learn from, unless told.
const LEARNT_FROM: usize = 2000;
/// Functions to test on, unless told.
const TESTED_ON: usize = 1000;

/// Where functions are, and how many are taken.
#[derive(Args)]
#[command(next_help_heading = "Input")]
pub(in crate::cli) struct TextOptions {
    /// Functions: JSON Lines, a JSON array, .csv, .tsv (each in .gz or .zst too) or .parquet; or a folder
    /// with a train split; `-` is stdin, as JSON Lines.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Functions to test on, or a folder with a test split [default: some of --data are kept back].
    #[arg(long, value_name = "FILE")]
    test: Option<PathBuf>,
    /// Their language [default: the field language of each].
    #[arg(long, value_enum)]
    language: Option<Language>,
    /// Field of the code [default: the first of code, func].
    #[arg(long, value_name = "FIELD")]
    code_field: Option<String>,
    /// semantic: field of the problem that a function solves [default: label or target].
    #[arg(long, value_name = "FIELD")]
    label_field: Option<String>,
    /// Functions to learn from at most, drawn by --seed [default: 2000].
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Functions to test on at most; problems are kept back whole, and may take some more [default: 1000].
    #[arg(long, value_name = "N")]
    test_limit: Option<usize>,
}

/// What is known across splits.
struct Reading<'a> {
    options: &'a TextOptions,
    wants_groups: bool,
    groups: HashMap<Label, i64>,
    seen: HashSet<String>,
    random: ChaCha8Rng,
    read: usize,
    unparsed: usize,
    repeated: usize,
}

impl TextOptions {
    /// Functions of one `language` to learn from in `data` and to test on in `test`.
    pub(in crate::cli) fn of(data: PathBuf, test: PathBuf, language: Language) -> Self {
        Self {
            data: Some(data),
            test: Some(test),
            language: Some(language),
            code_field: None,
            label_field: None,
            limit: None,
            test_limit: None,
        }
    }

    /// The first flag that was passed.
    pub(super) fn passed(&self) -> Option<&'static str> {
        first_passed(&[
            ("--data", self.data.is_some()),
            ("--test", self.test.is_some()),
            ("--language", self.language.is_some()),
            ("--code-field", self.code_field.is_some()),
            ("--label-field", self.label_field.is_some()),
            ("--limit", self.limit.is_some()),
            ("--test-limit", self.test_limit.is_some()),
        ])
    }

    /// Refuses flags that cannot be followed.
    pub(super) fn check(&self, studied: &Path) -> Result<(), Error> {
        if self.data.is_none() {
            return Err(missing_data(&[studied]));
        }
        self.limits().map(drop)
    }

    /// Functions to learn from and to test on at most.
    fn limits(&self) -> Result<[usize; 2], Error> {
        Ok([
            at_least_one("--limit", self.limit.unwrap_or(LEARNT_FROM))?,
            at_least_one("--test-limit", self.test_limit.unwrap_or(TESTED_ON))?,
        ])
    }

    /// Those to learn from and those to test on, no function in both; with the semantic probe no problem
    /// in both either, unless the files have it so.
    pub(in crate::cli) fn read(
        &self,
        probes: &[Probe],
        seed: u64,
    ) -> Result<[Vec<CodeText>; 2], Error> {
        let mut reading = Reading {
            options: self,
            wants_groups: probes.contains(&Probe::Semantic),
            groups: HashMap::new(),
            seen: HashSet::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
            read: 0,
            unparsed: 0,
            repeated: 0,
        };
        let data = self.data.as_deref().ok_or_else(|| missing("--data"))?;
        let data = Source::of(data, "train")?;
        let [limit, test_limit] = self.limits()?;
        let splits = if let Some(test) = &self.test {
            let test = Source::of(test, "test")?;
            [
                reading.draw(&data, limit)?,
                reading.draw(&test, test_limit)?,
            ]
        } else {
            let all = reading.draw(&data, limit.saturating_add(test_limit))?;
            let kept_back = kept_back(all.len(), limit, test_limit);
            hold_out(all, kept_back, reading.wants_groups, &mut reading.random)
        };
        reading.check(&splits)?;
        Ok(splits)
    }
}

/// `number`, the value of `flag`, unless it is 0.
pub(super) fn at_least_one(flag: &str, number: usize) -> Result<usize, Error> {
    if number == 0 {
        return Err(Error::Usage {
            problem: format!("`{flag} 0` leaves nothing to look at"),
            hint: "pass at least 1, or leave the flag out".into(),
        });
    }
    Ok(number)
}

impl Reading<'_> {
    /// At most `limit` records of `source`, each as likely as any other (Vitter's algorithm R), in the order
    /// of the file; of them what can be used.
    fn draw(&mut self, source: &Source, limit: usize) -> Result<Vec<CodeText>, Error> {
        let mut drawn: Vec<(usize, Record)> = Vec::new();
        for (number, record) in source.records()?.enumerate() {
            let record = record?;
            if drawn.len() < limit {
                drawn.push((number, record));
                continue;
            }
            let place = self.random.random_range(0..=number);
            if place < limit {
                drawn[place] = (number, record);
            }
        }
        drawn.sort_unstable_by_key(|(number, _)| *number);
        self.read += drawn.len();
        let mut texts = Vec::new();
        for (_, record) in &drawn {
            texts.extend(self.text(record, source.path())?);
        }
        Ok(texts)
    }

    /// That of `record`, unless it does not parse or was there before.
    fn text(&mut self, record: &Record, path: &Path) -> Result<Option<CodeText>, Error> {
        let options = self.options;
        let field = FieldChoice::new(
            "--code-field",
            options.code_field.as_deref(),
            &["code", "func"],
        );
        let code = field.verbatim(record, path)?;
        let language = match options.language {
            Some(language) => language,
            None => language_of(record, path)?,
        };
        let group = if self.wants_groups {
            let label = label_field(options.label_field.as_deref()).label(record, path)?;
            let next = self.groups.len() as i64;
            *self.groups.entry(label).or_insert(next)
        } else {
            0
        };
        let Some(text) = CodeText::parse(&code, language, group) else {
            self.unparsed += 1;
            return Ok(None);
        };
        if !self.seen.insert(text.text.clone()) {
            self.repeated += 1;
            return Ok(None);
        }
        Ok(Some(text))
    }

    /// Tells what was left out, and refuses what is too little.
    fn check(&self, splits: &[Vec<CodeText>; 2]) -> Result<(), Error> {
        let left_out = [
            (self.unparsed, "do not parse or hold no code"),
            (self.repeated, "were there before"),
        ];
        let left_out = left_out.iter().filter(|(count, _)| *count > 0);
        let left_out: Vec<String> = left_out
            .map(|(count, why)| format!("{count} functions {why}, and are left out"))
            .collect();
        for line in &left_out {
            console::say(line);
        }
        let [train, test] = splits.each_ref().map(Vec::len);
        if train < LEAST_FUNCTIONS || test < LEAST_FUNCTIONS {
            return Err(Error::Usage {
                problem: format!(
                    "{train} functions to learn from and {test} to test on, out of {} records; expected at least {LEAST_FUNCTIONS} each",
                    self.read
                ),
                hint: if self.unparsed > self.read / 2 {
                    "most do not parse: pass the `--language` that they are in".into()
                } else {
                    "pass more functions, or other limits".into()
                },
            });
        }
        if !self.wants_groups {
            return Ok(());
        }
        for (texts, what) in splits.iter().zip(["to learn from", "to test on"]) {
            let mut sizes: HashMap<i64, usize> = HashMap::new();
            for text in texts {
                *sizes.entry(text.group).or_default() += 1;
            }
            let found = sizes.values().filter(|&&size| size > 1).count();
            if found < 2 {
                return Err(Error::Usage {
                    problem: format!(
                        "{found} problems {what} that two functions solve, expected at least 2"
                    ),
                    hint: "pass functions of more problems, or leave the semantic probe out".into(),
                });
            }
        }
        Ok(())
    }
}

/// How many of so many `functions` are kept back to test on: a third, more where the `limit` of those to
/// learn from leaves more over, `test_limit` at most.
fn kept_back(functions: usize, limit: usize, test_limit: usize) -> usize {
    let left_over = functions.saturating_sub(limit);
    left_over.max((functions + 1) / 3).min(test_limit)
}

/// Keeps `kept_back` of `texts` back to test on, whole groups with `by_group`.
fn hold_out(
    mut texts: Vec<CodeText>,
    kept_back: usize,
    by_group: bool,
    random: &mut ChaCha8Rng,
) -> [Vec<CodeText>; 2] {
    if !by_group {
        texts.shuffle(random);
        let learnt = texts.split_off(kept_back);
        return [learnt, texts];
    }
    let mut sizes: BTreeMap<i64, usize> = BTreeMap::new();
    for text in &texts {
        *sizes.entry(text.group).or_default() += 1;
    }
    let mut groups: Vec<(i64, usize)> = sizes.into_iter().collect();
    groups.shuffle(random);
    let mut tested = HashSet::new();
    let mut count = 0;
    for (group, size) in groups {
        if count >= kept_back {
            break;
        }
        count += size;
        tested.insert(group);
    }
    let (test, train) = texts
        .into_iter()
        .partition(|text| tested.contains(&text.group));
    [train, test]
}

/// What `record` says of itself.
fn language_of(record: &Record, path: &Path) -> Result<Language, Error> {
    let named = record.fields.get("language");
    let wrong = |problem: String| Error::Usage {
        problem: format!("`{}`, line {}: {problem}", path.display(), record.line),
        hint: "say what language all functions are in with `--language`".into(),
    };
    match named {
        None => Err(wrong("no field `language`".into())),
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|_| wrong(format!("{value} is no language that probes know"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<CodeText> {
        let text = |number: i64| {
            let code = format!("def f(x):\n    return x + {number}\n");
            CodeText::parse(&code, Language::Python, number % 6).expect("Python")
        };
        (0..60).map(text).collect()
    }

    #[test]
    fn a_third_is_kept_back_within_the_limits() {
        assert_eq!(kept_back(60, 2_000, 1_000), 20);
        assert_eq!(kept_back(3_000, 2_000, 1_000), 1_000);
        assert_eq!(kept_back(60, 30, 1_000), 30);
        assert_eq!(kept_back(60, 200, 1_000), 20);
        assert_eq!(kept_back(60, 2_000, 10), 10);
        assert_eq!(kept_back(1_100, 100, 1_000), 1_000);
    }

    #[test]
    fn nothing_that_is_tested_was_learnt_from() {
        let mut random = ChaCha8Rng::seed_from_u64(4);
        for by_group in [false, true] {
            let [train, test] = hold_out(texts(), 20, by_group, &mut random);
            assert_eq!((train.len(), test.len()), (40, 20));
            assert!(test.iter().all(|text| !train.contains(text)));
            let shared = test
                .iter()
                .any(|text| train.iter().any(|other| other.group == text.group));
            assert_eq!(shared, !by_group);
        }
    }
}
