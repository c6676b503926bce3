//! `telly sweep`: every K with every seed, gone on with after a kill, and a table that says what the
//! runs say.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{
    WRONG_INPUT, Workspace, fails, goldens, stderr, telly, telly_json, text, write_classification,
};
use serde_json::{Value, json};

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
    let resumed = telly_json(&sweep.arguments("killed", ""));
    assert_eq!(metrics(&resumed), metrics(&whole));
}

#[test]
fn what_cannot_be_is_told() {
    let sweep = Sweep::new("0,9", "");
    fails(
        sweep.command("deep", ""),
        WRONG_INPUT,
        &["precompute", "exit status: 2"],
    );
    // A number that no run can be trained with is told before there is anything that it could spoil.
    let sweep = Sweep::new("0", "--seeds 1 --epochs 1");
    for flags in ["--batch-size 0", "--dropout 1.5", "--lr -1"] {
        let (flag, _) = flags.split_once(' ').expect("a value");
        let flags = flags.replace(" -", "=-");
        fails(
            sweep.command("mended", &flags),
            WRONG_INPUT,
            &[flag, "out of range"],
        );
        assert!(!sweep.work.path("mended").exists());
    }
    telly_json(&sweep.arguments("mended", ""));
    let command = telly(&["sweep", "--freeze", "0", "--out", "x", "--task", "classify"]);
    fails(command, WRONG_INPUT, &["--model"]);
}

/// Ctrl-C stops the run under way at its next step, with a checkpoint; nothing of it is done twice.
#[test]
fn an_interrupted_sweep_goes_on_within_a_run() {
    let sweep = Sweep::new("0", "--seeds 1,2 --lr 2e-3 --epochs 3000");
    let child = sweep
        .command("stopped", "")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("telly runs");
    let run = sweep.work.path("stopped/runs/freeze-0/lr-2e-3/seed-1");
    let started = Instant::now();
    while fs_err::metadata(run.join("metrics.jsonl")).map_or(0, |file| file.len()) < 500 {
        assert!(
            started.elapsed() < Duration::from_mins(2),
            "nothing was trained"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let asked = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(asked.expect("kill runs").success());
    let output = child.wait_with_output().expect("ended");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("the same command goes on"), "{said}");
    assert!(run.join("checkpoint").exists() && !run.join("summary.json").exists());
    let steps = |run: &Path| {
        let log = fs_err::read_to_string(run.join("metrics.jsonl")).expect("a log");
        let lines = log.lines().map(serde_json::from_str::<Value>);
        let steps = lines.filter_map(|line| {
            let line = line.expect("JSON");
            line["learning_rate"].as_f64().and(line["step"].as_u64())
        });
        steps.collect::<Vec<_>>()
    };
    let before = steps(&run);
    // Its own flags but fewer passes: another sweep, which is refused.
    fails(
        sweep.command("stopped", "--batch-size 2"),
        WRONG_INPUT,
        &["--batch-size"],
    );
    assert_eq!(steps(&run), before);
}

/// A changed split is found before anything is taken for its result; a second sweep has to wait.
#[test]
fn what_was_made_of_other_data_is_not_taken() {
    let sweep = Sweep::new("none,0", "--seeds 1 --epochs 1 --frozen-precision int8");
    telly_json(&sweep.arguments("out", ""));
    let lock = fs_err::File::open(sweep.work.path("out/.lock")).expect("a lock");
    lock.file().lock().expect("locked");
    fails(sweep.command("out", ""), WRONG_INPUT, &["another process"]);
    drop(lock);
    write_classification(&sweep.work.path("valid.jsonl"), 30);
    fails(
        sweep.command("out", ""),
        WRONG_INPUT,
        &["valid", "precompute"],
    );
}

/// What is finished is not taken for a run of other data because its cache was removed.
#[test]
fn finished_runs_of_other_data_are_not_taken() {
    let sweep = Sweep::new("none,0", "--seeds 1,2 --epochs 1");
    telly_json(&sweep.arguments("out", ""));
    write_classification(&sweep.work.path("train.jsonl"), 50);
    fs_err::remove_dir_all(sweep.work.path("out/caches")).expect("removed");
    fails(
        sweep.command("out", ""),
        WRONG_INPUT,
        &["seed-1` was trained from other data", "train is"],
    );
}

/// The splits of a folder, as `telly precompute` takes them.
#[test]
fn a_folder_of_splits_is_swept() {
    let sweep = Sweep::new("0", "--seeds 1 --epochs 1");
    let named = telly_json(&sweep.arguments("named", ""));
    let mut found = sweep.arguments("found", "");
    for split in ["--train", "--valid", "--test"] {
        let place = found
            .iter()
            .position(|word| word == split)
            .expect("a split");
        found.drain(place..place + 2);
    }
    found.extend(["--data", text(sweep.work.folder())].map(String::from));
    assert_eq!(metrics(&telly_json(&found)), metrics(&named));
}

/// What is swept later stands beside what was before.
#[test]
fn a_sweep_that_is_added_to_keeps_its_rows() {
    let sweep = Sweep::new("none", "--seeds 1,2 --epochs 1 --lr 1e-3");
    telly_json(&sweep.arguments("out", ""));
    let mut more = sweep.arguments("out", "--json");
    let place = more.iter().position(|word| word == "none").expect("K");
    more[place] = "1".into();
    let output = telly(&more).output().expect("telly runs");
    assert!(stderr(&output).contains("the table has K = none of before too"));
    let added: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    more[place] = "none,1".into();
    let whole = telly_json(&more[..more.len() - 1]);
    assert_eq!(added, whole);
    assert_eq!(whole["rows"].as_array().expect("rows").len(), 2);
    // Those that lack a seed are left out, and named.
    more.extend(["--seeds", "1,2,3"].map(String::from));
    let place = more
        .iter()
        .position(|word| word == "--seeds")
        .expect("seeds");
    more.drain(place..place + 2);
    let place = more.iter().position(|word| word == "none,1").expect("K");
    more[place] = "1".into();
    let output = telly(&more).output().expect("telly runs");
    assert!(stderr(&output).contains("K = none of before has not all of these seeds"));
    let alone: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(alone["rows"].as_array().expect("rows").len(), 1);
}

/// A learning rate at which nothing is learnt costs its own runs alone.
#[test]
fn runs_that_fail_leave_the_others() {
    let sweep = Sweep::new("0", "--seeds 1,2 --epochs 4");
    let failing = |out: &str, lr: &str| {
        let flags = format!("--lr {lr} --json");
        let output = sweep.command(out, &flags).output().expect("telly runs");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("learning rate 1e38, seed 2"), "{said}");
        output.stdout
    };
    // The first of all fails too.
    for (out, lr) in [("last", "1e-3,1e38"), ("first", "1e38,1e-3")] {
        let table: Value = serde_json::from_slice(&failing(out, lr)).expect("JSON");
        let rows = table["rows"].as_array().expect("rows");
        assert_eq!((rows.len(), rows[0]["lr"].as_f64()), (1, Some(1e-3)));
    }
    assert!(failing("all", "1e38").is_empty());
    assert!(!sweep.work.path("all/sweep.json").exists());
}
