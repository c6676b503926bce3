//! Tests: a cache whose disk fails, or loses its power, at any call. Whatever is left, nothing
//! looks whole that is not, and the same command ends with the bytes of an undisturbed run.

#![allow(clippy::print_stdout, reason = "the figures are shown")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    Cache, EncodedStates, Error, Fingerprint, Manifest, Precision, Share, SplitRows, Writer, merge,
    verify,
};
use crate::disk::lossy::{Bytes, LossyDisk, Survival, Trouble};
use crate::ragged::Ragged;
use crate::targets::Targets;

const WIDTH: usize = 3;
const SHARD_BYTES: usize = 50;
/// Numbers of the operating system's errors: input or output failed, no space is left.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// Mixes of what survives, for every call.
const MIXES: u64 = 4;

/// The first token of a sequence, which no other has.
type Sequence = u32;
/// Every file below a folder with its bytes; a folder has none.
type Content = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// What is to be cached.
#[derive(Clone, Copy)]
struct Job {
    sequences: &'static [Sequence],
    seed: u64,
    shard_bytes: usize,
}

const FIRST: Job = Job {
    sequences: &[10, 20, 30, 40, 50, 60, 70, 80],
    seed: 1,
    shard_bytes: SHARD_BYTES,
};
/// One fewer, two new ones, another order.
const CHANGED: Job = Job {
    sequences: &[80, 90, 70, 60, 30, 20, 10, 40, 100],
    ..FIRST
};
const OTHER_MODEL: Job = Job { seed: 2, ..FIRST };
const LARGER_SHARDS: Job = Job {
    shard_bytes: 2 * SHARD_BYTES,
    ..FIRST
};

impl Job {
    fn ids(self) -> Ragged<u32> {
        let mut ids = Ragged::new(1);
        for &first in self.sequences {
            let sequence: Vec<u32> = (first..=first + first / 10 % 4).collect();
            ids.push(&sequence);
        }
        ids
    }

    fn plan(self) -> (Manifest, [SplitRows; 2]) {
        let mut fingerprint = Fingerprint::default();
        fingerprint.set("weights", self.seed);
        fingerprint.set("train", format!("{:?}", self.sequences));
        let mut manifest = Manifest::new(fingerprint);
        manifest.precision = Some(Precision::Fp16);
        manifest.width = WIDTH;
        Writer::plan_shards(&mut manifest, &self.ids(), self.shard_bytes).expect("a plan");
        assert!(self.shard_bytes > SHARD_BYTES || manifest.shards.len() > 3);
        let count = u32::try_from(self.sequences.len()).expect("few");
        let split = |name: &str, rows: Vec<u32>| SplitRows {
            name: name.into(),
            columns: 1,
            targets: Targets::Classes(rows.iter().map(|&row| i64::from(row % 2)).collect()),
            rows,
            tokens: self.ids().tokens(),
        };
        let splits = [
            split("train", (0..count).collect()),
            split("valid", vec![1, 0]),
        ];
        (manifest, splits)
    }

    /// As `telly precompute`. Sequences that are computed and whose shard is written go to `done`.
    fn precompute(
        self,
        folder: &Path,
        share: Option<Share>,
        force: bool,
        done: &mut BTreeSet<Sequence>,
    ) -> Result<(), Error> {
        let (manifest, splits) = self.plan();
        let ids = self.ids();
        let mut writer = match share {
            Some(share) => Writer::open_share(folder, share, manifest, &ids, &splits, force)?,
            None => Writer::open(folder, manifest, &ids, &splits, force)?,
        };
        let previous = writer.take_previous();
        for (number, range) in writer.missing() {
            let ids = ids.gather(&range.collect::<Vec<_>>());
            let mut states = EncodedStates::new(Precision::Fp16, WIDTH, ids.tokens());
            let mut computed = Vec::new();
            for (sequence, &start) in ids.iter().zip(ids.offsets()) {
                let copied = previous
                    .as_ref()
                    .is_some_and(|previous| previous.copy(sequence, start, &mut states));
                if !copied {
                    assert!(states.put(start, &self.states(sequence)), "finite");
                    computed.push(sequence[0]);
                }
            }
            writer.write_shard(number, &ids, Some(&states))?;
            done.extend(computed);
        }
        writer.finish().map(drop)
    }

