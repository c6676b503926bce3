//! A sweep on disk: the processes that fill its caches and train its runs.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};
use toml::Table;

use super::options::missing;
use super::sweep::SweepArguments;
use super::{console, recipe, sweep_table};
use crate::checkpoint::Freeze;
use crate::error::Error;
use crate::interrupt;
use crate::publish::publish;
use crate::study::{self, CacheCost, SweptRun};
use crate::train::{RecordedRun, RunFolder, TrainSettings};

/// The flags that all runs of a sweep share.
const SHARED: &str = "sweep.toml";
/// What was found, for programs.
const RESULT: &str = "sweep.json";
const SPREADSHEET: &str = "sweep.csv";
/// Between two looks at a process that runs.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A sweep on disk.
pub(super) struct Sweep {
    pub(super) folder: PathBuf,
    freezes: Vec<Freeze>,
    lrs: Vec<f64>,
    seeds: Vec<u64>,
}

impl Sweep {
    /// Starts the sweep that `arguments` mean, or goes on with it.
    pub(super) fn open(arguments: &SweepArguments) -> Result<Self, Error> {
        let shared = recipe::table(&arguments.options, arguments.recipe.as_deref())?;
        let seeds = arguments.seeds.clone().unwrap_or_else(|| vec![1, 2, 3]);
        let freezes = arguments.freeze.0.clone();
        let swept = (freezes, arguments.lr.clone(), seeds);
        Self::begin(arguments.out.clone(), shared, swept)
    }

    /// Starts a sweep in `folder`, or goes on with it, whose runs share the flags `shared`: each K, each
    /// peak learning rate (that of `shared` or the usual one for none) and each seed.
    pub(super) fn begin(
        folder: PathBuf,
        mut shared: Table,
        (freezes, lrs, seeds): (Vec<Freeze>, Option<Vec<f64>>, Vec<u64>),
    ) -> Result<Self, Error> {
        check_shared(&shared)?;
        for key in ["freeze", "cache", "out", "seed", "seeds"] {
            shared.remove(key);
        }
        let lr = shared.remove("lr").and_then(|lr| lr.as_float());
        let usual = lr.unwrap_or(TrainSettings::default().lr);
        let sweep = Self {
            folder,
            freezes,
            lrs: unique(lrs.unwrap_or_else(|| vec![usual])),
            seeds: unique(seeds),
        };
        sweep.claim(&shared.to_string())?;
        Ok(sweep)
    }

    /// The flags that all runs share.
    pub(super) fn shared(&self) -> Result<Table, Error> {
        let text = fs_err::read_to_string(self.folder.join(SHARED)).map_err(Error::Output)?;
        Ok(text.parse().unwrap_or_default())
    }

    /// Keeps what all runs share, and refuses a folder of another sweep.
    fn claim(&self, shared: &str) -> Result<(), Error> {
        match fs_err::read_to_string(self.folder.join(SHARED)) {
            Ok(found) if found == shared => return Ok(()),
            Ok(found) => return Err(Error::Usage {
                problem: format!(
                    "`{}` was begun with other flags: {}",
                    self.folder.display(),
                    differences(&found, shared)
                ),
                hint: "choose another `--out`, or remove the folder; K, seeds and learning rates may differ".into(),
            }),
            Err(_) => {}
        }
        fs_err::create_dir_all(&self.folder).map_err(Error::Output)?;
        write(&self.folder, SHARED, shared)
    }

    fn cache_folder(&self, freeze: Freeze) -> PathBuf {
        self.folder.join(format!("caches/freeze-{freeze}"))
    }

    /// The first run of `freeze`, if it is finished.
    pub(super) fn first_run(&self, freeze: Freeze) -> Option<PathBuf> {
        let (lr, seed) = (self.lrs.first()?, self.seeds.first()?);
        let folder = self.run_folder(freeze, *lr, *seed);
        RunFolder::summary(&folder).ok().flatten().map(|_| folder)
    }

