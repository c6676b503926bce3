//! Predicting at scale: files of any size, commands that are stopped, pipes, a stored code base.

#![allow(clippy::print_stdout, reason = "the figures are shown")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::support::{
    Workspace, fails, goldens, names, precompute, python, run_python, stderr, telly, telly_json,
    telly_ok, text, train, write_long_classification, write_search,
};
use serde_json::Value;

/// A run of `task` on bert-tiny.
fn trained(space: &Workspace, task: &str, name: &str, flags: &str) -> PathBuf {
    let data = space.path(&format!("{task}-train.jsonl"));
    match task {
        "search" => write_search(&data, 32),
        _ => write_long_classification(&data, 32),
    }
    let (cache, run) = (space.path(&format!("cache-{name}")), space.path(name));
    let model = goldens().join("bert-tiny");
    telly_json(&precompute(task, &model, &data, "2", &cache));
    telly_json(&train(
        &cache,
        &run,
        &format!("--epochs 1 --batch-size 8 --lr 1e-3 {flags}"),
    ));
    run
}

fn predict(run: &Path, input: &Path, output: &Path, more: &[&str]) -> Command {
    let fixed = ["predict", "--run", text(run), "--input", text(input)];
    let fixed = fixed.into_iter().chain(["--output", text(output)]);
    let fixed = fixed.chain(["--provider", "cpu"]);
    let all: Vec<&str> = fixed.chain(more.iter().copied()).collect();
    telly(&all)
}

fn succeeds(mut command: Command) -> String {
    let output = command.output().expect("telly runs");
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs_err::read_to_string(path).expect("readable");
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("JSON")
}

/// Records that an unfinished output says are done.
fn done(output: &Path) -> u64 {
    let position = format!("{}.partial.json", text(output));
    let said = fs_err::read(position).ok();
    let said = said.and_then(|said| serde_json::from_slice::<Value>(&said).ok());
    said.and_then(|said| said["records"].as_u64()).unwrap_or(0)
}

/// Waits until more than `before` records are done, or it ends; whether it still runs.
fn runs_past(child: &mut Child, output: &Path, before: u64) -> bool {
    while child.try_wait().expect("a child").is_none() {
        if done(output) > before {
            return true;
        }
        sleep(Duration::from_millis(5));
    }
    false
}

/// Killed after each chunk or so, the same command goes on; the file ends with the bytes of an
/// undisturbed run, and nothing is left beside it.
#[test]
fn a_killed_predict_goes_on() {
    let space = Workspace::new();
    let run = trained(&space, "classify", "run", "");
    let input = space.path("input.jsonl");
    write_long_classification(&input, 3000);
    let (whole, output) = (space.path("whole.jsonl"), space.path("output.jsonl"));
    succeeds(predict(&run, &input, &whole, &[]));
    let mut kills = 0;
    loop {
        let before = done(&output);
        let mut command = predict(&run, &input, &output, &[]);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("telly runs");
        if !runs_past(&mut child, &output, before) {
            assert!(child.wait().expect("ended").success());
            break;
        }
        assert!(
            !output.exists(),
            "a file that is not whole has another name"
        );
        child.kill().expect("killed");
        child.wait().expect("ended");
        kills += 1;
    }
    println!("killed {kills} times");
    assert!(kills >= 2, "{kills}");
    let bytes = |path: &Path| fs_err::read(path).expect("bytes");
    assert!(bytes(&output) == bytes(&whole), "other bytes");
    let left = names(space.folder());
    assert!(
        left.iter().all(|name| !name.contains("partial")),
        "{left:?}"
    );
}

/// What was stopped goes on only if the beginning of the input and the run are what they were.
#[test]
fn another_input_or_run_begins_anew() {
    let space = Workspace::new();
    let run = trained(&space, "classify", "run", "");
    let other = trained(&space, "classify", "other", "--seed 9");
    let input = space.path("input.jsonl");
    write_long_classification(&input, 2000);
    let stopped = |output: &Path| {
        let mut command = predict(&run, &input, output, &[]);
        let mut child = command.stderr(Stdio::null()).spawn().expect("telly runs");
        assert!(runs_past(&mut child, output, 0), "it was too fast");
        child.kill().expect("killed");
        child.wait().expect("ended");
    };
    let [same, changed, foreign, whole] =
        ["same", "changed", "foreign", "whole"].map(|name| space.path(name));
    for output in [&same, &changed, &foreign] {
        stopped(output);
    }
    assert!(succeeds(predict(&run, &input, &same, &[])).contains("going on after"));
    let said = succeeds(predict(&other, &input, &foreign, &[]));
    assert!(!said.contains("going on after"), "{said}");
    let content = fs_err::read_to_string(&input).expect("text");
    fs_err::write(&input, content.replacen("return", "the", 1)).expect("written");
    let said = succeeds(predict(&run, &input, &changed, &[]));
    assert!(said.contains("beginning anew"), "{said}");
    succeeds(predict(&run, &input, &whole, &[]));
    assert_eq!(lines(&changed), lines(&whole));
    assert_ne!(lines(&same), lines(&foreign));
}

