//! The flags of `telly train`, what they mean, and the recipe that repeats them.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::workers::WorkerOptions;
use crate::cache::Cache;
use crate::checkpoint::{EncoderConfig, Freeze};
use crate::cli::head::HeadOptions;
use crate::cli::options::{DeviceChoice, ShuffleChoice, exact_bytes};
use crate::cli::split_files;
use crate::cli::task::TaskOptions;
use crate::error::Error;
use crate::task::{ClassWeights, Encoding, HeadSettings};
use crate::train::{Schedule, TrainSettings};
use crate::trainable::{MixedPrecision, OpsChoice, Pooling};

#[derive(Args, Serialize, Deserialize, Clone)]
pub(in crate::cli) struct TrainOptions {
    /// Folder of the cache.
    #[arg(long, value_name = "FOLDER", help_heading = "Input")]
    pub cache: Option<PathBuf>,
    /// The pre-trained model, a folder or owner/name[@revision] on the hub [default: where it lay when
    /// the cache was made].
    #[arg(long, value_name = "MODEL", help_heading = "Input")]
    pub model: Option<PathBuf>,
    /// Folder of the run [default: the first of runs/CACHE-1, runs/CACHE-2 ... that is free].
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Passes over the training split [default: 3].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub epochs: Option<usize>,
    /// Rows a batch [default: 32].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub batch_size: Option<usize>,
    /// Peak learning rate [default: 5e-5].
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub lr: Option<f64>,
    /// Share of the steps over which the learning rate rises from 0 [default: 0.1].
    #[arg(long, value_name = "SHARE", help_heading = "Training")]
    pub warmup: Option<f64>,
    /// What the learning rate does after its warmup: falls to 0 on a line or on half a cosine, or
    /// stays [default: linear].
    #[arg(long, value_enum, help_heading = "Training")]
    pub schedule: Option<Schedule>,
    /// Batches a step: the update is that of their mean loss over all their rows, so for classify
    /// that of one batch of all of them; for search each batch ranks its own codes [default: 1].
    #[arg(long, value_name = "BATCHES", help_heading = "Training")]
    pub gradient_accumulation: Option<usize>,
    /// Each layer's learning rate is that of the one above times X, the head's that of --lr, the
    /// embeddings' the least; 1 for no decay [default: 1].
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub layer_decay: Option<f64>,
    /// classify: this share of the target is spread over all classes [default: 0].
    #[arg(long, value_name = "SHARE", help_heading = "Training")]
    pub label_smoothing: Option<f64>,
    /// classify: how much the rows of each class count in training: balanced, or a number a class
    /// in the order of the classes, as 1,2.5 [default: all the same].
    #[arg(long, value_name = "WEIGHTS", help_heading = "Training")]
    pub class_weights: Option<ClassWeights>,
    /// Evaluate the validation split every so many steps too, not only after each epoch.
    #[arg(long, value_name = "STEPS", help_heading = "Training")]
    pub evaluate_every: Option<usize>,
    /// The validation metric that chooses the kept weights [default: the task's first: accuracy,
    /// `micro_f1` or pearson for classify, mrr for search, f1 or map@r for clone, loss for texts].
    #[arg(long, value_name = "NAME", help_heading = "Training")]
    pub best_metric: Option<String>,
    /// Stop after this many evaluations without a better metric.
    #[arg(long, value_name = "PATIENCE", help_heading = "Training")]
    pub early_stopping: Option<usize>,
    /// summarize, generate, complete: write the texts of so many rows at each evaluation, as `telly
    /// evaluate` does, and measure them; `--best-metric bleu` then chooses by them [default: 0].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub decode_samples: Option<usize>,
    /// Decoupled weight decay; none on biases and LayerNorms [default: 0.01].
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub weight_decay: Option<f64>,
    /// Clip gradients to this global norm; 0 for no clipping [default: 1.0].
    #[arg(long, value_name = "NORM", help_heading = "Training")]
    pub clip: Option<f64>,
    /// Dropout probability of the trained layers and the head [default: the model's own].
    #[arg(long, value_name = "P", help_heading = "Training")]
    pub dropout: Option<f64>,
    /// Seed of the head, the order of rows, and dropout [default: 1].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub seed: Option<u64>,
    /// Train with each of these seeds, as 1,2,3, into OUT/seed-1 and so on, and tell the mean and
    /// the standard deviation of their metrics.
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        help_heading = "Training"
    )]
    #[arg(conflicts_with = "seed")]
    pub seeds: Option<Vec<u64>>,
    /// The order of rows: exact, or in blocks of about 8 MiB that lie side by side in the cache,
    /// eight of them mixed at a time; auto takes blocks for a cache larger than memory on a
    /// rotating disk or a network file system [default: auto].
    #[arg(long, value_enum, help_heading = "Training")]
    pub shuffle: Option<ShuffleChoice>,
    /// One vector a sequence [default: cls for classify and --head concat, else mean].
    #[arg(long, value_enum, help_heading = "Training")]
    pub pooling: Option<Pooling>,
    /// Steps between two lines of metrics.jsonl [default: 10].
    #[arg(long, value_name = "STEPS", help_heading = "Training")]
    pub log_every: Option<usize>,
    /// Seconds between two checkpoints, besides those after each epoch and on Ctrl-C
    /// [default: 300].
    #[arg(long, value_name = "SECONDS", help_heading = "Training")]
    pub checkpoint_seconds: Option<u64>,
    /// Rows kept for the backward pass at a time; the update is the whole batch's all the same
    /// [default: as many as --memory-budget allows].
    #[arg(long, value_name = "ROWS", help_heading = "Running")]
    pub micro_batch: Option<usize>,
    /// Memory that training may take, as 2GiB [default: half of the machine's; on a card nine tenths
    /// of what is free there].
    #[arg(long, value_name = "SIZE", help_heading = "Running")]
    #[serde(serialize_with = "exact_bytes")]
    pub memory_budget: Option<ByteSize>,
    /// Where training runs; auto takes CUDA if this build has it [default: auto].
    #[arg(long, value_enum, help_heading = "Running")]
    pub device: Option<DeviceChoice>,
    #[command(flatten)]
    #[serde(flatten)]
    pub workers: WorkerOptions,
    /// What the trained layers are computed by: auto takes fused on the CPU and composed on CUDA
    /// [default: auto].
    #[arg(long, value_enum, help_heading = "Running")]
    pub ops: Option<OpsChoice>,
    /// Matrix products of the trained layers in bf16 or fp16, forward and backward, with fp32
    /// weights; by composed operations [default: none].
    #[arg(long, value_enum, value_name = "TYPE", help_heading = "Running")]
    pub mixed_precision: Option<MixedPrecision>,
    /// Keep only what goes into each layer for the backward pass, and compute the layer again from it
    /// there: less memory, the same weights, a third more work [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", help_heading = "Running")]
    pub recompute: Option<bool>,
    /// CPU threads [default: one a core].
    #[arg(long, value_name = "N", help_heading = "Running")]
    pub threads: Option<usize>,
    /// The cache must have been made with this many layers frozen.
    #[arg(long, value_name = "K", help_heading = "Checked against the cache")]
    pub freeze: Option<Freeze>,
    /// The cache must have been made from this training split.
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Checked against the cache")]
    #[serde(default, with = "split_files")]
    pub train: Option<Vec<PathBuf>>,
    /// The cache must have been made from this validation split.
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Checked against the cache")]
    #[serde(default, with = "split_files")]
    pub valid: Option<Vec<PathBuf>>,
    /// The cache must have been made from this test split.
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Checked against the cache")]
    #[serde(default, with = "split_files")]
    pub test: Option<Vec<PathBuf>>,
    /// The cache must have been made with this code base.
    #[arg(long, value_name = "FILE", help_heading = "Checked against the cache")]
    pub code_base: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    pub head: HeadOptions,
    #[command(flatten)]
    #[serde(flatten)]
    pub task: TaskOptions,
}

