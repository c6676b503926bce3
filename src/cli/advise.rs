//! `telly advise`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use toml::Table;

use super::sweep::{SweepOptions, SweptFreezes};
use super::sweep_folder::{Sweep, telly_json, unique, write};
use super::{console, hub, recipe, sweep_table};
use crate::checkpoint::{Checkpoint, Freeze};
use crate::dataset::{Record, Source};
use crate::error::Error;
use crate::study::Row;
use crate::train::TrainSettings;

/// Records of the pilot's training split, unless told.
const PILOT_ROWS: usize = 400;
/// What a pilot's rows are drawn by.
const DRAW: u64 = 1;
/// The flags for all of the data.
const WHOLE: &str = "advice.toml";
const RESULT: &str = "advice.json";

/// Say which K to take and what it will cost, from a short pilot on a sample of the data.
///
/// Trains on the sample with several K and with nothing frozen, compares what layers represent before
/// and after the latter, and tells time, disk and memory for all of the data. Stopped at any moment,
/// the same command goes on where it was.
#[derive(Args)]
#[command(after_help = "\
Example:
  telly advise --task classify --model models/all-MiniLM-L6-v2 --train train.jsonl \\
      --valid valid.jsonl --out advice/mine")]
pub(super) struct AdviseArguments {
    #[command(flatten)]
    options: SweepOptions,
    /// The K to consider [default: none, and five from 0 to all layers but one].
    #[arg(long, value_name = "K,K", help_heading = "Pilot")]
    freeze: Option<SweptFreezes>,
    /// Records of the pilot's training split; half as many are validated on [default: 400].
    #[arg(long, value_name = "N", help_heading = "Pilot")]
    rows: Option<usize>,
    /// Seeds of each K [default: 1,2,3].
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
    let shared = recipe::table(&arguments.options, arguments.recipe.as_deref())?;
    let advice = Advice::prepare(arguments, shared)?;
    let costs = advice.pilot.fill_caches()?;
    let runs = advice.pilot.train_all()?;
    let table = advice.pilot.table(&runs, &costs)?;
    let similarities = advice.similarities()?;
    let mut chosen = table.base;
    if let Some(row) = table.cheapest_not_worse() {
        chosen = row.freeze;
    }
    let rows: Vec<&Row> = table.rows.iter().filter(|row| row.best_lr).collect();
    let predicted = |freeze: Freeze| -> Result<Option<Value>, Error> {
        let row = rows.iter().find(|row| row.freeze == freeze);
        row.map(|row| advice.predict(row)).transpose()
    };
    let object = json!({
        "freeze": chosen,
        "base": table.base,
        "rows": advice.rows,
        "pilot_rows": advice.pilot_rows,
        "predicted": predicted(chosen)?,
        "predicted_base": predicted(table.base)?,
        "pilot": table.to_json(),
        "similarities": similarities,
    });
    write(&advice.pilot.folder, RESULT, &object.to_string())?;
    if arguments.json {
        return console::print(&object.to_string());
    }
    sweep_table::print(&table)?;
    console::print("")?;
    for line in sentences(&object, advice.epochs) {
        console::print(&line)?;
    }
    Ok(())
}

/// A pilot, and what it stands for.
struct Advice {
    pilot: Sweep,
    model: PathBuf,
    /// Records of the training split.
    rows: usize,
    /// Those of them that the pilot learns from.
    pilot_rows: usize,
    batch_size: usize,
    epochs: usize,
}