    /// Numbers that fp16 holds exactly.
    fn states(self, sequence: &[u32]) -> Vec<f32> {
        let number = |id: u32, place: u16| {
            f32::from(u16::try_from(id + u32::try_from(self.seed).expect("small")).expect("small"))
                / f32::from(1u16 << place)
        };
        let states = sequence
            .iter()
            .flat_map(|&id| (0..3).map(move |place| number(id, place)));
        states.collect()
    }
}

fn share(index: usize) -> Share {
    Share::new(index, 2).expect("a share")
}

fn shares(folder: &Path, done: &mut BTreeSet<Sequence>) -> Result<(), Error> {
    FIRST.precompute(folder, Some(share(1)), false, done)?;
    FIRST.precompute(folder, Some(share(2)), false, done)
}

/// Puts shares together, unless that has been done.
fn merge_shares(folder: &Path) -> Result<(), Error> {
    match merge(folder) {
        Err(Error::NoShares { .. }) => Cache::open(folder).map(drop),
        merged => merged.map(drop),
    }
}

type Command = fn(&Path, &mut BTreeSet<Sequence>) -> Result<(), Error>;

/// A command, and what is there before it.
struct Scenario {
    name: &'static str,
    before: Command,
    command: Command,
    hard_links: bool,
    /// What the command need not compute, whatever happens to it.
    known: &'static [Sequence],
    /// Whether what one run has computed the next need not.
    goes_on: bool,
}

const NOTHING: Command = |_, _| Ok(());
const FIRST_CACHE: Command = |folder, done| FIRST.precompute(folder, None, false, done);
const CHANGED_CACHE: Command = |folder, done| CHANGED.precompute(folder, None, false, done);
const OLD_IN_CHANGED: &[Sequence] = &[80, 70, 60, 30, 20, 10, 40];

const SCENARIOS: [Scenario; 8] = [
    Scenario {
        name: "fresh",
        before: NOTHING,
        command: FIRST_CACHE,
        hard_links: true,
        known: &[],
        goes_on: true,
    },
    Scenario {
        name: "changed data",
        before: FIRST_CACHE,
        command: CHANGED_CACHE,
        hard_links: true,
        known: OLD_IN_CHANGED,
        goes_on: true,
    },
    Scenario {
        name: "changed data, no hard links",
        before: FIRST_CACHE,
        command: CHANGED_CACHE,
        hard_links: false,
        known: OLD_IN_CHANGED,
        goes_on: true,
    },
    Scenario {
        name: "another shard size",
        before: FIRST_CACHE,
        command: |folder, done| LARGER_SHARDS.precompute(folder, None, false, done),
        hard_links: true,
        known: FIRST.sequences,
        goes_on: true,
    },
    Scenario {
        name: "replaced by --force",
        before: FIRST_CACHE,
        command: |folder, done| OTHER_MODEL.precompute(folder, None, true, done),
        hard_links: true,
        known: &[],
        goes_on: false,
    },
    Scenario {
        name: "shares",
        before: NOTHING,
        command: shares,
        hard_links: true,
        known: &[],
        goes_on: true,
    },
    Scenario {
        name: "merge",
        before: shares,
        command: |folder, _| merge_shares(folder),
        hard_links: true,
        known: FIRST.sequences,
        goes_on: true,
    },
    Scenario {
        name: "merge, no hard links",
        before: shares,
        command: |folder, _| merge_shares(folder),
        hard_links: false,
        known: FIRST.sequences,
        goes_on: true,
    },
];

/// A scenario in a folder, with what is there before and after it undisturbed.
struct Stage {
    scenario: &'static Scenario,
    space: tempfile::TempDir,
    before: Content,
    after: Content,
    /// Calls of the undisturbed run.
    calls: usize,
}

/// What one run came to.
struct Outcome {
    result: Result<(), Error>,
    done: BTreeSet<Sequence>,
    disk: LossyDisk,
}

