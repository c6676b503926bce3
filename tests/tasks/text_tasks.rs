//! The tasks that write text, as a user runs them: from files through a cache to a run that is
//! measured.

use std::path::PathBuf;

use crate::support::{
    WRONG_INPUT, Workspace, fails, goldens, precompute, telly, telly_json, telly_ok, text, train,
    write_functions,
};
use serde_json::{Value, json};
use telly::cache::Cache;
use telly::targets::Targets;

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

struct Files(Workspace);

impl Files {
    fn new(record: impl Fn(&str, &str) -> Value + Copy) -> Self {
        let files = Self(Workspace::new());
        write_functions(&files.path("train.jsonl"), 2, record);
        write_functions(&files.path("valid.jsonl"), 1, record);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn precompute(&self, task: &str, model: &str, freeze: &str, more: &[&str]) {
        let (train, valid) = (self.path("train.jsonl"), self.path("valid.jsonl"));
        let cache = self.path("cache");
        let mut arguments = precompute(task, &goldens().join(model), &train, freeze, &cache);
        let fixed = ["--valid", text(&valid), "--precision", "fp32"];
        arguments.extend(fixed.iter().chain(more).map(ToString::to_string));
        telly_ok(&arguments);
    }

    /// Trains; the summary.
    fn train(&self, more: &str) -> Value {
        let flags = format!("--epochs 20 --batch-size 4 --lr 1e-2 {more}");
        telly_json(&train(&self.path("cache"), &self.path("run"), &flags))
    }

    /// What the run is found to be on the validation split's file.
    fn evaluate(&self) -> Value {
        let (run, valid) = (self.path("run"), self.path("valid.jsonl"));
        let evaluated = telly_json(&["evaluate", "--run", text(&run), "--data", text(&valid)]);
        evaluated["metrics"].clone()
    }
}

/// The loss that a run had on the validation split is what `evaluate` finds on its file, straight
/// through both halves.
fn check(task: &str, model: &str, freeze: &str, record: impl Fn(&str, &str) -> Value + Copy) {
    let files = Files::new(record);
    files.precompute(task, model, freeze, &[]);
    let summary = files.train("");
    let trained = summary["valid"]["loss"].as_f64().expect("a loss");
    // Its recipe repeats it.
    let (recipe, again) = (files.path("run/recipe.toml"), files.path("again"));
    let repeat = ["train", "--recipe", text(&recipe), "--out", text(&again)];
    assert_eq!(telly_json(&repeat)["valid"], summary["valid"]);
    let metrics = files.evaluate();
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

/// What `predict` writes, a line a record, scores as `evaluate` says; sources that are cut are cut in
/// the same place.
#[test]
fn what_is_predicted_is_what_was_measured() {
    let cut = ["--max-source-length", "10", "--max-target-length", "12"];
    for (task, record, lengths) in [
        ("generate", generate as fn(&str, &str) -> Value, &[][..]),
        ("complete", complete, &cut),
    ] {
        let files = Files::new(record);
        files.precompute(task, "qwen2-tiny", "1", lengths);
        files.train("");
        let (run, valid) = (files.path("run"), files.path("valid.jsonl"));
        let written = files.path("written.jsonl");
        let predict = ["predict", "--run", text(&run), "--input", text(&valid)];
        let summary = telly_json(&[&predict[..], &["--output", text(&written)]].concat());
        assert_eq!(summary["records"], 8);
        let score = ["score", "--task", task, "--references", text(&valid)];
        let scored = telly_json(&[&score[..], &["--predictions", text(&written)]].concat());
        let metrics = files.evaluate();
        assert!(
            metrics["chrf"].as_f64().expect("a share") > 5.0,
            "{metrics}"
        );
        for name in ["bleu", "em", "edit_similarity", "chrf"] {
            assert_eq!(scored["metrics"][name], metrics[name], "{task}, {name}");
        }
    }
}

/// Stopped at a checkpoint, a run comes to the weights of one that was left alone; its layout is that of
/// its cache.
#[test]
fn a_stopped_run_goes_on() {
    for (model, more, flag) in [
        (
            "llama-tiny",
            &["--prompt-template", "say {source}: "][..],
            "--prompt-template",
        ),
        (
            "unixcoder-tiny",
            &["--position-offset", "padded"],
            "--position-offset",
        ),
    ] {
        let files = Files::new(summarize);
        files.precompute("summarize", model, "1", more);
        let (cache, stopped) = (files.path("cache"), files.path("stopped"));
        let flags = "--epochs 60 --batch-size 4 --lr 1e-3";
        let often = format!("{flags} --checkpoint-seconds 0");
        let mut child = telly(&train(&cache, &stopped, &often))
            .spawn()
            .expect("telly runs");
        while !stopped.join("checkpoint").exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        let resumed = telly_json(&["train", "--resume", "--out", text(&stopped)]);
        let alone = telly_json(&train(&cache, &files.path("alone"), flags));
        assert_eq!(resumed["valid"], alone["valid"], "{model}");
        let mut other = train(&cache, &files.path("other"), "--epochs 1");
        let value = if flag == "--prompt-template" {
            "{source}"
        } else {
            "true"
        };
        other.extend([flag, value].map(String::from));
        fails(telly(&other), WRONG_INPUT, &["encoding"]);
        let mut same = train(&cache, &files.path("same"), "--epochs 1");
        same.extend(more.iter().map(ToString::to_string));
        telly_ok(&same);
    }
}

/// A text that is written is the one without `--stop-text`, up to the first that it holds.
#[test]
fn texts_end_where_they_are_told_to() {
    let files = Files::new(generate);
    files.precompute("generate", "qwen2-tiny", "1", &[]);
    files.train("");
    let (run, valid) = (files.path("run"), files.path("valid.jsonl"));
    let written = |name: &str, more: &[&str]| -> Vec<String> {
        let output = files.path(name);
        let predict = ["predict", "--run", text(&run), "--input", text(&valid)];
        telly_ok(&[&predict[..], &["--output", text(&output)], more].concat());
        let lines = fs_err::read_to_string(output).expect("texts");
        let lines = lines.lines().map(serde_json::from_str::<Value>);
        lines
            .map(|line| {
                line.expect("JSON")["prediction"]
                    .as_str()
                    .expect("a text")
                    .to_owned()
            })
            .collect()
    };
    let whole = written("whole.jsonl", &[]);
    let stopped = written("stopped.jsonl", &["--stop-text", "(", "--stop-text", ":"]);
    let cut = |text: &String| match text.find(['(', ':']) {
        Some(place) => text[..=place].trim().to_owned(),
        None => text.clone(),
    };
    assert_eq!(stopped, whole.iter().map(cut).collect::<Vec<_>>());
    assert!(
        stopped
            .iter()
            .zip(&whole)
            .any(|(one, other)| one.len() < other.len()),
        "{whole:?}"
    );
    let predict = ["predict", "--run", text(&run), "--input", text(&valid)];
    let unknown = ["--output", "x", "--stop-text", "no token has this"];
    let command = telly(&[&predict[..], &unknown].concat());
    fails(command, WRONG_INPUT, &["--stop-text", "no token"]);
}

#[test]
fn flags_of_other_tasks_are_refused() {
    let files = Files::new(generate);
    files.precompute("generate", "qwen2-tiny", "1", &[]);
    files.train("");
    let (run, valid) = (files.path("run"), files.path("valid.jsonl"));
    let predict = ["predict", "--run", text(&run), "--input", text(&valid)];
    for (flag, words) in [("--quantize", "--quantize"), ("--logits", "--logits")] {
        let output = files.path("refused.jsonl");
        let command = telly(&[&predict[..], &["--output", text(&output), flag]].concat());
        fails(command, WRONG_INPUT, &[words, "generate"]);
        assert!(!output.exists());
    }
    let evaluate = ["evaluate", "--run", text(&run), "--data", text(&valid)];
    let command = telly(&[&evaluate[..], &["--top-k", "5"]].concat());
    fails(command, WRONG_INPUT, &["--top-k", "--sample"]);
}

/// Texts that are written at each evaluation are those that `evaluate` writes with the kept weights,
/// and can choose them.
#[test]
fn texts_choose_the_best_epoch() {
    let files = Files::new(generate);
    files.precompute("generate", "qwen2-tiny", "1", &[]);
    let kept = files.train("--decode-samples 8 --best-metric chrf")["valid"].clone();
    let found = files.evaluate();
    for name in ["bleu", "em", "edit_similarity", "chrf"] {
        assert_eq!(found[name], kept[name], "{name}");
    }
    let log = fs_err::read_to_string(files.path("run/metrics.jsonl")).expect("a log");
    let lines = log.lines().map(serde_json::from_str::<Value>);
    let scores = lines.filter_map(|line| line.expect("JSON")["metrics"]["chrf"].as_f64());
    let scores: Vec<f64> = scores.collect();
    assert_eq!(scores.len(), 20);
    let best = scores.iter().copied().fold(0.0, f64::max);
    assert_eq!(Some(best), kept["chrf"].as_f64());
    let flags = "--best-metric chrf --force";
    let command = telly(&train(&files.path("cache"), &files.path("run"), flags));
    fails(command, WRONG_INPUT, &["--best-metric", "perplexity"]);
}

#[test]
fn what_cannot_be_is_told() {
    let files = Files::new(generate);
    let precompute = |task: &str, model: &str, more: &str, words: &[&str]| {
        let (train, cache) = (files.path("train.jsonl"), files.path("cache"));
        let mut arguments = precompute(task, &goldens().join(model), &train, "1", &cache);
        arguments.extend(more.split_whitespace().map(String::from));
        fails(telly(&arguments), WRONG_INPUT, words);
    };
    precompute("generate", "bert-tiny", "", &["writes no text"]);
    let template = "--prompt-template none";
    precompute("generate", "llama-tiny", template, &["{source}"]);
    let offset = "--position-offset padded";
    precompute("generate", "llama-tiny", offset, &["--position-offset"]);
    let lengths = "--max-source-length 120 --max-target-length 100";
    precompute("generate", "llama-tiny", lengths, &["128"]);
    let label = "--label-field x";
    precompute("generate", "llama-tiny", label, &["--label-field"]);
    write_functions(&files.path("train.jsonl"), 1, |_, _| json!({ "input": "" }));
    precompute("complete", "qwen2-tiny", "", &["train.jsonl", "line 1"]);
}