impl Advice {
    /// Draws the sample and keeps the flags, unless that was done before.
    fn prepare(arguments: &AdviseArguments, mut shared: Table) -> Result<Self, Error> {
        let out = &arguments.out;
        super::sweep_folder::check_shared(&shared)?;
        let model = text_of(&shared, "model")
            .map(PathBuf::from)
            .unwrap_or_default();
        let located = hub::located(&model)?;
        let layers = Checkpoint::open(&located)?.config.layers;
        let train = training_split(&arguments.options, &shared)?;
        let wanted = arguments.rows.unwrap_or(PILOT_ROWS);
        if wanted < 8 {
            return Err(Error::Usage {
                problem: format!("`--rows {wanted}` is too few to learn from"),
                hint: "pass at least 8".into(),
            });
        }
        fs_err::create_dir_all(out).map_err(Error::Output)?;
        let number = |key: &str, usual: usize| {
            let found = shared.get(key).and_then(toml::Value::as_integer);
            found
                .and_then(|found| usize::try_from(found).ok())
                .unwrap_or(usual)
        };
        let usual = TrainSettings::default();
        let (batch_size, epochs) = (
            number("batch_size", usual.batch_size),
            number("epochs", usual.epochs),
        );
        write(out, WHOLE, &shared.to_string())?;
        let (rows, pilot_rows) = draw(&train, &arguments.options, wanted, out)?;
        for key in ["data", "train", "valid", "test"] {
            shared.remove(key);
        }
        for split in ["train", "valid"] {
            let path = out.join(format!("{split}.jsonl"));
            shared.insert(split.into(), path.display().to_string().into());
        }
        let freezes = match &arguments.freeze {
            Some(freezes) => freezes.0.clone(),
            None => spaced(layers),
        };
        let seeds = unique(arguments.seeds.clone().unwrap_or_else(|| vec![1, 2, 3]));
        let pilot = Sweep::begin(out.clone(), shared, (freezes, None, seeds))?;
        Ok(Self {
            pilot,
            model: located,
            rows,
            pilot_rows,
            batch_size,
            epochs,
        })
    }

    /// How alike each layer's output is before and after the pilot's ordinary fine-tuning; null where
    /// that was not among the K.
    fn similarities(&self) -> Result<Value, Error> {
        let Some(run) = self.pilot.first_run(Freeze::Nothing) else {
            return Ok(Value::Null);
        };
        let data = self.pilot.folder.join("valid.jsonl");
        let mut flags: Vec<OsString> = vec![self.model.clone().into(), run.into()];
        flags.extend([OsString::from("--data"), data.into()]);
        let shared = self.pilot.shared()?;
        let field = ["text_field", "code_field", "source_field"];
        if let Some(field) = field.iter().find_map(|key| text_of(&shared, key)) {
            flags.extend([OsString::from("--text-field"), field.into()]);
        }
        match telly_json("rsa", flags, &self.pilot.folder) {
            Ok(found) => Ok(Value::Object(found)),
            // It is a reason more, not the answer.
            Err(Error::Child { .. }) => Ok(Value::Null),
            Err(error) => Err(error),
        }
    }

    /// What training with `row`'s K on all of the data comes to.
    fn predict(&self, row: &Row) -> Result<Value, Error> {
        let recipe = || {
            [
                OsString::from("--recipe"),
                self.pilot.folder.join(WHOLE).into(),
            ]
        };
        let freeze = || ["--freeze".into(), OsString::from(row.freeze.to_string())];
        let cache = [
            OsString::from("--cache"),
            self.pilot.folder.join("cache").into(),
        ];
        let flags = recipe().into_iter().chain(freeze()).chain(cache);
        let flags = flags.chain([OsString::from("--dry-run")]).collect();
        let precompute = telly_json("precompute", flags, &self.pilot.folder)?;
        let flags = recipe().into_iter().chain(freeze()).collect();
        let memory = telly_json("estimate", flags, &self.pilot.folder)?;
        // Steps of the same size take as long, however many there are.
        let steps = |rows: usize| rows.div_ceil(self.batch_size) as f64;
        let epoch_seconds = row.epoch_seconds * steps(self.rows) / steps(self.pilot_rows);
        Ok(json!({
            "freeze": row.freeze,
            "epoch_seconds": epoch_seconds,
            "precompute_seconds": precompute.get("precompute_seconds"),
            "cache_bytes": precompute.get("bytes"),
            "precompute_peak_bytes": memory.get("precompute").map(|part| &part["peak_bytes"]),
            "train_peak_bytes": memory.get("train").map(|part| &part["peak_bytes"]),
        }))
    }
}

