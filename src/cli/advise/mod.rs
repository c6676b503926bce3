//! `telly advise`.

mod difference;
mod kept;
mod pilot;
mod probes;
mod sample;
mod sentences;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};
use toml::Table;

use crate::checkpoint::{Checkpoint, Freeze};
use crate::cli::options::missing;
use crate::cli::sweep::flags::{check_training, differences, freeze_flags};
use crate::cli::sweep::folder::{is_begun, write};
use crate::cli::sweep::process::telly_json;
use crate::cli::sweep::table;
use crate::cli::sweep::{SweepOptions, SweptFreezes, all_trained};
use crate::cli::{console, hub, recipe};
use crate::error::Error;
use crate::precompute::shards_in_memory;
use crate::study::syntax::Language;
use crate::study::{
    self, ADVICE_RESULT, Changes, Decision, PILOT_LEVEL, Row, SWEEP_SHARED, choose,
};
use crate::train::TrainSettings;
use difference::Difference;
use pilot::{Asked, Found, Losses, Pilot};
use sample::{Sample, training_split};
use sentences::{compared_early, costs_and_limits, difference, reason, unlearnt};

/// Records of the pilot's training split, unless told.
const PILOT_ROWS: usize = 400;
/// The flags for all of the data.
const WHOLE: &str = "advice.toml";

/// Say which K to take and what it will cost, from a short pilot on a sample of the data.
///
/// Trains all layers on the sample, compares what each layer represents before and after, and trains
/// with three K about the layer up to which little has changed; tells time, disk and memory for all of the
/// data. Each run takes as many steps as all of the data will, if there is time for them, but 100 at
/// most. Stopped at any moment, the same command goes on where it was; with more minutes it trains
/// more seeds.
#[derive(Args)]
#[command(after_help = "\
Examples:
  telly advise --task classify --model models/all-MiniLM-L6-v2 --train train.jsonl \\
      --valid valid.jsonl --out advice/mine
  telly advise --recipe recipe.toml --minutes 10 --out advice/mine
  telly advise --task search --model models/unixcoder-base --data pairs --language java --out advice/java")]
pub(super) struct AdviseArguments {
    #[command(flatten)]
    options: SweepOptions,
    /// About how long the pilot may take: it decides how many steps and seeds there are. A seed of each K
    /// is trained in any case; three or more seeds have the metric decide.
    #[arg(
        long,
        value_name = "MINUTES",
        default_value_t = 2.0,
        help_heading = "Pilot"
    )]
    minutes: f64,
    /// The K to consider [default: none, and three by what training has changed].
    #[arg(long, value_name = "K,K", help_heading = "Pilot")]
    freeze: Option<SweptFreezes>,
    /// Peak learning rate [default: that of the recipe, else 5e-5].
    #[arg(long, value_name = "X", help_heading = "Training")]
    lr: Option<f64>,
    /// Records of the pilot's training split; half as many are validated on [default: 400].
    #[arg(long, value_name = "N", help_heading = "Pilot")]
    rows: Option<usize>,
    /// Seeds of each K, all of them, with all steps, however long that takes [default: as many as there
    /// is time for, of those of the recipe, else of 1,2,3].
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        conflicts_with = "minutes",
        help_heading = "Pilot"
    )]
    seeds: Option<Vec<u64>>,
    /// Language of the sample's codes: what training on it changes in what the layers know of code is probed
    /// too, which --minutes does not count.
    #[arg(long, value_enum, value_name = "LANGUAGE", help_heading = "Pilot")]
    language: Option<Language>,
    /// Folder of the advice: the sample, the pilot's sweep, advice.json.
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    out: PathBuf,
    /// TOML file with flags of these, but for those of the pilot, and any of `telly precompute` and
    /// `telly train`, `_` for `-`; a flag typed wins.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &AdviseArguments) -> Result<(), Error> {
    let mut advice = Advice::prepare(arguments)?;
    let found = advice.pilot.run(&advice.model)?;
    let sweep = &advice.pilot.sweep;
    let table = sweep.table(&found.trained.runs, &found.costs, PILOT_LEVEL)?;
    let losses = advice.pilot.losses()?;
    let changes = found.changes();
    let learnt = losses.as_ref().is_none_or(Losses::show_learning);
    let (chosen, decision) = choose(&table, changes.as_ref(), learnt);
    let predicted = |freeze: Freeze| {
        let row = row_of(&table, freeze);
        row.map(|row| advice.predict(row, &found)).transpose()
    };
    let of_base = predicted(table.base)?;
    let of_chosen = if chosen == table.base {
        of_base.clone()
    } else {
        predicted(chosen)?
    };
    let untested = row_of(&table, chosen).is_some_and(|row| row.against_base.is_none());
    let rows = (untested && chosen != table.base)
        .then(|| Difference::of(sweep, &table, chosen))
        .transpose()?;
    let rows = rows.flatten();
    let mut object = json!({
        "freeze": chosen,
        "decided_by": decision,
        "unchanged_layers": changes.as_ref().and_then(Changes::unchanged),
        "base": table.base,
        "rows": advice.rows,
        "pilot_rows": advice.pilot_rows,
        "pilot_epochs": advice.pilot.epochs,
        "pilot_epochs_wanted": advice.pilot.wanted,
        "pilot_seeds": table.seeds()[0],
        "pilot_losses": losses.as_ref().map(Losses::to_json),
        "predicted": of_chosen,
        "predicted_base": of_base,
        "difference": rows.as_ref().map(Difference::to_json),
        "pilot": table.to_json(),
        "similarities": found.similarities,
        "probes": found.probes,
    });
    let mut said = match (decision, &losses) {
        (Decision::Metric, _) => table::conclusion(&table),
        (_, Some(losses)) if !learnt => vec![unlearnt(table.base, losses)],
        _ => vec![reason(&table, chosen, changes.as_ref())],
    };
    if decision == Decision::Similarity {
        said.extend(difference(&table, chosen, rows.as_ref(), found.seeds_left));
    }
    match &found.probes {
        Some(probes) => said.extend(probes::said(probes, chosen)),
        None if arguments.language.is_some() => {
            said.push("the layers are not probed: why is told where that was tried".into());
        }
        None => {}
    }
    said.extend(compared_early(&found));
    said.extend(costs_and_limits(&object, advice.epochs));
    object["sentences"] = json!(said);
    write(&sweep.folder, ADVICE_RESULT, &object.to_string())?;
    if arguments.json {
        console::print(&object.to_string())?;
    } else {
        table::print_rows(&table)?;
        console::print("")?;
        said.iter().try_for_each(|line| console::print(line))?;
    }
    all_trained(found.trained.failed)
}

