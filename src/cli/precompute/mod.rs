//! `telly precompute`.

mod dry_run;
mod pooled;
mod shard;

use std::path::{Path, PathBuf};
use std::time::Instant;

use bytesize::ByteSize;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::cache::{
    self, Fingerprint, Freshness, MANIFEST, Manifest, Parity, Precision, SHARD_BYTES, Share, Writer,
};
use crate::checkpoint::Checkpoint;
use crate::cli::freeze_list::FreezeList;
use crate::cli::options::{RuntimeOptions, exact_bytes, limit_threads, missing};
use crate::cli::task::{TaskOptions, foreign_flag};
use crate::cli::{console, hub, parity, recipe, split_files};
use crate::dataset::Source;
use crate::error::Error;
use crate::frozen::onnx::{self, Start};
use crate::frozen::{FrozenEncoder, FrozenPrecision, Runtime};
use crate::precompute::{EncodedSplits, FromTokens, Plan, States, check_parity, fill};
use crate::task::{Encoding, Role, TaskKind};
use crate::train::peak_rss_bytes;
use pooled::PooledOptions;

/// Run the frozen half over the data, once, into an activation cache.
///
/// Identical token sequences are computed and stored once. Stopped at any moment, the same
/// command goes on where it was.
#[derive(Args)]
#[command(after_help = "\
Examples:
  telly precompute --task search --model models/all-MiniLM-L6-v2 --train train.jsonl \\
      --valid valid.jsonl --test test.jsonl --freeze 4 --cache cache/mine
  telly precompute --task classify --model models/all-MiniLM-L6-v2 --data data/defects \\
      --freeze 4 --cache cache/defects      (train.csv, valid.csv ... in data/defects)

  telly precompute --task classify --model models/all-MiniLM-L6-v2 --train 2023.jsonl 2024.jsonl \\
      --valid valid.jsonl --freeze 4 --cache cache/years
  telly precompute --task clone --model models/unixcoder-base --train pairs.jsonl \\
      --valid valid.jsonl --first-field func1 --second-field func2 --freeze 8 --cache cache/pairs
  telly precompute --task clone --model models/unixcoder-base --train functions.jsonl \\
      --valid valid.jsonl --text-field code --label-field label --freeze 8 --cache cache/groups
  telly precompute --task search --model models/unixcoder-base --train train.jsonl \\
      --valid valid.jsonl --code-base codebase.jsonl --freeze 8 --cache cache/search

  telly precompute --task search --model microsoft/unixcoder-base ... takes the model from the hub
  (HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE as in Python).

  telly precompute --task search --model models/unixcoder-base --data data/search --freeze 10 \\
      --cache cache/mine --provider cuda --cuda-devices 0,1 --frozen-precision fp16
  (docs/cards.md; none of it has run on a GPU)

  telly precompute --pooled --model models/unixcoder-base --data test.jsonl --text-field code \\
      --cache cache/base-vectors      (for telly rsa: one vector a text and layer)

  With --freeze 2,4,5 one pass over the data fills cache/mine/freeze-2, freeze-4 and freeze-5.")]
