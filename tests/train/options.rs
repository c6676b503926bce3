//! How a run is told to stop, to choose its weights, to repeat itself with other seeds, and how
//! runs are looked at afterwards.

#![allow(clippy::cast_precision_loss, reason = "small numbers")]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    WRONG_INPUT, Workspace, fails, goldens, names, precompute, stderr, telly, telly_json, telly_ok,
    text, train, write_classification, write_search,
};
use serde_json::Value;

/// A cache of 48 training rows; with `valid`, of a validation and a test split too.
fn cached(space: &Workspace, task: &str, valid: bool) -> PathBuf {
    let write = |path: &Path, rows| match task {
        "search" => write_search(path, rows),
        _ => write_classification(path, rows),
    };
    let [data, others] = ["train.jsonl", "others.jsonl"].map(|name| space.path(name));
    write(&data, 48);
    write(&others, 20);
    let cache = space.path("cache");
    let mut command = precompute(task, &goldens().join("bert-tiny"), &data, "1", &cache);
    if valid {
        let others = text(&others);
        command.extend(["--valid", others, "--test", others].map(String::from));
    }
    telly_json(&command);
    cache
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs_err::read_to_string(path).expect("readable");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// The validation metric `name` of each evaluation, with its step.
fn evaluations(run: &Path, name: &str) -> Vec<(u64, f64)> {
    let lines = lines(&run.join("metrics.jsonl"));
    let evaluations = lines.iter().filter(|line| line["split"] == "valid");
    evaluations
        .map(|line| {
            let number = line["metrics"][name].as_f64().expect(name);
            (line["step"].as_u64().expect("a step"), number)
        })
        .collect()
}

#[test]
fn stops_when_nothing_gets_better() {
    let space = Workspace::new();
    let cache = cached(&space, "classify", true);
    let run = space.path("run");
    // A rate of 0 makes nothing better: the first evaluation is the best.
    let flags = "--epochs 9 --batch-size 8 --lr 0 --early-stopping 2 --evaluate-every 4";
    let output = telly(&train(&cache, &run, flags)).arg("--json").output();
    let output = output.expect("telly runs");
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("stopped early: no better accuracy in 2 evaluations; the best is that of step 4, in epoch 1"),
        "{said}"
    );
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    // Evaluated after steps 4, 6 (the end of an epoch) and 8.
    let steps: Vec<u64> = evaluations(&run, "accuracy").iter().map(|e| e.0).collect();
    assert_eq!(steps, [4, 6, 8]);
    assert_eq!(summary["stopped_early"], true);
    assert_eq!(summary["steps"], 8);
    assert_eq!(summary["epochs"], 2);
    assert_eq!(
        (&summary["best_epoch"], &summary["best_step"]),
        (&1.into(), &4.into())
    );

    // With patience for more than there is to come it does not stop.
    let patient = space.path("patient");
    let flags = "--epochs 2 --batch-size 8 --lr 0 --early-stopping 2";
    let summary = telly_json(&train(&cache, &patient, flags));
    assert_eq!(summary["stopped_early"], false);
    assert_eq!(summary["epochs"], 2);
}

#[test]
fn the_metric_that_was_named_chooses() {
    let space = Workspace::new();
    let cache = cached(&space, "classify", true);
    let run = space.path("run");
    let flags = "--epochs 4 --batch-size 8 --lr 2e-2 --evaluate-every 1 --best-metric loss";
    let summary = telly_json(&train(&cache, &run, flags));
    let losses = evaluations(&run, "loss");
    assert_eq!(losses.len(), 24);
    let least = losses
        .iter()
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .expect("some");
    assert_eq!(summary["best_step"], least.0);
    assert_eq!(summary["valid"]["loss"], least.1);
    // What is kept is what was measured.
    let others = space.path("others.jsonl");
    let again = telly_json(&["evaluate", "--run", text(&run), "--data", text(&others)]);
    let difference = again["metrics"]["loss"].as_f64().expect("a loss") - least.1;
    assert!(difference.abs() < 1e-3, "{again} {least:?}");
}

