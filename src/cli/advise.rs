//! `telly advise`.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use toml::Table;

use super::options::missing;
use super::sweep::{SweepOptions, SweptFreezes, all_trained};
use super::sweep_folder::{SHARED, Sweep, freeze_flags, telly_json, unique, write};
use super::{console, hub, recipe, sweep_table};
use crate::checkpoint::{Checkpoint, Freeze};
use crate::dataset::{Label, Record, Source};
use crate::error::Error;
use crate::study::{Row, Verdict};
use crate::task::{Objective, TaskKind, label_field};
use crate::train::{History, TrainSettings};

/// Records of the pilot's training split, unless told.
const PILOT_ROWS: usize = 400;
/// Steps that each of a pilot's runs takes at most beyond one pass: where training on all of the data
/// takes more, what is left of it is not worth the time. A pilot that takes far fewer than training will
/// has learnt nothing, with any K, and finds all of them alike.
const PILOT_STEPS: usize = 100;
/// By how much the training loss falls at least in a run that has learnt something.
const LEARNT: f64 = 0.05;
/// What a pilot's rows are drawn by.
const DRAW: u64 = 1;
/// The flags for all of the data.
const WHOLE: &str = "advice.toml";
const RESULT: &str = "advice.json";
/// The sample's files.
const TRAIN: &str = "train.jsonl";
const VALID: &str = "valid.jsonl";

/// Say which K to take and what it will cost, from a short pilot on a sample of the data.
///
/// Trains on the sample with several K and with nothing frozen, for as many steps as all of the data
/// will take but 100 at most, compares what layers represent before and after the latter, and tells
/// time, disk and memory for all of the data. Stopped at any moment,
/// the same command goes on where it was.
#[derive(Args)]
#[command(after_help = "\
Example:
  telly advise --task classify --model models/all-MiniLM-L6-v2 --train train.jsonl \\
      --valid valid.jsonl --out advice/mine")]
pub(super) struct AdviseArguments {
    #[command(flatten)]
    options: SweepOptions,
    /// The K to consider [default: none, and four up to all layers but one].
    #[arg(long, value_name = "K,K", help_heading = "Pilot")]
    freeze: Option<SweptFreezes>,
    /// Records of the pilot's training split; half as many are validated on [default: 400].
    #[arg(long, value_name = "N", help_heading = "Pilot")]
    rows: Option<usize>,
    /// Seeds of each K [default: those of the recipe, else 1,2,3].
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        help_heading = "Pilot"
    )]
    seeds: Option<Vec<u64>>,
    /// Folder of the advice: the sample, the pilot's sweep, advice.json.
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    out: PathBuf,
    /// TOML file with any of these flags and any other of `telly precompute` and `telly train`, `_`
    /// for `-`; a flag typed wins.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &AdviseArguments) -> Result<(), Error> {
    let advice = Advice::prepare(arguments)?;
    let costs = advice.pilot.fill_caches()?;
    let (runs, failed) = advice.pilot.train_all()?;
    let table = advice.pilot.table(&runs, &costs)?;
    let similarities = advice.similarities()?;
    let chosen = match table.verdict() {
        Verdict::Take(row, _) => row.freeze,
        _ => table.base,
    };
    let predicted = |freeze: Freeze| {
        let row = table.best().find(|row| row.freeze == freeze);
        row.map(|row| advice.predict(row)).transpose()
    };
    let of_base = predicted(table.base)?;
    let of_chosen = if chosen == table.base {
        of_base.clone()
    } else {
        predicted(chosen)?
    };
    let object = json!({
        "freeze": chosen,
        "base": table.base,
        "rows": advice.rows,
        "pilot_rows": advice.pilot_rows,
        "pilot_epochs": advice.pilot_epochs,
        "pilot_losses": advice.losses(table.base)?,
        "predicted": of_chosen,
        "predicted_base": of_base,
        "pilot": table.to_json(),
        "similarities": similarities,
    });
    write(&advice.pilot.folder, RESULT, &object.to_string())?;
    if arguments.json {
        console::print(&object.to_string())?;
    } else {
        sweep_table::print(&table)?;
        console::print("")?;
        for line in sentences(&object, advice.epochs) {
            console::print(&line)?;
        }
    }
    all_trained(failed)
}

/// A pilot, and what it stands for.
struct Advice {
    pilot: Sweep,
    /// Where the model lies.
    model: PathBuf,
    /// Records of the training split.
    rows: usize,
    /// Those of them that the pilot learns from.
    pilot_rows: usize,
    pilot_epochs: usize,
    batch_size: usize,
    epochs: usize,
}