pub(super) struct PrecomputeArguments {
    #[command(flatten)]
    options: PrecomputeOptions,
    #[command(flatten)]
    pub(super) pooled: PooledOptions,
    /// TOML file with any of these flags, `_` for `-`; a flag typed wins.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Replace a cache that was made from something else.
    #[arg(long)]
    pub(super) force: bool,
    /// Compute only share i of n, on one of several machines; the last puts the cache together.
    /// `auto`: as the Slurm job array says; `auto/n`: as the Kubernetes indexed job says.
    #[arg(long, value_name = "I/N")]
    pub(super) shard: Option<String>,
    /// Say what the cache will take and whether it is worth it, and write nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// End with one JSON object on stdout.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Serialize, Deserialize)]
pub(super) struct PrecomputeOptions {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) task: TaskOptions,
    /// Folder of the pre-trained model, or owner/name[@revision] of one on the Hugging Face hub.
    #[arg(long, value_name = "MODEL", help_heading = "Input")]
    pub(super) model: Option<PathBuf>,
    /// Folder of all splits: train.jsonl, valid.jsonl and test.jsonl, or in any other format. With --pooled a
    /// file of texts, or a folder with a test split.
    #[arg(long, value_name = "FOLDER", help_heading = "Input")]
    pub(super) data: Option<PathBuf>,
    /// Training split: JSON Lines, a JSON array, .csv, .tsv (each in .gz or .zst too) or .parquet; or
    /// a folder that has it. Several are read one after the other.
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Input")]
    #[serde(default, with = "split_files")]
    train: Option<Vec<PathBuf>>,
    /// Validation split: evaluated each epoch, chooses the weights that are kept.
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Input")]
    #[serde(default, with = "split_files")]
    valid: Option<Vec<PathBuf>>,
    /// Test split: evaluated once, at the end.
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Input")]
    #[serde(default, with = "split_files")]
    test: Option<Vec<PathBuf>>,
    /// search: the codes that the queries of --valid and --test are searched in [default: those of
    /// the split itself].
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    code_base: Option<PathBuf>,
    /// Freeze the embeddings and layers 0..K-1; 0: the embeddings alone; none: nothing. Several, as
    /// 2,4,5 or 0..6, fill a cache each in one pass.
    #[arg(long, value_name = "K", help_heading = "Output")]
    pub(super) freeze: Option<FreezeList>,
    /// Folder of the cache; with several K, of the folders freeze-K.
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    pub(super) cache: Option<PathBuf>,
    /// How activations are stored [default: fp16].
    #[arg(long, value_enum, help_heading = "Output")]
    precision: Option<Precision>,
    /// Most bytes of a file of the cache, as 128MiB [default: 128MiB].
    #[arg(long, value_name = "SIZE", help_heading = "Output")]
    #[serde(serialize_with = "exact_bytes")]
    shard_size: Option<ByteSize>,
    /// What the frozen half's linear layers compute in; fp16 is made for CUDA, tf32 and bf16 run
    /// there only, int8 on the CPU only [default: fp32].
    #[arg(long, value_enum, help_heading = "Running")]
    frozen_precision: Option<FrozenPrecision>,
    /// Also write the frozen half as an ONNX model: this file, and its weights beside it.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    graph: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) runtime: RuntimeOptions,
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
    if arguments.pooled.pooled {
        return pooled::run(arguments, &options);
    }
    let started = Instant::now();
    let share = arguments.shard.as_deref().map(shard::resolve).transpose()?;
    options.task.task.ok_or_else(|| missing("--task"))?;
    let freeze = options.freeze.as_ref();
    let freeze = freeze.ok_or_else(|| missing("--freeze"))?;
    let folder = options.cache.as_deref().ok_or_else(|| missing("--cache"))?;
    let folders = folders(folder, freeze)?;
    let model = options.model.as_deref().ok_or_else(|| missing("--model"))?;
    let mut checkpoint = Checkpoint::open(&hub::located(model)?)?;
    freeze.check(&checkpoint.folder, checkpoint.config.layers)?;
    let (encoding, splits) = encode(&options, &mut checkpoint)?;
    let precision = frozen_precision(&options, freeze)?;
    let mut frozen = open_frozen(&options, &checkpoint, &encoding, freeze, precision)?;
    let mut plan = Plan::new(
        &checkpoint,
        freeze.freezes(),
        &encoding,
        options.precision.unwrap_or(Precision::Fp16),
        options.shard_size.map_or(SHARD_BYTES, shard_bytes),
        splits,
        frozen.as_ref().map(|(runtime, encoder)| (runtime, encoder)),
    )?;
    announce(&plan);
    let places = places(&folders, share);
    say_freshness(&plan, &places);
    let mut frozen = frozen.as_mut().map(|(_, encoder)| encoder);
    if let Some(frozen) = &mut frozen {
        let mut states = FromTokens {
            frozen,
            sequences: &plan.sequences,
        };
        let force = arguments.force;
        let check = |parity: &Parity| check_parity(parity, precision);
        let parities = parity::measure(&plan, &mut states, &checkpoint, check, &places, force)?;
        for (manifest, parity) in plan.manifests.iter_mut().zip(parities) {
            manifest.parity = parity;
        }
    }
    if arguments.dry_run {
        return dry_run::report(&plan, frozen, folder, arguments.json);
    }
    if let Some(path) = &options.graph {
        write_graph(path, &checkpoint, freeze, precision)?;
    }
    let mut writers = open_writers(&plan, &folders, share, arguments.force)?;
    // What is gone on with was judged when it was begun, and whoever takes shares has decided.
    let begun = |writer: &Writer| writer.missing().len() < plan.layout().shards.len();
    if let Some(frozen) = &mut frozen
        && !writers.iter().any(begun)
    {
        dry_run::say_verdict(&plan, frozen, folder);
    }
    let provider = frozen.as_ref().map(|frozen| frozen.provider().to_string());
    let filling = Instant::now();
    let mut states = frozen.map(|frozen| FromTokens {
        frozen,
        sequences: &plan.sequences,
    });
    let states = states.as_mut().map(|states| states as &mut dyn States);
    let computed = fill(&mut writers, &plan, states, "precompute")?;
    let rate = computed as f64 / filling.elapsed().as_secs_f64().max(1e-9);
    let manifests = finish(writers, &folders, share)?;
    let bytes: u64 = manifests.iter().map(|manifest| manifest.bytes).sum();
    let mut object = json!({
        "sequences": plan.all_sequences(),
        "unique_sequences": plan.layout().sequences,
        "tokens": plan.layout().tokens,
        "bytes": bytes,
        "seconds": started.elapsed().as_secs_f64(),
        "tokens_per_second": rate,
        "computed_tokens": computed,
        "peak_rss_bytes": peak_rss_bytes(),
        "provider": provider,
        "cache": folder.display().to_string(),
        "complete": manifests.iter().all(|manifest| manifest.complete),
    });
    if manifests.len() > 1 {
        object["caches"] = describe(&manifests, &folders);
    }
    console::result(arguments.json, object.as_object().unwrap_or(&Map::new()))
}