    /// What `runs` over caches of these `costs` came to; it is kept too.
    pub(super) fn table(
        &self,
        runs: &[SweptRun],
        costs: &[CacheCost],
    ) -> Result<study::Table, Error> {
        let Some(first) = runs.first() else {
            return Err(missing("--seeds"));
        };
        let recorded = RecordedRun::open(&self.run_folder(first.freeze, first.lr, first.seed))?;
        let metric = recorded.metric().ok_or_else(|| Error::Usage {
            problem: "neither a validation nor a test split: nothing can be compared".into(),
            hint: "name one with `--valid`, or both with `--test` too".into(),
        })?;
        let table = study::Table::new(&metric, runs, costs)
            .unwrap_or_else(|| unreachable!("there is a run"));
        self.publish(&table)?;
        Ok(table)
    }

    fn run_folder(&self, freeze: Freeze, lr: f64, seed: u64) -> PathBuf {
        self.folder
            .join(format!("runs/freeze-{freeze}/lr-{lr:e}/seed-{seed}"))
    }

    /// Fills the caches that are not there yet, those of all depths in one pass; what each cost.
    pub(super) fn fill_caches(&self) -> Result<Vec<CacheCost>, Error> {
        let caches = self.folder.join("caches");
        let name = |freeze: Freeze| format!("freeze-{freeze}.json");
        let missing = |freeze: &&Freeze| !caches.join(name(**freeze)).is_file();
        let (nothing, depths): (Vec<Freeze>, Vec<Freeze>) = self
            .freezes
            .iter()
            .filter(missing)
            .partition(|freeze| **freeze == Freeze::Nothing);
        for group in [nothing, depths] {
            // A single one is written to the folder itself, several to folders of their own in it.
            let folder = match group.as_slice() {
                [] => continue,
                [freeze] => self.cache_folder(*freeze),
                _ => caches.clone(),
            };
            let names: Vec<String> = group.iter().map(ToString::to_string).collect();
            console::say(&format!("caches for K = {}", names.join(", ")));
            let flags = ["--freeze", &names.join(","), "--cache"].map(OsString::from);
            let flags = flags.into_iter().chain([folder.into()]);
            let summary = self.telly("precompute", flags.collect())?;
            for &freeze in &group {
                let several = summary.get("caches").and_then(Value::as_array);
                let of_this = several.into_iter().flatten();
                let of_this = of_this.filter(|cache| cache["freeze"] == json!(freeze));
                let bytes = of_this.map(|cache| &cache["bytes"]).next();
                let found = CacheCost {
                    freeze,
                    seconds: summary["seconds"].as_f64().unwrap_or(f64::NAN),
                    caches: group.len(),
                    bytes: bytes.unwrap_or(&summary["bytes"]).as_u64().unwrap_or(0),
                };
                write(&caches, &name(freeze), &json!(found).to_string())?;
            }
        }
        let costs = self.freezes.iter().map(|&freeze| {
            let path = caches.join(name(freeze));
            let text = fs_err::read_to_string(&path).map_err(Error::Output)?;
            serde_json::from_str(&text).map_err(|error| Error::Usage {
                problem: format!("`{}` is damaged: {error}", path.display()),
                hint: "remove it, and the same command goes on".into(),
            })
        });
        costs.collect()
    }

    /// Trains what is not trained yet; all runs.
    pub(super) fn train_all(&self) -> Result<Vec<SweptRun>, Error> {
        let cells: Vec<(Freeze, f64, u64)> = self
            .freezes
            .iter()
            .flat_map(|&freeze| self.lrs.iter().map(move |&lr| (freeze, lr)))
            .flat_map(|(freeze, lr)| self.seeds.iter().map(move |&seed| (freeze, lr, seed)))
            .collect();
        let mut runs = Vec::new();
        for (number, &(freeze, lr, seed)) in cells.iter().enumerate() {
            let folder = self.run_folder(freeze, lr, seed);
            let heading = format!(
                "K = {freeze}, learning rate {lr:e}, seed {seed} ({} of {})",
                number + 1,
                cells.len()
            );
            let summary = if let Some(summary) = RunFolder::summary(&folder)? {
                console::say(&format!("{heading} is finished"));
                summary
            } else {
                console::say(&heading);
                self.train((freeze, lr, seed), &folder)?
            };
            runs.push(SweptRun {
                freeze,
                lr,
                seed,
                summary,
            });
        }
        Ok(runs)
    }

    fn train(
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
        self.telly("train", flags.chain(cache).collect())
    }

