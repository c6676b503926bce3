//! The pilot of `telly advise`: what is trained on the sample, in the time that there is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use toml::Table;

use super::advise_sample::{Sample, TRAIN, VALID};
use super::console;
use super::sweep_folder::{Sweep, telly_json, unique, write};
use crate::checkpoint::Freeze;
use crate::error::Error;
use crate::study::{CacheCost, SweptRun, candidates, unchanged_layers};
use crate::train::History;

/// Steps that each run takes at most beyond one pass: where training on all of the data takes more, what
/// is left of it is not worth the time. A pilot that takes far fewer than training will has learnt
/// nothing, with any K, and finds all of them alike.
const MOST_STEPS: usize = 100;
/// Steps that are timed before it is known how many there is time for.
const TIMED_STEPS: usize = 3;
/// What a seed of all K takes, in times of its base: the candidates together train about as many layers
/// as the base, and each run starts and is evaluated.
const ROUND: f64 = 2.2;
/// How often the runs pass over the sample, kept for when the same command goes on.
const PLAN: &str = "pilot.json";

/// What is asked of a pilot.
pub(super) struct Asked {
    /// The K, where they were typed.
    pub(super) freezes: Option<Vec<Freeze>>,
    /// Seeds that are all to be trained, however long that takes.
    pub(super) seeds: Option<Vec<u64>>,
    /// What there is for it where seeds were not typed.
    pub(super) seconds: f64,
    /// Rows of a step.
    pub(super) step: usize,
    /// Passes over all of the data.
    pub(super) epochs: usize,
}

impl Asked {
    fn base(&self) -> Freeze {
        let freezes = self.freezes.iter().flatten();
        freezes.min().copied().unwrap_or(Freeze::Nothing)
    }
}

/// A pilot under way.
pub(super) struct Pilot {
    pub(super) sweep: Sweep,
    /// How often each run passes over the sample.
    pub(super) epochs: usize,
    asked: Asked,
}

/// What a pilot found.
pub(super) struct Found {
    pub(super) runs: Vec<SweptRun>,
    /// What became of the others.
    pub(super) failed: Vec<String>,
    pub(super) costs: Vec<CacheCost>,
    /// What `telly rsa` says of the model before and after training all of it; none where that is not
    /// among the K, or cannot be compared.
    pub(super) similarities: Option<Map<String, Value>>,
}

impl Found {
    /// Of each layer from the embeddings up, where it was looked at.
    pub(super) fn pearson(&self) -> Option<Vec<Option<f64>>> {
        let layers = self.similarities.as_ref()?.get("layers")?.as_array()?;
        let each = layers.iter().map(|layer| layer["pearson"].as_f64());
        Some(each.collect())
    }

    /// Seconds that all of it took.
    fn seconds(&self) -> f64 {
        let trained = self.runs.iter().map(|run| run.summary.get("seconds"));
        let trained = trained.filter_map(|seconds| seconds?.as_f64());
        // Several were filled in one pass.
        let filled = self
            .costs
            .iter()
            .filter_map(|cost| Some(cost.seconds? / cost.caches.max(1) as f64));
        trained.chain(filled).sum()
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
        // Whether it learns is told by its losses.
        shared.entry("log_every").or_insert(1.into());
        for key in ["data", "train", "valid", "test"] {
            shared.remove(key);
        }
        let wanted = passes(sample.records, sample.train.len(), asked.step, asked.epochs);
        let epochs = match planned(&folder) {
            Some(epochs) => epochs,
            None if wanted == 1 || asked.seeds.is_some() => wanted,
            None => {
                let step = timed(&folder, &shared, sample, &asked)?;
                let steps = sample.train.len().div_ceil(asked.step.max(1));
                affordable(asked.seconds, step * steps as f64).min(wanted)
            }
        };
        with_passes(&mut shared, &folder, epochs);
        let swept = (vec![asked.base()], None, asked.seeds.clone());
        let sweep = Sweep::begin(folder, shared, swept)?;
        sample.write(&sweep.folder)?;
        write(
            &sweep.folder,
            PLAN,
            &json!({ "epochs": epochs }).to_string(),
        )?;
        Ok(Self {
            sweep,
            epochs,
            asked,
        })
    }

    /// Trains the base once, looks at what that has changed in a `model` of so many `layers`, and trains
    /// the K that are worth a try, with as many seeds as there is time for.
    pub(super) fn run(&mut self, model: &Path, layers: usize) -> Result<Found, Error> {
        let base = self.asked.base();
        let seeds = self.sweep.seeds().to_vec();
        let first = &seeds[..seeds.len().min(1)];
        let costs = self.sweep.fill_caches()?;
        let (runs, failed) = self.sweep.train(&[base], first)?;
        let mut found = Found {
            runs,
            failed,
            costs,
            similarities: self.similarities(model)?,
        };
        let tried = match (&self.asked.freezes, found.pearson()) {
            (Some(freezes), _) => freezes.clone(),
            (None, Some(pearson)) => candidates(unchanged_layers(&pearson), layers),
            (None, None) => spaced(layers),
        };
        let tried: Vec<Freeze> = tried.into_iter().filter(|freeze| *freeze != base).collect();
        let all = [&[base], tried.as_slice()].concat();
        self.sweep.try_all(all.clone());
        found.costs = self.sweep.fill_caches()?;
        for (round, seed) in seeds.iter().enumerate() {
            let spent = found.seconds();
            let untyped = self.asked.seeds.is_none();
            if round > 0 && untyped && spent + spent / round as f64 > self.asked.seconds {
                console::say(&format!(
                    "{round} of {} seeds in the time there is",
                    seeds.len()
                ));
                break;
            }
            let freezes = if round == 0 { &tried } else { &all };
            let (runs, failed) = self.sweep.train(freezes, &[*seed])?;
            found.runs.extend(runs);
            found.failed.extend(failed);
        }
        Ok(found)
    }