impl TrainOptions {
    /// What a run with this head is told, with the defaults filled in; `usual` is the head that goes
    /// without saying.
    pub(super) fn settings(
        &self,
        [head, usual]: [&HeadSettings; 2],
        config: &EncoderConfig,
        cache: &Cache,
    ) -> Result<TrainSettings, Error> {
        Ok(TrainSettings {
            shuffle: self.shuffle.unwrap_or_default().shuffle(cache),
            pooling: self.pooling.unwrap_or(head.default_pooling(config)),
            head: (head != usual).then(|| head.clone()),
            ..self.plain_settings()?
        })
    }

    /// Refuses numbers that mean nothing, before there is a cache.
    pub(in crate::cli) fn check(&self) -> Result<(), Error> {
        self.plain_settings().map(drop)
    }

    /// What depends neither on the cache nor on the head.
    fn plain_settings(&self) -> Result<TrainSettings, Error> {
        let default = TrainSettings::default();
        let settings = TrainSettings {
            epochs: self.epochs.unwrap_or(default.epochs),
            batch_size: self.batch_size.unwrap_or(default.batch_size),
            lr: self.lr.unwrap_or(default.lr),
            warmup: self.warmup.unwrap_or(default.warmup),
            schedule: self.schedule.unwrap_or_default(),
            gradient_accumulation: self
                .gradient_accumulation
                .unwrap_or(default.gradient_accumulation),
            layer_decay: self.layer_decay.unwrap_or(default.layer_decay),
            label_smoothing: self.label_smoothing.unwrap_or(default.label_smoothing),
            class_weights: self.class_weights.clone(),
            evaluate_every: self.evaluate_every,
            best_metric: self.best_metric.clone(),
            early_stopping: self.early_stopping,
            decode_samples: self.decode_samples,
            weight_decay: self.weight_decay.unwrap_or(default.weight_decay),
            clip: self.clip.unwrap_or(default.clip),
            dropout: self.dropout,
            seed: self.seed.unwrap_or(default.seed),
            log_every: self.log_every.unwrap_or(default.log_every),
            checkpoint_seconds: self
                .checkpoint_seconds
                .unwrap_or(default.checkpoint_seconds),
            ops: self.ops.unwrap_or_default(),
            mixed_precision: self.mixed_precision.unwrap_or_default(),
            recompute: self.recompute.unwrap_or_default(),
            micro_batch: self.micro_batch,
            memory_budget: self.memory_budget.map(|size| size.as_u64()),
            ..default
        };
        check_ranges(&settings)?;
        Ok(settings)
    }
}

