//! `telly train`.

pub(super) mod options;
mod workers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Device;
use clap::Args;
use serde_json::{Map, Value, json};

use crate::cache::{self, Cache, Fingerprint, Freshness};
use crate::checkpoint::{Checkpoint, Freeze};
use crate::cli::generation_options::GenerationOptions;
use crate::cli::head::check_pooling;
use crate::cli::model::trained_checkpoint;
use crate::cli::options::{DeviceChoice, RuntimeOptions, limit_threads, missing};
use crate::cli::task::TaskOptions;
use crate::cli::text_writer::{self, Running, TextWriter};
use crate::cli::{console, hub, recipe, runs, seeds};
use crate::dataset::Source;
use crate::error::Error;
use crate::frozen::{FrozenPrecision, ProviderChoice};
use crate::mapping::give_large_buffers_back;
use crate::precompute::content_hash;
use crate::progress::Progress;
use crate::task::{Encoding, HeadSettings, Known, Labels, Model, Objective, Role};
use crate::train::{
    self, Outcome, ProfileReport, RunFolder, RunIdentity, TrainSettings, WriteTexts, peak_rss_bytes,
};
use crate::trainable::Ops;
use options::{LAYOUT_FLAGS, TrainOptions, resolved_recipe};

/// Train the top layers and the head from an activation cache.
///
/// The cache says which model, task and data it was made from. Any of --model, --task, --freeze,
/// --train, --valid and --test given here is checked against it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  telly train --cache cache/mine --out runs/mine --epochs 3 --batch-size 32 --lr 5e-5
  telly train --recipe runs/mine/recipe.toml --out runs/again
  telly train --cache cache/mine --out runs/long --epochs 20 --schedule cosine --early-stopping 3
  telly train --cache cache/mine --out runs/seeds --seeds 1,2,3
  telly train --cache /mnt/disk/large --out runs/large --shuffle block
  telly train --cache cache/mine --out runs/cards --device cuda --cuda-devices 0,1
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
            return seeds::result(arguments.json, &summary);
        }
    }
    let mut options = recipe::resolve(&arguments.options, recipe_file.as_deref())?;
    if arguments.options.seed.is_some() {
        options.seeds = None;
    }
    limit_threads(options.threads)?;
    let start = if arguments.resume {
        Start::Resumed
    } else {
        Start::New {
            force: arguments.force,
        }
    };
    let seeds = options.seeds.clone();
    let training = Training::prepare(options, arguments.profile)?;
    let out = match &training.options.out {
        Some(out) => out.clone(),
        None => first_free_run(training.cache.folder()),
    };
    let object = match seeds {
        Some(seeds) => seeds::train(&training, &seeds, &out, start)?,
        None => training.run(&training.settings, &out, start, &out)?,
    };
    seeds::result(arguments.json, &object)
}

/// How a run begins.
#[derive(Clone, Copy)]
pub(super) enum Start {
    /// In a folder of its own; with `force` in place of what is there.
    New { force: bool },
    /// From its last checkpoint.
    Resumed,
}

/// All that is read and checked before a run, or several of different seeds.
pub(super) struct Training {
    options: TrainOptions,
    cache: Cache,
    contents: Contents,
    model_folder: PathBuf,
    checkpoint: Checkpoint,
    pub(super) settings: TrainSettings,
    profile: bool,
}

impl Training {
    fn prepare(options: TrainOptions, profile: bool) -> Result<Self, Error> {
        let folder = options.cache.as_deref().ok_or_else(|| missing("--cache"))?;
        let cache = open_cache(folder)?;
        let contents = Contents::of(&cache)?;
        let model_folder = options
            .model
            .clone()
            .unwrap_or_else(|| cache.manifest().model.clone().into());
        let model_folder = hub::located(&model_folder)?;
        let mut checkpoint = Checkpoint::open(&model_folder)?;
        let (encoding, labels) = (&contents.encoding, contents.labels.as_ref());
        encoding.prepare(&mut checkpoint)?;
        check_cache(&cache, &checkpoint, &options, encoding, labels)?;
        let head = options.head.settings(encoding, labels)?;
        check_tuning(&head, &cache)?;
        let config = &checkpoint.config;
        check_pooling(options.pooling, &head, config)?;
        let usual = HeadSettings::usual(encoding, labels);
        let settings = options.settings([&head, &usual], config, &cache)?;
        if let Some(dropout) = settings.dropout {
            checkpoint.config.dropout.set_all(dropout);
        }
        Ok(Self {
            options,
            cache,
            contents,
            model_folder,
            checkpoint,
            settings,
            profile,
        })
    }

