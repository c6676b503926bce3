//! The functions that probes learn from and are tested on.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use clap::Args;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::chunks::Chunks;
use super::console;
use crate::dataset::{Dataset, FieldChoice, Label, Record, Source};
use crate::error::Error;
use crate::study::probe::{CodeText, Probe};
use crate::study::syntax::Language;

/// With fewer a probe tells nothing.
const LEAST_TEXTS: usize = 8;

/// Where functions are, and how many are taken.
#[derive(Args)]
#[command(next_help_heading = "Input")]
pub(super) struct TextOptions {
    /// Functions: JSON Lines, a JSON array, .csv, .tsv (each in .gz or .zst too) or .parquet; or a folder
    /// with a train split; `-` is stdin, as JSON Lines.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Functions to test on, or a folder with a test split [default: some of --data are kept back].
    #[arg(long, value_name = "FILE")]
    test: Option<PathBuf>,
    /// Their language [default: the field language of each].
    #[arg(long, value_enum)]
    language: Option<Language>,
    /// Field of the code [default: the first of code, func].
    #[arg(long, value_name = "FIELD")]
    code_field: Option<String>,
    /// semantic: field of the problem that a function solves [default: label].
    #[arg(long, value_name = "FIELD")]
    label_field: Option<String>,
    /// Functions to learn from at most, from the first on.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    limit: usize,
    /// Functions to test on at most.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    test_limit: usize,
}

/// Functions of a split.
struct Split {
    texts: Vec<CodeText>,
}

/// What is known across splits.
struct Reading<'a> {
    options: &'a TextOptions,
    wants_groups: bool,
    groups: HashMap<Label, i64>,
    seen: HashSet<String>,
    unparsed: usize,
    repeated: usize,
}

impl TextOptions {
    /// Those to learn from and those to test on, no function in both; with the semantic probe no problem
    /// in both either, unless the files have it so.
    pub(super) fn read(&self, probes: &[Probe], seed: u64) -> Result<[Vec<CodeText>; 2], Error> {
        let mut reading = Reading {
            options: self,
            wants_groups: probes.contains(&Probe::Semantic),
            groups: HashMap::new(),
            seen: HashSet::new(),
            unparsed: 0,
            repeated: 0,
        };
        let data = Source::of(&self.data, "train")?;
        let splits = if let Some(test) = &self.test {
            let test = Source::of(test, "test")?;
            [
                reading.split(&data, self.limit)?.texts,
                reading.split(&test, self.test_limit)?.texts,
            ]
        } else {
            let all = reading.split(&data, self.limit.saturating_add(self.test_limit))?;
            all.hold_out(self, reading.wants_groups, seed)
        };
        reading.say();
        for (texts, what) in splits.iter().zip(["to learn from", "to test on"]) {
            if texts.len() < LEAST_TEXTS {
                return Err(Error::Usage {
                    problem: format!(
                        "{} functions {what}, expected at least {LEAST_TEXTS}",
                        texts.len()
                    ),
                    hint: "pass more functions, and their own `--language`: what does not parse is left out".into(),
                });
            }
        }
        Ok(splits)
    }
}

impl Reading<'_> {
    fn split(&mut self, source: &Source, limit: usize) -> Result<Split, Error> {
        let mut texts = Vec::new();
        let Some(data) = Chunks::open(source, limit)?.next()? else {
            return Ok(Split { texts });
        };
        for record in &data.records {
            if let Some(text) = self.text(record, &data)? {
                texts.push(text);
            }
        }
        Ok(Split { texts })
    }

    /// That of `record`, unless it does not parse or was there before.
    fn text(&mut self, record: &Record, data: &Dataset) -> Result<Option<CodeText>, Error> {
        let options = self.options;
        let field = FieldChoice::new(
            "--code-field",
            options.code_field.as_deref(),
            &["code", "func"],
        );
        let code = field.verbatim(record, &data.path)?;
        let language = match options.language {
            Some(language) => language,
            None => language_of(record, data)?,
        };
        let group = if self.wants_groups {
            let named = options.label_field.as_deref();
            let field = FieldChoice::new("--label-field", named, &["label"]);
            let label = field.label(record, &data.path)?;
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

    fn say(&self) {
        for (count, why) in [
            (self.unparsed, "do not parse"),
            (self.repeated, "were there before"),
        ] {
            if count > 0 {
                console::say(&format!("{count} functions {why}, and are left out"));
            }
        }
    }
}

impl Split {
    /// Keeps some back to test on, whole groups with `by_group`.
    fn hold_out(mut self, options: &TextOptions, by_group: bool, seed: u64) -> [Vec<CodeText>; 2] {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let wanted = options.limit.saturating_add(options.test_limit).max(1);
        let share = options.test_limit as f64 / wanted as f64;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count"
        )]
        let kept_back = (self.texts.len() as f64 * share).round() as usize;
        if !by_group {
            self.texts.shuffle(&mut random);
            let learnt = self.texts.split_off(kept_back);
            return [learnt, self.texts];
        }
        let mut groups: Vec<i64> = self.texts.iter().map(|text| text.group).collect();
        groups.sort_unstable();
        groups.dedup();
        groups.shuffle(&mut random);
        let mut tested = HashSet::new();
        let mut count = 0;
        for group in groups {
            if count >= kept_back {
                break;
            }
            count += self.texts.iter().filter(|text| text.group == group).count();
            tested.insert(group);
        }
        let (test, train) = self
            .texts
            .into_iter()
            .partition(|text| tested.contains(&text.group));
        [train, test]
    }
}

/// What `record` says of itself.
fn language_of(record: &Record, data: &Dataset) -> Result<Language, Error> {
    let named = record.fields.get("language");
    let wrong = |problem: String| Error::Usage {
        problem: format!("{}, line {}: {problem}", data.path.display(), record.line),
        hint: "say what language all functions are in with `--language`".into(),
    };
    match named {
        None => Err(wrong("no field `language`".into())),
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|_| wrong(format!("{value} is no language that probes know"))),
    }
}
