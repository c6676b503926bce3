//! `telly cache`.

mod catalog;
mod derive;
mod repair;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::cache::{self, Manifest, Verification};
use crate::cli::console;
use crate::error::Error;
use crate::progress::Progress;
use catalog::{ListArguments, PruneArguments, RemoveArguments};
use derive::DeriveArguments;
use repair::Repair;

/// Look at activation caches, check, deepen and remove them.
#[derive(Subcommand)]
pub(super) enum CacheCommand {
    /// List the caches in a folder, and the runs that were trained from each.
    List(ListArguments),
    /// Print what a cache holds and what it was made from.
    Inspect(CacheArguments),
    /// Check every file of a cache against its checksum.
    Verify(VerifyArguments),
    /// Put the shares of `telly precompute --shard` together into one cache.
    Merge(CacheArguments),
    Derive(DeriveArguments),
    /// Remove the caches in a folder that no run was trained from.
    Prune(PruneArguments),
    /// Remove one cache.
    Remove(RemoveArguments),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  telly cache inspect cache/mine\n  telly cache merge cache/mine"
)]
pub(super) struct CacheArguments {
    /// Folder of the cache.
    folder: PathBuf,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  telly cache verify cache/mine\n  telly cache verify cache/mine --repair"
)]
pub(super) struct VerifyArguments {
    /// Folder of the cache.
    folder: PathBuf,
    /// Compute what is damaged or unwritten again, from the model and the data files that the cache
    /// was made from, which must be where they were.
    #[arg(long)]
    repair: bool,
    /// CPU threads of a repair [default: one a core].
    #[arg(long, value_name = "N", requires = "repair")]
    threads: Option<usize>,
    /// The ONNX Runtime shared library for a repair [default: as for `telly precompute`].
    #[arg(long, value_name = "FILE", requires = "repair")]
    onnxruntime: Option<PathBuf>,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &CacheCommand) -> Result<(), Error> {
    match command {
        CacheCommand::List(arguments) => catalog::list(arguments),
        CacheCommand::Inspect(arguments) => inspect(arguments),
        CacheCommand::Verify(arguments) => verify(arguments),
        CacheCommand::Merge(arguments) => merge(arguments),
        CacheCommand::Derive(arguments) => derive::run(arguments),
        CacheCommand::Prune(arguments) => catalog::prune(arguments),
        CacheCommand::Remove(arguments) => catalog::remove(arguments),
    }
}

fn inspect(arguments: &CacheArguments) -> Result<(), Error> {
    let manifest = Manifest::read(&arguments.folder)?;
    let written = manifest
        .shards
        .iter()
        .filter(|shard| shard.blake3.is_some())
        .count();
    let splits: Map<String, Value> = manifest
        .splits
        .iter()
        .map(|split| {
            let value =
                json!({ "rows": split.rows, "columns": split.columns, "tokens": split.tokens });
            (split.name.clone(), value)
        })
        .collect();
    let object = json!({
        "cache": arguments.folder.display().to_string(),
        "complete": manifest.complete,
        "model": manifest.model,
        "frozen_precision": manifest.fingerprint.get("frozen_precision"),
        "precision": manifest.precision,
        "width": manifest.width,
        "parity": manifest.parity,
        "unique_sequences": manifest.sequences,
        "tokens": manifest.tokens,
        "bytes": manifest.bytes,
        "shards": manifest.shards.len(),
        "shards_written": written,
        "splits": splits,
        "labels": manifest.labels,
        "fingerprint": manifest.fingerprint,
    });
    console::result(arguments.json, object.as_object().unwrap_or(&Map::new()))
}

fn merge(arguments: &CacheArguments) -> Result<(), Error> {
    let manifest = cache::merge(&arguments.folder)?;
    let object = json!({
        "cache": arguments.folder.display().to_string(),
        "shards": manifest.shards.len(),
        "bytes": manifest.bytes,
    });
    console::result(arguments.json, object.as_object().unwrap_or(&Map::new()))
}

fn verify(arguments: &VerifyArguments) -> Result<(), Error> {
    let found = check(&arguments.folder)?;
    let damaged = found.problems.len();
    let mut object = json!({
        "files": found.files,
        "bytes": found.bytes,
        "unwritten": found.unwritten,
        "damaged": damaged,
    });
    let mut problems = found.problems.into_iter();
    if arguments.repair {
        for problem in problems {
            console::say(&format!("damaged: {problem}"));
        }
        let mut computed = 0;
        if damaged + found.unwritten > 0 {
            let repair = Repair {
                folder: &arguments.folder,
                threads: arguments.threads,
                onnxruntime: arguments.onnxruntime.as_deref(),
            };
            computed = repair.run()?;
        }
        object["computed_tokens"] = computed.into();
    } else if let Some(first) = problems.next() {
        for problem in problems {
            console::say(&format!("error: {problem}"));
        }
        return Err(first.into());
    }
    console::result(arguments.json, object.as_object().unwrap_or(&Map::new()))
}

/// Compares every file with its checksum, and shows how far that is.
fn check(folder: &Path) -> Result<Verification, Error> {
    let total = Manifest::read(folder)?.bytes;
    let progress = Mutex::new(Progress::new("verify", total, "bytes"));
    let found = cache::verify(folder, |bytes| {
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.advance(bytes);
    })?;
    Ok(found)
}
