//! `telly precompute`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bytesize::ByteSize;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use super::options::{RuntimeOptions, TaskOptions, limit_threads, missing};
use super::{console, dry_run, recipe, shard};
use crate::cache::{self, Freshness, Manifest, Parity, Precision, SHARD_BYTES, Share, Writer};
use crate::checkpoint::{Checkpoint, Freeze};
use crate::dataset::Dataset;
use crate::error::Error;
use crate::frozen::{FrozenEncoder, FrozenPrecision, Runtime, onnx};
use crate::precompute::{EncodedSplits, Plan, Records, check_parity, fill, probe};

/// Run the frozen half over the data, once, into an activation cache.
///
/// Identical token sequences are computed and stored once. Stopped at any moment, the same
/// command goes on where it was.
#[derive(Args)]
#[command(after_help = "\
Example:
  telly precompute --task search --model models/all-MiniLM-L6-v2 --train train.jsonl \\
      --valid valid.jsonl --test test.jsonl --freeze 4 --cache cache/mine")]
pub(super) struct PrecomputeArguments {
    #[command(flatten)]
    options: PrecomputeOptions,
    /// TOML file with any of these flags, `_` for `-`; a flag typed wins.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Replace a cache that was made from something else.
    #[arg(long)]
    force: bool,
    /// Compute only share i of n, on one of several machines; the last puts the cache together.
    /// `auto`: as the Slurm job array says; `auto/n`: as the Kubernetes indexed job says.
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// Say what the cache will take and whether it is worth it, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Serialize, Deserialize)]
struct PrecomputeOptions {
    #[command(flatten)]
    #[serde(flatten)]
    task: TaskOptions,
    /// Folder of the pre-trained model.
    #[arg(long, value_name = "FOLDER", help_heading = "Input")]
    model: Option<PathBuf>,
    /// Training split, JSON Lines (.gz too).
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    train: Option<PathBuf>,
    /// Validation split: evaluated each epoch, chooses the weights that are kept.
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    valid: Option<PathBuf>,
    /// Test split: evaluated once, at the end.
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    test: Option<PathBuf>,
    /// Freeze the embeddings and layers 0..K-1; 0: the embeddings alone; none: nothing.
    #[arg(long, value_name = "K", help_heading = "Output")]
    freeze: Option<Freeze>,
    /// Folder of the cache.
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    cache: Option<PathBuf>,
    /// How activations are stored [default: fp16].
    #[arg(long, value_enum, help_heading = "Output")]
    precision: Option<Precision>,
    /// Most bytes of a file of the cache, as 128MiB [default: 128MiB].
    #[arg(long, value_name = "SIZE", help_heading = "Output")]
    shard_size: Option<ByteSize>,
    /// What the frozen half's linear layers compute in; int8 runs on the CPU only [default: fp32].
    #[arg(long, value_enum, help_heading = "Running")]
    frozen_precision: Option<FrozenPrecision>,
    /// Also write the frozen half as an ONNX model: this file, and its weights beside it.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    graph: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    runtime: RuntimeOptions,
}

impl PrecomputeArguments {
    /// Whether the recipe can be read.
    pub(super) fn check_recipe(&self) -> Result<(), Error> {
        recipe::resolve(&self.options, self.recipe.as_deref()).map(drop)
    }
}

pub(super) fn run(arguments: &PrecomputeArguments) -> Result<(), Error> {
    let options = recipe::resolve(&arguments.options, arguments.recipe.as_deref())?;
    limit_threads(options.runtime.threads)?;
    let started = Instant::now();
    let share = arguments.shard.as_deref().map(shard::resolve).transpose()?;
    let encoding = options.task.encoding()?;
    let freeze = options.freeze.ok_or_else(|| missing("--freeze"))?;
    let folder = options.cache.as_deref().ok_or_else(|| missing("--cache"))?;
    let model = options.model.as_deref().ok_or_else(|| missing("--model"))?;
    let checkpoint = Checkpoint::open(model)?;
    check_freeze(freeze, &checkpoint)?;
    encoding.check_lengths(checkpoint.config.longest_sequence())?;
    let splits = EncodedSplits::new(&checkpoint, &encoding, &read_splits(&options)?)?;
    let precision = frozen_precision(&options, freeze)?;
    let shard_bytes = options.shard_size.map_or(SHARD_BYTES, |size| {
        usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
    });
    let mut frozen = open_frozen(&options, &checkpoint, freeze, precision)?;
    let mut plan = Plan::new(
        &checkpoint,
        freeze,
        &encoding,
        options.precision.unwrap_or(Precision::Fp16),
        shard_bytes,
        splits,
        frozen.as_ref().map(|(runtime, encoder)| (runtime, encoder)),
    )?;
    announce(&plan);
    let place = share.map_or_else(|| folder.to_owned(), |share| share.folder(folder));
    // A manifest that cannot be read is the writer's to complain about.
    if let Ok(freshness) = Freshness::of(&place, &plan.manifest.fingerprint) {
        console::freshness(&freshness);
    }
    if let Some((_, frozen)) = &mut frozen {
        let known = known_parity(&place, &plan.manifest, arguments.force);
        let parity = measure_parity(known, frozen, &checkpoint, freeze, &plan)?;
        plan.manifest.parity = parity;
    }
    if arguments.dry_run {
        let frozen = frozen.as_mut().map(|(_, encoder)| encoder);
        return dry_run::report(&plan, frozen, folder, arguments.json);
    }
    if let Some(path) = &options.graph {
        write_graph(path, &checkpoint, freeze, precision)?;
    }
    let sequences = plan.all_sequences();
    let (manifest, all) = (plan.manifest, &plan.sequences);
    let mut writer = match share {
        Some(share) => {
            Writer::open_share(folder, share, manifest, all, &plan.splits, arguments.force)?
        }
        None => Writer::open(folder, manifest, all, &plan.splits, arguments.force)?,
    };
    if writer.missing().is_empty() {
        console::say("nothing to compute");
    }
    let frozen = frozen.as_mut().map(|(_, encoder)| encoder);
    let provider = frozen.as_ref().map(|frozen| frozen.provider().to_string());
    let filling = Instant::now();
    let computed = fill(&mut writer, &plan.sequences, Records(&plan.splits), frozen)?;
    let rate = computed as f64 / filling.elapsed().as_secs_f64().max(1e-9);
    let mut manifest = writer.finish()?;
    if let Some(share) = share {
        console::say(&format!("share {share} is finished"));
        if let Some(merged) = merge_if_last(folder, share)? {
            manifest = merged;
        }
    }
    let object = json!({
        "sequences": sequences,
        "unique_sequences": manifest.sequences,
        "tokens": manifest.tokens,
        "bytes": manifest.bytes,
        "seconds": started.elapsed().as_secs_f64(),
        "tokens_per_second": rate,
        "computed_tokens": computed,
        "provider": provider,
        "cache": folder.display().to_string(),
        "complete": manifest.complete,
    });
    console::result(arguments.json, object.as_object().unwrap_or(&Map::new()))
}

/// Puts the cache together if `share` was the last; none if others are missing, or if another
/// process that was the last as well is doing it.
fn merge_if_last(folder: &Path, share: Share) -> Result<Option<Manifest>, Error> {
    if !cache::all_finished(folder, share) {
        return Ok(None);
    }
    match cache::merge(folder) {
        Ok(manifest) => {
            console::say("all shares were there: the cache is put together");
            Ok(Some(manifest))
        }
        Err(
            cache::Error::Locked { .. }
            | cache::Error::NoShares { .. }
            | cache::Error::Share { .. },
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn check_freeze(freeze: Freeze, checkpoint: &Checkpoint) -> Result<(), Error> {
    let layers = checkpoint.config.layers;
    if freeze.layers() > layers {
        return Err(Error::Usage {
            problem: format!(
                "`--freeze {freeze}`: `{}` has {layers} layers",
                checkpoint.folder.display()
            ),
            hint: format!("pass a number from 0 to {layers}, or none"),
        });
    }
    Ok(())
}

fn read_splits(options: &PrecomputeOptions) -> Result<Vec<(String, Dataset)>, Error> {
    let train = options.train.as_ref().ok_or_else(|| missing("--train"))?;
    let others = [("valid", &options.valid), ("test", &options.test)];
    let others = others
        .into_iter()
        .filter_map(|(name, path)| Some((name, path.as_ref()?)));
    std::iter::once(("train", train))
        .chain(others)
        .map(|(name, path)| Ok((name.to_owned(), Dataset::read(path)?)))
        .collect()
}

/// `--frozen-precision`, which needs a frozen half to mean anything.
fn frozen_precision(options: &PrecomputeOptions, freeze: Freeze) -> Result<FrozenPrecision, Error> {
    match (options.frozen_precision, freeze) {
        (Some(FrozenPrecision::Int8), Freeze::Nothing) => Err(Error::Usage {
            problem: "`--frozen-precision int8` has nothing to act on with `--freeze none`".into(),
            hint: "freeze some layers, or leave the flag out".into(),
        }),
        (precision, _) => Ok(precision.unwrap_or_default()),
    }
}

/// ONNX Runtime and the frozen half in it, unless nothing is frozen.
fn open_frozen(
    options: &PrecomputeOptions,
    checkpoint: &Checkpoint,
    freeze: Freeze,
    precision: FrozenPrecision,
) -> Result<Option<(Runtime, FrozenEncoder)>, Error> {
    let Freeze::Layers(layers) = freeze else {
        return Ok(None);
    };
    let runtime = options.runtime.runtime()?;
    let session = options.runtime.session(precision);
    let frozen = FrozenEncoder::new(&runtime, checkpoint, layers, &session)?;
    match frozen.fallback() {
        Some(reason) => console::say(&format!(
            "CUDA cannot be used, running on the CPU: {reason}"
        )),
        None => console::say(&format!(
            "frozen half: {layers} of {} layers in {precision}, ONNX Runtime {} on {}",
            checkpoint.config.layers,
            runtime.version,
            frozen.provider()
        )),
    }
    Ok(Some((runtime, frozen)))
}

fn write_graph(
    path: &Path,
    checkpoint: &Checkpoint,
    freeze: Freeze,
    precision: FrozenPrecision,
) -> Result<(), Error> {
    let Freeze::Layers(layers) = freeze else {
        return Err(Error::Usage {
            problem: "`--graph` has nothing to write with `--freeze none`".into(),
            hint: "freeze at least the embeddings: `--freeze 0`".into(),
        });
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let data_name = format!("{name}.data");
    let model = onnx::write(checkpoint, &[layers], precision, &data_name)?;
    fs_err::write(path.with_file_name(&data_name), &model.data).map_err(Error::Output)?;
    fs_err::write(path, &model.graph).map_err(Error::Output)
}

/// What was measured when the cache in `folder` was begun, if `planned` goes on with it: the
/// manifest must end the same however often it was stopped.
fn known_parity(folder: &Path, planned: &Manifest, force: bool) -> Option<Parity> {
    // A manifest that cannot be read is the writer's to complain about.
    let begun = Manifest::read(folder).ok().filter(|_| !force)?;
    begun
        .parity
        .filter(|_| begun.fingerprint == planned.fingerprint)
}

/// Probes `frozen`, unless it is `known` already, and refuses what is past the bound.
fn measure_parity(
    known: Option<Parity>,
    frozen: &mut FrozenEncoder,
    checkpoint: &Checkpoint,
    freeze: Freeze,
    plan: &Plan,
) -> Result<Option<Parity>, Error> {
    let parity = if known.is_some() {
        known
    } else {
        let records = Records(&plan.splits);
        probe(
            frozen,
            checkpoint,
            freeze.layers(),
            &plan.sequences,
            records,
        )?
    };
    if let Some(parity) = &parity {
        say_parity(parity);
        check_parity(parity, frozen.precision())?;
    }
    Ok(parity)
}

fn say_parity(parity: &Parity) {
    console::say(&format!(
        "frozen half against fp32: max error {:.1e}, mean {:.1e}, cosine mean {:.6}, lowest {:.6} ({} tokens of {} sequences)",
        parity.max_absolute_error,
        parity.mean_absolute_error,
        parity.mean_cosine,
        parity.min_cosine,
        parity.tokens,
        parity.sequences,
    ));
}

fn announce(plan: &Plan) {
    let manifest = &plan.manifest;
    let all: usize = plan.splits.iter().map(|split| split.tokens).sum();
    console::say(&format!(
        "{} sequences, {} distinct; {all} tokens, {} distinct; cache of {:.1} MB in {} shards",
        plan.all_sequences(),
        manifest.sequences,
        manifest.tokens,
        manifest.bytes as f64 / 1e6,
        manifest.shards.len(),
    ));
}
