//! `telly precompute --pooled`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::{Map, json};

use super::{PrecomputeArguments, PrecomputeOptions};
use crate::cache::{Fingerprint, MANIFEST, require_space};
use crate::cli::console;
use crate::cli::options::{RuntimeOptions, first_passed, missing};
use crate::cli::recipe;
use crate::cli::studied::{Studied, StudiedOptions};
use crate::cli::text_vectors::{TextVectors, texts};
use crate::dataset::Source;
use crate::disk;
use crate::error::Error;
use crate::frozen::FrozenEncoder;
use crate::precompute::runtime_name;
use crate::study::{self, POOLED, Pooled, PooledSource, TextPooling};
use crate::train::peak_rss_bytes;

/// What of each text is kept, instead of all of its states.
#[derive(Args)]
#[command(next_help_heading = "Pooled vectors")]
pub(in crate::cli) struct PooledOptions {
    /// Keep one vector a text and layer for `telly rsa`, and no activations. --model may be a run, --data a
    /// file of texts; of the flags of tasks --text-field and --max-length have a meaning.
    #[arg(long)]
    pub(super) pooled: bool,
    /// What a text's vector is the mean over.
    #[arg(long, value_enum, default_value_t, requires = "pooled")]
    pooling: TextPooling,
    /// Take so many texts, from the first on [default: all].
    #[arg(long, value_name = "N", requires = "pooled")]
    limit: Option<usize>,
}

/// What has a meaning for pooled vectors, as a recipe writes it.
const FLAGS: [&str; 11] = [
    "model",
    "data",
    "text_field",
    "max_length",
    "freeze",
    "cache",
    "provider",
    "cuda_devices",
    "batch_tokens",
    "threads",
    "onnxruntime",
];

pub(super) fn run(
    arguments: &PrecomputeArguments,
    options: &PrecomputeOptions,
) -> Result<(), Error> {
    let started = Instant::now();
    refuse_others(arguments, options)?;
    let model = options.model.as_deref().ok_or_else(|| missing("--model"))?;
    let path = options.data.as_deref().ok_or_else(|| missing("--data"))?;
    let folder = options.cache.as_deref().ok_or_else(|| missing("--cache"))?;
    refuse_occupied(folder)?;
    let source = Source::of(path, "test")?;
    let studied_options = StudiedOptions {
        model: None,
        max_length: options.task.max_length,
    };
    let studied = studied_options.open(model)?;
    check_layers(options, &studied)?;
    let pooled = &arguments.pooled;
    let form = TextVectors {
        text_field: options.task.text_field.clone(),
        max_length: studied_options.max_length([&studied]),
        pooling: pooled.pooling,
    };
    let data = texts(&source, pooled.limit)?;
    let hashes = form.hashes(&studied, &data)?;
    let mut frozen = form.frozen(&studied, &options.runtime)?;
    let source = PooledSource::new(
        (
            absolute(model),
            (path != Path::new("-")).then(|| absolute(path)),
        ),
        form.text_field.clone(),
        (form.pooling, form.max_length),
        fingerprint(&studied, &form, &frozen, &options.runtime)?,
        &hashes,
    );
    if !is_there(folder, &source, arguments.force)? {
        // Before the pass, which is not to be for nothing.
        let is_new = !folder.exists();
        disk::create_folders(folder).map_err(study::Error::Write)?;
        let numbers = data.records.len() * (studied.layers() + 1) * frozen.hidden_size();
        let vectors = require_space(folder, (numbers * size_of::<f32>()) as u64)
            .map_err(Error::from)
            .and_then(|()| form.compute(&studied, &data, &mut frozen));
        let written = vectors.and_then(|vectors| {
            let pooled = Pooled {
                source,
                texts: hashes,
                vectors,
            };
            pooled.write(folder).map_err(Error::from)
        });
        if is_new && written.is_err() {
            // An empty folder that stays does no harm.
            let _ = fs_err::remove_dir(folder);
        }
        written?;
    }
    let bytes = fs_err::metadata(folder.join(POOLED)).map_err(study::Error::Read)?;
    let object = json!({
        "texts": data.records.len(),
        "layers": studied.layers(),
        "hidden_size": frozen.hidden_size(),
        "pooling": form.pooling,
        "max_length": form.max_length,
        "bytes": bytes.len(),
        "seconds": started.elapsed().as_secs_f64(),
        "peak_rss_bytes": peak_rss_bytes(),
        "provider": frozen.provider().to_string(),
        "cache": folder.display().to_string(),
    });
    console::result(arguments.json, object.as_object().unwrap_or(&Map::new()))
}