/// A pilot, and what it stands for.
struct Advice {
    pilot: Pilot,
    /// Where the model lies.
    model: PathBuf,
    /// Records of the training split.
    rows: usize,
    /// Those of them that the pilot learns from.
    pilot_rows: usize,
    batch_size: usize,
    epochs: usize,
    /// What `precompute --dry-run` told of all of the data with nothing frozen, if it was asked.
    unfrozen: Option<Map<String, Value>>,
}

impl Advice {
    /// Draws the sample and keeps the flags, unless that was done before.
    fn prepare(arguments: &AdviseArguments) -> Result<Self, Error> {
        let recipe = arguments.recipe.as_deref();
        let options: SweepOptions = recipe::resolve(&arguments.options, recipe)?;
        let mut shared = recipe::table(&arguments.options, recipe)?;
        if let Some(lr) = arguments.lr {
            shared.insert("lr".into(), lr.into());
        }
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
        if !(arguments.minutes.is_finite() && arguments.minutes >= 0.0) {
            return Err(Error::Usage {
                problem: format!("`--minutes {}` is no time", arguments.minutes),
                hint: "pass a number from 0 on".into(),
            });
        }
        let freezes = arguments.freeze.iter().flat_map(|freezes| &freezes.0);
        if arguments.language.is_some()
            && arguments.freeze.is_some()
            && !freezes.into_iter().any(|freeze| *freeze == Freeze::Nothing)
        {
            return Err(Error::Usage {
                problem: "`--language` has nothing to act on where `--freeze` leaves none out: probes look at what training all layers changes".into(),
                hint: "add none to `--freeze`, or leave one of the two out".into(),
            });
        }
        let data = shared.get("data").and_then(toml::Value::as_str);
        let data = data.map(Path::new);
        // What can be told at once is told before the data is read.
        if options.task.task.is_none() {
            return Err(missing("--task"));
        }
        training_split(&options, data)?;
        check_training(&shared, arguments.lr.as_slice())?;
        // All of the data is read before anything is trained on a part of it.
        let unfrozen = if is_begun(&arguments.out) {
            None
        } else {
            Some(cost_of_unfrozen(&shared, &arguments.out)?)
        };
        let sample = Sample::draw(&options, data, wanted)?;
        fs_err::create_dir_all(&arguments.out).map_err(Error::Output)?;
        // The same folder, however it is named.
        let out = fs_err::canonicalize(&arguments.out).map_err(Error::Output)?;
        let usual = TrainSettings::default();
        let batch_size = options.batch_size.unwrap_or(usual.batch_size);
        let epochs = options.epochs.unwrap_or(usual.epochs);
        let asked = Asked {
            freezes: arguments.freeze.as_ref().map(|freezes| freezes.0.clone()),
            seeds: arguments.seeds.clone(),
            seconds: arguments.minutes * 60.0,
            step: batch_size.saturating_mul(accumulated(&shared)),
            epochs,
            layers,
            language: arguments.language,
        };
        let whole = shared.to_string();
        if is_begun(&out) {
            sample.check(&out)?;
            check_flags(&out, &whole)?;
        }
        let pilot = Pilot::begin(out, shared, &sample, asked)?;
        write(&pilot.sweep.folder, WHOLE, &whole)?;
        Ok(Self {
            pilot,
            model,
            rows: sample.records,
            pilot_rows: sample.train.len(),
            batch_size,
            epochs,
            unfrozen,
        })
    }

