//! The pilot of `telly advise`: what is trained on the sample, in the time that there is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use toml::Table;

use super::kept::{kept, of_run};
use super::probes;
use super::sample::{Sample, TRAIN, VALID, write_texts};
use crate::checkpoint::Freeze;
use crate::cli::console;
use crate::cli::sweep::folder::{Sweep, Trained, is_begun, unique};
use crate::cli::sweep::process::telly_json_if_it_can;
use crate::error::Error;
use crate::study::syntax::Language;
use crate::study::{CacheCost, Changes, SWEEP_SHARED, candidates};
use crate::train::{History, RunIdentity};

/// Steps that each run takes at most beyond one pass: where training on all of the data takes more, what
/// is left of it is not worth the time. A pilot that takes far fewer than training will has learnt
/// nothing, with any K, and finds all of them alike.
const MOST_STEPS: usize = 100;
/// What the K that the layers suggest take together, in times of the base: they train about as many layers.
const CANDIDATES: f64 = 1.0;
/// What starting the processes of a seed takes, in times of the base.
const STARTS: f64 = 0.2;
/// By how much the training loss falls at least in a run that has learnt something.
const LEARNT: f64 = 0.05;
/// The texts that layers are compared by.
const COMPARED: &str = "compared.jsonl";
/// How alike they are.
const KEPT: &str = "similarities.json";

/// What is asked of a pilot.
pub(super) struct Asked {
    /// The K, where they were typed.
    pub(super) freezes: Option<Vec<Freeze>>,
    /// Seeds that are all to be trained, with all steps, however long that takes.
    pub(super) seeds: Option<Vec<u64>>,
    /// What there is for it where seeds were not typed.
    pub(super) seconds: f64,
    /// Rows of a step.
    pub(super) step: usize,
    /// Passes over all of the data.
    pub(super) epochs: usize,
    /// Layers of the model.
    pub(super) layers: usize,
    /// That of the sample's codes, where layers are to be probed.
    pub(super) language: Option<Language>,
}

impl Asked {
    fn base(&self) -> Freeze {
        let freezes = self.freezes.iter().flatten();
        freezes.min().copied().unwrap_or(Freeze::Nothing)
    }

    /// What a seed of all K takes, in times of its base.
    fn round(&self) -> f64 {
        let Some(freezes) = &self.freezes else {
            return 1.0 + CANDIDATES + STARTS;
        };
        let trained = |freeze: Freeze| self.layers.saturating_sub(freeze.layers()).max(1) as f64;
        let all: f64 = freezes.iter().map(|freeze| trained(*freeze)).sum();
        all / trained(self.base()) + STARTS
    }
}

/// A pilot under way.
pub(super) struct Pilot {
    pub(super) sweep: Sweep,
    /// How often each run passes over the sample.
    pub(super) epochs: usize,
    /// How often it would with all steps.
    pub(super) wanted: usize,
    asked: Asked,
}

/// What a pilot found.
pub(super) struct Found {
    pub(super) trained: Trained,
    pub(super) costs: Vec<CacheCost>,
    /// What `telly rsa` says of the model before and after training all of it; none where that is not
    /// among the K, or cannot be compared.
    pub(super) similarities: Option<Map<String, Value>>,
    /// What `telly probe` says of the same two, where that is or was asked for.
    pub(super) probes: Option<Map<String, Value>>,
    /// Whether there are seeds left that are not trained.
    pub(super) seeds_left: bool,
}

impl Found {
    /// Of each layer, where it was looked at.
    pub(super) fn changes(&self) -> Option<Changes> {
        let layers = self.similarities.as_ref()?.get("layers")?.as_array()?;
        let pearson = layers.iter().map(|layer| layer["pearson"].as_f64());
        Some(Changes {
            pearson: pearson.collect(),
        })
    }

    /// Seconds that all of it took.
    fn seconds(&self) -> f64 {
        let trained = self.trained.runs.iter();
        let trained = trained.filter_map(|run| run.summary.get("seconds")?.as_f64());
        // Several were filled in one pass.
        let filled = self
            .costs
            .iter()
            .filter_map(|cost| Some(cost.seconds? / cost.caches.max(1) as f64));
        trained.chain(filled).sum()
    }
}

/// The mean training loss of the first and of the last third of what a run logged.
pub(super) struct Losses {
    first: f64,
    last: f64,
}

impl Losses {
    /// None of a run that logged too little.
    fn of(run: &Path) -> Result<Option<Self>, Error> {
        let losses = History::read(run)?.losses;
        let third = losses.len() / 3;
        if third == 0 {
            return Ok(None);
        }
        let mean = |losses: &[(f64, f64)]| {
            losses.iter().map(|(_, loss)| loss).sum::<f64>() / losses.len() as f64
        };
        Ok(Some(Self {
            first: mean(&losses[..third]),
            last: mean(&losses[losses.len() - third..]),
        }))
    }