impl Advice {
    /// Draws the sample and keeps the flags, unless that was done before.
    fn prepare(arguments: &AdviseArguments) -> Result<Self, Error> {
        let recipe = arguments.recipe.as_deref();
        let options: SweepOptions = recipe::resolve(&arguments.options, recipe)?;
        let mut shared = recipe::table(&arguments.options, recipe)?;
        let model = options.model.as_deref().ok_or_else(|| missing("--model"))?;
        let model = hub::located(model)?;
        let layers = Checkpoint::open(&model)?.config.layers;
        let wanted = arguments.rows.unwrap_or(PILOT_ROWS);
        if wanted < 8 {
            return Err(Error::Usage {
                problem: format!("`--rows {wanted}` is too few to learn from"),
                hint: "pass at least 8".into(),
            });
        }
        let data = text_of(&shared, "data").map(PathBuf::from);
        let sample = Sample::draw(&options, data.as_deref(), wanted)?;
        fs_err::create_dir_all(&arguments.out).map_err(Error::Output)?;
        // The same folder, however it is named.
        let out = fs_err::canonicalize(&arguments.out).map_err(Error::Output)?;
        sample.check(&out)?;
        let whole = shared.to_string();
        let usual = TrainSettings::default();
        let batch_size = options.batch_size.unwrap_or(usual.batch_size);
        let epochs = options.epochs.unwrap_or(usual.epochs);
        // Rows that a step takes.
        let accumulated = shared
            .get("gradient_accumulation")
            .and_then(toml::Value::as_integer)
            .and_then(|batches| usize::try_from(batches).ok());
        let step = batch_size.saturating_mul(accumulated.unwrap_or(1));
        let pilot_epochs = passes(sample.records, sample.train.len(), step, epochs);
        // Whether it learns is told by its losses.
        shared.entry("log_every").or_insert(1.into());
        shared.insert(
            "epochs".into(),
            i64::try_from(pilot_epochs).unwrap_or(1).into(),
        );
        for key in ["data", "train", "valid", "test"] {
            shared.remove(key);
        }
        for (split, file) in [("train", TRAIN), ("valid", VALID)] {
            shared.insert(split.into(), out.join(file).display().to_string().into());
        }
        let freezes = match &arguments.freeze {
            Some(freezes) => freezes.0.clone(),
            None => spaced(layers),
        };
        let pilot = Sweep::begin(out, shared, (freezes, None, arguments.seeds.clone()))?;
        sample.write(&pilot.folder)?;
        write(&pilot.folder, WHOLE, &whole)?;
        Ok(Self {
            pilot,
            model,
            rows: sample.records,
            pilot_rows: sample.train.len(),
            pilot_epochs,
            batch_size,
            epochs,
        })
    }