impl Stage {
    fn new(scenario: &'static Scenario) -> Self {
        let space = memory_folder();
        let mut stage = Self {
            scenario,
            space,
            before: Content::new(),
            after: Content::new(),
            calls: 0,
        };
        fs_err::create_dir(stage.root()).expect("a folder");
        (scenario.before)(&stage.cache(), &mut BTreeSet::new()).expect("prepared");
        stage.before = content(&stage.root());
        let outcome = stage.run(Trouble::None);
        outcome.result.expect("undisturbed");
        stage.calls = outcome.disk.calls();
        stage.after = content(&stage.root());
        stage
    }

    fn root(&self) -> PathBuf {
        self.space.path().join("root")
    }

    fn cache(&self) -> PathBuf {
        self.root().join("cache")
    }

    /// Everything as before the command.
    fn reset(&self) {
        fs_err::remove_dir_all(self.root()).expect("removed");
        fs_err::create_dir(self.root()).expect("a folder");
        for (path, bytes) in &self.before {
            let path = self.root().join(path);
            match bytes {
                Some(bytes) => fs_err::write(path, bytes).expect("written"),
                None => fs_err::create_dir(path).expect("a folder"),
            }
        }
    }

    fn run(&self, trouble: Trouble) -> Outcome {
        let disk = LossyDisk::new(&self.root(), trouble, self.scenario.hard_links);
        let mut done = BTreeSet::new();
        let (result, disk) = disk.during(|| (self.scenario.command)(&self.cache(), &mut done));
        Outcome { result, done, disk }
    }

    /// Nothing in `folder` looks whole and is not, neither to `Cache::open` and `verify` nor
    /// beside the bytes of the undisturbed run.
    fn check_left(&self, folder: &Path, told: &str) {
        let manifest = match Manifest::read(folder) {
            Ok(manifest) => manifest,
            Err(Error::Missing { .. }) => {
                assert!(Cache::open(folder).is_err(), "{told}");
                return;
            }
            Err(error) => panic!("{told}: {error}"),
        };
        let found = verify(folder, |_| ()).expect("readable");
        assert!(found.problems.is_empty(), "{told}: {:?}", found.problems);
        let shards = manifest.shards.iter();
        let shards = shards.filter(|shard| shard.blake3.is_some());
        let files = shards.map(|shard| &shard.file);
        for file in files.chain(manifest.splits.iter().map(|split| &split.file)) {
            let bytes = fs_err::read(folder.join(file)).expect("bytes");
            assert!(
                self.known_bytes(file).any(|known| *known == bytes),
                "{told}: {file}"
            );
        }
        match Cache::open(folder) {
            Ok(_) => assert_eq!(found.unwritten, 0, "{told}"),
            Err(error) => assert!(
                matches!(error, Error::Incomplete { .. }) && !manifest.complete,
                "{told}: {error}"
            ),
        }
    }

    /// The bytes of every file of that name before and after.
    fn known_bytes<'a>(&'a self, file: &'a str) -> impl Iterator<Item = &'a Vec<u8>> {
        let all = self.before.iter().chain(&self.after);
        all.filter(move |(path, _)| path.ends_with(file))
            .filter_map(|(_, bytes)| bytes.as_ref())
    }

    /// What is left is sound, and the same command ends as if nothing had happened.
    fn check_goes_on(&self, disturbed: &Outcome, told: &str) {
        for folder in folders(&self.cache()) {
            self.check_left(&folder, &format!("{told}, {}", folder.display()));
        }
        let again = self.run(Trouble::None);
        if let Err(error) = again.result {
            panic!("{told}: the next run: {error}");
        }
        let found = content(&self.root());
        assert!(
            found == self.after,
            "{told}: other files or bytes: {:?}, expected {:?}",
            found.keys(),
            self.after.keys()
        );
        for known in self.scenario.known {
            assert!(
                !again.done.contains(known) && !disturbed.done.contains(known),
                "{told}: {known} was known, and is computed"
            );
        }
        if self.scenario.goes_on {
            let twice: Vec<_> = again.done.intersection(&disturbed.done).collect();
            assert!(twice.is_empty(), "{told}: computed twice: {twice:?}");
        }
    }
}

