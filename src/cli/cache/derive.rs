//! `telly cache derive`.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use bytesize::ByteSize;
use clap::Args;
use serde_json::{Map, json};

use crate::cache::{self, Cache, Fingerprint, MANIFEST, Parity, Precision, Writer};
use crate::checkpoint::{Checkpoint, Freeze};
use crate::cli::options::{RuntimeOptions, limit_threads};
use crate::cli::precompute::shard_bytes;
use crate::cli::{console, hub, parity};
use crate::error::Error;
use crate::frozen::{FrozenLayers, FrozenPrecision, Provider, ProviderChoice, Runtime};
use crate::precompute::{FromCache, Plan, check_derived_parity, check_parity, fill};
use crate::progress::Progress;
use crate::task::Encoding;

/// Make a cache of more frozen layers out of one that is there, by running only the layers in
/// between.
///
/// From a cache in fp32 it has the bytes of one that `telly precompute` makes. From any other, and
/// with another --frozen-precision than fp32, it is close to that, and says in its fingerprint what it was
/// derived from. Stopped at any moment, the
/// same command goes on where it was.
#[derive(Args)]
#[command(after_help = "\
Example:
  telly precompute --task search --model models/all-MiniLM-L6-v2 --train train.jsonl \\
      --freeze 2 --precision fp32 --cache cache/two
  telly cache derive cache/two --freeze 4 --out cache/four")]
pub(in crate::cli) struct DeriveArguments {
    /// Folder of the cache to start from.
    folder: PathBuf,
    /// Freeze the embeddings and layers 0..K-1: more than the cache has.
    #[arg(long, value_name = "K")]
    freeze: usize,
    /// Folder of the new cache.
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    out: PathBuf,
    /// How activations are stored [default: as in the cache].
    #[arg(long, value_enum, help_heading = "Output")]
    precision: Option<Precision>,
    /// Most bytes of a file of the cache, as 128MiB [default: that of the cache].
    #[arg(long, value_name = "SIZE", help_heading = "Output")]
    shard_size: Option<ByteSize>,
    /// Folder of the pre-trained model [default: where it lay when the cache was made].
    #[arg(long, value_name = "FOLDER", help_heading = "Input")]
    model: Option<PathBuf>,
    #[command(flatten)]
    runtime: RuntimeOptions,
    /// Replace a cache that was made from something else.
    #[arg(long)]
    force: bool,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &DeriveArguments) -> Result<(), Error> {
    limit_threads(arguments.runtime.threads)?;
    let started = Instant::now();
    let source = Cache::open(&arguments.folder)?;
    check_folders(&arguments.folder, &arguments.out)?;
    let contents = Contents::of(&source)?;
    let mut checkpoint = open_checkpoint(arguments.model.as_deref(), &source)?;
    contents.encoding.prepare(&mut checkpoint)?;
    check_freeze(arguments, &checkpoint, contents.layers)?;
    // Damage would be passed on under a good checksum.
    check_files(&arguments.folder)?;
    let runtime = arguments.runtime.runtime()?;
    let mut layers = open_layers(arguments, &runtime, &checkpoint, &contents)?;
    let mut plan = Plan::derived(
        &source,
        &checkpoint,
        &runtime,
        &layers,
        arguments.precision.unwrap_or(contents.precision),
        arguments.shard_size.map(shard_bytes),
    )?;
    let (exact, precision) = (!plan.is_inexact(), layers.precision());
    if !exact {
        console::say(
            "its states are not to the bit those of one made from nothing: `derived_from` in the fingerprint says so",
        );
    }
    let provider = layers.provider().to_string();
    let mut states = FromCache {
        layers: &mut layers,
        source: &source,
    };
    let check = |parity: &Parity| {
        if exact {
            check_parity(parity, precision)
        } else {
            check_derived_parity(parity)
        }
    };
    let out = std::slice::from_ref(&arguments.out);
    let force = arguments.force;
    let parities = parity::measure(&plan, &mut states, &checkpoint, check, out, force)?;
    for (manifest, parity) in plan.manifests.iter_mut().zip(parities) {
        manifest.parity = parity;
    }
    let writer = Writer::open(
        &arguments.out,
        plan.layout().clone(),
        &plan.sequences,
        &plan.splits,
        force,
    )?;
    let mut writers = [writer];
    let filling = Instant::now();
    let computed = fill(&mut writers, &plan, Some(&mut states), "derive")?;
    let rate = computed as f64 / filling.elapsed().as_secs_f64().max(1e-9);
    let [writer] = writers;
    let manifest = writer.finish()?;
    let object = json!({
        "sequences": plan.all_sequences(),
        "unique_sequences": manifest.sequences,
        "tokens": manifest.tokens,
        "bytes": manifest.bytes,
        "seconds": started.elapsed().as_secs_f64(),
        "tokens_per_second": rate,
        "computed_tokens": computed,
        "provider": provider,
        "cache": arguments.out.display().to_string(),
        "complete": manifest.complete,
        "derived_from": arguments.folder.display().to_string(),
        "exact": exact,
    });
    console::result(arguments.json, object.as_object().unwrap_or(&Map::new()))
}