/// Refuses numbers that mean nothing.
fn check_ranges(settings: &TrainSettings) -> Result<(), Error> {
    let not_negative = "0 or more";
    let below_one = "0 or more and less than 1";
    let any = f64::INFINITY;
    let dropout = settings.dropout.unwrap_or(0.0);
    let ranges = [
        ("--lr", settings.lr, 0.0..any, not_negative),
        (
            "--weight-decay",
            settings.weight_decay,
            0.0..any,
            not_negative,
        ),
        ("--clip", settings.clip, 0.0..any, not_negative),
        (
            "--warmup",
            settings.warmup,
            0.0..1.0f64.next_up(),
            "a share from 0 to 1",
        ),
        ("--dropout", dropout, 0.0..1.0, below_one),
        (
            "--label-smoothing",
            settings.label_smoothing,
            0.0..1.0,
            below_one,
        ),
        (
            "--layer-decay",
            settings.layer_decay,
            f64::MIN_POSITIVE..1.0f64.next_up(),
            "more than 0 and at most 1",
        ),
    ];
    let out_of_range = |flag: &str, found: f64, expected: &str| Error::Usage {
        problem: format!("`{flag} {found}` is out of range"),
        hint: format!("expected {expected}"),
    };
    for (flag, found, range, expected) in ranges {
        if !range.contains(&found) {
            return Err(out_of_range(flag, found, expected));
        }
    }
    let at_least_one = [
        ("--epochs", settings.epochs),
        ("--batch-size", settings.batch_size),
        ("--log-every", settings.log_every),
        ("--gradient-accumulation", settings.gradient_accumulation),
        ("--evaluate-every", settings.evaluate_every.unwrap_or(1)),
        ("--early-stopping", settings.early_stopping.unwrap_or(1)),
        ("--micro-batch", settings.micro_batch.unwrap_or(1)),
    ];
    match at_least_one.iter().find(|(_, found)| *found == 0) {
        Some((flag, _)) => Err(out_of_range(flag, 0.0, "1 or more")),
        None => Ok(()),
    }
}

/// Flags that say how source and target are put together: in a recipe, and where an encoding has them.
pub(super) const LAYOUT_FLAGS: [(&str, &str, &str); 2] = [
    ("prompt_template", "prompt", "template"),
    ("position_offset", "unixcoder", "position_offset"),
];

/// Every flag of this run with its value, so that `telly train --recipe` repeats it.
pub(super) fn resolved_recipe(
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
    let encoding = table(toml::Table::try_from(encoding));
    let settings = table(toml::Table::try_from(settings));
    let settled = encoding.into_iter().chain(settings);
    // What follows from the fields, and what `--head` and its like say.
    recipe.extend(settled.filter(|(key, _)| key != "form" && key != "head"));
    let layout = recipe.remove("layout");
    for (flag, layout_name, field) in LAYOUT_FLAGS {
        let settled = layout
            .as_ref()
            .and_then(|it| it.get(layout_name)?.get(field));
        if let Some(value) = settled {
            recipe.insert(flag.into(), value.clone());
        }
    }
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