    /// Whether they have fallen.
    pub(super) fn show_learning(&self) -> bool {
        self.last <= self.first * (1.0 - LEARNT)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "first": self.first, "last": self.last })
    }

    /// Both in words.
    pub(super) fn said(&self) -> String {
        format!("from {:.3} to {:.3}", self.first, self.last)
    }
}

impl Pilot {
    /// Begins one in `folder`, whose runs share the flags `shared`, or goes on with it.
    pub(super) fn begin(
        folder: PathBuf,
        mut shared: Table,
        sample: &Sample,
        asked: Asked,
    ) -> Result<Self, Error> {
        let rows = sample.train.len();
        let wanted = passes(sample.records, rows, asked.step, asked.epochs);
        let epochs = match begun(&folder) {
            Some(epochs) if epochs < wanted && asked.seeds.is_some() => {
                return Err(Error::Usage {
                    problem: format!(
                        "the runs in `{}` pass {epochs} times over the sample, those of `--seeds` {wanted} times",
                        folder.display()
                    ),
                    hint: "leave `--seeds` out, or choose another `--out`".into(),
                });
            }
            Some(epochs) => epochs,
            None if asked.seeds.is_some() => wanted,
            // What there is time for is told by one pass.
            None => 1,
        };
        // Whether it learns is told by its losses.
        shared.entry("log_every").or_insert(1.into());
        for key in ["data", "train", "valid", "test"] {
            shared.remove(key);
        }
        for (split, file) in [("train", TRAIN), ("valid", VALID)] {
            shared.insert(split.into(), folder.join(file).display().to_string().into());
        }
        let passes = i64::try_from(epochs).unwrap_or(i64::MAX);
        shared.insert("epochs".into(), passes.into());
        let swept = (vec![asked.base()], None, asked.seeds.clone());
        let sweep = Sweep::begin(folder, shared, swept)?;
        sample.write(&sweep.folder)?;
        Ok(Self {
            sweep,
            epochs,
            wanted,
            asked,
        })
    }

    /// Trains the base once, looks at what that has changed in the `model`, and trains the K that are worth
    /// a try, with as many seeds as there is time for.
    pub(super) fn run(&mut self, model: &Path) -> Result<Found, Error> {
        let base = self.asked.base();
        let seeds = self.sweep.seeds().to_vec();
        let costs = self.sweep.fill_caches()?;
        if let Some(language) = self.asked.language {
            probes::check(&self.sweep, language)?;
        }
        let mut found = Found {
            trained: self.train_base(base, &seeds)?,
            costs,
            similarities: self.similarities(model)?,
            probes: None,
            seeds_left: false,
        };
        let tried = match (&self.asked.freezes, found.changes()) {
            (Some(freezes), _) => freezes.clone(),
            (None, Some(changes)) => candidates(changes.unchanged(), self.asked.layers),
            (None, None) => spaced(self.asked.layers),
        };
        let tried: Vec<Freeze> = tried.into_iter().filter(|freeze| *freeze != base).collect();
        let all = [&[base], tried.as_slice()].concat();
        self.sweep.set_freezes(all.clone());
        found.costs = self.sweep.fill_caches()?;
        for (round, seed) in seeds.iter().enumerate() {
            let spent = found.seconds();
            let seed = &[*seed];
            let within = spent + spent / round.max(1) as f64 <= self.asked.seconds;
            let typed = self.asked.seeds.is_some();
            if round > 0 && !typed && !within && !self.sweep.is_trained(&all, seed)? {
                found.seeds_left = true;
                console::say(&format!(
                    "{round} of {} seeds in the time there is",
                    seeds.len()
                ));
                break;
            }
            let freezes = if round == 0 { &tried } else { &all };
            self.sweep.train(freezes, seed, &mut found.trained)?;
        }
        found.probes = probes::probe(&self.sweep, model, self.asked.language)?;
        Ok(found)
    }

    /// The base with the first seed, passing as often over the sample as there is time for. Where that
    /// is not known it passes once, and begins anew if there is time for more.
    fn train_base(&mut self, base: Freeze, seeds: &[u64]) -> Result<Trained, Error> {
        let first = &seeds[..seeds.len().min(1)];
        let trained = self.train_first(base, first)?;
        let seconds = trained.runs.first();
        let seconds = seconds.and_then(|run| run.summary.get("seconds")?.as_f64());
        let (Some(seconds), None) = (seconds, &self.asked.seeds) else {
            return Ok(trained);
        };
        if self.epochs > 1 || self.sweep.runs()? > 1 {
            return Ok(trained);
        }
        let epochs = affordable(self.asked.seconds / self.asked.round(), seconds);
        let epochs = epochs.min(self.wanted);
        if epochs == 1 {
            return Ok(trained);
        }
        console::say(&format!(
            "there is time for {epochs} passes over the sample"
        ));
        self.epochs = epochs;
        self.sweep.begin_anew(epochs)?;
        self.train_first(base, first)
    }