/// Nothing, and five K from 0 to all of `layers` but one.
fn spaced(layers: usize) -> Vec<Freeze> {
    let last = layers.saturating_sub(1);
    let depths = unique((0..5).map(|place| (place * last + 2) / 4).collect());
    let depths = depths.into_iter().map(Freeze::Layers);
    std::iter::once(Freeze::Nothing).chain(depths).collect()
}

fn text_of<'a>(table: &'a Table, key: &str) -> Option<&'a str> {
    table.get(key).and_then(toml::Value::as_str)
}

/// The records that are learnt from.
fn training_split(options: &SweepOptions, shared: &Table) -> Result<Source, Error> {
    if let Some(files) = &options.train {
        return Ok(Source::of_all(files, "train")?);
    }
    let path = text_of(shared, "train").or_else(|| text_of(shared, "data"));
    Ok(Source::of(Path::new(path.unwrap_or_default()), "train")?)
}

/// Writes `wanted` records of `train` and half as many to validate on to `out`: of the validation split
/// if there is one, else of the rest. How many records there are, and how many the pilot learns from.
fn draw(
    train: &Source,
    options: &SweepOptions,
    wanted: usize,
    out: &Path,
) -> Result<(usize, usize), Error> {
    if train.text_file().is_some() {
        return Err(Error::Usage {
            problem: "a file of pairs is no file of records".into(),
            hint: "give records of two functions and a label, or run `telly sweep` on a part of the pairs".into(),
        });
    }
    let records = all_records(train)?;
    let mut random = ChaCha8Rng::seed_from_u64(DRAW);
    let mut order = sample(&mut random, records.len(), records.len()).into_vec();
    let validated = wanted / 2;
    let mut valid: Vec<&Record> = Vec::new();
    let given = match &options.valid {
        Some(files) => all_records(&Source::of_all(files, "valid")?)?,
        None => Vec::new(),
    };
    if given.is_empty() {
        let held_out = validated.min(records.len() / 3);
        valid.extend(
            order
                .split_off(order.len() - held_out)
                .iter()
                .map(|&row| &records[row]),
        );
    } else {
        let drawn = sample(&mut random, given.len(), validated.min(given.len()));
        valid.extend(drawn.into_iter().map(|row| &given[row]));
    }
    order.truncate(wanted);
    let train: Vec<&Record> = order.iter().map(|&row| &records[row]).collect();
    for (name, rows) in [("train.jsonl", &train), ("valid.jsonl", &valid)] {
        let lines = rows
            .iter()
            .map(|record| json!(record.fields).to_string() + "\n");
        write(out, name, &lines.collect::<String>())?;
    }
    Ok((records.len(), train.len()))
}

fn all_records(source: &Source) -> Result<Vec<Record>, Error> {
    let mut chunks = source.records()?;
    let mut records = Vec::new();
    while let Some(chunk) = chunks.chunk()? {
        records.extend(chunk.records);
    }
    Ok(records)
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
    lines.push(format!(
        "from {} of {} records: a K that is not worse on so few may be on all; `telly sweep` tells for sure",
        advice["pilot_rows"], advice["rows"]
    ));
    lines
}

fn cost(found: &Map<String, Value>, who: &str, epochs: usize) -> String {
    let number = |name: &str| found.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let freeze = found["freeze"]
        .as_str()
        .map_or_else(|| found["freeze"].to_string(), String::from);
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
    fn depths_are_spread_over_the_layers() {
        let names = |layers| {
            let freezes = spaced(layers).into_iter().map(|freeze| freeze.to_string());
            freezes.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(12), "none 0 3 6 8 11");
        assert_eq!(names(6), "none 0 1 3 4 5");
        assert_eq!(names(2), "none 0 1");
    }
}
