//! `telly train`.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::options::{DeviceChoice, ShuffleChoice, TaskOptions, limit_threads, missing};
use super::{console, hub, recipe};
use crate::cache::{self, Cache, Fingerprint, Freshness};
use crate::checkpoint::{Checkpoint, Freeze};
use crate::dataset::Dataset;
use crate::error::Error;
use crate::frozen::FrozenPrecision;
use crate::precompute::content_hash;
use crate::task::{Encoding, Labels, Model};
use crate::train::{
    self, Outcome, ProfileReport, RunFolder, RunIdentity, TrainSettings, peak_rss_bytes,
};
use crate::trainable::Pooling;

/// Train the top layers and the head from an activation cache.
///
/// The cache says which model, task and data it was made from. Any of --model, --task, --freeze,
/// --train, --valid and --test given here is checked against it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  telly train --cache cache/mine --out runs/mine --epochs 3 --batch-size 32 --lr 5e-5
  telly train --recipe runs/mine/recipe.toml --out runs/again
  telly train --cache /mnt/disk/large --out runs/large --shuffle block
  telly train --resume --out runs/mine       (after Ctrl-C, a crash or a power cut)")]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct TrainArguments {
    #[command(flatten)]
    options: TrainOptions,
    /// TOML file with any of these flags, `_` for `-`; a flag typed wins.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Replace a run that is there already.
    #[arg(long, conflicts_with = "resume")]
    force: bool,
    /// Go on with the unfinished run in --out from its last checkpoint, with its own flags.
    #[arg(long, conflicts_with = "recipe")]
    resume: bool,
    /// Say at the end where the time of the steps went.
    #[arg(long)]
    profile: bool,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Serialize, Deserialize, Clone)]
struct TrainOptions {
    /// Folder of the cache.
    #[arg(long, value_name = "FOLDER", help_heading = "Input")]
    cache: Option<PathBuf>,
    /// The pre-trained model, a folder or owner/name[@revision] on the hub [default: where it lay when the cache was made].
    #[arg(long, value_name = "MODEL", help_heading = "Input")]
    model: Option<PathBuf>,
    /// Folder of the run [default: the first of runs/CACHE-1, runs/CACHE-2 ... that is free].
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    out: Option<PathBuf>,
    /// Passes over the training split [default: 3].
    #[arg(long, value_name = "N", help_heading = "Training")]
    epochs: Option<usize>,
    /// Rows a step [default: 32].
    #[arg(long, value_name = "N", help_heading = "Training")]
    batch_size: Option<usize>,
    /// Peak learning rate [default: 5e-5].
    #[arg(long, value_name = "X", help_heading = "Training")]
    lr: Option<f64>,
    /// Share of the steps over which the learning rate rises from 0 [default: 0.1].
    #[arg(long, value_name = "SHARE", help_heading = "Training")]
    warmup: Option<f64>,
    /// Decoupled weight decay; none on biases and LayerNorms [default: 0.01].
    #[arg(long, value_name = "X", help_heading = "Training")]
    weight_decay: Option<f64>,
    /// Clip gradients to this global norm; 0 for no clipping [default: 1.0].
    #[arg(long, value_name = "NORM", help_heading = "Training")]
    clip: Option<f64>,
    /// Dropout probability of the trained layers and the head [default: the model's own].
    #[arg(long, value_name = "P", help_heading = "Training")]
    dropout: Option<f64>,
    /// Seed of the head, the order of rows, and dropout [default: 1].
    #[arg(long, value_name = "N", help_heading = "Training")]
    seed: Option<u64>,
    /// The order of rows: exact, or in blocks of about 8 MiB that lie side by side in the cache,
    /// eight of them mixed at a time; auto takes blocks for a cache larger than memory on a
    /// rotating disk or a network file system [default: auto].
    #[arg(long, value_enum, help_heading = "Training")]
    shuffle: Option<ShuffleChoice>,
    /// One vector a sequence [default: cls for classify, mean for search].
    #[arg(long, value_enum, help_heading = "Training")]
    pooling: Option<Pooling>,
    /// Steps between two lines of metrics.jsonl [default: 10].
    #[arg(long, value_name = "STEPS", help_heading = "Training")]
    log_every: Option<usize>,
    /// Seconds between two checkpoints, besides those after each epoch and on Ctrl-C
    /// [default: 300].
    #[arg(long, value_name = "SECONDS", help_heading = "Training")]
    checkpoint_seconds: Option<u64>,
    /// Rows kept for the backward pass at a time; the update is the whole batch's all the same
    /// [default: as many as --memory-budget allows].
    #[arg(long, value_name = "ROWS", help_heading = "Running")]
    micro_batch: Option<usize>,
    /// Memory that training may take, as 2GiB [default: half of the machine's].
    #[arg(long, value_name = "SIZE", help_heading = "Running")]
    memory_budget: Option<ByteSize>,
    /// Where training runs; auto takes CUDA if this build has it [default: auto].
    #[arg(long, value_enum, help_heading = "Running")]
    device: Option<DeviceChoice>,
    /// CPU threads [default: one a core].
    #[arg(long, value_name = "N", help_heading = "Running")]
    threads: Option<usize>,
    /// The cache must have been made with this many layers frozen.
    #[arg(long, value_name = "K", help_heading = "Checked against the cache")]
    freeze: Option<Freeze>,
    /// The cache must have been made from this training split.
    #[arg(long, value_name = "FILE", help_heading = "Checked against the cache")]
    train: Option<PathBuf>,
    /// The cache must have been made from this validation split.
    #[arg(long, value_name = "FILE", help_heading = "Checked against the cache")]
    valid: Option<PathBuf>,
    /// The cache must have been made from this test split.
    #[arg(long, value_name = "FILE", help_heading = "Checked against the cache")]
    test: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    task: TaskOptions,
}