/// What the manifest says in the frozen half's own words.
struct Contents {
    layers: usize,
    encoding: Encoding,
    precision: Precision,
    frozen_precision: FrozenPrecision,
    provider: Option<Provider>,
}

impl Contents {
    fn of(source: &Cache) -> Result<Self, Error> {
        let manifest = source.manifest();
        let Some(precision) = manifest.precision else {
            return Err(Error::Usage {
                problem: format!(
                    "the cache `{}` holds token ids alone: nothing was frozen",
                    source.folder().display()
                ),
                hint: "make the cache with `telly precompute --freeze K`".into(),
            });
        };
        let field = |name: &str| manifest.fingerprint.get(name);
        let damaged = |name: &str| cache::Error::Damaged {
            path: source.folder().join(MANIFEST),
            problem: format!("`{name}` is {}", field(name)),
        };
        let freeze = serde_json::from_value(field("freeze").clone());
        let freeze: Freeze = freeze.map_err(|_| damaged("freeze"))?;
        let encoding = serde_json::from_value(manifest.encoding.clone());
        // Absent in caches of before there was a choice.
        let frozen_precision: Result<Option<FrozenPrecision>, _> =
            serde_json::from_value(field("frozen_precision").clone());
        let frozen_precision = frozen_precision.map_err(|_| damaged("frozen_precision"))?;
        Ok(Self {
            layers: freeze.layers(),
            encoding: encoding.map_err(|_| damaged("encoding"))?,
            precision,
            frozen_precision: frozen_precision.unwrap_or_default(),
            provider: serde_json::from_value(field("provider").clone()).ok(),
        })
    }
}

/// A cache that is derived into itself would lose what it is derived from.
fn check_folders(source: &Path, out: &Path) -> Result<(), Error> {
    let [source, out] = [source, out].map(fs_err::canonicalize);
    if matches!((source, out), (Ok(source), Ok(out)) if source == out) {
        return Err(Error::Usage {
            problem: "`--out` is the folder of the cache to start from".into(),
            hint: "choose another `--out`".into(),
        });
    }
    Ok(())
}

/// The model that `source` was made from, which may lie elsewhere now.
fn open_checkpoint(moved: Option<&Path>, source: &Cache) -> Result<Checkpoint, Error> {
    let folder = moved.unwrap_or(Path::new(&source.manifest().model));
    let checkpoint = Checkpoint::open(&hub::located(folder)?)?;
    let identity = checkpoint.identity()?;
    let mut current = Fingerprint::default();
    current.set("weights", identity.weights);
    current.set("config", identity.config);
    current.set("tokenizer", identity.tokenizer);
    let hint = "pass the folder of the model that the cache was made from with `--model`";
    source.require(&current, hint)?;
    Ok(checkpoint)
}

fn check_freeze(
    arguments: &DeriveArguments,
    checkpoint: &Checkpoint,
    frozen: usize,
) -> Result<(), Error> {
    let (freeze, layers) = (arguments.freeze, checkpoint.config.layers);
    let problem = if freeze <= frozen {
        format!(
            "`--freeze {freeze}`: `{}` has {frozen} frozen layers already",
            arguments.folder.display()
        )
    } else if freeze > layers {
        format!(
            "`--freeze {freeze}`: `{}` has {layers} layers",
            checkpoint.folder.display()
        )
    } else {
        return Ok(());
    };
    let hint = if frozen < layers {
        format!("pass a number from {} to {layers}", frozen + 1)
    } else {
        "no layers are left to run".into()
    };
    Err(Error::Usage { problem, hint })
}

/// Refuses a cache whose files are not what its manifest says.
fn check_files(folder: &Path) -> Result<(), Error> {
    let total = cache::Manifest::read(folder)?.bytes;
    let progress = Mutex::new(Progress::new("verify", total, "bytes"));
    let verification = cache::verify(folder, |bytes| {
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.advance(bytes);
    })?;
    match verification.problems.into_iter().next() {
        Some(problem) => Err(problem.into()),
        None => Ok(()),
    }
}

/// The layers in between, where the cache was made unless told otherwise.
fn open_layers(
    arguments: &DeriveArguments,
    runtime: &Runtime,
    checkpoint: &Checkpoint,
    contents: &Contents,
) -> Result<FrozenLayers, Error> {
    let longest = contents.encoding.longest();
    let runtime_options = &arguments.runtime;
    let mut session = runtime_options.session(contents.frozen_precision, Some(longest))?;
    let unsaid = runtime_options.provider.is_none() && runtime_options.cuda_devices.is_none();
    if unsaid && contents.provider == Some(Provider::Cpu) {
        session.provider = ProviderChoice::Cpu;
    }
    let (first, end) = (contents.layers, arguments.freeze);
    let layers = FrozenLayers::new(runtime, checkpoint, first, end, &session)?;
    match layers.fallback() {
        Some(reason) => console::say(&format!(
            "CUDA cannot be used, running on the CPU: {reason}"
        )),
        None => console::say(&format!(
            "frozen half: layers {first} to {} of {} in {}, ONNX Runtime {} on {}",
            end - 1,
            checkpoint.config.layers,
            layers.precision(),
            runtime.version,
            layers.provider()
        )),
    }
    Ok(layers)
}
