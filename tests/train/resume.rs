//! A run that is stopped at any moment goes on to the same weights, to the bit.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{
    FAILED, WRONG_INPUT, Workspace, fails, goldens, precompute, stderr, telly, telly_json, text,
    train, write_classification, write_long_classification,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const FLAGS: &str = "--epochs 3 --batch-size 4 --lr 1e-3 --seed 5 --threads 2 --log-every 1";
const STEPS: usize = 3 * 25;

/// Rows whose activations take three blocks of `--shuffle block`.
const LONG_ROWS: usize = 6000;

/// A workspace with a cache of 100 training rows.
fn cached() -> (Workspace, PathBuf) {
    let space = Workspace::new();
    let (data, valid) = (space.path("train.jsonl"), space.path("valid.jsonl"));
    write_classification(&data, 100);
    write_classification(&valid, 20);
    let cache = space.path("cache");
    let model = goldens().join("bert-tiny");
    let mut command = precompute("classify", &model, &data, "1", &cache);
    command.extend(["--valid", text(&valid)].map(String::from));
    telly_json(&command);
    (space, cache)
}

fn weights(run: &Path) -> Vec<u8> {
    fs_err::read(run.join("model.safetensors")).expect("weights")
}

/// The losses of the steps, and the metrics of the evaluations: all of the log but the times.
fn log(run: &Path) -> Vec<String> {
    let text = fs_err::read_to_string(run.join("metrics.jsonl")).expect("a log");
    let line = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let fields = line.as_object_mut().expect("an object");
        fields.shift_remove("tokens_per_second");
        line.to_string()
    };
    text.lines().map(line).collect()
}