/// What is added up over several batches is what one batch of all their rows gives.
#[test]
fn batches_add_up() {
    let space = Workspace::new();
    let cache = cached(&space, "classify", true);
    let losses = |name: &str, flags: &str| -> Vec<f64> {
        let run = space.path(name);
        let fixed = "--epochs 2 --lr 1e-3 --dropout 0 --log-every 1";
        let summary = telly_json(&train(&cache, &run, &format!("{fixed} {flags}")));
        assert_eq!(summary["steps"], 4, "{flags}");
        let lines = lines(&run.join("metrics.jsonl"));
        lines
            .iter()
            .filter_map(|line| line["loss"].as_f64())
            .collect()
    };
    for (number, weights) in ["", "--class-weights 0.3,2"].into_iter().enumerate() {
        // 32 rows and then 16: of the second step's batches of 10 rows the last has 6.
        let whole = losses(
            &format!("whole-{number}"),
            &format!("--batch-size 30 {weights}"),
        );
        let flags = format!("--batch-size 10 --gradient-accumulation 3 {weights}");
        let parts = losses(&format!("parts-{number}"), &flags);
        assert_eq!(whole.len(), 4);
        for (whole, parts) in whole.iter().zip(&parts) {
            assert!((whole - parts).abs() < 1e-5 * whole, "{whole} {parts}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let space = Workspace::new();
    let cache = cached(&space, "classify", false);
    let run = space.path("run");
    let refused = |flags: &str, words: &[&str]| {
        fails(telly(&train(&cache, &run, flags)), WRONG_INPUT, words);
        assert!(!run.exists(), "{flags} leaves a run behind");
    };
    for flags in [
        "--early-stopping 2",
        "--best-metric f1",
        "--evaluate-every 5",
    ] {
        let flag = flags.split(' ').next().expect("a flag");
        refused(
            flags,
            &[flag, "needs a validation split", "telly precompute --valid"],
        );
    }
    refused(
        "--label-smoothing 1",
        &["`--label-smoothing 1` is out of range"],
    );
    refused("--layer-decay 0", &["`--layer-decay 0` is out of range"]);
    refused(
        "--gradient-accumulation 0",
        &["`--gradient-accumulation 0` is out of range"],
    );
    refused(
        "--class-weights 1,2,3",
        &[
            "`--class-weights 1,2,3` is not one weight for each of 2 classes",
            "balanced",
        ],
    );
    refused("--seeds 1,2,1", &["`--seeds` has 1 twice"]);

    let space = Workspace::new();
    let cache = cached(&space, "search", true);
    let refused = |flags: &str, words: &[&str]| {
        fails(telly(&train(&cache, &run, flags)), WRONG_INPUT, words);
    };
    refused(
        "--best-metric accuracy",
        &[
            "`--best-metric accuracy` is none of the task's metrics",
            "it has mrr, r@1, r@5, r@10, loss",
        ],
    );
    refused(
        "--label-smoothing 0.1",
        &["is for classes of which each row has one"],
    );
}

const SEEDS: &str = "--epochs 2 --batch-size 8 --lr 2e-3 --log-every 1 --seeds 1,2,3";

/// Mean and sample standard deviation, by the definition.
fn statistics(numbers: &[f64]) -> (f64, f64) {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    let squares = numbers
        .iter()
        .map(|number| (number - mean) * (number - mean));
    (mean, (squares.sum::<f64>() / (count - 1.0)).sqrt())
}

#[test]
fn several_seeds_are_several_runs() {
    let space = Workspace::new();
    let cache = cached(&space, "classify", true);
    let group = space.path("group");
    let summary = telly_json(&train(&cache, &group, SEEDS));
    assert_eq!(
        names(&group),
        ["recipe.toml", "seed-1", "seed-2", "seed-3", "summary.json"]
    );
    for split in ["valid", "test"] {
        let losses: Vec<f64> = (1..=3)
            .map(|seed| {
                let path = group.join(format!("seed-{seed}/summary.json"));
                let summary = fs_err::read_to_string(path).expect("a summary");
                let summary: Value = serde_json::from_str(&summary).expect("JSON");
                summary[split]["loss"].as_f64().expect("a loss")
            })
            .collect();
        let (mean, deviation) = statistics(&losses);
        let found = &summary[split]["loss"];
        assert!((found["mean"].as_f64().expect("a mean") - mean).abs() < 1e-12);
        let found = found["standard_deviation"].as_f64().expect("a deviation");
        assert!((found - deviation).abs() < 1e-12 && deviation > 0.0);
    }

    // Each is the run that it would be alone.
    let alone = space.path("alone");
    let flags = SEEDS.replace("--seeds 1,2,3", "--seed 2");
    telly_json(&train(&cache, &alone, &flags));
    let weights = |run: &Path| fs_err::read(run.join("model.safetensors")).expect("weights");
    assert_eq!(weights(&alone), weights(&group.join("seed-2")));
    let recipe = group.join("seed-2/recipe.toml");
    let again = space.path("again");
    telly_json(&["train", "--recipe", text(&recipe), "--out", text(&again)]);
    assert_eq!(weights(&alone), weights(&again));

    // The table, and what is there already is not trained again.
    let output = telly_ok(&["train", "--resume", "--out", text(&group)]);
    let table = String::from_utf8(output.stdout).expect("UTF-8");
    for word in [
        "seed",
        "valid accuracy",
        "test loss",
        "mean",
        "standard deviation",
    ] {
        assert!(table.contains(word), "{table}");
    }
    fails(
        telly(&train(&cache, &group, SEEDS)),
        WRONG_INPUT,
        &["is not empty", "--force"],
    );
    let fewer = SEEDS.replace("1,2,3", "4,5") + " --force";
    telly_json(&train(&cache, &group, &fewer));
    assert_eq!(
        names(&group),
        ["recipe.toml", "seed-4", "seed-5", "summary.json"]
    );
}

#[cfg(unix)]
#[test]
fn several_seeds_go_on_where_they_were_stopped() {
    let space = Workspace::new();
    let cache = cached(&space, "classify", true);
    let (whole, stopped) = (space.path("whole"), space.path("stopped"));
    let flags = SEEDS.replace("--epochs 2", "--epochs 30");
    telly_json(&train(&cache, &whole, &flags));
    let mut command = telly(&train(&cache, &stopped, &flags));
    let child = command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("telly runs");
    let second = stopped.join("seed-2/metrics.jsonl");
    while fs_err::read_to_string(&second).map_or(0, |text| text.lines().count()) < 9 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status();
    assert!(sent.expect("kill runs").success());
    let output = child.wait_with_output().expect("ended");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{said}");
    let resume = format!("telly train --resume --out {}`", text(&stopped));
    assert!(said.contains(&resume), "{said}");
    assert!(!stopped.join("summary.json").exists());

    let output = telly_ok(&["train", "--resume", "--out", text(&stopped)]);
    let said = stderr(&output);
    assert!(said.contains("seed 1 (1 of 3) is finished"), "{said}");
    assert!(!said.contains("seed 2 (2 of 3) is finished"), "{said}");
    for seed in 1..=3 {
        let weights = |run: &Path| {
            let path = run.join(format!("seed-{seed}/model.safetensors"));
            fs_err::read(path).expect("weights")
        };
        assert_eq!(weights(&whole), weights(&stopped), "seed {seed}");
    }
}

#[test]
fn runs_are_listed_and_compared() {
    let space = Workspace::new();
    let cache = cached(&space, "classify", true);
    let runs = space.path("runs");
    fs_err::create_dir_all(&runs).expect("a folder");
    let listed = telly_ok(&["runs", "list", text(&runs)]);
    let said = String::from_utf8(listed.stdout).expect("UTF-8");
    assert!(said.starts_with("no runs in"), "{said}");

    let (one, two, group) = (runs.join("one"), runs.join("two"), runs.join("group"));
    let flags = "--epochs 2 --batch-size 8 --log-every 1";
    let first = telly_json(&train(&cache, &one, &format!("{flags} --lr 2e-3")));
    telly_json(&train(
        &cache,
        &two,
        &format!("{flags} --lr 5e-5 --schedule cosine"),
    ));
    telly_json(&train(&cache, &group, SEEDS));
    fs_err::remove_file(two.join("summary.json")).expect("removed");

    let listed = telly_json(&["runs", "list", text(&runs)]);
    let listed = listed["runs"].as_array().expect("runs");
    let of = |run: &Path| {
        let named = |found: &&Value| found["run"] == text(run);
        listed.iter().find(named).expect("listed")
    };
    assert_eq!(listed.len(), 6);
    let found = of(&one);
    assert_eq!(found["task"], "classify");
    assert_eq!(found["freeze"], 1);
    assert_eq!(found["metric"], "accuracy");
    assert_eq!(found["valid"], first["valid"]);
    assert_eq!(found["seconds"], first["seconds"]);
    assert_eq!(of(&two)["finished"], false);
    assert_eq!(of(&group)["seeds"], serde_json::json!([1, 2, 3]));

    let table = telly_ok(&["runs", "list", text(&runs)]);
    let table = String::from_utf8(table.stdout).expect("UTF-8");
    assert!(
        table.contains("unfinished") && table.contains(" ± "),
        "{table}"
    );
    assert!(table.contains("bert-tiny"), "{table}");

    let compared = telly_json(&["runs", "compare", text(&one), text(&two)]);
    let settings = compared["settings"].as_object().expect("settings");
    assert_eq!(settings.keys().collect::<Vec<_>>(), ["lr", "schedule"]);
    assert_eq!(
        settings["schedule"],
        serde_json::json!(["linear", "cosine"])
    );
    assert_eq!(compared["figures"]["valid loss"][0], first["valid"]["loss"]);
    assert_eq!(
        compared["curves"]["loss"][1]
            .as_array()
            .expect("a curve")
            .len(),
        12
    );
    let table = telly_ok(&["runs", "compare", text(&one), text(&two)]);
    let table = String::from_utf8(table.stdout).expect("UTF-8");
    assert!(
        table.contains("training loss") && table.contains('█'),
        "{table}"
    );

    fails(
        telly(&["runs", "compare", text(&one), text(&runs)]),
        WRONG_INPUT,
        &["holds no finished run", "recipe.toml"],
    );
}

/// What CUDA runs, on the CPU: the same losses but for rounding, and a run that the other kind of
/// operations goes on to use.
#[test]
fn by_either_kind_of_operations() {
    let space = Workspace::new();
    let cache = cached(&space, "classify", true);
    let others = space.path("others.jsonl");
    let losses = |ops: &str| -> Vec<f64> {
        let run = space.path(ops);
        let flags = format!("--epochs 2 --batch-size 8 --lr 1e-3 --log-every 1 --ops {ops}");
        telly_json(&train(&cache, &run, &flags));
        let steps = lines(&run.join("metrics.jsonl")).into_iter();
        steps.filter_map(|line| line["loss"].as_f64()).collect()
    };
    let (fused, composed) = (losses("fused"), losses("composed"));
    assert_eq!(fused.len(), 12);
    for (fused, composed) in fused.iter().zip(&composed) {
        assert!((fused / composed - 1.0).abs() < 1e-4, "{fused} {composed}");
    }
    assert_ne!(fused, composed, "they do not add up in the same order");
    let evaluate = |ops: &str| {
        let run = space.path("fused");
        let command = ["evaluate", "--run", text(&run), "--data", text(&others)];
        telly_json(&[&command[..], &["--ops", ops]].concat())["metrics"]["loss"].clone()
    };
    let [fused, composed] = ["fused", "composed"].map(|ops| evaluate(ops).as_f64());
    let (fused, composed) = (fused.expect("a loss"), composed.expect("a loss"));
    assert!((fused / composed - 1.0).abs() < 1e-4, "{fused} {composed}");

    // Whether there is a card or not.
    let refused = ["`--ops fused` is written for the CPU", "`--ops composed`"];
    let flags = "--ops fused --device cuda";
    let none = space.path("none");
    fails(telly(&train(&cache, &none, flags)), WRONG_INPUT, &refused);
    assert!(!none.exists());
    let run = space.path("fused");
    let mut command = telly(&["evaluate", "--run", text(&run), "--data", text(&others)]);
    command.args(flags.split(' '));
    fails(command, WRONG_INPUT, &refused);
}