/// Refuses a folder of something else: `telly rsa` would take the vectors for that.
fn refuse_occupied(folder: &Path) -> Result<(), Error> {
    let others = [
        (MANIFEST, "a cache of activations"),
        ("config.json", "the folder of a model"),
        ("recipe.toml", "the folder of a run"),
    ];
    match others.iter().find(|(file, _)| folder.join(file).is_file()) {
        None => Ok(()),
        Some((_, what)) => Err(Error::Usage {
            problem: format!("`{}` is {what}", folder.display()),
            hint: "choose another `--cache`".into(),
        }),
    }
}

/// Refuses what has no meaning for pooled vectors.
fn refuse_others(
    arguments: &PrecomputeArguments,
    options: &PrecomputeOptions,
) -> Result<(), Error> {
    let passed = recipe::table(options, None)?;
    let mut others = passed.keys().map(String::as_str);
    let others = others.find(|flag| !FLAGS.contains(flag));
    let own = first_passed(&[
        ("shard", arguments.shard.is_some()),
        ("dry_run", arguments.dry_run),
    ]);
    match others.or(own) {
        None => Ok(()),
        Some(flag) => Err(Error::Usage {
            problem: format!(
                "`--{}` has nothing to act on with `--pooled`",
                flag.replace('_', "-")
            ),
            hint: "leave one of the two out; `telly precompute --help` names what `--pooled` takes"
                .into(),
        }),
    }
}

/// Refuses a `--freeze` that leaves layers out.
fn check_layers(options: &PrecomputeOptions, studied: &Studied) -> Result<(), Error> {
    let all: Vec<usize> = (0..=studied.layers()).collect();
    match &options.freeze {
        Some(freeze) if freeze.depths().as_ref() != Some(&all) => Err(Error::Usage {
            problem: format!("`--freeze {freeze}`: pooled vectors are kept of every layer"),
            hint: format!("leave it out, or pass 0..{}", studied.layers()),
        }),
        _ => Ok(()),
    }
}

/// Of the model and what runs it.
fn fingerprint(
    studied: &Studied,
    form: &TextVectors,
    frozen: &FrozenEncoder,
    options: &RuntimeOptions,
) -> Result<Fingerprint, Error> {
    let mut fingerprint = studied.fingerprint()?;
    fingerprint.set("mode_token", studied.mode_token(form.max_length)?);
    fingerprint.set("runtime", runtime_name(&options.runtime()?));
    fingerprint.set("provider", frozen.provider().to_string());
    Ok(fingerprint)
}

/// Whether `folder` has what `source` says already; refuses something else, unless it is to be replaced
/// by `force`.
fn is_there(folder: &Path, source: &PooledSource, force: bool) -> Result<bool, Error> {
    if Pooled::folder(folder).is_none() {
        return Ok(false);
    }
    let there = match Pooled::source(folder) {
        Ok(there) => there,
        Err(study::Error::Damaged { .. } | study::Error::OtherKind { .. }) if force => {
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    let differences = there.fingerprint.all_differences(&source.fingerprint);
    if differences.is_empty() && !force {
        console::say("nothing to compute");
        if there != *source {
            // The same by another path, which is where it is to be found from now on.
            let kept = Pooled::read(folder)?;
            let source = source.clone();
            Pooled { source, ..kept }.write(folder)?;
        }
        return Ok(true);
    }
    if !force {
        let folder = folder.to_owned();
        return Err(study::Error::Stale {
            folder,
            differences,
        }
        .into());
    }
    Ok(false)
}

/// `path` from the root on, so that it is found from anywhere; the name of a model on the hub as it is.
fn absolute(path: &Path) -> PathBuf {
    match std::path::absolute(path) {
        Ok(absolute) if path.exists() => absolute,
        _ => path.to_owned(),
    }
}
