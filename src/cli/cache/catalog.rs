//! `telly cache list`, `prune` and `remove`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use indicatif::HumanDuration;
use serde_json::{Map, Value, json};
use toml::Table;

use crate::cache::{self, Found, MANIFEST};
use crate::checkpoint::{Checkpoint, Identity};
use crate::cli::console;
use crate::error::Error;
use crate::train::RunFolder;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

#[derive(Args)]
struct Folders {
    /// Where caches are looked for.
    #[arg(default_value = "cache")]
    folder: PathBuf,
    /// Where the runs are that were trained from them.
    #[arg(long, value_name = "FOLDER", default_value = "runs")]
    runs: PathBuf,
}

#[derive(Args)]
#[command(after_help = "Example:\n  telly cache list cache")]
pub(in crate::cli) struct ListArguments {
    #[command(flatten)]
    folders: Folders,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "Example:\n  telly cache prune cache --runs runs --older-than 7 --dry-run")]
pub(in crate::cli) struct PruneArguments {
    #[command(flatten)]
    folders: Folders,
    /// Only caches last written at least so many days ago.
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    older_than: u64,
    /// Also those that a run names.
    #[arg(long)]
    force: bool,
    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "Example:\n  telly cache remove cache/mine")]
pub(in crate::cli) struct RemoveArguments {
    /// Folder of the cache.
    folder: PathBuf,
    /// Where the runs are that were trained from it.
    #[arg(long, value_name = "FOLDER", default_value = "runs")]
    runs: PathBuf,
    /// Also if a run names it.
    #[arg(long)]
    force: bool,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// A run, and the cache that its recipe names.
struct Use {
    run: PathBuf,
    cache: PathBuf,
}

impl Folders {
    /// The caches, each with the runs that name it.
    fn found(&self) -> Result<Vec<(Found, Vec<PathBuf>)>, Error> {
        let uses = uses(&self.runs)?;
        let found = cache::find(&self.folder)?.into_iter().map(|found| {
            let runs = runs_of(&found.folder, &uses);
            (found, runs)
        });
        Ok(found.collect())
    }
}

/// The cache of every run below `runs`; none if there is no such folder.
fn uses(runs: &Path) -> Result<Vec<Use>, Error> {
    let entries = match fs_err::read_dir(runs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cache::Error::Read(error).into()),
    };
    let mut uses = Vec::new();
    for entry in entries {
        let run = entry.map_err(cache::Error::Read)?.path();
        let recipe = RunFolder::recipe(&run).map(fs_err::read_to_string);
        let Ok(Ok(text)) = recipe else { continue };
        let recipe: Table = text.parse().unwrap_or_default();
        if let Some(folder) = recipe.get("cache").and_then(toml::Value::as_str) {
            let cache = fs_err::canonicalize(folder).unwrap_or_else(|_| folder.into());
            uses.push(Use { run, cache });
        }
    }
    uses.sort_by(|a, b| a.run.cmp(&b.run));
    Ok(uses)
}

fn runs_of(folder: &Path, uses: &[Use]) -> Vec<PathBuf> {
    let folder = fs_err::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let uses = uses.iter().filter(|other| other.cache == folder);
    uses.map(|other| other.run.clone()).collect()
}

