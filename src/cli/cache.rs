//! `telly cache`.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::cache_catalog::{self, ListArguments, PruneArguments, RemoveArguments};
use super::cache_derive::{self, DeriveArguments};
use super::console;
use crate::cache::{self, Manifest};
use crate::error::Error;
use crate::progress::Progress;

/// Look at activation caches, check, deepen and remove them.
#[derive(Subcommand)]
pub(super) enum CacheCommand {
    /// List the caches in a folder, and the runs that were trained from each.
    List(ListArguments),
    /// Print what a cache holds and what it was made from.
    Inspect(CacheArguments),
    /// Check every file of a cache against its checksum.
    Verify(CacheArguments),
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
    after_help = "Example:\n  telly cache inspect cache/mine\n  telly cache verify cache/mine"
)]
pub(super) struct CacheArguments {
    /// Folder of the cache.
    folder: PathBuf,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &CacheCommand) -> Result<(), Error> {
    match command {
        CacheCommand::List(arguments) => cache_catalog::list(arguments),
        CacheCommand::Inspect(arguments) => inspect(arguments),
        CacheCommand::Verify(arguments) => verify(arguments),
        CacheCommand::Merge(arguments) => merge(arguments),
        CacheCommand::Derive(arguments) => cache_derive::run(arguments),
        CacheCommand::Prune(arguments) => cache_catalog::prune(arguments),
        CacheCommand::Remove(arguments) => cache_catalog::remove(arguments),
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

fn verify(arguments: &CacheArguments) -> Result<(), Error> {
    let total = Manifest::read(&arguments.folder)?.bytes;
    let progress = Mutex::new(Progress::new("verify", total, "bytes"));
    let verification = cache::verify(&arguments.folder, |bytes| {
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.advance(bytes);
    })?;
    drop(progress);
    let mut problems = verification.problems.into_iter();
    let Some(first) = problems.next() else {
        let object = json!({
            "files": verification.files,
            "bytes": verification.bytes,
            "unwritten": verification.unwritten,
            "damaged": 0,
        });
        return console::result(arguments.json, object.as_object().unwrap_or(&Map::new()));
    };
    for problem in problems {
        console::say(&format!("error: {problem}"));
    }
    Err(first.into())
}