/// Starts `command` and waits until the run's log has grown by `lines`; none if it ended first.
fn start(mut command: Command, run: &Path, lines: usize) -> Option<Child> {
    let count = || match fs_err::read_to_string(run.join("metrics.jsonl")) {
        Ok(text) => text.lines().count(),
        Err(_) => 0,
    };
    let before = count();
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("telly runs");
    loop {
        if child.try_wait().expect("a child").is_some() {
            return None;
        }
        // A run that goes on first drops what came after its checkpoint.
        if count() >= (before + lines).min(STEPS) {
            return Some(child);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Trains once without a break, and once killed `kills` times, each after at most `longest` steps:
/// to the same weights and the same log. The summary and the folder of the killed run.
fn killed(
    (space, cache): (&Workspace, &Path),
    (flags, steps): (&str, usize),
    (kills, longest): (usize, usize),
) -> (serde_json::Value, PathBuf) {
    let folders = tempfile::tempdir_in(space.folder())
        .expect("a folder")
        .keep();
    let (whole, killed) = (folders.join("whole"), folders.join("killed"));
    telly_json(&train(cache, &whole, flags));

    let mut random = ChaCha8Rng::seed_from_u64(20);
    let flags = format!("{flags} --checkpoint-seconds 0");
    let mut command = telly(&train(cache, &killed, &flags));
    for kill in 0..kills {
        let moment = random.random_range(1..=longest);
        let Some(mut child) = start(command, &killed, moment) else {
            panic!("the run ended before kill {kill}");
        };
        std::thread::sleep(Duration::from_micros(random.random_range(0..5000)));
        child.kill().expect("killed");
        child.wait().expect("ended");
        command = telly(&["train", "--resume", "--out", text(&killed)]);
    }
    let resumed = telly_json(&["train", "--resume", "--out", text(&killed)]);
    assert_eq!(resumed["steps"], steps);
    assert_eq!(weights(&whole), weights(&killed));
    assert_eq!(log(&whole), log(&killed));
    (resumed, killed)
}

/// What the layers are computed by.
const OPS: [&str; 2] = ["fused", "composed"];

#[test]
fn killed_at_twenty_moments() {
    let (space, cache) = cached();
    for ops in OPS {
        let flags = format!("{FLAGS} --ops {ops}");
        let (resumed, killed) = killed((&space, &cache), (&flags, STEPS), (20, 5));

        // Finished is finished.
        let again = telly_json(&["train", "--resume", "--out", text(&killed)]);
        assert_eq!(again, resumed);
    }
}

/// A checkpoint is the first replica's, and tells the others.
#[test]
fn killed_with_two_workers() {
    let (space, cache) = cached();
    for ops in OPS {
        let flags = format!("{FLAGS} --ops {ops} --workers 2");
        killed((&space, &cache), (&flags, STEPS), (6, 10));
    }
}

/// As on another machine, of fewer cards or more.
#[test]
fn another_number_of_workers_goes_on() {
    let (space, cache) = cached();
    let (whole, run) = (space.path("whole"), space.path("run"));
    telly_json(&train(&cache, &whole, FLAGS));
    let flags = format!("{FLAGS} --checkpoint-seconds 0 --workers 2");
    let command = telly(&train(&cache, &run, &flags));
    let mut child = start(command, &run, 20).expect("the run is still under way");
    child.kill().expect("killed");
    child.wait().expect("ended");
    let resume = ["train", "--resume", "--out", text(&run), "--workers", "3"];
    assert_eq!(telly_json(&resume)["steps"], STEPS);
    let losses = |run: &Path| -> Vec<f64> {
        let lines = log(run).into_iter().map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            line["loss"].as_f64()
        });
        lines.flatten().collect()
    };
    let (whole, run) = (losses(&whole), losses(&run));
    assert_eq!((whole.len(), run.len()), (STEPS, STEPS));
    for (found, expected) in run.iter().zip(&whole) {
        assert!(
            (found / expected - 1.0).abs() < 1e-3,
            "{found}, not {expected}"
        );
    }
}

/// The loss's scale is part of a checkpoint.
#[test]
fn killed_in_mixed_precision() {
    let (space, cache) = cached();
    for precision in ["bf16", "fp16"] {
        let flags = format!("{FLAGS} --mixed-precision {precision}");
        let (_, killed) = killed((&space, &cache), (&flags, STEPS), (4, 5));
        let scaled = log(&killed).concat().contains("loss_scale");
        assert_eq!(scaled, precision == "fp16");
    }
}

/// Evaluations and updates of several batches do not fall on the same steps as checkpoints do.
#[test]
fn killed_between_evaluations() {
    let (space, cache) = cached();
    let flags = "--epochs 4 --batch-size 3 --lr 1e-3 --seed 5 --threads 2 --log-every 1";
    let flags = format!(
        "{flags} --gradient-accumulation 2 --evaluate-every 5 --best-metric loss \
         --schedule cosine --layer-decay 0.8 --label-smoothing 0.1 --class-weights balanced"
    );
    for ops in OPS {
        let flags = format!("{flags} --ops {ops}");
        // 100 rows are 34 batches.
        let (resumed, killed) = killed((&space, &cache), (&flags, 4 * 17), (8, 5));
        let evaluations = log(&killed)
            .into_iter()
            .filter(|line| line.contains(r#""split":"valid""#));
        // Step 85 would be the next.
        let steps = [
            5, 10, 15, 17, 20, 25, 30, 34, 35, 40, 45, 50, 51, 55, 60, 65, 68,
        ];
        for (line, step) in evaluations.zip(steps) {
            assert!(line.starts_with(&format!(r#"{{"step":{step},"#)), "{line}");
        }
        let summary = fs_err::read_to_string(killed.join("summary.json")).expect("a summary");
        let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
        assert_eq!(summary["best_step"], resumed["best_step"]);
    }
}

/// The same in an order of several blocks, in the midst of which it goes on.
#[test]
fn killed_while_shuffling_in_blocks() {
    let space = Workspace::new();
    let data = space.path("train.jsonl");
    write_long_classification(&data, LONG_ROWS);
    let cache = space.path("cache");
    let model = goldens().join("bert-tiny");
    let mut command = precompute("classify", &model, &data, "1", &cache);
    // Shards that are no blocks: most blocks lie in two.
    command.extend(["--precision", "fp32", "--shard-size", "5MiB"].map(String::from));
    let summary = telly_json(&command);
    // Blocks of 8 MiB.
    assert!(summary["bytes"].as_u64() > Some(2 << 23), "{summary}");

    let flags = "--epochs 2 --batch-size 256 --lr 1e-3 --seed 5 --threads 2 --log-every 1";
    let flags = format!("{flags} --shuffle block");
    let steps = 2 * LONG_ROWS.div_ceil(256);
    let (_, killed) = killed((&space, &cache), (&flags, steps), (6, 5));

    // The recipe repeats it; with another order it is another run.
    let recipe = fs_err::read_to_string(killed.join("recipe.toml")).expect("a recipe");
    assert!(recipe.contains("shuffle = \"block\""), "{recipe}");
    let recipe = killed.join("recipe.toml");
    let (again, exact) = (space.path("again"), space.path("exact"));
    let repeat = ["train", "--recipe", text(&recipe), "--out"];
    telly_json(&[&repeat[..], &[text(&again)]].concat());
    assert_eq!(weights(&again), weights(&killed));
    telly_json(&[&repeat[..], &[text(&exact), "--shuffle", "exact"]].concat());
    assert_ne!(weights(&exact), weights(&killed));
}

#[cfg(unix)]
#[test]
fn interrupted_by_ctrl_c() {
    let (space, cache) = cached();
    for ops in OPS {
        let flags = format!("{FLAGS} --ops {ops}");
        let [whole, stopped] = ["whole", "stopped"].map(|run| space.path(&format!("{run}-{ops}")));
        telly_json(&train(&cache, &whole, &flags));
        let command = telly(&train(&cache, &stopped, &flags));
        let child = start(command, &stopped, 30).expect("the run is still under way");
        let sent = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
        let output = child.wait_with_output().expect("ended");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(130), "{said}");
        let resume = format!("telly train --resume --out {}", text(&stopped));
        assert!(said.contains(&resume), "{said}");

        // What is there can be used meanwhile.
        telly_json(&[
            "evaluate",
            "--run",
            text(&stopped),
            "--data",
            text(&space.path("valid.jsonl")),
        ]);
        telly_json(&["train", "--resume", "--out", text(&stopped)]);
        assert_eq!(weights(&whole), weights(&stopped));
        assert_eq!(log(&whole), log(&stopped));
    }
}

/// What the last step of an epoch has spoiled is told when it is evaluated, and each time it is gone on with.
#[test]
fn what_has_diverged_diverges_again() {
    let (space, cache) = cached();
    for epochs in [1, 3] {
        let run = space.path(&format!("run-{epochs}"));
        let flags = format!("--epochs {epochs} --batch-size 100 --lr 1e30 --warmup 0");
        let words = ["the loss is NaN at step 1", "lower `--lr`"];
        fails(telly(&train(&cache, &run, &flags)), FAILED, &words);
        assert!(!run.join("summary.json").exists());
        let again = telly(&["train", "--resume", "--out", text(&run)]);
        fails(again, FAILED, &words);
    }
}

#[test]
fn only_the_same_run_goes_on() {
    let (space, cache) = cached();
    let run = space.path("run");
    let resume = |more: &[&str]| {
        let mut command = telly(&["train", "--resume", "--out", text(&run)]);
        command.args(more);
        command
    };
    fails(resume(&[]), WRONG_INPUT, &["no run to go on with"]);
    let command = telly(&train(
        &cache,
        &run,
        &format!("{FLAGS} --checkpoint-seconds 0"),
    ));
    let mut child = start(command, &run, 5).expect("the run is still under way");
    child.kill().expect("killed");
    child.wait().expect("ended");
    fails(
        resume(&["--lr", "0.5"]),
        WRONG_INPUT,
        &["begun with lr 0.001, now 0.5"],
    );
    for (flags, words) in [
        (
            ["--schedule", "cosine"],
            r#"begun with schedule "linear", now "cosine""#,
        ),
        (
            ["--layer-decay", "0.9"],
            "begun with layer_decay 1.0, now 0.9",
        ),
        (
            ["--label-smoothing", "0.1"],
            "begun with label_smoothing 0.0, now 0.1",
        ),
        (
            ["--gradient-accumulation", "2"],
            "begun with gradient_accumulation 1, now 2",
        ),
        (
            ["--early-stopping", "2"],
            "begun with early_stopping null, now 2",
        ),
        (
            ["--best-metric", "f1"],
            r#"begun with best_metric null, now "f1""#,
        ),
        (
            ["--evaluate-every", "9"],
            "begun with evaluate_every null, now 9",
        ),
        (
            ["--ops", "composed"],
            r#"begun with ops "auto", now "composed""#,
        ),
        (
            ["--mixed-precision", "fp16"],
            r#"begun with mixed_precision "none", now "fp16""#,
        ),
        (
            ["--class-weights", "1,2"],
            r#"begun with class_weights null, now "1,2""#,
        ),
    ] {
        fails(resume(&flags), WRONG_INPUT, &[words]);
    }
    // Far from larger than memory, so `auto` has come to the exact order.
    fails(
        resume(&["--shuffle", "block"]),
        WRONG_INPUT,
        &[r#"begun with shuffle "exact", now "block""#],
    );
    let output = resume(&["--shuffle", "blocks"])
        .output()
        .expect("telly runs");
    assert_eq!(output.status.code(), Some(WRONG_INPUT));
    let said = stderr(&output);
    assert!(
        said.contains("[possible values: auto, exact, block]"),
        "{said}"
    );
    let state = run.join("checkpoint/state.safetensors");
    let bytes = fs_err::read(&state).expect("a checkpoint");
    fs_err::write(&state, &bytes[..bytes.len() / 2]).expect("written");
    let output = resume(&[]).output().expect("telly runs");
    assert_eq!(output.status.code(), Some(WRONG_INPUT));
    assert!(
        stderr(&output).contains("is damaged") && stderr(&output).contains("recipe.toml"),
        "{}",
        stderr(&output)
    );
}