/// How the records are encoded, and that of every split.
fn encode(
    options: &PrecomputeOptions,
    checkpoint: &mut Checkpoint,
) -> Result<(Encoding, EncodedSplits), Error> {
    // What is wrong with the flags is told before a large file is read.
    options.task.encoding(checkpoint, None)?;
    let splits = find_splits(options)?;
    let training = splits.first().map(|(_, source)| source);
    let encoding = options.task.encoding(checkpoint, training)?;
    encoding.prepare(checkpoint)?;
    encoding.check_lengths(checkpoint.config.longest_sequence())?;
    if options.code_base.is_some() && encoding.task() != TaskKind::Search {
        return Err(foreign_flag("--code-base", encoding.task()));
    }
    let splits = EncodedSplits::new(checkpoint, &encoding, &splits)?;
    splits.notices().for_each(console::say);
    Ok((encoding, splits))
}

/// Where the cache of each depth lies: a single one in `folder` itself.
fn folders(folder: &Path, freeze: &FreezeList) -> Result<Vec<PathBuf>, Error> {
    let freezes = match freeze.freezes() {
        [_] => return Ok(vec![folder.to_owned()]),
        freezes => freezes.iter(),
    };
    if folder.join(MANIFEST).is_file() {
        return Err(Error::Usage {
            problem: format!(
                "`{}` is a cache itself, `--freeze {freeze}` needs a folder for several",
                folder.display()
            ),
            hint: "choose another `--cache`".into(),
        });
    }
    let names = freezes.map(|freeze| folder.join(format!("freeze-{freeze}")));
    Ok(names.collect())
}

/// Where this process writes: to `folders`, or to those of its `share` there.
fn places(folders: &[PathBuf], share: Option<Share>) -> Vec<PathBuf> {
    let places = folders.iter().map(|folder| match share {
        Some(share) => share.folder(folder),
        None => folder.clone(),
    });
    places.collect()
}

/// Says what there is in `places`. A manifest that cannot be read is the writer's to complain
/// about.
fn say_freshness(plan: &Plan, places: &[PathBuf]) {
    for (place, manifest) in places.iter().zip(&plan.manifests) {
        let differences = |cached: &Fingerprint| cached.all_differences(&manifest.fingerprint);
        match Freshness::of(place, differences) {
            Ok(freshness) if places.len() > 1 => {
                console::say(&format!("{}: {freshness}", place.display()));
            }
            Ok(freshness) => console::freshness(&freshness),
            Err(_) => {}
        }
    }
}

/// Each cache's K, folder and bytes.
fn describe(manifests: &[Manifest], folders: &[PathBuf]) -> Value {
    let caches = manifests.iter().zip(folders).map(|(manifest, folder)| {
        json!({
            "freeze": manifest.fingerprint.get("freeze"),
            "cache": folder.display().to_string(),
            "bytes": manifest.bytes,
        })
    });
    caches.collect()
}

/// Starts or goes on with the caches that `plan` has, or one `share` of each.
fn open_writers(
    plan: &Plan,
    folders: &[PathBuf],
    share: Option<Share>,
    force: bool,
) -> Result<Vec<Writer>, Error> {
    let (all, splits) = (&plan.sequences, &plan.splits);
    let caches = folders.iter().zip(plan.manifests.iter().cloned());
    let writers = caches.map(|(folder, manifest)| match share {
        Some(share) => Writer::open_share(folder, share, manifest, all, splits, force),
        None => Writer::open(folder, manifest, all, splits, force),
    });
    let writers = writers.collect::<Result<Vec<_>, _>>()?;
    Writer::check_space_for_all(&writers)?;
    if writers.iter().all(|writer| writer.missing().is_empty()) {
        console::say("nothing to compute");
    }
    Ok(writers)
}

