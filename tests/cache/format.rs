//! The activation cache: what is written is what is read, by Telly and by NumPy; an interrupted
//! run ends with the same bytes; damage is found and named.

#![allow(
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "small numbers; the figures are shown"
)]

use std::path::Path;
use std::process::Command;

use crate::support::{
    content, goldens, precompute, project, python, run_python, stderr, telly, telly_json, text,
    write_classification, write_search,
};
use serde_json::{Value, json};
use telly::cache::{
    Cache, EncodedStates, Error, Fingerprint, Manifest, Precision, SplitRows, Writer, verify,
};
use telly::ragged::Ragged;
use telly::targets::Targets;

const WIDTH: usize = 6;

fn sequences() -> Ragged<u32> {
    let mut ids = Ragged::new(1);
    for row in 0..20u32 {
        let sequence: Vec<u32> = (0..=row % 5).map(|position| 100 * row + position).collect();
        ids.push(&sequence);
    }
    ids
}

/// Numbers that fp16 holds exactly.
fn hidden(ids: &Ragged<u32>) -> Vec<f32> {
    let numbers = ids
        .values()
        .iter()
        .flat_map(|&id| (0..WIDTH).map(move |i| (id, i)));
    numbers
        .map(|(id, i)| f32::from(u16::try_from(id).expect("small")) / 8.0 - i as f32)
        .collect()
}

/// Within what `precision` rounds away: of a token's largest number.
fn assert_same_states(found: &[f32], expected: &[f32], precision: Precision) {
    let tolerance = match precision {
        Precision::Fp16 | Precision::Fp32 => 0.0,
        Precision::Bf16 | Precision::Int8 => 1.0 / 254.0,
    };
    for (found, expected) in found.chunks(WIDTH).zip(expected.chunks(WIDTH)) {
        let largest = expected
            .iter()
            .fold(0.0f32, |most, number| most.max(number.abs()));
        let pairs = found.iter().zip(expected);
        let off = pairs.fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(
            off <= tolerance * largest * 1.001,
            "{precision}: {found:?}, was {expected:?}"
        );
    }
}

fn plan(precision: Precision, seed: u64) -> (Manifest, Vec<SplitRows>) {
    let mut fingerprint = Fingerprint::default();
    fingerprint.set("seed", seed);
    let mut manifest = Manifest::new(fingerprint);
    manifest.precision = Some(precision);
    manifest.width = WIDTH;
    // About five tokens a shard.
    Writer::plan_shards(&mut manifest, &sequences(), 80).expect("a plan");
    let split = SplitRows {
        name: "train".into(),
        columns: 2,
        rows: (0..20).collect(),
        targets: Targets::None,
        tokens: sequences().tokens(),
    };
    (manifest, vec![split])
}

/// Writes up to `shards` of the missing shards; finishes when none is left.
fn write(folder: &Path, precision: Precision, shards: usize) -> Writer {
    let (manifest, splits) = plan(precision, 1);
    let mut writer =
        Writer::open(folder, manifest, &sequences(), &splits, false).expect("a writer");
    for (number, range) in writer.missing().into_iter().take(shards) {
        let ids = sequences().gather(&range.collect::<Vec<_>>());
        let mut states = EncodedStates::new(precision, WIDTH, ids.tokens());
        assert!(states.put(0, &hidden(&ids)), "finite");
        writer
            .write_shard(number, &ids, Some(&states))
            .expect("written");
    }
    writer
}

#[test]
fn what_is_written_is_read_back() {
    for precision in [
        Precision::Fp16,
        Precision::Fp32,
        Precision::Bf16,
        Precision::Int8,
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let manifest = write(folder.path(), precision, usize::MAX)
            .finish()
            .expect("finished");
        assert!(manifest.shards.len() > 3, "several shards");
        let on_disk: u64 = content(folder.path())
            .iter()
            .filter(|(name, _)| name.starts_with("shard"))
            .map(|(_, bytes)| bytes.len() as u64)
            .sum();
        assert_eq!(manifest.bytes, on_disk, "the plan's size is exact");
        let cache = Cache::open(folder.path()).expect("a cache");
        let order: Vec<usize> = vec![19, 3, 3, 0, 11];
        let expected = sequences().gather(&order);
        assert_eq!(cache.token_ids(&order), expected);
        assert_same_states(
            cache.hidden_states(&order).values(),
            &hidden(&expected),
            precision,
        );
        assert_eq!(cache.hidden_states(&order).offsets(), expected.offsets());
        let split = cache.split("train").expect("readable").expect("there");
        assert_eq!((split.len(), split.sequence(3, 1)), (10, 7));
        let found = verify(folder.path(), |_| ()).expect("verified");
        assert!(found.problems.is_empty() && found.unwritten == 0);
    }
}

