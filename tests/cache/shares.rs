//! A cache computed in shares, as on several machines, has the bytes of one computed at once.

#![allow(clippy::print_stdout, reason = "the errors are shown")]

use std::path::Path;

use crate::support::{
    Classification, WRONG_INPUT, content, fails, goldens, precompute, telly, telly_json, telly_ok,
    text,
};

fn command(work: &Classification, cache: &Path, share: Option<&str>) -> Vec<String> {
    let model = goldens().join("bert-tiny");
    let data = work.path("train.jsonl");
    let mut command = precompute("classify", &model, &data, "2", cache);
    // Some ten shards.
    command.extend(["--shard-size", "2KiB"].map(String::from));
    command.extend(
        share
            .into_iter()
            .flat_map(|share| ["--shard".into(), share.into()]),
    );
    command
}

#[test]
fn the_last_share_puts_the_cache_together() {
    let work = Classification::new();
    let (whole, shared, run) = (work.path("whole"), work.path("shared"), work.path("run"));
    telly_json(&command(&work, &whole, None));
    assert!(content(&whole).len() > 10, "several shards");
    for (share, complete) in [("2/3", false), ("3/3", false), ("1/3", true)] {
        let made = telly_json(&command(&work, &shared, Some(share)));
        assert_eq!(made["complete"], complete, "{share}");
        if !complete {
            let train = ["train", "--cache", text(&shared), "--out", text(&run)];
            fails(telly(&train), WRONG_INPUT, &["no activation cache"]);
        }
    }
    assert_eq!(content(&shared), content(&whole));
    let again = telly_json(&command(&work, &shared, None));
    assert_eq!(again["complete"], true);
    assert_eq!(content(&shared), content(&whole));
}

#[test]
fn shares_are_merged_by_hand() {
    let work = Classification::new();
    let (whole, shared) = (work.path("whole"), work.path("shared"));
    telly_json(&command(&work, &whole, None));
    let merge = ["cache", "merge", text(&shared)];
    fails(telly(&merge), WRONG_INPUT, &["no shares"]);
    telly_json(&command(&work, &shared, Some("1/2")));
    fails(
        telly(&merge),
        WRONG_INPUT,
        &["share 2/2", "is not finished", "--shard 2/2"],
    );

    // A share of other data, made before the right one.
    let mut other = command(&work, &shared, Some("2/2"));
    for argument in &mut other {
        if *argument == text(&work.path("train.jsonl")) {
            *argument = text(&work.path("other.jsonl")).into();
        }
    }
    let words = ["share-2-of-2", "train: the cache has"];
    fails(telly(&other), WRONG_INPUT, &words);
    fails(
        telly(&merge),
        WRONG_INPUT,
        &["share-2-of-2", "train: the cache has"],
    );
    let mut replaced = command(&work, &shared, Some("2/2"));
    fails(
        telly(&replaced),
        WRONG_INPUT,
        &["does not match", "--force"],
    );
    replaced.push("--force".into());
    telly_ok(&replaced);
    assert_eq!(content(&shared), content(&whole));
    fails(telly(&merge), WRONG_INPUT, &["no shares"]);
}

#[test]
fn a_damaged_share_is_not_merged() {
    let work = Classification::new();
    let cache = work.path("cache");
    telly_json(&command(&work, &cache, Some("1/2")));
    let shard = cache.join("share-1-of-2/shard-00000.safetensors");
    let mut bytes = fs_err::read(&shard).expect("bytes");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs_err::write(&shard, bytes).expect("written");
    let last = telly(&command(&work, &cache, Some("2/2")));
    fails(
        last,
        WRONG_INPUT,
        &["shard-00000.safetensors", "is damaged"],
    );
    // Mended, and put together by the command that mends.
    telly_json(&command(&work, &cache, Some("1/2")));
    assert_eq!(
        telly_json(&["cache", "verify", text(&cache)])["unwritten"],
        0
    );
}

#[test]
fn a_share_that_cannot_be_is_refused() {
    let work = Classification::new();
    for wrong in ["4/3", "0/3", "x", "auto"] {
        let mut command = telly(&command(&work, &work.path("cache"), Some(wrong)));
        command
            .env_remove("SLURM_ARRAY_TASK_ID")
            .env_remove("JOB_COMPLETION_INDEX");
        fails(command, WRONG_INPUT, &["--shard", "i/n"]);
    }
    assert!(!work.path("cache").exists());
}