    /// The mean training loss of the first and of the last third of what the base's first run logged;
    /// null where it logged too little.
    pub(super) fn losses(&self) -> Result<Value, Error> {
        let Some(run) = self.sweep.first_run(self.asked.base()) else {
            return Ok(Value::Null);
        };
        let losses = History::read(&run)?.losses;
        let third = losses.len() / 3;
        if third == 0 {
            return Ok(Value::Null);
        }
        let mean = |losses: &[(f64, f64)]| {
            losses.iter().map(|(_, loss)| loss).sum::<f64>() / losses.len() as f64
        };
        let (first, last) = (&losses[..third], &losses[losses.len() - third..]);
        Ok(json!({ "first": mean(first), "last": mean(last) }))
    }

    /// How alike each layer's output is before and after the base's training.
    fn similarities(&self, model: &Path) -> Result<Option<Map<String, Value>>, Error> {
        let Some(run) = self.sweep.first_run(Freeze::Nothing) else {
            return Ok(None);
        };
        let data = self.sweep.folder.join(VALID);
        let mut flags: Vec<OsString> = vec![model.into(), run.into()];
        flags.extend([OsString::from("--data"), data.into()]);
        for (flag, keys) in [
            (
                "--text-field",
                &["text_field", "code_field", "source_field"][..],
            ),
            (
                "--max-length",
                &["max_length", "max_code_length", "max_source_length"],
            ),
            ("--provider", &["provider"]),
            ("--threads", &["threads"]),
            ("--onnxruntime", &["onnxruntime"]),
        ] {
            let shared = &self.sweep.shared;
            if let Some(value) = keys.iter().find_map(|key| shared.get(*key)) {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                flags.extend([OsString::from(flag), text.into()]);
            }
        }
        match telly_json("rsa", flags, &self.sweep.folder) {
            Ok(found) => Ok(Some(found)),
            // It is a reason more, not the answer.
            Err(Error::Child { .. }) => {
                console::say("the layers are not compared; the advice goes without");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Seconds of a step of the base, by a few on a part of `sample`.
fn timed(folder: &Path, shared: &Table, sample: &Sample, asked: &Asked) -> Result<f64, Error> {
    console::say("timing a few steps");
    fs_err::create_dir_all(folder).map_err(Error::Output)?;
    let alone = tempfile::tempdir_in(folder).map_err(Error::Output)?;
    let part = sample.first(TIMED_STEPS * asked.step);
    part.write(alone.path())?;
    let mut shared = shared.clone();
    with_passes(&mut shared, alone.path(), 1);
    let swept = (vec![asked.base()], None, Some(vec![1]));
    let trial = Sweep::begin(alone.path().to_owned(), shared, swept)?;
    trial.fill_caches()?;
    let (runs, _) = trial.train_all()?;
    let seconds = runs
        .first()
        .and_then(|run| run.summary.get("epoch_seconds"));
    let steps = part.train.len().div_ceil(asked.step.max(1)).max(1);
    Ok(seconds.and_then(Value::as_f64).unwrap_or(0.0) / steps as f64)
}

/// Has runs pass so many times over the sample in `folder`.
fn with_passes(shared: &mut Table, folder: &Path, epochs: usize) {
    let epochs = i64::try_from(epochs).unwrap_or(i64::MAX);
    shared.insert("epochs".into(), epochs.into());
    for (split, file) in [("train", TRAIN), ("valid", VALID)] {
        shared.insert(split.into(), folder.join(file).display().to_string().into());
    }
}

/// How often the runs of the pilot in `folder` pass over its sample, if it was begun.
fn planned(folder: &Path) -> Option<usize> {
    let text = fs_err::read_to_string(folder.join(PLAN)).ok()?;
    let plan: Value = serde_json::from_str(&text).ok()?;
    plan["epochs"].as_u64()?.try_into().ok()
}

/// How many passes there is time for in `seconds`, where one of the base takes so many of them; at least
/// one.
fn affordable(seconds: f64, pass: f64) -> usize {
    let passes = (seconds / ROUND / pass).floor();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // It saturates.
    let passes = passes as usize;
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
        assert_eq!(affordable(120.0, 5.0), 10);
        assert_eq!(affordable(120.0, 500.0), 1);
        assert_eq!(affordable(120.0, 0.0), usize::MAX);
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