/// Stopped after any number of shards, with a half-written file lying about, the next run goes
/// on and ends with the bytes of an undisturbed one.
#[test]
fn an_interrupted_run_ends_with_the_same_bytes() {
    let whole = tempfile::tempdir().expect("a folder");
    let manifest = write(whole.path(), Precision::Fp16, usize::MAX)
        .finish()
        .expect("finished");
    for stop in 0..manifest.shards.len() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(write(folder.path(), Precision::Fp16, stop));
        assert!(
            matches!(Cache::open(folder.path()), Err(Error::Incomplete { written, .. }) if written == stop)
        );
        fs_err::write(folder.path().join(".telly-half"), b"half").expect("written");
        let writer = write(folder.path(), Precision::Fp16, 0);
        assert_eq!(
            writer.missing().len(),
            manifest.shards.len() - stop,
            "whole shards are kept"
        );
        drop(writer);
        write(folder.path(), Precision::Fp16, usize::MAX)
            .finish()
            .expect("finished");
        assert_eq!(content(folder.path()), content(whole.path()));
    }
}

#[test]
fn a_damaged_shard_is_written_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(write(folder.path(), Precision::Fp16, 3));
    let shard = folder.path().join("shard-00001.safetensors");
    let mut bytes = fs_err::read(&shard).expect("bytes");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs_err::write(&shard, bytes).expect("written");
    let missing = write(folder.path(), Precision::Fp16, 0).missing();
    assert!(
        missing.iter().any(|(number, _)| *number == 1),
        "{missing:?}"
    );
}

#[test]
fn another_fingerprint_is_refused_and_replaced_by_force() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), Precision::Fp16, usize::MAX)
        .finish()
        .expect("finished");
    let before = content(folder.path());
    let (manifest, splits) = plan(Precision::Fp16, 2);
    let Err(error) = Writer::open(
        folder.path(),
        manifest.clone(),
        &sequences(),
        &splits,
        false,
    ) else {
        panic!("another fingerprint was accepted");
    };
    assert!(
        error.to_string().contains("seed: the cache has 1, now 2"),
        "{error}"
    );
    assert_eq!(content(folder.path()), before);
    let writer =
        Writer::open(folder.path(), manifest, &sequences(), &splits, true).expect("replaced");
    let shards = Manifest::read(folder.path())
        .expect("a manifest")
        .shards
        .len();
    assert_eq!(
        writer.missing().len(),
        shards,
        "nothing of the old cache is kept"
    );
    assert!(Cache::open(folder.path()).is_err());
}

#[test]
fn a_second_writer_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = write(folder.path(), Precision::Fp16, 1);
    let (manifest, splits) = plan(Precision::Fp16, 1);
    assert!(matches!(
        Writer::open(folder.path(), manifest, &sequences(), &splits, false),
        Err(Error::Locked { .. })
    ));
    drop(first);
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    fs_err::write(folder.path().join("thesis.txt"), "years of work").expect("written");
    let (manifest, splits) = plan(Precision::Fp16, 1);
    assert!(matches!(
        Writer::open(folder.path(), manifest, &sequences(), &splits, true),
        Err(Error::Foreign { .. })
    ));
    assert_eq!(content(folder.path()).len(), 1);
}