/// In memory where there is such a disk: what is left of it is not the real disk's to say.
fn memory_folder() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// A cache's folder and those of caches in it.
fn folders(cache: &Path) -> Vec<PathBuf> {
    let mut folders = vec![cache.to_owned()];
    if let Ok(entries) = fs_err::read_dir(cache) {
        let paths = entries.map(|entry| entry.expect("an entry").path());
        folders.extend(paths.filter(|path| path.is_dir()));
    }
    folders
}

fn content(root: &Path) -> Content {
    fn collect(root: &Path, folder: &Path, content: &mut Content) {
        for entry in fs_err::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let below = path.strip_prefix(root).expect("below").to_owned();
            if path.is_dir() {
                content.insert(below, None);
                collect(root, &path, content);
            } else {
                content.insert(below, Some(fs_err::read(&path).expect("bytes")));
            }
        }
    }
    let mut found = Content::new();
    collect(root, root, &mut found);
    found
}

#[test]
fn every_call_can_fail() {
    for scenario in &SCENARIOS {
        let stage = Stage::new(scenario);
        for call in 0..stage.calls {
            for trouble in [
                Trouble::Once(call, EIO),
                Trouble::Once(call, ENOSPC),
                Trouble::From(call, EIO),
                Trouble::From(call, ENOSPC),
            ] {
                stage.reset();
                let disturbed = stage.run(trouble);
                let failed = disturbed.disk.failed().expect("a call failed");
                let told = format!("{}: {trouble:?} at {failed}", scenario.name);
                match &disturbed.result {
                    Err(error) => assert!(matches!(error, Error::Write(_)), "{told}: {error}"),
                    // What cannot be linked is copied.
                    Ok(()) => assert!(failed.starts_with("Link"), "{told}: no error"),
                }
                stage.check_goes_on(&disturbed, &told);
            }
        }
    }
}

#[test]
fn the_power_can_be_cut_at_every_call() {
    for scenario in &SCENARIOS {
        let stage = Stage::new(scenario);
        for call in 0..=stage.calls {
            let mixes = (0..MIXES).map(|mix| Survival::Random(call as u64 * MIXES + mix));
            let survivals = [
                Survival::Nothing,
                Survival::Names(Bytes::Lost),
                Survival::Names(Bytes::FirstHalf),
                Survival::Names(Bytes::Zeros),
                Survival::Names(Bytes::Whole),
            ];
            for survival in survivals.into_iter().chain(mixes) {
                stage.reset();
                let disturbed = stage.run(Trouble::PowerCut(call));
                assert_eq!(disturbed.result.is_ok(), call == stage.calls);
                disturbed.disk.lose_power(survival);
                let next = disturbed.disk.failed().unwrap_or("the end");
                let told = format!("{}: call {call}, {next}, {survival:?}", scenario.name);
                stage.check_goes_on(&disturbed, &told);
            }
        }
        println!(
            "{}: {} calls, {} power cuts",
            scenario.name,
            stage.calls,
            (stage.calls + 1) * (5 + usize::try_from(MIXES).expect("few"))
        );
    }
}

/// Every run but the last is cut short, the next starts from what is left.
#[test]
fn the_power_can_be_cut_again_and_again() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for scenario in &SCENARIOS {
        let stage = Stage::new(scenario);
        for _ in 0..30 {
            stage.reset();
            for cut in 0..20 {
                let call = random.random_range(0..=stage.calls);
                let disturbed = stage.run(Trouble::PowerCut(call));
                disturbed.disk.lose_power(Survival::Random(random.random()));
                let told = format!("{}: cut {cut}, call {call}", scenario.name);
                for folder in folders(&stage.cache()) {
                    stage.check_left(&folder, &told);
                }
            }
            stage.run(Trouble::None).result.expect("the last run");
            assert!(content(&stage.root()) == stage.after, "{}", scenario.name);
        }
    }
}