#[test]
fn pipes_give_what_files_give() {
    let space = Workspace::new();
    let run = trained(&space, "classify", "run", "");
    let (input, output) = (space.path("input.jsonl"), space.path("output.jsonl"));
    write_long_classification(&input, 700);
    succeeds(predict(&run, &input, &output, &[]));
    let mut command = predict(&run, Path::new("-"), Path::new("-"), &[]);
    let piped = command.stdin(File::open(&input).expect("data")).output();
    let piped = piped.expect("telly runs");
    assert!(piped.status.success(), "{}", stderr(&piped));
    assert_eq!(piped.stdout, fs_err::read(&output).expect("bytes"));
}

/// The most memory that `command` took, in bytes.
#[cfg(target_os = "linux")]
fn peak(mut command: Command) -> u64 {
    let mut child = command.stderr(Stdio::null()).spawn().expect("telly runs");
    let mut peak = 0;
    while child.try_wait().expect("a child").is_none() {
        let status = fs_err::read_to_string(format!("/proc/{}/status", child.id()));
        let status = status.unwrap_or_default();
        let mark = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let mark = mark.and_then(|mark| mark.trim().strip_suffix(" kB"));
        peak = peak.max(mark.map_or(0, |mark| mark.trim().parse().expect("a number")));
        sleep(Duration::from_millis(5));
    }
    assert!(child.wait().expect("ended").success());
    peak * 1024
}

/// Ten times the records, 60 MB more, take no more memory than what allocators differ by.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_file() {
    let space = Workspace::new();
    let run = trained(&space, "classify", "run", "");
    let peaks = [3000, 30_000].map(|rows| {
        let input = space.path(&format!("{rows}.jsonl"));
        write_long_classification(&input, rows);
        // Fields that are not read.
        let padded = fs_err::read_to_string(&input).expect("text");
        let filler = format!("{{\"rest\": \"{}\", ", "x".repeat(2000));
        fs_err::write(&input, padded.replace('{', &filler)).expect("written");
        let output = space.path(&format!("{rows}.out"));
        peak(predict(&run, &input, &output, &["--threads", "1"]))
    });
    println!("peaks: {peaks:?}");
    assert!(peaks[1] < peaks[0] + (40 << 20), "{peaks:?}");
}

/// All layers in 8-bit integers: nearly the same embeddings.
#[test]
fn quantized_predictions_are_close() {
    let space = Workspace::new();
    let run = trained(&space, "search", "run", "");
    let input = space.path("search-train.jsonl");
    let outputs = ["exact.jsonl", "int8.jsonl"].map(|name| space.path(name));
    succeeds(predict(&run, &input, &outputs[0], &[]));
    succeeds(predict(&run, &input, &outputs[1], &["--quantize"]));
    let [exact, int8] = outputs.map(|output| lines(&output));
    assert_ne!(exact, int8);
    for (exact, int8) in exact.iter().zip(&int8) {
        let numbers = |line: &Value| -> Vec<f64> {
            serde_json::from_value(line["embedding"].clone()).expect("numbers")
        };
        let pairs = numbers(exact).into_iter().zip(numbers(int8));
        let cosine: f64 = pairs.map(|(a, b)| a * b).sum();
        assert!(cosine > 0.999, "{cosine}");
    }
}

/// What is found in an index is what is found in its file, and what NumPy finds.
#[test]
fn an_index_is_searched_exactly() {
    let space = Workspace::new();
    let run = trained(&space, "search", "run", "");
    let (code, queries) = (space.path("code.jsonl"), space.path("queries.jsonl"));
    write_search(&code, 1100);
    write_search(&queries, 50);
    let [index, half, found, near, expected, embeddings] =
        ["index", "half", "found", "near", "expected", "embeddings"].map(|name| space.path(name));
    let make = |out: &Path, flags: &[&str]| {
        let fixed = ["index", "--run", text(&run), "--input", text(&code)];
        let fixed = fixed
            .into_iter()
            .chain(["--out", text(out), "--provider", "cpu"]);
        fixed
            .chain(flags.iter().copied())
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let report = telly_json(&make(&index, &[]));
    assert_eq!(report["records"], 1100);
    telly_json(&make(&half, &["--dtype", "fp16", "--keep", "code"]));
    fails(telly(&make(&index, &[])), 2, &["is there already"]);
    telly_ok(&make(&index, &["--force"]));

    let against = ["--against", text(&code), "--top", "7"];
    succeeds(predict(&run, &queries, &expected, &against));
    let in_index = ["--index", text(&index), "--top", "7"];
    succeeds(predict(&run, &queries, &found, &in_index));
    succeeds(predict(
        &run,
        &queries,
        &near,
        &["--index", text(&half), "--top", "7"],
    ));
    succeeds(predict(&run, &queries, &embeddings, &[]));
    let (expected, near) = (lines(&expected), lines(&near));
    for ((found, expected), near) in lines(&found).iter().zip(&expected).zip(&near) {
        let places = 0..7;
        for place in places {
            let score = |line: &Value| line["matches"][place]["score"].as_f64().expect("a score");
            assert!((score(found) - score(expected)).abs() < 1e-6);
            assert!((score(near) - score(expected)).abs() < 1e-3);
        }
        let fields = near["matches"][0]["record"].as_object().expect("fields");
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["code"]);
    }
    let other = trained(&space, "search", "other", "--seed 9");
    let refused = predict(&other, &queries, &space.path("never"), &in_index);
    fails(refused, 2, &["was made by another model", "telly index"]);
    let Some(python) = python() else { return };
    let paths = [index.as_path(), embeddings.as_path(), found.as_path()];
    println!("{}", run_python(&python, "check_index.py", &paths));
}
