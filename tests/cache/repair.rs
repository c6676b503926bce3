//! `telly cache verify --repair`: only what is damaged is computed again, and the cache has the
//! bytes that it had.

#![allow(clippy::print_stdout, reason = "the errors are shown")]

use std::path::Path;
use std::process::Command;

use crate::support::{
    self, Classification, FAILED, WRONG_INPUT, content, fails, goldens, names, precompute, telly,
    telly_json, telly_ok, text, write_classification,
};
use telly::cache::Manifest;

/// A cache of some ten shards and two splits.
fn make(work: &Classification, cache: &Path, more: &[&str]) {
    let model = goldens().join("bert-tiny");
    let mut command = precompute("classify", &model, &work.path("train.jsonl"), "2", cache);
    let valid = work.path("other.jsonl");
    command.extend(["--valid", text(&valid)].map(String::from));
    if !more.contains(&"--shard-size") {
        command.extend(["--shard-size", "2KiB"].map(String::from));
    }
    command.extend(more.iter().map(ToString::to_string));
    telly_json(&command);
}

fn repair(cache: &Path) -> [&str; 4] {
    ["cache", "verify", text(cache), "--repair"]
}

fn flip_last_bit(path: &Path) {
    let mut bytes = fs_err::read(path).expect("bytes");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs_err::write(path, bytes).expect("written");
}

#[test]
fn only_what_is_damaged_is_computed() {
    for flags in [
        &["--precision", "fp16"][..],
        &[
            "--precision",
            "int8",
            "--frozen-precision",
            "int8",
            "--shard-size",
            "1KiB",
        ],
    ] {
        let work = Classification::new();
        let cache = work.path("cache");
        make(&work, &cache, flags);
        let whole = content(&cache);
        let shards = Manifest::read(&cache).expect("a manifest").shards;
        assert!(shards.len() > 6, "several shards");
        let tokens = |numbers: &[usize]| -> usize {
            numbers.iter().map(|&number| shards[number].tokens).sum()
        };
        let shard = |number: usize| cache.join(&shards[number].file);

        let found = telly_json(&repair(&cache));
        assert_eq!(
            (&found["damaged"], &found["computed_tokens"]),
            (&0.into(), &0.into())
        );
        assert_eq!(content(&cache), whole);

        // A flipped bit, a cut file, a missing one, two in each other's place.
        flip_last_bit(&shard(1));
        let bytes = fs_err::read(shard(2)).expect("bytes");
        fs_err::write(shard(2), &bytes[..bytes.len() / 2]).expect("written");
        fs_err::remove_file(shard(3)).expect("removed");
        fs_err::rename(shard(4), cache.join("x.safetensors")).expect("renamed");
        fs_err::rename(shard(5), shard(4)).expect("renamed");
        fs_err::rename(cache.join("x.safetensors"), shard(5)).expect("renamed");
        let verify = telly(&["cache", "verify", text(&cache)]);
        fails(verify, WRONG_INPUT, &["is damaged", "verify --repair"]);
        let found = telly_json(&repair(&cache));
        println!("{found}");
        assert_eq!(found["damaged"], 5);
        assert_eq!(found["computed_tokens"], tokens(&[1, 2, 3, 4, 5]));
        assert_eq!(content(&cache), whole);

        // Split files are written again; nothing is computed.
        flip_last_bit(&cache.join("valid.safetensors"));
        fs_err::remove_file(cache.join("train.safetensors")).expect("removed");
        let found = telly_json(&repair(&cache));
        assert_eq!(
            (&found["damaged"], &found["computed_tokens"]),
            (&2.into(), &0.into())
        );
        assert_eq!(content(&cache), whole);
        assert_eq!(telly_json(&["cache", "verify", text(&cache)])["damaged"], 0);
    }
}