/// Truncation, a swapped shard, a missing shard, a cut manifest, another version: each is a named
/// error when the cache is opened; a flipped bit is found by `verify`.
#[test]
fn damage_is_found_and_named() {
    let make = || {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), Precision::Fp16, usize::MAX)
            .finish()
            .expect("finished");
        folder
    };
    let open = |folder: &Path| Cache::open(folder).err().expect("an error").to_string();

    let folder = make();
    let shard = folder.path().join("shard-00002.safetensors");
    let bytes = fs_err::read(&shard).expect("bytes");
    fs_err::write(&shard, &bytes[..bytes.len() - 1]).expect("written");
    assert!(open(folder.path()).contains("shard-00002.safetensors"));

    let folder = make();
    fs_err::remove_file(folder.path().join("shard-00001.safetensors")).expect("removed");
    let error = Cache::open(folder.path()).err().expect("an error");
    assert!(
        matches!(&error, Error::Read(source) if source.to_string().contains("shard-00001")),
        "{error:?}"
    );

    let folder = make();
    let manifest = folder.path().join("manifest.json");
    let content = fs_err::read_to_string(&manifest).expect("text");
    fs_err::write(&manifest, &content[..content.len() / 2]).expect("written");
    assert!(open(folder.path()).contains("manifest.json"));
    fs_err::write(
        &manifest,
        content.replace("\"version\": 2", "\"version\": 9"),
    )
    .expect("written");
    assert!(open(folder.path()).contains("version 9"));

    let folder = make();
    let shard = folder.path().join("shard-00000.safetensors");
    let mut bytes = fs_err::read(&shard).expect("bytes");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs_err::write(&shard, &bytes).expect("written");
    Cache::open(folder.path()).expect("opens");
    let problems = verify(folder.path(), |_| ()).expect("read").problems;
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].to_string().contains("shard-00000"),
        "{}",
        problems[0]
    );
    let output = telly(&["cache", "verify", text(folder.path())])
        .output()
        .expect("telly runs");
    assert_eq!(output.status.code(), Some(2));
}

/// `verify` names a file that is missing, too short, or another's.
#[test]
fn verify_names_every_damaged_file() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), Precision::Fp16, usize::MAX)
        .finish()
        .expect("finished");
    let shard = |number: usize| folder.path().join(format!("shard-{number:05}.safetensors"));
    let sizes: Vec<u64> = (0..5)
        .map(|number| fs_err::metadata(shard(number)).expect("a shard").len())
        .collect();
    let twin = (1..5)
        .find(|&number| sizes[number] == sizes[0])
        .expect("a shard of the same size");
    let others: Vec<usize> = (1..5).filter(|&number| number != twin).collect();
    let bytes = [shard(0), shard(twin)].map(|path| fs_err::read(path).expect("bytes"));
    fs_err::write(shard(0), &bytes[1]).expect("swapped");
    fs_err::write(shard(twin), &bytes[0]).expect("swapped");
    fs_err::remove_file(shard(others[0])).expect("removed");
    fs_err::write(shard(others[1]), b"short").expect("written");
    let problems = verify(folder.path(), |_| ()).expect("read").problems;
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    println!("{problems:#?}");
    assert_eq!(problems.len(), 4);
    for (number, words) in [
        (0, format!("content is that of shard-{twin:05}")),
        (twin, "content is that of shard-00000".into()),
        (others[0], "it is missing".into()),
        (others[1], "it has 5 bytes".into()),
    ] {
        let name = format!("shard-{number:05}.safetensors");
        let named = |problem: &&String| problem.contains(&format!("{name}` is damaged"));
        let problem = problems.iter().find(named).expect("named");
        assert!(problem.contains(&words), "{problem}");
    }
}

#[test]
fn no_flipped_bit_of_fp16_goes_unnoticed() {
    flip_each_bit("fp16");
}

#[test]
fn no_flipped_bit_of_int8_goes_unnoticed() {
    flip_each_bit("int8");
}

/// Every single bit of every file: manifest, shards, split index.
fn flip_each_bit(precision: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("train.jsonl");
    write_classification(&data, 4);
    let model = goldens().join("bert-tiny");
    let cache = folder.path().join("cache");
    let mut command = precompute("classify", &model, &data, "1", &cache);
    command.extend(["--precision", precision].map(String::from));
    telly_json(&command);
    let folder = cache.as_path();
    let mut flips = 0;
    for (name, bytes) in content(folder) {
        if name == "lock" || name == "CACHEDIR.TAG" {
            continue;
        }
        let path = folder.join(&name);
        let mut flipped = bytes.clone();
        for bit in 0..8 * bytes.len() {
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs_err::write(&path, &flipped).expect("written");
            match verify(folder, |_| ()) {
                Ok(found) => {
                    let problems: Vec<String> =
                        found.problems.iter().map(ToString::to_string).collect();
                    assert!(
                        problems.len() == 1 && problems[0].contains(&name),
                        "{name}, bit {bit}: {problems:?}"
                    );
                }
                Err(error) => assert_eq!(name, "manifest.json", "bit {bit}: {error}"),
            }
            flipped[bit / 8] = bytes[bit / 8];
            flips += 1;
        }
        fs_err::write(&path, &bytes).expect("written");
    }
    println!("{precision}: {flips} flipped bits, each found");
    assert!(flips > 10_000);
    assert!(verify(folder, |_| ()).expect("read").problems.is_empty());
}