    /// The mean training loss of the first and of the last third of what `freeze`'s first run logged;
    /// null where it logged too little.
    fn losses(&self, freeze: Freeze) -> Result<Value, Error> {
        let Some(run) = self.pilot.first_run(freeze) else {
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

    /// How alike each layer's output is before and after the pilot's ordinary fine-tuning; null where
    /// that was not among the K, or cannot be compared.
    fn similarities(&self) -> Result<Value, Error> {
        let Some(run) = self.pilot.first_run(Freeze::Nothing) else {
            return Ok(Value::Null);
        };
        let data = self.pilot.folder.join(VALID);
        let mut flags: Vec<OsString> = vec![self.model.clone().into(), run.into()];
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
            let shared = &self.pilot.shared;
            if let Some(value) = keys.iter().find_map(|key| shared.get(*key)) {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                flags.extend([OsString::from(flag), text.into()]);
            }
        }
        match telly_json("rsa", flags, &self.pilot.folder) {
            Ok(found) => Ok(Value::Object(found)),
            // It is a reason more, not the answer.
            Err(Error::Child { .. }) => {
                console::say("the layers are not compared; the advice goes without");
                Ok(Value::Null)
            }
            Err(error) => Err(error),
        }
    }

    /// What training with `row`'s K on all of the data comes to.
    fn predict(&self, row: &Row) -> Result<Value, Error> {
        let folder = &self.pilot.folder;
        let filled = self.fill_alone(row.freeze)?;
        let mut flags = freeze_flags(&[row.freeze]);
        flags.extend([OsString::from("--recipe"), folder.join(WHOLE).into()]);
        flags.extend([OsString::from("--cache"), folder.join("cache").into()]);
        flags.push("--dry-run".into());
        let whole = telly_json("precompute", flags, folder)?;
        let number = |found: &Map<String, Value>, name: &str| found.get(name)?.as_f64();
        // What takes as long however much data there is, and the pass over all of it.
        let computed = number(&filled, "computed_tokens").unwrap_or(0.0);
        let rate = number(&filled, "tokens_per_second").filter(|rate| *rate > 0.0);
        let pass = rate.map_or(0.0, |rate| computed / rate);
        let start = number(&filled, "seconds").map(|seconds| (seconds - pass).max(0.0));
        let all = number(&whole, "precompute_seconds").unwrap_or(0.0);
        // Steps of the same size take as long, however many there are.
        let steps = |rows: usize| rows.div_ceil(self.batch_size) as f64;
        let times = steps(self.rows) / steps(self.pilot_rows);
        Ok(json!({
            "freeze": row.freeze,
            "epoch_seconds": row.epoch_seconds.map(|seconds| seconds * times),
            "precompute_seconds": start.map(|start| start + all),
            "cache_bytes": whole.get("bytes"),
            "precompute_peak_bytes": filled.get("peak_rss_bytes"),
            "train_peak_bytes": row.peak_rss_bytes,
        }))
    }

    /// Fills the sample's cache of `freeze` by itself, as all of the data's will be, and drops it.
    fn fill_alone(&self, freeze: Freeze) -> Result<Map<String, Value>, Error> {
        let folder = &self.pilot.folder;
        let alone = tempfile::tempdir_in(folder).map_err(Error::Output)?;
        let mut flags = freeze_flags(&[freeze]);
        flags.extend([OsString::from("--recipe"), folder.join(SHARED).into()]);
        flags.extend([OsString::from("--cache"), alone.path().join("cache").into()]);
        telly_json("precompute", flags, folder)
    }
}

/// The records that a pilot learns from and is validated on.
struct Sample {
    /// Records of the training split.
    records: usize,
    train: Vec<String>,
    valid: Vec<String>,
}

impl Sample {
    /// `wanted` records of the training split and half as many to validate on: of the validation split
    /// if there is one, else of the rest. Of a classifier's validation, rows with a label that it cannot
    /// have learnt are left out.
    fn draw(options: &SweepOptions, data: Option<&Path>, wanted: usize) -> Result<Self, Error> {
        let source = |files: &Option<Vec<PathBuf>>, split: &str| match (files, data) {
            (Some(files), _) => Source::of_all(files, split).map(Some),
            (None, Some(folder)) => Source::in_folder(folder, split),
            (None, None) => Ok(None),
        };
        let train = source(&options.train, "train")?.ok_or_else(|| missing("--train"))?;
        let path = train.path().to_owned();
        if train.text_file().is_some() {
            return Err(Error::Usage {
                problem: "a file of pairs is no file of records".into(),
                hint: "give records of two functions and a label, or run `telly sweep` on a part of the pairs".into(),
            });
        }
        let records = all_records(&train)?;
        let given = source(&options.valid, "valid")?;
        let given = given.as_ref().map(all_records).transpose()?;
        let mut random = ChaCha8Rng::seed_from_u64(DRAW);
        let mut order = sample(&mut random, records.len(), records.len()).into_vec();
        let mut valid: Vec<&Record> = match &given {
            None => {
                let held_out = (wanted / 2).min(records.len() / 3);
                let rows = order.split_off(order.len() - held_out);
                rows.into_iter().map(|row| &records[row]).collect()
            }
            Some(given) => {
                let drawn = sample(&mut random, given.len(), (wanted / 2).min(given.len()));
                drawn.into_iter().map(|row| &given[row]).collect()
            }
        };
        order.truncate(wanted);
        let train: Vec<&Record> = order.iter().map(|&row| &records[row]).collect();
        let single_label = options.task.objective.unwrap_or_default() == Objective::SingleLabel;
        if options.task.task == Some(TaskKind::Classify) && single_label {
            let field = label_field(options.task.label_field.as_deref());
            // Without one the record is refused when it is encoded.
            let label = |record: &Record| field.label(record, &path).ok();
            let known: HashSet<Option<Label>> = train.iter().map(|record| label(record)).collect();
            let before = valid.len();
            valid.retain(|record| known.contains(&label(record)));
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
    fn check(&self, out: &Path) -> Result<(), Error> {
        for (name, text) in self.files() {
            let path = out.join(name);
            if fs_err::read_to_string(&path).is_ok_and(|found| found != text) {
                return Err(Error::Usage {
                    problem: format!(
                        "`{}` was drawn from other data, or with another `--rows`",
                        path.display()
                    ),
                    hint: "choose another `--out`, or remove the folder".into(),
                });
            }
        }
        Ok(())
    }

    fn write(&self, out: &Path) -> Result<(), Error> {
        self.files()
            .iter()
            .try_for_each(|(name, text)| write(out, name, text))
    }
}

fn all_records(source: &Source) -> Result<Vec<Record>, Error> {
    let mut chunks = source.records()?;
    let mut records = Vec::new();
    while let Some(chunk) = chunks.chunk()? {
        records.extend(chunk.records);
    }
    Ok(records)
}

/// How often a pilot passes over its `sample` rows, `step` of them in each step: in so many steps as `epochs` over all `rows` take,
/// but no more than [`PILOT_STEPS`], or one pass if that is more.
fn passes(rows: usize, sample: usize, step: usize, epochs: usize) -> usize {
    let steps = |rows: usize| rows.div_ceil(step.max(1)).max(1);
    let wanted = (steps(rows) * epochs).min(PILOT_STEPS);
    wanted.div_ceil(steps(sample)).max(1)
}

/// Nothing, and four K up to all of `layers` but one. What K = 0 saves is little.
fn spaced(layers: usize) -> Vec<Freeze> {
    let last = layers.saturating_sub(1);
    let depths = unique((1..5).map(|place| (place * last + 2) / 4).collect());
    let depths = depths.into_iter().map(Freeze::Layers);
    std::iter::once(Freeze::Nothing).chain(depths).collect()
}

fn text_of<'a>(table: &'a Table, key: &str) -> Option<&'a str> {
    table.get(key).and_then(toml::Value::as_str)
}

/// What to take, why, and what it will cost.
fn sentences(advice: &Value, epochs: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let layers = advice["similarities"]["layers"].as_array();
    if let Some(layers) = layers {
        let shown = layers.iter().filter_map(|layer| {
            Some(format!(
                "{} {:.3}",
                layer["layer"],
                layer["pearson"].as_f64()?
            ))
        });
        lines.push(format!(
            "what layers represent before and after fine-tuning all of them on the sample (layer, Pearson's r): {}",
            shown.collect::<Vec<_>>().join(", ")
        ));
    }
    for (name, who) in [
        ("predicted", "all of the data with"),
        ("predicted_base", "beside it,"),
    ] {
        let Some(found) = advice[name].as_object() else {
            continue;
        };
        if name == "predicted_base" && advice["freeze"] == advice["base"] {
            continue;
        }
        lines.push(cost(found, who, epochs));
    }
    let losses = &advice["pilot_losses"];
    if let (Some(first), Some(last)) = (losses["first"].as_f64(), losses["last"].as_f64())
        && last > first * (1.0 - LEARNT)
    {
        lines.push(format!(
            "K = {} has hardly learnt from the sample (its training loss went from {first:.3} to {last:.3}), so that the K cannot be told apart: pass more `--rows`, or another learning rate",
            named(&advice["base"])
        ));
    }
    lines.push(format!(
        "from {} of {} records: a K that is not worse on so few may be on all; `telly sweep` tells for sure",
        advice["pilot_rows"], advice["rows"]
    ));
    lines
}

/// K as it is typed.
fn named(freeze: &Value) -> String {
    freeze
        .as_str()
        .map_or_else(|| freeze.to_string(), String::from)
}

fn cost(found: &Map<String, Value>, who: &str, epochs: usize) -> String {
    let number = |name: &str| found.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let freeze = named(&found["freeze"]);
    let (precompute, epoch) = (number("precompute_seconds"), number("epoch_seconds"));
    let peak = number("train_peak_bytes").max(number("precompute_peak_bytes"));
    format!(
        "{who} K = {freeze}: {precompute:.0} s of precompute, {epoch:.0} s an epoch, {:.0} s for {epochs} epochs in all; {:.0} MB of disk, {:.0} MB of memory",
        precompute + epochs as f64 * epoch,
        number("cache_bytes") / 1e6,
        peak / 1e6
    )
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
    fn depths_are_spread_over_the_layers() {
        let names = |layers| {
            let freezes = spaced(layers).into_iter().map(|freeze| freeze.to_string());
            freezes.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(12), "none 3 6 8 11");
        assert_eq!(names(6), "none 1 3 4 5");
        assert_eq!(names(2), "none 0 1");
    }
}