/// Ends what `writers` wrote to `folders`, and puts each cache together whose last share this was.
fn finish(
    writers: Vec<Writer>,
    folders: &[PathBuf],
    share: Option<Share>,
) -> Result<Vec<Manifest>, Error> {
    let manifests = writers.into_iter().map(Writer::finish);
    let mut manifests = manifests.collect::<Result<Vec<_>, _>>()?;
    if let Some(share) = share {
        console::say(&format!("share {share} is finished"));
        for (manifest, folder) in manifests.iter_mut().zip(folders) {
            if let Some(merged) = merge_if_last(folder, share)? {
                *manifest = merged;
            }
        }
    }
    Ok(manifests)
}

/// `--shard-size` in bytes.
pub(super) fn shard_bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
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

/// Where the splits are: named one by one, or all in the folder `--data`.
fn find_splits(options: &PrecomputeOptions) -> Result<Vec<(String, Source)>, Error> {
    let named = [
        ("train", &options.train),
        ("valid", &options.valid),
        ("test", &options.test),
    ];
    let mut splits = Vec::new();
    for (name, paths) in named {
        let source = match (paths, &options.data) {
            (Some(paths), _) => Some(Source::of_all(paths, name)?),
            (None, Some(folder)) if name == "train" => Some(Source::of(folder, name)?),
            (None, Some(folder)) => Source::in_folder(folder, name)?,
            (None, None) if name == "train" => return Err(missing("--train")),
            (None, None) => None,
        };
        splits.extend(source.map(|source| (name.to_owned(), source)));
    }
    if let Some(path) = &options.code_base {
        let name = Role::CODE_BASE;
        splits.push((name.to_owned(), Source::of(path, name)?));
    }
    Ok(splits)
}

/// `--frozen-precision`, which needs a frozen half to mean anything.
fn frozen_precision(
    options: &PrecomputeOptions,
    freeze: &FreezeList,
) -> Result<FrozenPrecision, Error> {
    let precision = options.frozen_precision.unwrap_or_default();
    if precision != FrozenPrecision::Fp32 && freeze.depths().is_none() {
        return Err(Error::Usage {
            problem: format!(
                "`--frozen-precision {precision}` has nothing to act on with `--freeze none`"
            ),
            hint: "freeze some layers, or leave the flag out".into(),
        });
    }
    Ok(precision)
}

/// ONNX Runtime and the frozen half in it, unless nothing is frozen.
fn open_frozen(
    options: &PrecomputeOptions,
    checkpoint: &Checkpoint,
    encoding: &Encoding,
    freeze: &FreezeList,
    precision: FrozenPrecision,
) -> Result<Option<(Runtime, FrozenEncoder)>, Error> {
    let Some(depths) = freeze.depths() else {
        return Ok(None);
    };
    let runtime = options.runtime.runtime()?;
    let session = options
        .runtime
        .session(precision, Some(encoding.longest()))?;
    let frozen = FrozenEncoder::new(&runtime, checkpoint, &depths, &session)?;
    match frozen.fallback() {
        Some(reason) => console::say(&format!(
            "CUDA cannot be used, running on the CPU: {reason}"
        )),
        None => console::say(&format!(
            "frozen half: {freeze} of {} layers in {precision}, ONNX Runtime {} on {}",
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
    freeze: &FreezeList,
    precision: FrozenPrecision,
) -> Result<(), Error> {
    let Some(depths) = freeze.depths() else {
        return Err(Error::Usage {
            problem: "`--graph` has nothing to write with `--freeze none`".into(),
            hint: "freeze at least the embeddings: `--freeze 0`".into(),
        });
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let data_name = format!("{name}.data");
    let model = onnx::write(checkpoint, Start::TokenIds, &depths, precision, &data_name)?;
    fs_err::write(path.with_file_name(&data_name), &model.data).map_err(Error::Output)?;
    fs_err::write(path, &model.graph).map_err(Error::Output)
}

fn announce(plan: &Plan) {
    let layout = plan.layout();
    let all: usize = plan.splits.iter().map(|split| split.tokens).sum();
    console::say(&format!(
        "{} sequences, {} distinct; {all} tokens, {} distinct; cache of {:.1} MB in {} shards",
        plan.all_sequences(),
        layout.sequences,
        layout.tokens,
        plan.bytes() as f64 / 1e6,
        plan.manifests.len() * layout.shards.len(),
    ));
}
