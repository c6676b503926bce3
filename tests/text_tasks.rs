//! The tasks that write text, as a user runs them: from files through a cache to a run that is
//! measured.

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};
use support::{goldens, telly, telly_ok, text};
use telly::cache::Cache;
use telly::targets::Targets;

/// Made-up functions and what they do.
const PAIRS: [[&str; 2]; 8] = [
    ["def add(a, b):\n    return a + b", "adds two numbers"],
    [
        "def last(words):\n    return words[-1]",
        "returns the last word",
    ],
    [
        "def count(lines):\n    return len(lines)",
        "counts the lines",
    ],
    [
        "def empty(words):\n    return not words",
        "tells whether there are no words",
    ],
    [
        "def first(words):\n    return words[0]",
        "returns the first word",
    ],
    [
        "def negate(a):\n    return -a",
        "turns the sign of a number",
    ],
    [
        "def join(words):\n    return ' '.join(words)",
        "joins words by spaces",
    ],
    ["def half(a):\n    return a / 2", "halves a number"],
];

/// Writes one record a pair, `times` over.
fn write(path: &Path, times: usize, record: impl Fn(&str, &str) -> Value) {
    let records = PAIRS
        .iter()
        .map(|[code, summary]| record(code, summary).to_string() + "\n");
    let records: String = records.collect();
    fs_err::write(path, records.repeat(times)).expect("written");
}

fn summarize(code: &str, summary: &str) -> Value {
    json!({ "code": code, "docstring": summary })
}

fn generate(code: &str, summary: &str) -> Value {
    // As CoNaLa, where some have no rewritten intent.
    json!({ "rewritten_intent": null, "intent": summary, "snippet": code })
}

fn complete(code: &str, _: &str) -> Value {
    let (input, line) = code.split_once(":\n    ").expect("two lines");
    json!({ "input": format!("<s> {input} : <EOL>"), "gt": line })
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(record: impl Fn(&str, &str) -> Value + Copy) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write(&folder.path().join("train.jsonl"), 2, record);
        write(&folder.path().join("valid.jsonl"), 1, record);
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn precompute(&self, task: &str, model: &str, freeze: &str, more: &[&str]) {
        let model = goldens().join(model);
        let (train, valid, cache) = (
            self.path("train.jsonl"),
            self.path("valid.jsonl"),
            self.path("cache"),
        );
        let mut arguments = vec![
            "precompute",
            "--task",
            task,
            "--model",
            text(&model),
            "--train",
            text(&train),
            "--valid",
            text(&valid),
            "--freeze",
            freeze,
            "--cache",
            text(&cache),
            "--provider",
            "cpu",
            "--precision",
            "fp32",
        ];
        arguments.extend(more);
        telly_ok(&arguments);
    }

    /// Trains; the summary.
    fn train(&self, more: &[&str]) -> Value {
        let (cache, run) = (self.path("cache"), self.path("run"));
        let mut arguments = vec![
            "train",
            "--cache",
            text(&cache),
            "--out",
            text(&run),
            "--epochs",
            "20",
            "--batch-size",
            "4",
            "--lr",
            "1e-2",
            "--json",
        ];
        arguments.extend(more);
        last_json(&telly_ok(&arguments))
    }
}

/// The object that stdout ends with.
fn last_json(output: &Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let start = stdout.find('{').expect("an object");
    serde_json::from_str(&stdout[start..]).expect("JSON")
}

/// The loss that a run had on the validation split is what `evaluate` finds on its file, straight
/// through both halves.
fn check(task: &str, model: &str, freeze: &str, record: impl Fn(&str, &str) -> Value + Copy) {
    let files = Files::new(record);
    files.precompute(task, model, freeze, &[]);
    let summary = files.train(&[]);
    let trained = summary["valid"]["loss"].as_f64().expect("a loss");
    let (run, valid) = (files.path("run"), files.path("valid.jsonl"));
    let evaluated = telly_ok(&[
        "evaluate",
        "--run",
        text(&run),
        "--data",
        text(&valid),
        "--json",
    ]);
    let metrics = &last_json(&evaluated)["metrics"];
    let found = metrics["loss"].as_f64().expect("a loss");
    assert!(
        (found - trained).abs() <= 1e-4 * trained,
        "{found}, {trained}"
    );
    let perplexity = metrics["perplexity"].as_f64().expect("a perplexity");
    assert!((perplexity - found.exp()).abs() <= 1e-9 * perplexity);
    let log = fs_err::read_to_string(files.path("run/metrics.jsonl")).expect("a log");
    let losses = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let losses: Vec<f64> = losses
        .filter(|line| line["split"].is_null())
        .filter_map(|line| line["loss"].as_f64())
        .collect();
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    assert!(
        last < 0.8 * first,
        "nothing was learnt: {first}, then {last}"
    );
}