/// What became of the models that caches were made from; each is hashed once.
#[derive(Default)]
struct Models(HashMap<String, Result<Identity, &'static str>>);

impl Models {
    /// Whether the model of the cache that was `found` is what it was; none without a manifest.
    fn freshness(&mut self, found: &Found) -> Option<String> {
        let manifest = found.manifest.as_ref().ok()?;
        let identity = self.0.entry(manifest.model.clone()).or_insert_with(|| {
            let folder = Path::new(&manifest.model);
            if !folder.is_dir() {
                return Err("model gone");
            }
            Checkpoint::open(folder)
                .and_then(|checkpoint| checkpoint.identity())
                .map_err(|_| "model cannot be read")
        });
        let identity = match identity {
            Ok(identity) => identity,
            Err(problem) => return Some((*problem).into()),
        };
        let files = [
            ("weights", &identity.weights),
            ("config", &identity.config),
            ("tokenizer", &identity.tokenizer),
        ];
        let changed = files
            .into_iter()
            .filter(|(field, hash)| manifest.fingerprint.get(field) != hash.as_str());
        let changed: Vec<&str> = changed.map(|(field, _)| field).collect();
        Some(if changed.is_empty() {
            "fresh".into()
        } else {
            format!("model changed since: {}", changed.join(", "))
        })
    }
}

fn describe(found: &Found, runs: &[PathBuf], freshness: Option<&str>) -> Value {
    let mut object = json!({
        "cache": found.folder.display().to_string(),
        "bytes": found.bytes_on_disk,
        "age_seconds": age(found).as_secs(),
        "runs": runs.iter().map(|run| run.display().to_string()).collect::<Vec<_>>(),
    });
    let more = match &found.manifest {
        Ok(manifest) => json!({
            "model": manifest.model,
            "freeze": manifest.fingerprint.get("freeze"),
            "precision": manifest.precision,
            "tokens": manifest.tokens,
            "complete": manifest.complete,
            "freshness": freshness,
        }),
        Err(error) => json!({ "error": error.to_string() }),
    };
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

fn age(found: &Found) -> Duration {
    found.modified.elapsed().unwrap_or_default()
}

/// One cache in a line.
fn line(found: &Found, runs: &[PathBuf]) -> String {
    let state = match &found.manifest {
        Ok(manifest) => {
            let model = Path::new(&manifest.model).file_name().unwrap_or_default();
            format!(
                "{}, freeze {}, {}{}",
                model.display(),
                manifest.fingerprint.get("freeze"),
                manifest
                    .precision
                    .map_or("token ids".into(), |precision| precision.to_string()),
                if manifest.complete {
                    ""
                } else {
                    ", incomplete"
                }
            )
        }
        Err(error) => error.to_string(),
    };
    let runs: Vec<String> = runs.iter().map(|run| run.display().to_string()).collect();
    let used = if runs.is_empty() {
        "no run".into()
    } else {
        runs.join(", ")
    };
    format!(
        "{}  {}  {state}, {} old, used by {used}",
        found.folder.display(),
        ByteSize(found.bytes_on_disk),
        HumanDuration(age(found)),
    )
}

pub(super) fn list(arguments: &ListArguments) -> Result<(), Error> {
    let found = arguments.folders.found()?;
    let mut models = Models::default();
    if arguments.json {
        let caches = found
            .iter()
            .map(|(found, runs)| describe(found, runs, models.freshness(found).as_deref()));
        let object = json!({ "caches": caches.collect::<Vec<_>>() });
        return console::result(true, object.as_object().unwrap_or(&Map::new()));
    }
    if found.is_empty() {
        console::say(&format!(
            "no cache in `{}`",
            arguments.folders.folder.display()
        ));
    }
    for (found, runs) in &found {
        let freshness = models.freshness(found);
        let freshness = freshness.map_or(String::new(), |freshness| format!(", {freshness}"));
        console::print(&format!("{}{freshness}", line(found, runs)))?;
    }
    Ok(())
}

pub(super) fn prune(arguments: &PruneArguments) -> Result<(), Error> {
    let (mut removed, mut kept, mut bytes) = (Vec::new(), 0, 0);
    for (found, runs) in arguments.folders.found()? {
        let old = age(&found).as_secs() >= arguments.older_than * SECONDS_PER_DAY;
        if !old || (!runs.is_empty() && !arguments.force) {
            kept += 1;
            continue;
        }
        let verb = if arguments.dry_run {
            "would remove"
        } else {
            "removing"
        };
        console::say(&format!("{verb} {}", line(&found, &runs)));
        if !arguments.dry_run {
            cache::remove(&found.folder)?;
        }
        bytes += found.bytes_on_disk;
        removed.push(found.folder.display().to_string());
    }
    let object = json!({ "removed": removed, "kept": kept, "bytes": bytes });
    console::result(arguments.json, object.as_object().unwrap_or(&Map::new()))
}

pub(super) fn remove(arguments: &RemoveArguments) -> Result<(), Error> {
    let folder = &arguments.folder;
    let runs = runs_of(folder, &uses(&arguments.runs)?);
    let is_cache = folder.join(MANIFEST).is_file();
    if let Some(run) = runs.first().filter(|_| is_cache && !arguments.force) {
        return Err(Error::Usage {
            problem: format!(
                "`{}` was trained from the cache `{}`",
                run.display(),
                folder.display()
            ),
            hint: "add `--force` to remove it all the same: the run itself stays whole".into(),
        });
    }
    cache::remove(folder)?;
    let object = json!({ "removed": folder.display().to_string() });
    console::result(arguments.json, object.as_object().unwrap_or(&Map::new()))
}