/// `tests/goldens/cache-v1` was written by Telly before version 2.
#[test]
fn version_1_is_read() {
    let folder = goldens().join("cache-v1");
    assert!(verify(&folder, |_| ()).expect("read").problems.is_empty());
    let cache = Cache::open(&folder).expect("a cache");
    let split = cache.split("train").expect("readable").expect("there");
    assert_eq!(split.targets.classes(), [0, 1, 0, 1, 0]);
    assert_eq!(split.rows[0], split.rows[4], "the same text");
    let states = cache.hidden_states(&split.rows);
    assert_eq!((states.tokens(), states.width()), (23, 32));
    let run = tempfile::tempdir().expect("a folder");
    telly_json(&[
        "train",
        "--cache",
        text(&folder),
        "--out",
        text(run.path()),
        "--epochs",
        "1",
        "--force",
    ]);
}

/// The lines of NumPy in `docs/cache-format.md` read what Telly reads, and so does
/// `scripts/goldens/read_cache.py`.
#[test]
fn numpy_reads_the_cache() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("train.jsonl");
    write_search(&data, 30);
    for precision in ["fp16", "fp32", "bf16", "int8"] {
        let cache = folder.path().join(precision);
        telly_json(&[
            "precompute",
            "--task",
            "search",
            "--model",
            text(&goldens().join("bert-tiny")),
            "--train",
            text(&data),
            "--freeze",
            "2",
            "--max-query-length",
            "16",
            "--max-code-length",
            "32",
            "--cache",
            text(&cache),
            "--precision",
            precision,
            "--provider",
            "cpu",
        ]);
        let printed = run_python(&python, "read_cache.py", &[&cache]);
        let found: Value = serde_json::from_str(&printed).expect("JSON");
        let opened = Cache::open(&cache).expect("a cache");
        let all: Vec<usize> = (0..opened.manifest().sequences).collect();
        let states = opened.hidden_states(&all);
        let sum: f64 = states
            .values()
            .iter()
            .map(|&number| f64::from(number))
            .sum();
        let ids: u64 = opened
            .token_ids(&all)
            .values()
            .iter()
            .map(|&id| u64::from(id))
            .sum();
        println!("{precision}: NumPy {printed}, Telly: sum {sum}, ids {ids}");
        let shard = &found["shards"][0];
        let tensors = &shard["tensors"];
        assert_eq!(tensors["hidden"]["shape"], json!([states.tokens(), 32]));
        assert_eq!(tensors["ids"]["sum"], json!(ids as f64));
        assert!((shard["sum"].as_f64().expect("a sum") - sum).abs() < 1e-3);

        let page = fs_err::read_to_string(project().join("docs/cache-format.md")).expect("a page");
        let (_, code) = page.split_once("```python\n").expect("a snippet");
        let (code, _) = code.split_once("```").expect("its end");
        assert!(code.contains("\"cache/mine/"));
        let code = code.replace("cache/mine", text(&cache));
        let code = format!("{code}\nprint(states.shape[0], states.astype('float64').sum())");
        let output = Command::new(&python).args(["-c", &code]).output();
        let output = output.expect("Python runs");
        assert!(output.status.success(), "{}", stderr(&output));
        let printed = String::from_utf8(output.stdout).expect("UTF-8");
        let (tokens, sum) = printed.trim().split_once(' ').expect("two numbers");
        let first = opened.hidden_states(&[0]);
        assert_eq!(tokens.parse(), Ok(first.tokens()));
        let numbers = first.values().iter().copied().map(f64::from);
        let expected: f64 = numbers.sum();
        assert!((sum.parse::<f64>().expect("a sum") - expected).abs() < 1e-3);
    }
}