impl TrainArguments {
    /// Whether the recipe can be read.
    pub(super) fn check_recipe(&self) -> Result<(), Error> {
        recipe::resolve(&self.options, self.recipe.as_deref()).map(drop)
    }
}

pub(super) fn run(arguments: &TrainArguments) -> Result<(), Error> {
    let mut recipe_file = arguments.recipe.clone();
    if arguments.resume {
        let out = &arguments.options.out;
        let out = out.as_deref().ok_or_else(|| missing("--out"))?;
        recipe_file = Some(RunFolder::recipe(out)?);
        if let Some(summary) = RunFolder::summary(out)? {
            console::say(&format!("`{}` is finished", out.display()));
            return console::result(arguments.json, &summary);
        }
    }
    let options = recipe::resolve(&arguments.options, recipe_file.as_deref())?;
    limit_threads(options.threads)?;
    let folder = options.cache.as_deref().ok_or_else(|| missing("--cache"))?;
    let cache = open_cache(folder)?;
    let Contents {
        encoding,
        labels,
        freeze,
        frozen_precision,
    } = Contents::of(&cache)?;

    let model_folder = options
        .model
        .clone()
        .unwrap_or_else(|| cache.manifest().model.clone().into());
    let model_folder = hub::located(&model_folder)?;
    let mut checkpoint = Checkpoint::open(&model_folder)?;
    check_cache(&cache, &checkpoint, &options, &encoding, labels.as_ref())?;
    let settings = settings(&options, &encoding, &cache)?;
    if let Some(dropout) = settings.dropout {
        checkpoint.config.hidden_dropout = dropout;
        checkpoint.config.attention_dropout = dropout;
    }
    let device = options.device.unwrap_or_default().device()?;
    let model = Model::new(
        &checkpoint,
        freeze,
        labels.as_ref(),
        settings.pooling,
        settings.seed,
        &device,
    )?;
    if model.parameters.count() == 0 {
        return Err(train::Error::NothingToTrain {
            freeze: freeze.to_string(),
        }
        .into());
    }

    let out = match &options.out {
        Some(out) => out.clone(),
        None => first_free_run(folder),
    };
    let (mut run, state) = if arguments.resume {
        RunFolder::resume(&out)?
    } else {
        let run = RunFolder::create(&out, arguments.force)?;
        run.write_recipe(&resolved_recipe(
            &options,
            &settings,
            &encoding,
            freeze,
            &model_folder,
        ))?;
        (run, None)
    };
    if arguments.profile {
        model.profile().go_into_detail();
    }
    // What is trained has been copied.
    checkpoint.weights.release();
    let outcome = train::train(model, &cache, &settings, &mut run, state)?;
    let (model, ending) = match outcome {
        Outcome::Finished(model, summary) => (model, Ok(summary)),
        Outcome::Interrupted(model, position) => (model, Err(position)),
    };
    let identity = checkpoint.identity()?;
    run.write_model(
        &model,
        &RunIdentity {
            model: fs_err::canonicalize(&model_folder).unwrap_or(model_folder),
            weights: identity.weights,
            tokenizer: identity.tokenizer,
            freeze,
            frozen_precision,
            encoding,
            pooling: settings.pooling,
            labels,
        },
    )?;
    let summary = ending.map_err(|position| interrupted(position.step, &out))?;
    let mut object = summary.to_json();
    object.insert("peak_rss_bytes".into(), json!(peak_rss_bytes()));
    object.insert("run".into(), json!(out.display().to_string()));
    if arguments.profile {
        object.insert("profile".into(), report_profile(&model));
    }
    run.write_summary(&Value::Object(object.clone()))?;
    console::result(arguments.json, &object)
}

