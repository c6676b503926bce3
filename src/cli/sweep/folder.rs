//! A sweep on disk: its caches and runs, filled and trained by processes of their own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use toml::Table;

use super::SweepArguments;
use super::flags::{check_shared, check_training, differences, freeze_flags, taken};
use super::process::telly_json;
use super::table;
use crate::cache::{Cache, Fingerprint};
use crate::checkpoint::Freeze;
use crate::cli::options::missing;
use crate::cli::{console, recipe};
use crate::error::{Error, Explain as _};
use crate::lock::Lock;
use crate::publish::publish;
use crate::study::{self, CacheCost, SWEEP_RESULT, SWEEP_RUNS, SWEEP_SHARED, SweptRun};
use crate::task::Encoding;
use crate::train::{RecordedRun, RunFolder, RunIdentity, TrainSettings, find_runs};

/// Those of the shared flags that `train` is told.
const TRAINED: &str = "train.toml";
/// Held while a sweep is under way.
const LOCK: &str = ".lock";
/// What a sweep decides itself, or would have written over for each K.
const OWN: [&str; 5] = ["freeze", "cache", "out", "seed", "graph"];
/// What was found, for people.
const SPREADSHEET: &str = "sweep.csv";
/// Where caches are.
const CACHES: &str = "caches";
/// A sweep on disk, for one process at a time.
pub(in crate::cli) struct Sweep {
    pub(in crate::cli) folder: PathBuf,
    /// The flags that all runs share.
    pub(super) shared: Table,
    freezes: Vec<Freeze>,
    lrs: Vec<f64>,
    seeds: Vec<u64>,
    _lock: Lock,
}

/// Runs of a sweep.
#[derive(Default)]
pub(in crate::cli) struct Trained {
    /// Those that are finished.
    pub(in crate::cli) runs: Vec<SweptRun>,
    /// What the others are.
    pub(in crate::cli) failed: Vec<String>,
}

impl Sweep {
    /// Starts the sweep that `arguments` mean, or goes on with it.
    pub(super) fn open(arguments: &SweepArguments) -> Result<Self, Error> {
        let shared = recipe::table(&arguments.options, arguments.recipe.as_deref())?;
        let freezes = arguments.freeze.0.clone();
        let swept = (freezes, arguments.lr.clone(), arguments.seeds.clone());
        Self::begin(arguments.out.clone(), shared, swept)
    }

    /// Starts a sweep in `folder`, or goes on with it, whose runs share the flags `shared`: each K, each
    /// peak learning rate and each seed; where those are not told the ones of `shared`, else the usual.
    pub(in crate::cli) fn begin(
        folder: PathBuf,
        mut shared: Table,
        (freezes, lrs, seeds): (Vec<Freeze>, Option<Vec<f64>>, Option<Vec<u64>>),
    ) -> Result<Self, Error> {
        check_shared(&shared)?;
        let lr = taken(&mut shared, "lr")?.unwrap_or(TrainSettings::default().lr);
        let usual = taken(&mut shared, "seeds")?.unwrap_or_else(|| vec![1, 2, 3]);
        for key in OWN {
            shared.remove(key);
        }
        let lrs = unique(lrs.unwrap_or_else(|| vec![lr]));
        check_training(&shared, &lrs)?;
        fs_err::create_dir_all(&folder).map_err(Error::Output)?;
        let sweep = Self {
            _lock: lock(&folder)?,
            folder,
            shared,
            freezes,
            lrs,
            seeds: unique(seeds.unwrap_or(usual)),
        };
        sweep.claim()?;
        Ok(sweep)
    }

    /// Keeps what all runs share, and refuses a folder of another sweep.
    fn claim(&self) -> Result<(), Error> {
        let shared = self.shared.to_string();
        match fs_err::read_to_string(self.folder.join(SWEEP_SHARED)) {
            Ok(found) if found == shared => {}
            Ok(found) if is_begun(&self.folder) => return Err(Error::Usage {
                problem: format!(
                    "`{}` was begun with other flags: {}",
                    self.folder.display(),
                    differences(&found, &shared)
                ),
                hint: "choose another `--out`, or remove the folder; K, seeds and learning rates may differ".into(),
            }),
            _ => write(&self.folder, SWEEP_SHARED, &shared)?,
        }
        // A cache knows its data; each run would read all of it again to compare.
        let mut trained = self.shared.clone();
        for key in ["data", "train", "valid", "test", "code_base"] {
            trained.remove(key);
        }
        write(&self.folder, TRAINED, &trained.to_string())
    }