    /// The base with the seed `first`, without which there is nothing to compare with.
    fn train_first(&self, base: Freeze, first: &[u64]) -> Result<Trained, Error> {
        let mut trained = Trained::default();
        self.sweep.train(&[base], first, &mut trained)?;
        match trained {
            Trained { runs, failed } if runs.is_empty() => Err(Error::Runs { failed }),
            trained => Ok(trained),
        }
    }

    /// The losses of the base's first run; none where it logged too little.
    pub(super) fn losses(&self) -> Result<Option<Losses>, Error> {
        match self.sweep.first_run(self.asked.base()) {
            Some(run) => Losses::of(&run),
            None => Ok(None),
        }
    }

    /// How alike each layer's output is before and after the base's training.
    fn similarities(&self, model: &Path) -> Result<Option<Map<String, Value>>, Error> {
        let Some(run) = self.sweep.first_run(Freeze::Nothing) else {
            return Ok(None);
        };
        let Some((identity, _)) = RunIdentity::read(&run)? else {
            return Ok(None);
        };
        // The texts as the task has them, whatever their field is called.
        let (field, length) = identity.encoding.studied_text();
        let folder = &self.sweep.folder;
        write_texts(folder, (VALID, COMPARED), "text", |record, path| {
            Ok(field.text(record, path)?)
        })?;
        let mut flags: Vec<OsString> = vec![model.into(), run.clone().into()];
        flags.extend([OsString::from("--data"), folder.join(COMPARED).into()]);
        flags.extend(["--max-length", &length.to_string()].map(OsString::from));
        flags.extend(self.sweep.typed(&["provider", "threads", "onnxruntime"]));
        kept(folder, KEPT, of_run(&run, &flags)?, || {
            let without = "the layers are not compared; the advice goes without";
            telly_json_if_it_can("rsa", flags, folder, without)
        })
    }
}

/// How often the runs of the pilot in `folder` pass over its sample, if it was begun.
fn begun(folder: &Path) -> Option<usize> {
    if !is_begun(folder) {
        return None;
    }
    let text = fs_err::read_to_string(folder.join(SWEEP_SHARED)).ok()?;
    let shared: Table = text.parse().ok()?;
    shared.get("epochs")?.as_integer()?.try_into().ok()
}

/// How many passes of so many seconds each there is time for in `seconds`; at least one.
fn affordable(seconds: f64, pass: f64) -> usize {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // It saturates.
    let passes = (seconds / pass).floor() as usize;
    passes.max(1)
}

/// How often a pilot passes over its `sample` rows, `step` of them in each step: in so many steps as
/// `epochs` over all `rows` take, but no more than [`MOST_STEPS`], or one pass if that is more.
fn passes(rows: usize, sample: usize, step: usize, epochs: usize) -> usize {
    let steps = |rows: usize| rows.div_ceil(step.max(1)).max(1);
    let wanted = (steps(rows) * epochs).min(MOST_STEPS);
    wanted.div_ceil(steps(sample)).max(1)
}

/// Four K up to all of `layers` but one. What K = 0 saves is little.
fn spaced(layers: usize) -> Vec<Freeze> {
    let last = layers.saturating_sub(1);
    let depths = unique((1..5).map(|place| (place * last + 2) / 4).collect());
    depths.into_iter().map(Freeze::Layers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pilot_takes_as_many_steps_as_training_will() {
        // 50 steps, in passes of 13.
        assert_eq!(passes(1600, 400, 32, 1), 4);
        // Of many more, 100.
        assert_eq!(passes(60_000, 400, 32, 3), 8);
        assert_eq!(passes(400, 400, 32, 3), 3);
        assert_eq!(passes(60_000, 8_000, 32, 3), 1);
        assert_eq!(passes(0, 0, 32, 1), 1);
    }

    #[test]
    fn passes_are_those_that_there_is_time_for() {
        assert_eq!(affordable(55.0, 5.0), 11);
        assert_eq!(affordable(55.0, 500.0), 1);
        assert_eq!(affordable(55.0, 0.0), usize::MAX);
        assert_eq!(affordable(0.0, 0.0), 1);
    }

    #[test]
    fn a_round_is_as_long_as_its_layers_are_many() {
        let asked = |freezes: Option<Vec<Freeze>>| Asked {
            freezes,
            seeds: None,
            seconds: 120.0,
            step: 32,
            epochs: 1,
            layers: 6,
            language: None,
        };
        assert!((asked(None).round() - 2.2).abs() < 1e-9);
        let none = vec![Freeze::Nothing];
        assert!((asked(Some(none)).round() - 1.2).abs() < 1e-9);
        let all = (0..6).map(Freeze::Layers);
        let all = std::iter::once(Freeze::Nothing).chain(all).collect();
        assert!((asked(Some(all)).round() - 4.7).abs() < 1e-9);
    }

    #[test]
    fn depths_are_spread_over_the_layers() {
        let names = |layers| {
            let freezes = spaced(layers).into_iter().map(|freeze| freeze.to_string());
            freezes.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(12), "3 6 8 11");
        assert_eq!(names(6), "1 3 4 5");
        assert_eq!(names(2), "0 1");
    }
}