fn interrupted(steps: usize, out: &Path) -> Error {
    let out = out.display();
    Error::Interrupted {
        kept: format!(
            "{steps} steps are done; `telly train --resume --out {out}` goes on, `{out}` can be used as it is"
        ),
    }
}

/// Says where the time of the steps went.
fn report_profile(model: &Model) -> Value {
    let report = ProfileReport::new(model.profile());
    report.lines().iter().for_each(|line| console::say(line));
    Value::Object(report.to_json())
}

/// What the manifest says in the task's own words.
struct Contents {
    encoding: Encoding,
    labels: Option<Labels>,
    freeze: Freeze,
    frozen_precision: FrozenPrecision,
}

impl Contents {
    fn of(cache: &Cache) -> Result<Self, Error> {
        let manifest = cache.manifest();
        let from_cache = |value: &Value, what: &str| cache::Error::Damaged {
            path: cache.folder().join(cache::MANIFEST),
            problem: format!("`{what}` is {value}"),
        };
        let encoding: Encoding = serde_json::from_value(manifest.encoding.clone())
            .map_err(|_| from_cache(&manifest.encoding, "encoding"))?;
        let labels: Option<Labels> = serde_json::from_value(manifest.labels.clone())
            .map_err(|_| from_cache(&manifest.labels, "labels"))?;
        let freeze = manifest.fingerprint.get("freeze");
        let freeze: Freeze =
            serde_json::from_value(freeze.clone()).map_err(|_| from_cache(freeze, "freeze"))?;
        // Null when nothing is frozen.
        let found = manifest.fingerprint.get("frozen_precision");
        let frozen_precision: Option<FrozenPrecision> = serde_json::from_value(found.clone())
            .map_err(|_| from_cache(found, "frozen_precision"))?;
        Ok(Self {
            encoding,
            labels,
            freeze,
            frozen_precision: frozen_precision.unwrap_or_default(),
        })
    }
}

fn open_cache(folder: &Path) -> Result<Cache, Error> {
    let cache = Cache::open(folder).inspect_err(|error| {
        if matches!(error, cache::Error::Missing { .. }) {
            console::freshness(&Freshness::Missing);
        }
    })?;
    Ok(cache)
}

/// Refuses a cache that was made from another model, or from something else than what was typed.
fn check_cache(
    cache: &Cache,
    checkpoint: &Checkpoint,
    options: &TrainOptions,
    encoding: &Encoding,
    labels: Option<&Labels>,
) -> Result<(), Error> {
    let identity = checkpoint.identity()?;
    let mut current = Fingerprint::default();
    current.set("weights", identity.weights);
    current.set("config", identity.config);
    current.set("tokenizer", identity.tokenizer);
    if let Some(freeze) = options.freeze {
        current.set("freeze", json!(freeze));
    }
    current.set(
        "encoding",
        expected_encoding(&cache.manifest().encoding, &options.task),
    );
    let splits = [
        ("train", &options.train),
        ("valid", &options.valid),
        ("test", &options.test),
    ];
    for (name, path) in splits {
        if let Some(path) = path {
            let encoded = encoding.encode(&Dataset::read(path)?, checkpoint, labels)?;
            current.set(name, content_hash(&encoded, labels));
        }
    }
    let differences = |cached: &Fingerprint| cached.differences(&current);
    console::freshness(&Freshness::of(cache.folder(), differences)?);
    let hint = "train from the cache that fits, or make it with `telly precompute`";
    Ok(cache.require(&current, hint)?)
}

