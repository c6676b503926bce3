//! `--task clone` as a user runs it: pairs in records and in CodeXGLUE's files, groups, both heads,
//! a tuned threshold.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::support::{
    WRONG_INPUT, Workspace, fails, goldens, stderr, telly, telly_json, telly_ok, text, train,
};
use serde_json::Value;

const VERBS: [&str; 4] = ["sort", "count", "read", "write"];
const NOUNS: [&str; 6] = ["list", "number", "file", "word", "line", "print"];

/// Function `number`: those with the same verb do the same.
fn function(number: usize) -> String {
    let (verb, noun) = (VERBS[number % 4], NOUNS[number / 4 % 6]);
    format!("def {verb}_{noun}(x): return {verb}(the {noun})")
}

/// Two functions of `count`, and whether they do the same.
fn pair(row: usize, count: usize) -> (usize, usize, bool) {
    let first = row * 7 % count;
    let second = if row.is_multiple_of(2) {
        (first + 4 * (1 + row / 2 % 5)) % count
    } else {
        (first + 1 + row % 9) % count
    };
    (first, second, first % 4 == second % 4)
}

struct Work(Workspace);

impl Work {
    fn new() -> Self {
        let space = Workspace::new();
        for (split, rows) in [("train", 60), ("valid", 30), ("test", 31)] {
            let mut pairs = String::new();
            let mut names = String::new();
            let mut groups = String::new();
            for row in 0..rows {
                let (first, second, same) = pair(row + rows, 24);
                let label = i32::from(same);
                let (one, other) = (function(first), function(second));
                writeln!(
                    pairs,
                    "{{\"func1\": \"{one}\", \"func2\": \"{other}\", \"label\": {label}}}"
                )
                .expect("written");
                writeln!(names, "{first}\t{second}\t{label}\t5").expect("written");
            }
            for row in 0..rows / 2 {
                let (code, label) = (function(row), VERBS[row % 4]);
                writeln!(groups, "{{\"code\": \"{code}\", \"label\": \"{label}\"}}")
                    .expect("written");
            }
            space.write(&format!("{split}.jsonl"), &pairs);
            space.write(&format!("{split}.txt"), &names);
            space.write(&format!("groups-{split}.jsonl"), &groups);
        }
        let functions = (0..24).map(|number| {
            format!(
                "{{\"func\": \"{}\", \"idx\": \"{number}\"}}\n",
                function(number)
            )
        });
        space.write("data.jsonl", &functions.collect::<String>());
        Self(space)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// The cache `cache` of the three splits `named`, a `*` for the split.
    fn precompute(&self, model: &str, named: &str, cache: &Path, more: &[&str]) -> Value {
        let model = goldens().join(model);
        let [train, valid, test] =
            ["train", "valid", "test"].map(|split| self.path(&named.replace('*', split)));
        let fixed = ["precompute", "--task", "clone", "--model", text(&model)];
        let splits = [
            "--train",
            text(&train),
            "--valid",
            text(&valid),
            "--test",
            text(&test),
        ];
        let rest = [
            "--freeze",
            "1",
            "--cache",
            text(cache),
            "--provider",
            "cpu",
            "--max-length",
            "32",
        ];
        telly_json(&[&fixed[..], &splits, &rest, more].concat())
    }
}

fn number(value: &Value, name: &str) -> f64 {
    value[name]
        .as_f64()
        .unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn lines(output: std::process::Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// Cached and fresh figures are the same; predictions are those that the figures count.
fn agree(work: &Work, run: &Path, trained: &Value, data: &str) {
    let test = work.path(data);
    let fresh = telly_json(&["evaluate", "--run", text(run), "--data", text(&test)]);
    for (name, value) in trained["test"].as_object().expect("metrics") {
        let difference = value.as_f64().expect("a number") - number(&fresh["metrics"], name);
        let tolerance = if name == "loss" { 1e-3 } else { 0.0 };
        assert!(difference.abs() <= tolerance, "{name}: {trained} {fresh}");
    }
    let predict = ["predict", "--run", text(run), "--input", text(&test)];
    let predictions = lines(telly_ok(&[&predict[..], &["--output", "-"]].concat()));
    assert_eq!(predictions.len(), 31);
    let right = predictions.iter().enumerate().filter(|(row, prediction)| {
        let (.., same) = pair(row + 31, 24);
        prediction["label"] == i32::from(same)
    });
    let accuracy = f64::from(u32::try_from(right.count()).expect("few")) / 31.0;
    assert!((accuracy - number(&fresh["metrics"], "accuracy")).abs() < 1e-9);
}

#[test]
fn pairs_by_their_cosine() {
    let work = Work::new();
    let (cache, run) = (work.path("cache"), work.path("run"));
    let made = work.precompute("bert-tiny", "*.jsonl", &cache, &[]);
    assert_eq!(made["sequences"], 2 * (60 + 30 + 31));
    // However often a function comes, it is computed once.
    assert_eq!(made["unique_sequences"], 24);
    let flags = "--epochs 6 --batch-size 8 --lr 2e-3 --threshold tuned";
    let trained = telly_json(&train(&cache, &run, flags));
    assert!(number(&trained["test"], "f1") > 0.8, "{trained}");
    let (valid, test) = (&trained["valid"], &trained["test"]);
    assert_eq!(valid["threshold"], test["threshold"]);
    assert_ne!(test["threshold"], 0.5);
    agree(&work, &run, &trained, "test.jsonl");

    // What was tuned can be told anew.
    let test = work.path("test.jsonl");
    let evaluate = ["evaluate", "--run", text(&run), "--data", text(&test)];
    let none = telly_json(&[&evaluate[..], &["--threshold", "1"]].concat());
    assert!(number(&none["metrics"], "recall") < 0.5, "{none}");

    // The recipe that it leaves repeats it.
    let (recipe, again) = (run.join("recipe.toml"), work.path("again"));
    telly_json(&["train", "--recipe", text(&recipe), "--out", text(&again)]);
    let weights = |run: &Path| fs_err::read(run.join("model.safetensors")).expect("weights");
    assert_eq!(weights(&run), weights(&again));
}

/// The same pairs out of CodeXGLUE's files are the same cache.
#[test]
fn pairs_of_functions_named_by_id() {
    let work = Work::new();
    let (records, files) = (work.path("records"), work.path("files"));
    work.precompute("roberta-tiny", "*.jsonl", &records, &[]);
    work.precompute("roberta-tiny", "*.txt", &files, &[]);
    let inspect = |cache: &Path| telly_json(&["cache", "inspect", text(cache)]);
    let (records, made) = (inspect(&records), inspect(&files));
    assert_eq!(records["fingerprint"], made["fingerprint"]);

    let run = work.path("run");
    let flags = "--epochs 2 --batch-size 8 --lr 1e-3 --head concat";
    let trained = telly_json(&train(&files, &run, flags));
    agree(&work, &run, &trained, "test.txt");
    let weights = fs_err::read(run.join("model.safetensors")).expect("weights");
    let tensors = safetensors::SafeTensors::deserialize(&weights).expect("safetensors");
    let dense = tensors.tensor("classifier.dense.weight").expect("there");
    assert_eq!(dense.shape(), [32, 64]);

    // A damaged shard is computed again from the same files.
    let shard = files.join("shard-00000.safetensors");
    let mut bytes = fs_err::read(&shard).expect("bytes");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs_err::write(&shard, bytes).expect("written");
    telly_ok(&["cache", "verify", "--repair", text(&files)]);
    telly_ok(&["cache", "verify", text(&files)]);
}

#[test]
fn groups_find_their_own() {
    let work = Work::new();
    let (cache, run) = (work.path("cache"), work.path("run"));
    work.precompute("mpnet-tiny", "groups-*.jsonl", &cache, &[]);
    let model = goldens().join("mpnet-tiny");
    let test = work.path("groups-test.jsonl");
    let untrained = ["evaluate", "--task", "clone", "--model", text(&model)];
    let rest = ["--data", text(&test), "--max-length", "32"];
    let before = telly_json(&[&untrained[..], &rest].concat());
    let flags = "--epochs 12 --batch-size 8 --lr 2e-3";
    let trained = telly_json(&train(&cache, &run, flags));
    let (before, after) = (
        number(&before["metrics"], "map@r"),
        number(&trained["test"], "map@r"),
    );
    assert!(after > before + 0.1, "{before} {after}");
    let fresh = telly_json(&["evaluate", "--run", text(&run), "--data", text(&test)]);
    assert!((number(&fresh["metrics"], "map@r") - after).abs() < 1e-9);

    let predict = ["predict", "--run", text(&run), "--input", text(&test)];
    let search = ["--against", text(&test), "--top", "2", "--output", "-"];
    let found = lines(telly_ok(&[&predict[..], &search].concat()));
    assert_eq!(found.len(), 15);
    let record = &found[3]["matches"][0]["record"];
    assert!(record["label"].is_string(), "{}", found[3]);
    let embeddings = lines(telly_ok(&[&predict[..], &["--output", "-"]].concat()));
    assert_eq!(
        embeddings[0]["embedding"].as_array().map(Vec::len),
        Some(32)
    );
}

/// Stopped in the middle of an epoch, a run of groups goes on to the same weights: partners are
/// drawn anew from the seed and the epoch.
#[test]
fn partners_are_the_same_after_a_stop() {
    let work = Work::new();
    let cache = work.path("cache");
    work.precompute("bert-tiny", "groups-*.jsonl", &cache, &[]);
    let weights = |run: &Path| fs_err::read(run.join("model.safetensors")).expect("weights");
    let (whole, stopped) = (work.path("whole"), work.path("stopped"));
    let flags = "--epochs 40 --batch-size 4 --lr 1e-3 --checkpoint-seconds 0 --log-every 1";
    telly_json(&train(&cache, &whole, flags));
    let mut child = telly(&train(&cache, &stopped, flags));
    let mut child = child.spawn().expect("telly runs");
    // Four steps an epoch: in the middle of the second.
    let steps = || {
        let log = fs_err::read_to_string(stopped.join("metrics.jsonl"));
        log.unwrap_or_default().matches("\"loss\"").count()
    };
    while steps() < 6 && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    telly_json(&["train", "--resume", "--out", text(&stopped)]);
    assert_eq!(weights(&whole), weights(&stopped));
}

#[test]
fn what_does_not_fit_is_refused() {
    let work = Work::new();
    let cache = work.path("cache");
    let model = goldens().join("bert-tiny");
    let refused = |data: &str, more: &[&str], words: &[&str]| {
        let data = work.0.write("bad.jsonl", data);
        let fixed = ["precompute", "--task", "clone", "--model", text(&model)];
        let rest = ["--train", text(&data), "--freeze", "1"];
        let place = ["--cache", text(&cache), "--provider", "cpu"];
        let command = telly(&[&fixed[..], &rest, &place, more].concat());
        fails(command, WRONG_INPUT, words);
    };
    let pair = "{\"func1\": \"a\", \"func2\": \"b\", \"label\": 1}\n";
    let bad = format!(
        "{pair}{}",
        pair.replace('1', "2")
            .replace("func2\": \"b", "func2\": \"b\", \"func1\": \"c")
    );
    refused(&bad, &[], &["line 2", "2 is neither 0 nor 1"]);
    refused(
        "{\"code\": \"a\", \"label\": 1}\n{\"code\": \"b\", \"label\": 2}\n",
        &[],
        &["bad.jsonl", "no two records have the same label"],
    );
    refused(
        pair,
        &["--text-field", "func1", "--first-field", "func2"],
        &["--text-field", "groups"],
    );
    refused(pair, &["--first-field", "left"], &["line 1", "left"]);
    refused(pair, &["--query-field", "q"], &["--query-field", "clone"]);
    refused(
        pair,
        &["--code-base", text(&work.path("train.jsonl"))],
        &["--code-base", "clone"],
    );

    let train_only = work.path("train.jsonl");
    let fixed = ["precompute", "--task", "clone", "--model", text(&model)];
    let rest = ["--train", text(&train_only), "--freeze", "1"];
    let place = ["--cache", text(&cache), "--provider", "cpu"];
    telly_ok(&[&fixed[..], &rest, &place, &["--max-length", "32"]].concat());
    for (flags, words) in [
        ("--threshold tuned", &["tuned", "validation"][..]),
        ("--rank-limit 10", &["--rank-limit", "clone"]),
        ("--head concat --threshold 0.4", &["--threshold", "concat"]),
        ("--threshold 2", &["--threshold", "from -1 to 1"]),
    ] {
        let output = telly(&train(&cache, &work.path("run"), flags)).output();
        let output = output.expect("telly runs");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(WRONG_INPUT), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}