    /// The recipe that repeats the run of `settings`, or of all `seeds`.
    pub(super) fn recipe(&self, settings: &TrainSettings, seeds: Option<&[u64]>) -> String {
        let Contents {
            encoding, freeze, ..
        } = &self.contents;
        let mut options = self.options.clone();
        options.seeds = seeds.map(<[u64]>::to_vec);
        resolved_recipe(&options, settings, encoding, *freeze, &self.model_folder)
    }

    /// One run into `out`; its summary. Interrupted, it tells to go on with `--out resumed_by`.
    pub(super) fn run(
        &self,
        settings: &TrainSettings,
        out: &Path,
        start: Start,
        resumed_by: &Path,
    ) -> Result<Map<String, Value>, Error> {
        let contents = &self.contents;
        let device = self.options.device.unwrap_or_default();
        let devices = self.options.workers.devices(device, settings.ops)?;
        let on_cpu = devices.iter().all(Device::is_cpu);
        let ops = settings
            .ops
            .resolve_training(settings.mixed_precision, on_cpu);
        if matches!(ops, Ok(Ops::Fused)) {
            // These keep their buffers from step to step; candle's operations make new ones each time.
            give_large_buffers_back();
        }
        let (model, replicas) = self.models(settings, &devices)?;
        if model.parameters.count() == 0 {
            return Err(train::Error::NothingToTrain {
                freeze: contents.freeze.to_string(),
            }
            .into());
        }
        settings.check(&model, self.cache.split("valid")?.is_some())?;
        let (mut run, state) = match start {
            Start::Resumed => RunFolder::resume(out)?,
            Start::New { force } => {
                let run = RunFolder::create(out, force)?;
                run.write_recipe(&self.recipe(settings, None))?;
                (run, None)
            }
        };
        if self.profile {
            model.profile().go_into_detail();
        }
        // What is trained has been copied.
        self.checkpoint.weights.release();
        let models = (model, replicas);
        let mut writer = self.writer(settings)?;
        let texts = writer.as_deref_mut();
        let outcome = train::train(models, &self.cache, settings, &mut run, (state, texts))?;
        drop(writer);
        let (model, ending) = match outcome {
            Outcome::Finished(model, summary) => (model, Ok(summary)),
            Outcome::Interrupted(model, position) => (model, Err(position)),
        };
        run.write_model(&model, &self.identity(settings, &model)?)?;
        let summary = ending.map_err(|position| interrupted(position.step, out, resumed_by))?;
        if let Some(reason) = &summary.stopped {
            console::say(reason);
        }
        let mut object = summary.to_json();
        object.insert("peak_rss_bytes".into(), json!(peak_rss_bytes()));
        object.insert("run".into(), json!(out.display().to_string()));
        if self.profile {
            object.insert("profile".into(), report_profile(&model));
        }
        let chosen = summary.valid.as_ref().or(summary.test.as_ref());
        let chosen = chosen.map(|metrics| metrics.selection().0.to_owned());
        let metric = settings.best_metric.clone().or(chosen);
        object.insert("metric".into(), json!(metric));
        run.write_summary(&Value::Object(object.clone()))?;
        runs::draw(out, metric.as_deref().filter(|_| summary.valid.is_some()))?;
        Ok(object)
    }

    /// Writes texts with a model as it is, where `settings` ask for them.
    fn writer<'a>(
        &'a self,
        settings: &TrainSettings,
    ) -> Result<Option<Box<WriteTexts<'a>>>, Error> {
        let encoding = &self.contents.encoding;
        let Some((task, text)) = encoding.text().filter(|_| settings.writes_texts()) else {
            return Ok(None);
        };
        let on_cpu = self.options.device == Some(DeviceChoice::Cpu);
        let options = RuntimeOptions {
            provider: on_cpu.then_some(ProviderChoice::Cpu),
            threads: self.options.threads,
            ..RuntimeOptions::default()
        };
        let running = Running::of(&options)?;
        let usual = GenerationOptions::default();
        let generation = text_writer::settings((task, text), &self.checkpoint, &usual)?;
        let folder = &self.checkpoint.folder;
        Ok(Some(Box::new(move |model, prompts| {
            let checkpoint = trained_checkpoint(folder, encoding, model)?;
            let settings = generation.clone();
            let mut writer = TextWriter::new(task, settings, checkpoint, &running)?;
            let mut progress = Progress::new("write", prompts.len() as u64, "texts");
            writer.write(prompts, &mut progress)
        })))
    }

    /// What is trained, and a replica of it on each further device.
    fn models(
        &self,
        settings: &TrainSettings,
        devices: &[Device],
    ) -> Result<(Model, Vec<Model>), Error> {
        let head = self.head(settings);
        let model = |device| {
            let (freeze, pooling) = (self.contents.freeze, settings.pooling);
            let checkpoint = &self.checkpoint;
            Model::new(checkpoint, freeze, &head, pooling, settings.seed, device)
        };
        let replicas = devices[1..].iter().map(model);
        Ok((model(&devices[0])?, replicas.collect::<Result<_, _>>()?))
    }

    /// What stands on top.
    fn head(&self, settings: &TrainSettings) -> HeadSettings {
        let Contents {
            encoding, labels, ..
        } = &self.contents;
        let usual = || HeadSettings::usual(encoding, labels.as_ref());
        settings.head.clone().unwrap_or_else(usual)
    }

    /// What is kept with the trained tensors.
    fn identity(&self, settings: &TrainSettings, model: &Model) -> Result<RunIdentity, Error> {
        let identity = self.checkpoint.identity()?;
        let folder = &self.model_folder;
        let contents = &self.contents;
        Ok(RunIdentity {
            model: fs_err::canonicalize(folder).unwrap_or_else(|_| folder.clone()),
            weights: identity.weights,
            tokenizer: identity.tokenizer,
            config: Some(identity.config),
            freeze: contents.freeze,
            frozen_precision: contents.frozen_precision,
            encoding: contents.encoding.clone(),
            pooling: settings.pooling,
            labels: contents.labels.clone(),
            data: content_of_splits(&self.cache),
            head: Some(model.head_settings()),
        })
    }
}