/// The cache's encoding with whatever was typed put over it.
fn expected_encoding(cached: &Value, typed: &TaskOptions) -> Value {
    let mut expected = cached.clone();
    if let (Value::Object(expected), Value::Object(typed)) = (&mut expected, json!(typed)) {
        let given = typed.into_iter().filter(|(_, value)| !value.is_null());
        expected.extend(given);
    }
    expected
}

fn settings(
    options: &TrainOptions,
    encoding: &Encoding,
    cache: &Cache,
) -> Result<TrainSettings, Error> {
    let settings = TrainSettings {
        epochs: options.epochs.unwrap_or(3),
        batch_size: options.batch_size.unwrap_or(32),
        lr: options.lr.unwrap_or(5e-5),
        warmup: options.warmup.unwrap_or(0.1),
        weight_decay: options.weight_decay.unwrap_or(0.01),
        clip: options.clip.unwrap_or(1.0),
        dropout: options.dropout,
        seed: options.seed.unwrap_or(1),
        shuffle: options.shuffle.unwrap_or_default().shuffle(cache),
        pooling: options.pooling.unwrap_or(encoding.task().default_pooling()),
        log_every: options.log_every.unwrap_or(10),
        checkpoint_seconds: options.checkpoint_seconds.unwrap_or(300),
        micro_batch: options.micro_batch,
        memory_budget: options.memory_budget.map(|size| size.as_u64()),
    };
    let out_of_range = |flag: &str, found: f64, expected: &str| Error::Usage {
        problem: format!("`{flag} {found}` is out of range"),
        hint: format!("expected {expected}"),
    };
    let not_negative = [
        ("--lr", settings.lr),
        ("--weight-decay", settings.weight_decay),
        ("--clip", settings.clip),
    ];
    for (flag, found) in not_negative {
        if !found.is_finite() || found < 0.0 {
            return Err(out_of_range(flag, found, "0 or more"));
        }
    }
    if !(0.0..=1.0).contains(&settings.warmup) {
        return Err(out_of_range(
            "--warmup",
            settings.warmup,
            "a share from 0 to 1",
        ));
    }
    match settings.dropout {
        Some(dropout) if !(0.0..1.0).contains(&dropout) => {
            return Err(out_of_range(
                "--dropout",
                dropout,
                "0 or more and less than 1",
            ));
        }
        _ => {}
    }
    let at_least_one = [
        ("--epochs", settings.epochs),
        ("--batch-size", settings.batch_size),
        ("--log-every", settings.log_every),
        ("--micro-batch", settings.micro_batch.unwrap_or(1)),
    ];
    for (flag, found) in at_least_one {
        if found == 0 {
            return Err(out_of_range(flag, 0.0, "1 or more"));
        }
    }
    Ok(settings)
}

/// The first of `runs/CACHE-1`, `runs/CACHE-2`, … that does not exist.
fn first_free_run(cache: &Path) -> PathBuf {
    let name = cache.file_name().unwrap_or_default().to_string_lossy();
    let mut number = 1;
    loop {
        let folder = PathBuf::from(format!("runs/{name}-{number}"));
        if !folder.exists() {
            return folder;
        }
        number += 1;
    }
}

/// Every flag of this run with its value, so that `telly train --recipe` repeats it.
fn resolved_recipe(
    options: &TrainOptions,
    settings: &TrainSettings,
    encoding: &Encoding,
    freeze: Freeze,
    model: &Path,
) -> String {
    let table = |value: Result<toml::Table, toml::ser::Error>| {
        value.unwrap_or_else(|_| unreachable!("flags are plain values"))
    };
    let mut recipe = table(toml::Table::try_from(options));
    // The folder of the repeated run is its own.
    recipe.remove("out");
    recipe.extend(table(toml::Table::try_from(encoding)));
    recipe.extend(table(toml::Table::try_from(settings)));
    recipe.insert(
        "freeze".into(),
        match freeze {
            Freeze::Nothing => "none".into(),
            Freeze::Layers(layers) => toml::Value::Integer(layers as i64),
        },
    );
    recipe.insert("model".into(), model.display().to_string().into());
    format!(
        "# telly {}; `telly train --recipe` repeats this run.\n{recipe}",
        env!("CARGO_PKG_VERSION")
    )
}