    /// The seeds of each K, in the order of training.
    pub(in crate::cli) fn seeds(&self) -> &[u64] {
        &self.seeds
    }

    /// Has these K swept from now on.
    pub(in crate::cli) fn set_freezes(&mut self, freezes: Vec<Freeze>) {
        self.freezes = freezes;
    }

    fn cache_folder(&self, freeze: Freeze) -> PathBuf {
        self.folder.join(format!("{CACHES}/freeze-{freeze}"))
    }

    /// How the cache of `freeze` says that texts go into the model, if it does.
    pub(in crate::cli) fn encoding(&self, freeze: Freeze) -> Result<Option<Encoding>, Error> {
        let cache = Cache::open(&self.cache_folder(freeze))?;
        Ok(serde_json::from_value(cache.manifest().encoding.clone()).ok())
    }

    /// The first run of `freeze`, if it is finished.
    pub(in crate::cli) fn first_run(&self, freeze: Freeze) -> Option<PathBuf> {
        let (lr, seed) = (self.lrs.first()?, self.seeds.first()?);
        let folder = self.run_folder(freeze, *lr, *seed);
        RunFolder::summary(&folder).ok().flatten().map(|_| folder)
    }

    /// Those of the flags `keys` that the runs share, as they are typed.
    pub(in crate::cli) fn typed(&self, keys: &[&str]) -> Vec<OsString> {
        let shared = keys
            .iter()
            .filter_map(|key| Some((key, self.shared.get(*key)?)));
        let word = |value: &toml::Value| {
            let text = value.as_str();
            text.map_or_else(|| value.to_string(), str::to_owned)
        };
        let flags = shared.flat_map(|(key, value)| {
            let words = value
                .as_array()
                .map_or(std::slice::from_ref(value), |all| all);
            let words: Vec<String> = words.iter().map(word).collect();
            [format!("--{}", key.replace('_', "-")), words.join(",")]
        });
        flags.map(OsString::from).collect()
    }

    /// What `runs` over caches of these `costs` came to, compared at `significance_level`; it is kept too.
    pub(in crate::cli) fn table(
        &self,
        runs: &[SweptRun],
        costs: &[CacheCost],
        significance_level: f64,
    ) -> Result<study::Table, Error> {
        let Some(first) = runs.first() else {
            return Err(missing("--seeds"));
        };
        let recorded = RecordedRun::open(&self.run_folder(first.freeze, first.lr, first.seed))?;
        let metric = recorded.metric().unwrap_or_default();
        let table = study::Table::new(&metric, runs, costs, significance_level)
            .unwrap_or_else(|| unreachable!("there is a run"));
        write(&self.folder, SWEEP_RESULT, &table.to_json().to_string())?;
        write(&self.folder, SPREADSHEET, &table::csv(&table))?;
        Ok(table)
    }

    fn run_folder(&self, freeze: Freeze, lr: f64, seed: u64) -> PathBuf {
        self.folder.join(format!(
            "{SWEEP_RUNS}/freeze-{freeze}/lr-{lr:e}/seed-{seed}"
        ))
    }