#[test]
fn decoders_learn_to_generate() {
    check("generate", "llama-tiny", "1", generate);
    check("generate", "starcoder2-tiny", "2", generate);
}

#[test]
fn decoders_learn_to_complete_and_to_summarize() {
    check("complete", "qwen2-tiny", "1", complete);
    check("summarize", "llama-scaled-tiny", "none", summarize);
}

#[test]
fn unixcoder_learns_all_three() {
    check("summarize", "unixcoder-tiny", "1", summarize);
    check("generate", "unixcoder-tiny", "none", generate);
    check("complete", "unixcoder-tiny", "2", complete);
}

/// `UniXcoder`'s layouts, token by token (Guo et al., 2022).
#[test]
fn layouts_are_those_of_the_recipes() {
    let layout = |task: &str, record: fn(&str, &str) -> Value| {
        let files = Files::new(record);
        let lengths = ["--max-source-length", "16", "--max-target-length", "8"];
        files.precompute(task, "unixcoder-tiny", "1", &lengths);
        let cache = Cache::open(&files.path("cache")).expect("a cache");
        let split = cache.split("valid").expect("read").expect("a split");
        let Targets::Texts {
            first_scored,
            references,
            ..
        } = &split.targets
        else {
            panic!("texts are expected")
        };
        let ids = cache.token_ids(&[split.sequence(0, 0)]);
        let reference = references[0].clone();
        (
            ids.sequence(0).to_vec(),
            first_scored[0] as usize,
            reference,
        )
    };
    let (ids, first, reference) = layout("summarize", summarize);
    assert_eq!(ids[..4], [0, 5, 2, 19]);
    assert!(
        first <= 17 && ids[first - 2..first] == [2, 19],
        "{ids:?}, {first}"
    );
    assert_eq!(ids.last(), Some(&2));
    assert_eq!(reference, "adds two numbers");
    let (ids, first, _) = layout("generate", generate);
    assert_eq!(ids[..3], [0, 5, 2]);
    assert_eq!(ids[first - 3..first], [19, 2, 19]);
    let (ids, _, _) = layout("complete", complete);
    assert_eq!((ids[0], ids[2]), (0, 2));
    assert!(ids.len() <= 24);
}

/// A rewritten target's positions are part of what the activations follow from.
#[test]
fn padded_positions_are_another_cache() {
    let states = |offset: &str| {
        let files = Files::new(summarize);
        files.precompute(
            "summarize",
            "unixcoder-tiny",
            "1",
            &["--position-offset", offset],
        );
        let cache = Cache::open(&files.path("cache")).expect("a cache");
        cache.hidden_states(&[0]).values().to_vec()
    };
    assert_ne!(states("true"), states("padded"));
}

#[test]
fn what_cannot_be_is_told() {
    let files = Files::new(generate);
    let (train, cache) = (files.path("train.jsonl"), files.path("cache"));
    let precompute = |model: &str, more: &[&str]| {
        let model = goldens().join(model);
        let mut arguments = vec![
            "precompute",
            "--task",
            "generate",
            "--model",
            text(&model),
            "--train",
            text(&train),
            "--freeze",
            "1",
            "--cache",
            text(&cache),
        ];
        arguments.extend(more);
        let output = telly(&arguments).output().expect("telly runs");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        support::stderr(&output)
    };
    let said = precompute("bert-tiny", &[]);
    assert!(
        said.contains("writes no text") && said.contains("hint:"),
        "{said}"
    );
    let said = precompute("llama-tiny", &["--prompt-template", "no place"]);
    assert!(said.contains("{source}"), "{said}");
    let said = precompute("llama-tiny", &["--position-offset", "padded"]);
    assert!(said.contains("--position-offset"), "{said}");
    let said = precompute(
        "llama-tiny",
        &["--max-source-length", "120", "--max-target-length", "100"],
    );
    assert!(said.contains("128"), "{said}");
    let said = precompute("llama-tiny", &["--label-field", "x"]);
    assert!(said.contains("--label-field"), "{said}");
}