    /// Runs `telly command` with what all runs share and `flags`; the object it ends with.
    fn telly(&self, command: &str, flags: Vec<OsString>) -> Result<Map<String, Value>, Error> {
        let shared = [OsString::from("--recipe"), self.folder.join(SHARED).into()];
        telly_json(
            command,
            shared.into_iter().chain(flags).collect(),
            &self.folder,
        )
    }

    /// Writes the table for programs and for spreadsheets.
    fn publish(&self, table: &study::Table) -> Result<(), Error> {
        let text = Value::Object(table.to_json()).to_string();
        write(&self.folder, RESULT, &text)?;
        write(&self.folder, SPREADSHEET, &sweep_table::csv(table))
    }
}

/// Refuses flags without which nothing can be trained.
pub(super) fn check_shared(shared: &Table) -> Result<(), Error> {
    for (key, flag) in [
        ("task", "--task"),
        ("model", "--model"),
        ("train", "--train"),
    ] {
        let elsewhere = key == "train" && shared.contains_key("data");
        if !shared.contains_key(key) && !elsewhere {
            return Err(missing(flag));
        }
    }
    Ok(())
}

/// Runs `telly command` as a process of its own, so that its peak memory is its own; the object it ends
/// with. What is interrupted goes on with `folder`.
pub(super) fn telly_json(
    command: &str,
    flags: Vec<OsString>,
    folder: &Path,
) -> Result<Map<String, Value>, Error> {
    let stopped = || Error::Interrupted {
        kept: format!("the same command goes on with `{}`", folder.display()),
    };
    if interrupt::requested() {
        return Err(stopped());
    }
    let program = std::env::current_exe().map_err(Error::Output)?;
    let mut process = Command::new(program);
    process.arg(command).args(flags).arg("--json");
    let (status, stdout) = output_of(process).map_err(Error::Output)?;
    if interrupt::requested() || status.code() == Some(interrupt::EXIT_STATUS.into()) {
        return Err(stopped());
    }
    let failed = || Error::Child {
        command: format!("telly {command}"),
        status: status.code(),
    };
    if !status.success() {
        return Err(failed());
    }
    let last = stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|_| failed())
}

/// Runs `process` to its end; what it wrote to stdout. Ctrl-C reaches this process alone, which asks the
/// other one to stop once: a second request would have it stop at once, and lose what it did.
fn output_of(mut process: Command) -> io::Result<(ExitStatus, String)> {
    process.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = process.process_group(0).spawn()?;
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.map_or(Ok(0), |mut stdout| stdout.read_to_string(&mut text))?;
        Ok::<_, io::Error>(text)
    });
    let mut asked = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if interrupt::requested() && !asked {
            asked = true;
            // It may have ended since.
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        }
        std::thread::sleep(LOOK_AGAIN);
    };
    let text = reader
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok((status, text))
}

/// Writes `folder/name` so that it is there whole or not at all.
pub(super) fn write(folder: &Path, name: &str, text: &str) -> Result<(), Error> {
    publish(folder, name, text.as_bytes()).map_err(Error::Output)
}

/// `values` once each.
pub(super) fn unique<T: PartialEq>(values: Vec<T>) -> Vec<T> {
    let mut unique = Vec::new();
    for value in values {
        if !unique.contains(&value) {
            unique.push(value);
        }
    }
    unique
}

/// The flags of which two recipes say different things.
fn differences(begun: &str, now: &str) -> String {
    let table = |text: &str| text.parse::<Table>().unwrap_or_default();
    let (begun, now) = (table(begun), table(now));
    let mut keys: Vec<&String> = begun.keys().chain(now.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let differ = keys
        .into_iter()
        .filter(|key| begun.get(*key) != now.get(*key));
    let say = |value: Option<&toml::Value>| value.map_or("nothing".into(), ToString::to_string);
    let told = differ.map(|key| {
        let flag = key.replace('_', "-");
        format!(
            "`--{flag}` {}, now {}",
            say(begun.get(key)),
            say(now.get(key))
        )
    });
    told.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told() {
        let told = differences(
            "epochs = 3\nlr = 1.0\n",
            "epochs = 4\nlr = 1.0\ntask = \"x\"\n",
        );
        assert_eq!(told, "`--epochs` 3, now 4; `--task` nothing, now \"x\"");
    }
}