    /// Fills the caches, those of all depths in one pass, or finds them filled of the same data; what
    /// each cost.
    pub(in crate::cli) fn fill_caches(&self) -> Result<Vec<CacheCost>, Error> {
        let caches = self.folder.join(CACHES);
        let (nothing, depths): (Vec<Freeze>, Vec<Freeze>) = self
            .freezes
            .iter()
            .partition(|freeze| **freeze == Freeze::Nothing);
        let mut costs = Vec::new();
        for group in [nothing, depths] {
            // A single one is written to the folder itself, several to folders of their own in it.
            let folder = match group.as_slice() {
                [] => continue,
                [freeze] => self.cache_folder(*freeze),
                _ => caches.clone(),
            };
            let names: Vec<String> = group.iter().map(ToString::to_string).collect();
            console::say(&format!("caches for K = {}", names.join(", ")));
            let flags = freeze_flags(&group).into_iter();
            let flags = flags.chain(["--cache".into(), folder.into()]);
            let missing = |freeze: &&Freeze| !caches.join(cost_file(**freeze)).is_file();
            let filled = group.iter().filter(missing).count();
            let summary = self.telly("precompute", SWEEP_SHARED, flags.collect())?;
            for &freeze in &group {
                let cost = if let Some(cost) = self.cost(freeze)? {
                    cost
                } else {
                    let found = cost_of(freeze, &summary, filled);
                    write(&caches, &cost_file(freeze), &json!(found).to_string())?;
                    found
                };
                costs.push(cost);
            }
        }
        Ok(costs)
    }

    /// What the cache of `freeze` cost, if it was filled.
    fn cost(&self, freeze: Freeze) -> Result<Option<CacheCost>, Error> {
        let path = self.folder.join(CACHES).join(cost_file(freeze));
        if !path.is_file() {
            return Ok(None);
        }
        let text = fs_err::read_to_string(&path).map_err(Error::Output)?;
        let cost = serde_json::from_str(&text).map_err(|error| Error::Usage {
            problem: format!("`{}` is damaged: {error}", path.display()),
            hint: "remove it, and the same command goes on".into(),
        })?;
        Ok(Some(cost))
    }

    /// [`Self::train`] with all K and all seeds.
    pub(super) fn train_all(&self) -> Result<Trained, Error> {
        let mut trained = Trained::default();
        self.train(&self.freezes, &self.seeds, &mut trained)?;
        Ok(trained)
    }

    /// Trains what of these K and seeds is not trained yet, and adds all of them to `trained`. A run that
    /// fails is named there and costs itself alone; but where there is no run yet and the input is wrong
    /// it would be for the others too, and is the error.
    pub(in crate::cli) fn train(
        &self,
        freezes: &[Freeze],
        seeds: &[u64],
        trained: &mut Trained,
    ) -> Result<(), Error> {
        let cells = self.cells(freezes, seeds);
        let mut origin = None;
        for (number, &(freeze, lr, seed)) in cells.iter().enumerate() {
            let folder = self.run_folder(freeze, lr, seed);
            let name = format!("K = {freeze}, learning rate {lr:e}, seed {seed}");
            let heading = format!("{name} ({} of {})", number + 1, cells.len());
            let summary = if let Some(summary) = RunFolder::summary(&folder)? {
                let origin = match &mut origin {
                    Some(origin) => origin,
                    origin => origin.insert(Cache::open(&self.cache_folder(freeze))?),
                };
                check_origin(&folder, &origin.manifest().fingerprint)?;
                console::say(&format!("{heading} is finished"));
                summary
            } else {
                console::say(&heading);
                match self.train_one((freeze, lr, seed), &folder) {
                    Err(Error::Child { command, status }) => {
                        let error = Error::Child { command, status };
                        if trained.runs.is_empty() && error.is_input() {
                            return Err(error);
                        }
                        // What ended by itself has said why.
                        trained.failed.push(match status.code() {
                            Some(_) => name,
                            None => format!("{name} ({status}; it may have run out of memory)"),
                        });
                        continue;
                    }
                    summary => summary?,
                }
            };
            trained.runs.push(SweptRun {
                freeze,
                lr,
                seed,
                summary,
            });
        }
        Ok(())
    }

