//! A run that is stopped at any moment goes on to the same weights, to the bit.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::{
    WRONG_INPUT, Workspace, fails, goldens, precompute, stderr, telly, telly_json, text, train,
    write_classification,
};

const FLAGS: &str = "--epochs 3 --batch-size 4 --lr 1e-3 --seed 5 --threads 2 --log-every 1";
const STEPS: usize = 3 * 25;

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

#[test]
fn killed_at_twenty_moments() {
    let (space, cache) = cached();
    let (whole, killed) = (space.path("whole"), space.path("killed"));
    telly_json(&train(&cache, &whole, FLAGS));

    let mut random = ChaCha8Rng::seed_from_u64(20);
    let flags = format!("{FLAGS} --checkpoint-seconds 0");
    let mut command = telly(&train(&cache, &killed, &flags));
    for kill in 0..20 {
        let moment = random.random_range(1..6);
        let Some(mut child) = start(command, &killed, moment) else {
            panic!("the run ended before kill {kill}");
        };
        std::thread::sleep(Duration::from_micros(random.random_range(0..5000)));
        child.kill().expect("killed");
        child.wait().expect("ended");
        command = telly(&["train", "--resume", "--out", text(&killed)]);
    }
    let resumed = telly_json(&["train", "--resume", "--out", text(&killed)]);
    assert_eq!(resumed["steps"], STEPS);
    assert_eq!(weights(&whole), weights(&killed));
    assert_eq!(log(&whole), log(&killed));

    // Finished is finished.
    let again = telly_json(&["train", "--resume", "--out", text(&killed)]);
    assert_eq!(again, resumed);
}

#[cfg(unix)]
#[test]
fn interrupted_by_ctrl_c() {
    let (space, cache) = cached();
    let (whole, stopped) = (space.path("whole"), space.path("stopped"));
    telly_json(&train(&cache, &whole, FLAGS));
    let command = telly(&train(&cache, &stopped, FLAGS));
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
    let state = run.join("checkpoint/state.safetensors");
    let bytes = fs_err::read(&state).expect("a checkpoint");
    fs_err::write(&state, &bytes[..bytes.len() / 2]).expect("written");
    let output = resume(&[]).output().expect("telly runs");
    assert_eq!(output.status.code(), Some(WRONG_INPUT));
    assert!(
        stderr(&output).contains("is damaged"),
        "{}",
        stderr(&output)
    );
}