/// A cache of token ids alone, one put together from shares, one that was moved.
#[test]
fn every_kind_of_cache_is_repaired() {
    let work = Classification::new();
    let (ids, whole, shared) = (work.path("ids"), work.path("whole"), work.path("shared"));
    let model = goldens().join("bert-tiny");
    telly_json(&precompute(
        "classify",
        &model,
        &work.path("train.jsonl"),
        "none",
        &ids,
    ));
    make(&work, &whole, &[]);
    for share in ["1/2", "2/2"] {
        make(&work, &shared, &["--shard", share]);
    }
    assert_eq!(content(&shared), content(&whole));
    let moved = work.path("moved");
    fs_err::create_dir(&moved).expect("a folder");
    for name in names(&whole) {
        fs_err::copy(whole.join(&name), moved.join(&name)).expect("copied");
    }
    for cache in [&ids, &shared, &moved] {
        let before = content(cache);
        flip_last_bit(&cache.join("shard-00000.safetensors"));
        assert_eq!(telly_json(&repair(cache))["damaged"], 1);
        assert_eq!(content(cache), before, "{}", cache.display());
    }
}

#[test]
fn what_cannot_be_repaired_says_what_to_do() {
    let work = Classification::new();
    let cache = work.path("cache");
    make(&work, &cache, &[]);
    let shard = cache.join("shard-00000.safetensors");
    flip_last_bit(&shard);
    let damaged = content(&cache);
    let data = work.path("train.jsonl");
    write_classification(&data, 20);
    let words = ["does not match", "train: the cache has", "bring back"];
    fails(telly(&repair(&cache)), WRONG_INPUT, &words);
    fs_err::rename(&data, work.path("elsewhere.jsonl")).expect("renamed");
    fails(
        telly(&repair(&cache)),
        WRONG_INPUT,
        &["train.jsonl", "check the path"],
    );
    assert_eq!(content(&cache), damaged, "nothing is touched");

    let manifest = cache.join("manifest.json");
    let bytes = fs_err::read(&manifest).expect("bytes");
    fs_err::write(&manifest, &bytes[..bytes.len() / 2]).expect("written");
    fails(
        telly(&repair(&cache)),
        WRONG_INPUT,
        &["manifest.json` is damaged", "telly precompute --force"],
    );
}

/// The golden cache is of version 1, which does not say where its data lay.
#[test]
fn an_older_cache_is_repaired_by_precompute() {
    let work = Classification::new();
    let old = work.path("old");
    fs_err::create_dir(&old).expect("a folder");
    for name in names(&goldens().join("cache-v1")) {
        fs_err::copy(goldens().join("cache-v1").join(&name), old.join(&name)).expect("copied");
    }
    assert_eq!(telly_json(&repair(&old))["damaged"], 0);
    flip_last_bit(&old.join("shard-00000.safetensors"));
    fails(
        telly(&repair(&old)),
        WRONG_INPUT,
        &[
            "does not say which files",
            "the same `telly precompute` again",
        ],
    );
}

#[test]
fn a_share_is_repaired_by_its_own_command() {
    let work = Classification::new();
    let cache = work.path("cache");
    make(&work, &cache, &["--shard", "1/2"]);
    let share = cache.join("share-1-of-2");
    flip_last_bit(&share.join("shard-00000.safetensors"));
    fails(
        telly(&repair(&share)),
        WRONG_INPUT,
        &["is a share", "--shard 1/2"],
    );
}

/// Here the limit on a file's size plays the disk that fills up.
#[cfg(target_os = "linux")]
#[test]
fn a_repair_that_was_stopped_goes_on() {
    let work = Classification::new();
    let cache = work.path("cache");
    make(
        &work,
        &cache,
        &["--shard-size", "64KiB", "--precision", "fp32"],
    );
    let whole = content(&cache);
    flip_last_bit(&cache.join("shard-00000.safetensors"));
    let script = "trap '' XFSZ; ulimit -f 12; exec \"$0\" \"$@\"";
    let mut command = Command::new("bash");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_telly")])
        .args(repair(&cache))
        .current_dir(support::project());
    let output = command.output().expect("bash runs");
    println!("{}", support::stderr(&output));
    assert_eq!(output.status.code(), Some(FAILED));
    assert!(telly::cache::Cache::open(&cache).is_err(), "incomplete");
    telly_ok(&repair(&cache));
    assert_eq!(content(&cache), whole);
}
