//! `telly sweep`: every K with every seed, gone on with after a kill, and a table that says what the
//! runs say.

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{
    WRONG_INPUT, Workspace, fails, goldens, stderr, telly, telly_json, text, write_classification,
};

struct Sweep {
    work: Workspace,
    arguments: Vec<String>,
}

impl Sweep {
    fn new(freeze: &str, more: &str) -> Self {
        let work = Workspace::new();
        for split in ["train", "valid", "test"] {
            write_classification(&work.path(&format!("{split}.jsonl")), 40);
        }
        let model = goldens().join("bert-tiny");
        let mut arguments: Vec<String> = ["sweep", "--task", "classify", "--model", text(&model)]
            .map(String::from)
            .to_vec();
        for split in ["train", "valid", "test"] {
            arguments.push(format!("--{split}"));
            arguments.push(text(&work.path(&format!("{split}.jsonl"))).into());
        }
        arguments.extend(
            [
                "--max-length",
                "32",
                "--provider",
                "cpu",
                "--freeze",
                freeze,
            ]
            .map(String::from),
        );
        arguments.extend(more.split_whitespace().map(String::from));
        Self { work, arguments }
    }

    /// Into the folder `out`, with `more`, which may say again what was said.
    fn arguments(&self, out: &str, more: &str) -> Vec<String> {
        let out = text(&self.work.path(out)).to_owned();
        let more = more.split_whitespace().map(String::from);
        let all = self.arguments.iter().cloned();
        all.chain(["--out".into(), out]).chain(more).collect()
    }

    fn command(&self, out: &str, more: &str) -> Command {
        telly(&self.arguments(out, more))
    }
}

/// What of a table's rows does not depend on the clock.
fn metrics(table: &Value) -> Vec<Value> {
    let rows = table["rows"].as_array().expect("rows");
    let names = [
        "freeze",
        "lr",
        "seeds",
        "trainable_parameters",
        "cache_bytes",
        "valid",
        "test",
    ];
    let kept = rows.iter().map(|row| {
        let mut kept: Vec<Value> = names.iter().map(|name| row[name].clone()).collect();
        kept.push(row["against_base"]["difference"].clone());
        kept.push(row["against_base"]["p_value"].clone());
        json!(kept)
    });
    kept.collect()
}

#[test]
fn a_table_says_what_its_runs_say() {
    let sweep = Sweep::new("none,0..1", "--seeds 1,2 --lr 1e-3,5e-3 --epochs 2");
    let table = telly_json(&sweep.arguments("sweep", ""));
    assert_eq!(
        (&table["metric"], &table["split"]),
        (&json!("accuracy"), &json!("test"))
    );
    assert_eq!(table["base"], "none");
    let rows = table["rows"].as_array().expect("rows");
    let found: Vec<(Value, Value)> = rows
        .iter()
        .map(|row| (row["freeze"].clone(), row["lr"].clone()))
        .collect();
    let expected = [json!("none"), json!(0), json!(1)];
    let expected: Vec<(Value, Value)> = expected
        .into_iter()
        .flat_map(|freeze| [0.001, 0.005].map(|lr| (freeze.clone(), json!(lr))))
        .collect();
    assert_eq!(found, expected);
    for row in rows {
        let freeze = row["freeze"]
            .as_str()
            .map_or_else(|| row["freeze"].to_string(), String::from);
        let lr = row["lr"].as_f64().expect("a rate");
        let accuracies = [1, 2].map(|seed| {
            let run = format!("sweep/runs/freeze-{freeze}/lr-{lr:e}/seed-{seed}/summary.json");
            let summary = fs_err::read(sweep.work.path(&run)).expect("a summary");
            let summary: Value = serde_json::from_slice(&summary).expect("JSON");
            let parameters = &row["trainable_parameters"];
            assert_eq!(
                summary["trainable_parameters"].as_f64(),
                parameters.as_f64()
            );
            summary["test"]["accuracy"].as_f64().expect("a share")
        });
        let mean = f64::midpoint(accuracies[0], accuracies[1]);
        assert!((row["test"]["mean"].as_f64().expect("a mean") - mean).abs() < 1e-12);
        let half = (accuracies[0] - accuracies[1]).abs() / 2f64.sqrt();
        assert!((row["test"]["standard_deviation"].as_f64().expect("one") - half).abs() < 1e-12);
        assert_eq!(row["against_base"].is_null(), freeze == "none");
        for cost in [
            "precompute_seconds",
            "epoch_seconds",
            "train_seconds",
            "cache_bytes",
        ] {
            assert!(row[cost].as_f64().expect("a cost") > 0.0, "{cost}");
        }
    }
    let csv = fs_err::read_to_string(sweep.work.path("sweep/sweep.csv")).expect("a table");
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 7);
    let columns = lines[0].split(',').count();
    assert!(
        lines.iter().all(|line| line.split(',').count() == columns),
        "{csv}"
    );
    // Nothing is computed again, and more K can be added.
    let again = sweep.command("sweep", "").output().expect("telly runs");
    let said = stderr(&again);
    assert!(
        said.matches("is finished").count() == 12 && !said.contains("epoch"),
        "{said}"
    );
    let printed = String::from_utf8(again.stdout).expect("UTF-8");
    assert!(
        printed.contains("paired t-test") && printed.contains('±'),
        "{printed}"
    );
    fails(
        sweep.command("sweep", "--dropout 0.5"),
        WRONG_INPUT,
        &["--dropout", "0.5", "begun with other flags"],
    );
}

/// Killed in the middle, the same command comes to the table of one that was left alone.
#[test]
fn a_killed_sweep_goes_on() {
    let sweep = Sweep::new("0..1", "--seeds 1,2 --epochs 3 --lr 2e-3");
    let whole = telly_json(&sweep.arguments("whole", ""));
    let mut child = sweep
        .command("killed", "")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("telly runs");
    let first = sweep
        .work
        .path("killed/runs/freeze-0/lr-2e-3/seed-1/summary.json");
    let started = Instant::now();
    while !first.exists() {
        assert!(
            started.elapsed() < Duration::from_mins(2),
            "no run was finished"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    // What it was running ends by itself.
    std::thread::sleep(Duration::from_secs(2));
    let resumed = telly_json(&sweep.arguments("killed", ""));
    assert_eq!(metrics(&resumed), metrics(&whole));
}

#[test]
fn what_cannot_be_is_told() {
    let sweep = Sweep::new("0,9", "");
    fails(
        sweep.command("deep", ""),
        WRONG_INPUT,
        &["precompute", "exit status 2"],
    );
    let command = telly(&["sweep", "--freeze", "0", "--out", "x", "--task", "classify"]);
    fails(command, WRONG_INPUT, &["--model"]);
}