    /// What training with `row`'s K on all of the data comes to.
    fn predict(&self, row: &Row, found: &Found) -> Result<Value, Error> {
        let folder = &self.pilot.sweep.folder;
        let filled = self.fill_alone(row.freeze)?;
        let known = self.unfrozen.as_ref();
        let whole = match known.filter(|_| row.freeze == Freeze::Nothing) {
            Some(known) => known.clone(),
            None => cost_of_cache(row.freeze, folder, folder)?,
        };
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
            "precompute_peak_bytes": precompute_peak(&filled, &whole),
            "train_peak_bytes": usual_peak(row, found),
        }))
    }

    /// Fills the sample's cache of `freeze` by itself, as all of the data's will be, and drops it. It is timed
    /// each time, on the machine as it is now.
    fn fill_alone(&self, freeze: Freeze) -> Result<Map<String, Value>, Error> {
        let folder = &self.pilot.sweep.folder;
        let alone = tempfile::tempdir_in(folder).map_err(Error::Output)?;
        let mut flags = freeze_flags(&[freeze]);
        flags.extend([OsString::from("--recipe"), folder.join(SWEEP_SHARED).into()]);
        flags.extend([OsString::from("--cache"), alone.path().join("cache").into()]);
        telly_json("precompute", flags, folder)
    }
}

/// What the cache of `freeze` for all of the data will cost, by the flags that lie in the folder `told`, for
/// the advice in `out`.
fn cost_of_cache(freeze: Freeze, told: &Path, out: &Path) -> Result<Map<String, Value>, Error> {
    let mut flags = freeze_flags(&[freeze]);
    flags.extend([OsString::from("--recipe"), told.join(WHOLE).into()]);
    flags.extend([OsString::from("--cache"), out.join("cache").into()]);
    flags.push("--dry-run".into());
    telly_json("precompute", flags, out)
}

/// The same where nothing is frozen, by the flags `shared`. What is wrong with any record is told.
fn cost_of_unfrozen(shared: &Table, out: &Path) -> Result<Map<String, Value>, Error> {
    let told = tempfile::tempdir().map_err(Error::Output)?;
    write(told.path(), WHOLE, &shared.to_string())?;
    cost_of_cache(Freeze::Nothing, told.path(), out)
}

/// Batches of a step, as the flags say.
fn accumulated(shared: &Table) -> usize {
    let batches = shared.get("gradient_accumulation");
    let batches = batches.and_then(toml::Value::as_integer);
    batches
        .and_then(|batches| usize::try_from(batches).ok())
        .unwrap_or(1)
}

/// Peak memory of `precompute` over the `whole` of the data, as its `--dry-run` tells it, by that of the
/// sample, which was `filled`: what it holds of the cache depends on how large that is.
fn precompute_peak(filled: &Map<String, Value>, whole: &Map<String, Value>) -> Option<u64> {
    let bytes = |of: &Map<String, Value>, name: &str| of.get(name)?.as_u64();
    let most = bytes(whole, "shard_bytes")?;
    let held = |of| Some(shards_in_memory(bytes(of, "bytes")?, most));
    let peak = bytes(filled, "peak_rss_bytes")?;
    Some((peak + held(whole)?).saturating_sub(held(filled)?))
}

/// The median of the peaks of `row`'s runs, bytes; the greater of the middle two.
fn usual_peak(row: &Row, found: &Found) -> Option<f64> {
    let same = found
        .trained
        .runs
        .iter()
        .filter(|run| run.freeze == row.freeze && run.lr.total_cmp(&row.lr).is_eq());
    let mut peaks: Vec<f64> = same
        .filter_map(|run| run.summary.get("peak_rss_bytes")?.as_f64())
        .collect();
    peaks.sort_unstable_by(f64::total_cmp);
    peaks.get(peaks.len() / 2).copied()
}

fn row_of(table: &study::Table, freeze: Freeze) -> Option<&Row> {
    table.best().find(|row| row.freeze == freeze)
}

/// Refuses a folder that was begun with other flags.
fn check_flags(folder: &Path, whole: &str) -> Result<(), Error> {
    match fs_err::read_to_string(folder.join(WHOLE)) {
        Ok(found) if found != whole => Err(Error::Usage {
            problem: format!(
                "`{}` was begun with other flags: {}",
                folder.display(),
                differences(&found, whole)
            ),
            hint:
                "choose another `--out`, or remove the folder; `--minutes`, K and seeds may differ"
                    .into(),
        }),
        _ => Ok(()),
    }
}