fn interrupted(steps: usize, out: &Path, resumed_by: &Path) -> Error {
    Error::Interrupted {
        kept: format!(
            "{steps} steps are done; `telly train --resume --out {}` goes on, `{}` can be used as it is",
            resumed_by.display(),
            out.display()
        ),
    }
}

/// BLAKE3 of each split's content, by its name.
fn content_of_splits(cache: &Cache) -> BTreeMap<String, String> {
    let manifest = cache.manifest();
    let splits = manifest.splits.iter().filter_map(|split| {
        let hash = manifest.fingerprint.get(&split.name).as_str()?;
        Some((split.name.clone(), hash.to_owned()))
    });
    splits.collect()
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
    let code_base_paths = options.code_base.clone().map(|path| vec![path]);
    let splits = [
        ("train", &options.train),
        ("valid", &options.valid),
        ("test", &options.test),
        (Role::CODE_BASE, &code_base_paths),
    ];
    let code_base = match (&options.code_base, encoding) {
        (Some(path), Encoding::Search(search)) => {
            Some(search.code_base(Source::of(path, Role::CODE_BASE)?.records()?)?)
        }
        _ => None,
    };
    let known = Known {
        labels,
        code_base: code_base.as_ref(),
    };
    for (name, paths) in splits {
        if let Some(paths) = paths {
            let source = Source::of_all(paths, name)?;
            let encoded = encoding.encode_source(&source, checkpoint, Role::of(name), known)?;
            current.set(name, content_hash(&encoded, labels));
        }
    }
    let differences = |cached: &Fingerprint| cached.differences(&current);
    console::freshness(&Freshness::of(cache.folder(), differences)?);
    let hint = "train from the cache that fits, or make it with `telly precompute`";
    Ok(cache.require(&current, hint)?)
}

/// A threshold is tuned on a validation split.
fn check_tuning(head: &HeadSettings, cache: &Cache) -> Result<(), Error> {
    let tuned = matches!(head, HeadSettings::Cosine { tuned: true, .. });
    if tuned && cache.manifest().split("valid").is_none() {
        return Err(Error::Usage {
            problem: format!(
                "`--threshold tuned` needs a validation split, and `{}` has none",
                cache.folder().display()
            ),
            hint: "make the cache with `--valid`, or pass a cosine".into(),
        });
    }
    Ok(())
}

/// The cache's encoding with whatever was typed put over it.
fn expected_encoding(cached: &Value, typed: &TaskOptions) -> Value {
    let mut expected = cached.clone();
    if let (Value::Object(expected), Value::Object(given)) = (&mut expected, json!(typed)) {
        let given = given.into_iter().filter(|(_, value)| !value.is_null());
        expected.extend(given);
        // Words for what the cache has settled.
        match (typed.mode_token.as_deref(), cached.get("mode_token")) {
            (Some("auto"), Some(token)) => {
                expected.insert("mode_token".into(), token.clone());
            }
            (Some("auto" | "none"), _) => {
                expected.shift_remove("mode_token");
            }
            _ => {}
        }
        // Of a text's layout they are a part.
        for (flag, layout, field) in LAYOUT_FLAGS {
            let place = expected
                .get("layout")
                .and_then(|it| it.get(layout)?.get(field));
            if place.is_some()
                && let Some(value) = expected.shift_remove(flag)
            {
                expected["layout"][layout][field] = value;
            }
        }
        // An encoding does not say what goes without saying.
        if expected.get("objective") == Some(&json!(Objective::default())) {
            expected.shift_remove("objective");
        }
    }
    expected
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
