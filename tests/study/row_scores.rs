//! `telly evaluate --scores`: what each row adds to the metric that chooses, whose mean is that metric.

use std::collections::HashSet;
use std::path::Path;

use crate::support::{
    self, WRONG_INPUT, Workspace, fails, goldens, stderr, telly, telly_json, telly_ok, text,
    write_classification, write_search,
};
use serde_json::Value;

/// Metrics of the tiny model on `data`, and the scores of its rows.
fn scored(task: &str, data: &Path, flags: &[&str]) -> (Value, Vec<Option<f64>>) {
    let model = goldens().join("bert-tiny");
    let file = data.with_extension("scores");
    let fixed = [
        "evaluate",
        "--model",
        text(&model),
        "--task",
        task,
        "--data",
    ];
    let rest = [text(data), "--provider", "cpu", "--scores", text(&file)];
    let found = telly_json(&[&fixed[..], &rest[..], flags].concat());
    let lines = fs_err::read_to_string(file).expect("scores");
    let lines = lines.lines().enumerate().map(|(place, line)| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["row"], place + 1);
        line["score"].as_f64()
    });
    (found, lines.collect())
}

/// The mean of those there are is `metric`.
fn mean_is(scores: &[Option<f64>], metric: &Value) {
    let counted: Vec<f64> = scores.iter().copied().flatten().collect();
    let mean = counted.iter().sum::<f64>() / counted.len() as f64;
    let metric = metric.as_f64().expect("a number");
    assert!((mean - metric).abs() < 1e-12, "{mean}, {metric}");
    let least = counted.iter().copied().fold(f64::INFINITY, f64::min);
    let most = counted.iter().copied().fold(0.0, f64::max);
    assert!(least < most, "all rows are alike: {counted:?}");
    assert!(counted.iter().all(|score| (0.0..=1.0).contains(score)));
}

#[test]
fn a_query_scores_its_reciprocal_rank() {
    let space = Workspace::new();
    let data = space.path("search.jsonl");
    write_search(&data, 24);
    let lengths = ["--max-query-length", "16", "--max-code-length", "32"];
    let (found, scores) = scored("search", &data, &lengths);
    assert_eq!(found["rows"], 24);
    assert_eq!(scores.len(), 24);
    mean_is(&scores, &found["metrics"]["mrr"]);
    let limited = [&lengths[..], &["--rank-limit", "2"]].concat();
    let (found, scores) = scored("search", &data, &limited);
    mean_is(&scores, &found["metrics"]["mrr"]);
    assert!(
        scores.contains(&Some(0.0)),
        "none ranks below 2: {scores:?}"
    );
}

#[test]
fn a_function_scores_its_average_precision() {
    let space = Workspace::new();
    let words = ["return", "the", "list", "def", "import"];
    let line = |row: usize| {
        let label = row % 5;
        let code = format!("{} x{row} {}", words[label], words[row % 3]);
        let record = serde_json::json!({ "code": code, "label": label.to_string() });
        format!("{record}\n")
    };
    let lines: Vec<String> = (0..20).map(line).collect();
    // One that solves what no other does: it does not count.
    let alone = "{\"code\": \"while True: pass\", \"label\": \"alone\"}\n";
    let data = space.write("functions.jsonl", &(lines.concat() + alone));
    let (found, scores) = scored("clone", &data, &["--max-length", "32"]);
    assert_eq!(scores.len(), 21);
    assert_eq!(scores[20], None);
    assert!(scores[..20].iter().all(Option::is_some));
    // Rows of a label are a group, and none else is in it.
    let lines = fs_err::read_to_string(data.with_extension("scores")).expect("scores");
    let group = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        line["group"].as_i64().expect("a group")
    };
    let groups: Vec<i64> = lines.lines().map(group).collect();
    assert!(
        (0..20).all(|row| groups[row] == groups[row % 5]),
        "{groups:?}"
    );
    let distinct: HashSet<i64> = groups.into_iter().collect();
    assert_eq!(distinct.len(), 6);
    mean_is(&scores, &found["metrics"]["map@r"]);
}

#[test]
fn a_text_scores_whether_it_is_right() {
    let space = Workspace::new();
    let data = space.path("texts.jsonl");
    write_classification(&data, 40);
    let (model, cache) = (goldens().join("bert-tiny"), space.path("cache"));
    let run = space.path("run");
    telly_ok(&support::precompute("classify", &model, &data, "1", &cache));
    telly_ok(&support::train(&cache, &run, "--epochs 1"));
    let file = space.path("scores.jsonl");
    let fixed = ["evaluate", "--run", text(&run), "--data", text(&data)];
    let with_file = [&fixed[..], &["--scores", text(&file)]].concat();
    let found = telly_json(&with_file);
    let lines = fs_err::read_to_string(&file).expect("scores");
    assert!(!lines.contains("group"), "{lines}");
    let right = lines.matches("\"score\":1.0").count();
    assert_eq!(lines.lines().count(), 40);
    let accuracy = found["metrics"]["accuracy"].as_f64().expect("a number");
    assert!(
        (right as f64 / 40.0 - accuracy).abs() < 1e-12,
        "{right}, {accuracy}"
    );
    // Row by row, as `telly predict` has it.
    let predictions = space.path("predictions.jsonl");
    let fixed_predict = ["predict", "--run", text(&run), "--input", text(&data)];
    telly_ok(&[&fixed_predict[..], &["--output", text(&predictions)]].concat());
    let labels = |path: &Path| -> Vec<Value> {
        let text = fs_err::read_to_string(path).expect("records");
        let label =
            |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["label"].clone();
        text.lines().map(label).collect()
    };
    let same = labels(&data).into_iter().zip(labels(&predictions));
    let same: Vec<bool> = same.map(|(known, found)| known == found).collect();
    let scored = lines.lines().map(|line| line.contains("\"score\":1.0"));
    assert_eq!(scored.collect::<Vec<_>>(), same);
    assert!(same.contains(&true) && same.contains(&false), "{same:?}");
    // The metrics are those without it.
    assert_eq!(telly_json(&fixed)["metrics"], found["metrics"]);
    let shown = telly_ok(&with_file);
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains("accuracy"),
        "{}",
        stderr(&shown)
    );
}

#[test]
fn a_metric_that_is_no_mean_has_no_scores() {
    let space = Workspace::new();
    let pair = "{\"func1\": \"return x\", \"func2\": \"return y\", \"label\": 1}\n";
    let other = "{\"func1\": \"return x\", \"func2\": \"import z\", \"label\": 0}\n";
    let data = space.write("pairs.jsonl", &format!("{pair}{other}"));
    let model = goldens().join("bert-tiny");
    let file = space.path("scores.jsonl");
    let fixed = [
        "evaluate",
        "--model",
        text(&model),
        "--task",
        "clone",
        "--data",
    ];
    let rest = [text(&data), "--max-length", "32", "--scores", text(&file)];
    let command = [&fixed[..], &rest[..]].concat();
    fails(
        telly(&command),
        WRONG_INPUT,
        &["--scores", "no mean over rows"],
    );
    assert!(!file.exists());
    let nowhere = [&fixed[..], &rest[..4], &["no/such/folder/s.jsonl"]].concat();
    fails(
        telly(&nowhere),
        WRONG_INPUT,
        &["--scores", "no/such/folder"],
    );
}