    /// Adds to `trained` and `costs` the K that were swept in this folder before with the same learning rates
    /// and seeds, and were not asked for now. Those with others would be judged by less than the rest.
    pub(super) fn add_earlier(
        &self,
        trained: &mut Trained,
        costs: &mut Vec<CacheCost>,
    ) -> Result<(), Error> {
        let Some(freeze) = self.freezes.first() else {
            return Ok(());
        };
        let cache = Cache::open(&self.cache_folder(*freeze))?;
        let found = find_runs(&self.folder.join(SWEEP_RUNS))?.runs;
        let before = found.iter().filter_map(|run| self.freeze_of(&run.folder));
        let mut before = unique(before.collect());
        before.retain(|freeze| !self.freezes.contains(freeze));
        before.sort_unstable();
        let (mut added, mut left_out) = (Vec::new(), Vec::new());
        for freeze in before {
            let runs = self.finished(freeze, &cache)?;
            match (runs, self.cost(freeze)?) {
                (Some(runs), Some(cost)) => {
                    trained.runs.extend(runs);
                    costs.push(cost);
                    added.push(freeze.to_string());
                }
                _ => left_out.push(freeze.to_string()),
            }
        }
        if !added.is_empty() {
            let names = added.join(", ");
            console::say(&format!("the table has K = {names} of before too"));
        }
        if !left_out.is_empty() {
            let names = left_out.join(", ");
            console::say(&format!(
                "K = {names} of before has not all of these seeds and learning rates: name it in `--freeze` to have it in the table"
            ));
        }
        Ok(())
    }

    /// The runs of `freeze` with all learning rates and seeds; none where one of them is not finished, or
    /// was trained from something else than `cache` was made of.
    fn finished(&self, freeze: Freeze, cache: &Cache) -> Result<Option<Vec<SweptRun>>, Error> {
        let mut runs = Vec::new();
        for (freeze, lr, seed) in self.cells(&[freeze], &self.seeds) {
            let folder = self.run_folder(freeze, lr, seed);
            let Some(summary) = RunFolder::summary(&folder)? else {
                return Ok(None);
            };
            if check_origin(&folder, &cache.manifest().fingerprint).is_err() {
                return Ok(None);
            }
            runs.push(SweptRun {
                freeze,
                lr,
                seed,
                summary,
            });
        }
        Ok(Some(runs))
    }

    /// K of the run in `folder`, if it is one of a sweep.
    fn freeze_of(&self, folder: &Path) -> Option<Freeze> {
        let below = folder.strip_prefix(self.folder.join(SWEEP_RUNS)).ok()?;
        let name = below.iter().next()?.to_str()?;
        name.strip_prefix("freeze-")?.parse().ok()
    }

