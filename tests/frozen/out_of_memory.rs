//! Failures in the middle of a frozen pass: where memory runs out it goes on in smaller batches, and
//! whatever stops it, the same command goes on and ends with the bytes of an undisturbed run.

#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "the figures are shown")]

use std::path::Path;

use crate::support::fake_library::FakeLibrary;
use crate::support::{
    FAILED, Workspace, content, fails, goldens, names, precompute, stderr, telly_json, write_search,
};
use telly::cache::{Cache, Error};

/// A command that fills a cache of many shards, on one thread.
fn command(space: &Workspace, cache: &str, provider: &str) -> Vec<String> {
    let (model, data) = (goldens().join("roberta-tiny"), space.path("train.jsonl"));
    let mut command = precompute("search", &model, &data, "2", &space.path(cache));
    for argument in &mut command {
        if argument == "cpu" {
            *argument = provider.into();
        }
    }
    command.extend(["--shard-size", "16KiB", "--threads", "1"].map(String::from));
    command
}

fn workspace() -> Workspace {
    let space = Workspace::new();
    write_search(&space.path("train.jsonl"), 400);
    space
}

fn shards(cache: &Path) -> usize {
    let names = names(cache).into_iter();
    names.filter(|name| name.starts_with("shard")).count()
}

/// Providers, with what gives them a card.
const PROVIDERS: [(&str, &[(&str, &str)]); 2] = [("cpu", &[]), ("cuda", &[("FAKE_CARDS", "1")])];

#[test]
fn batches_are_halved_until_they_fit() {
    let (space, library) = (workspace(), FakeLibrary::new());
    for (provider, variables) in PROVIDERS {
        let whole = command(&space, &format!("whole-{provider}"), provider);
        assert!(
            library
                .telly(&whole, variables)
                .status()
                .expect("telly runs")
                .success()
        );
        let tight = command(&space, &format!("tight-{provider}"), provider);
        let variables = [variables, &[("FAKE_ROOM", "100")]].concat();
        let output = library
            .telly(&tight, &variables)
            .output()
            .expect("telly runs");
        let said = stderr(&output);
        assert!(output.status.success(), "{said}");
        let told: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("memory ran out"))
            .collect();
        println!("{provider}: {told:?}");
        assert_eq!(told.len(), 1, "{said}");
        assert!(told[0].contains("--batch-tokens"), "{said}");
        let [whole, tight] =
            ["whole", "tight"].map(|name| space.path(&format!("{name}-{provider}")));
        assert_eq!(content(&tight), content(&whole));
        let log = library.log();
        let tokens = log.iter().filter_map(|line| line.split("tokens=").nth(1));
        let tokens: Vec<usize> = tokens
            .map(|number| number.parse().expect("a number"))
            .collect();
        let failed = tokens.iter().filter(|&&tokens| tokens > 100).count();
        println!("{provider}: {failed} of {} runs had no room", tokens.len());
        // Two workers of a card may both be at a large batch.
        assert!((1..=8).contains(&failed), "{tokens:?}");
    }
}

#[test]
fn a_sequence_that_does_not_fit_alone_is_named() {
    let (space, library) = (workspace(), FakeLibrary::new());
    for (provider, variables) in PROVIDERS {
        let command = command(&space, "cache", provider);
        let variables = [variables, &[("FAKE_ROOM", "4")]].concat();
        let words = [
            "ran out of memory over record",
            "of the train split alone",
            "--max-length",
        ];
        fails(library.telly(&command, &variables), FAILED, &words);
        assert!(
            !space.path("cache").exists(),
            "the probe comes before the cache"
        );
    }
}

#[test]
fn failures_in_the_middle_leave_what_can_be_gone_on_with() {
    let (space, library) = (workspace(), FakeLibrary::new());
    for (provider, variables) in PROVIDERS {
        let whole = format!("whole-{provider}");
        let whole_command = command(&space, &whole, provider);
        assert!(
            library
                .telly(&whole_command, variables)
                .status()
                .expect("telly runs")
                .success()
        );
        let expected = content(&space.path(&whole));
        let runs = library
            .log()
            .iter()
            .filter(|line| line.starts_with("run "))
            .count();
        let name = format!("failed-{provider}");
        let (command, cache) = (command(&space, &name, provider), space.path(&name));
        let mut kept = Vec::new();
        // Each time some shards more, then a failure; the probe's runs come first.
        for at in [runs / 2, runs / 4, runs / 6] {
            let at = at.to_string();
            let variables = [variables, &[("FAKE_FAIL_AT", at.as_str())]].concat();
            let output = library
                .telly(&command, &variables)
                .output()
                .expect("telly runs");
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(FAILED), "{said}");
            assert!(
                said.contains("CUDA failure 700") && !said.contains("panicked"),
                "{said}"
            );
            assert!(matches!(Cache::open(&cache), Err(Error::Incomplete { .. })));
            kept.push(shards(&cache));
        }
        println!(
            "{provider}: shards kept after each failure {kept:?}, of {}",
            shards(&space.path(&whole))
        );
        assert!(kept[0] > 0 && kept.is_sorted() && kept[2] > kept[0]);
        assert!(
            library
                .telly(&command, variables)
                .status()
                .expect("telly runs")
                .success()
        );
        assert_eq!(content(&cache), expected);
    }
    // The fake library on the CPU is the real one.
    telly_json(&command(&space, "real", "cpu"));
    assert_eq!(
        content(&space.path("real")),
        content(&space.path("whole-cpu"))
    );
}

/// Memory that runs out half-way, for good: what was computed stays.
#[test]
fn no_room_for_a_long_sequence_leaves_the_shards_before_it() {
    let space = workspace();
    let library = FakeLibrary::new();
    let undisturbed = command(&space, "whole", "cpu");
    telly_json(&undisturbed);
    let command = command(&space, "cache", "cpu");
    // The probe runs through, and its figures are those of later runs.
    let begun = library
        .telly(&command, &[("FAKE_FAIL_AT", "12")])
        .output()
        .expect("telly runs");
    assert_eq!(begun.status.code(), Some(FAILED), "{}", stderr(&begun));
    let before = shards(&space.path("cache"));
    assert!(before > 0);
    let words = ["ran out of memory over record", "--max-length"];
    fails(
        library.telly(&command, &[("FAKE_ROOM", "4")]),
        FAILED,
        &words,
    );
    assert_eq!(shards(&space.path("cache")), before);
    println!("{before} shards kept");
    assert!(
        library
            .telly(&command, &[])
            .status()
            .expect("telly runs")
            .success()
    );
    assert_eq!(content(&space.path("cache")), content(&space.path("whole")));
}