    /// Whether all runs of these K and seeds are finished.
    pub(in crate::cli) fn is_trained(
        &self,
        freezes: &[Freeze],
        seeds: &[u64],
    ) -> Result<bool, Error> {
        for (freeze, lr, seed) in self.cells(freezes, seeds) {
            if RunFolder::summary(&self.run_folder(freeze, lr, seed))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How many runs there are, finished or not.
    pub(in crate::cli) fn runs(&self) -> Result<usize, Error> {
        Ok(find_runs(&self.folder.join(SWEEP_RUNS))?.runs.len())
    }

    /// Drops the runs that there are, and has others pass so many times over the data.
    pub(in crate::cli) fn begin_anew(&mut self, epochs: usize) -> Result<(), Error> {
        let runs = self.folder.join(SWEEP_RUNS);
        // Before the flags: what is killed in between begins anew with the old ones.
        if runs.is_dir() {
            fs_err::remove_dir_all(runs).map_err(Error::Output)?;
        }
        let epochs = i64::try_from(epochs).unwrap_or(i64::MAX);
        self.shared.insert("epochs".into(), epochs.into());
        write(&self.folder, SWEEP_SHARED, &self.shared.to_string())?;
        self.claim()
    }

    fn cells(&self, freezes: &[Freeze], seeds: &[u64]) -> Vec<(Freeze, f64, u64)> {
        let cells = freezes.iter();
        cells
            .flat_map(|&freeze| self.lrs.iter().map(move |&lr| (freeze, lr)))
            .flat_map(|(freeze, lr)| seeds.iter().map(move |&seed| (freeze, lr, seed)))
            .collect()
    }

    fn train_one(
        &self,
        (freeze, lr, seed): (Freeze, f64, u64),
        folder: &Path,
    ) -> Result<Map<String, Value>, Error> {
        let out = [OsString::from("--out"), folder.into()];
        if RunFolder::recipe(folder).is_ok() {
            let resume = [OsString::from("--resume")];
            let flags = resume.into_iter().chain(out).collect();
            return telly_json("train", flags, &self.folder);
        }
        let numbers = [
            "--lr",
            &lr.to_string(),
            "--seed",
            &seed.to_string(),
            "--force",
        ];
        let flags = numbers.map(OsString::from).into_iter().chain(out);
        let cache = [OsString::from("--cache"), self.cache_folder(freeze).into()];
        self.telly("train", TRAINED, flags.chain(cache).collect())
    }

    /// Runs `telly command` with a recipe of the sweep and `flags`; the object it ends with.
    fn telly(
        &self,
        command: &str,
        recipe: &str,
        flags: Vec<OsString>,
    ) -> Result<Map<String, Value>, Error> {
        let shared = [OsString::from("--recipe"), self.folder.join(recipe).into()];
        let flags = shared.into_iter().chain(flags).collect();
        telly_json(command, flags, &self.folder)
    }
}

/// Refuses the finished run in `folder` where it was trained from another model or other data than the
/// caches have, which say so in their `fingerprint`.
fn check_origin(folder: &Path, fingerprint: &Fingerprint) -> Result<(), Error> {
    let Some(identity) = RunIdentity::read_header(folder)? else {
        return Ok(());
    };
    let model = [
        ("weights", Some(&identity.weights)),
        ("tokenizer", Some(&identity.tokenizer)),
        ("config", identity.config.as_ref()),
    ];
    let data = identity.data.iter();
    let data = data.map(|(split, hash)| (split.as_str(), Some(hash)));
    let mut parts = model.into_iter().chain(data);
    let other = parts.find_map(|(name, hash)| {
        let (found, expected) = (hash?, fingerprint.get(name).as_str()?);
        (found != expected).then_some((name, found, expected))
    });
    match other {
        None => Ok(()),
        Some((name, found, expected)) => Err(Error::Usage {
            problem: format!(
                "`{}` was trained from other data or another model: the hash of its {name} is {found}, expected {expected}",
                folder.display()
            ),
            hint: "choose another `--out`, or remove the folder".into(),
        }),
    }
}

/// What the cache of `freeze` cost is in this file.
fn cost_file(freeze: Freeze) -> String {
    format!("freeze-{freeze}.json")
}

/// Whether the sweep in `folder` has made anything: a flag that was wrong can still be mended before.
pub(in crate::cli) fn is_begun(folder: &Path) -> bool {
    [CACHES, SWEEP_RUNS]
        .iter()
        .any(|name| folder.join(name).is_dir())
}

/// What the cache of `freeze` cost, by the `summary` of the pass that filled so many `caches`.
fn cost_of(freeze: Freeze, summary: &Map<String, Value>, caches: usize) -> CacheCost {
    let number = |name: &str| summary.get(name).and_then(Value::as_u64).unwrap_or(0);
    let several = summary.get("caches").and_then(Value::as_array);
    let mut of_this = several.into_iter().flatten();
    let of_this = of_this.find(|cache| cache["freeze"] == json!(freeze));
    // Where nothing is frozen nothing is computed.
    let whole = freeze == Freeze::Nothing || number("computed_tokens") == number("tokens");
    CacheCost {
        freeze,
        seconds: summary
            .get("seconds")
            .and_then(Value::as_f64)
            .filter(|_| whole),
        caches,
        bytes: of_this
            .and_then(|cache| cache["bytes"].as_u64())
            .unwrap_or_else(|| number("bytes")),
    }
}

/// Locks `folder` against another sweep.
fn lock(folder: &Path) -> Result<Lock, Error> {
    let path = folder.join(LOCK);
    let file = fs_err::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(Error::Output)?.into_parts().0;
    let lock = Lock::of(file).map_err(Error::Output)?;
    lock.ok_or_else(|| Error::Usage {
        problem: format!("another process sweeps in `{}`", folder.display()),
        hint: "wait for it, or choose another `--out`".into(),
    })
}

/// Writes `folder/name` so that it is there whole or not at all.
pub(in crate::cli) fn write(folder: &Path, name: &str, text: &str) -> Result<(), Error> {
    publish(folder, name, text.as_bytes()).map_err(Error::Output)
}

/// `values` once each.
pub(in crate::cli) fn unique<T: PartialEq>(values: Vec<T>) -> Vec<T> {
    let mut unique = Vec::new();
    for value in values {
        if !unique.contains(&value) {
            unique.push(value);
        }
    }
    unique
}
