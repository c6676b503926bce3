//! `telly precompute --pooled`: `telly rsa` finds by kept vectors what it finds by the models themselves, runs
//! no model for them, and compares only what can be compared.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{
    self, WRONG_INPUT, Workspace, fails, goldens, python, run_python, stderr, telly, telly_json,
    telly_ok, text, train, write_long_classification,
};
use serde_json::{Value, json};

const TEXTS: usize = 40;

/// Texts, and the tiny model with a run trained from it.
fn trained(space: &Workspace) -> [PathBuf; 3] {
    let (data, run) = (space.path("texts.jsonl"), space.path("run"));
    write_long_classification(&data, TEXTS);
    let (model, cache) = (goldens().join("bert-tiny"), space.path("activations"));
    telly_json(&support::precompute("classify", &model, &data, "1", &cache));
    telly_json(&train(&cache, &run, "--epochs 2 --batch-size 8 --lr 5e-3"));
    [data, model, run]
}

fn with(fixed: &[&str], flags: &str) -> Vec<String> {
    let flags = flags.split_whitespace();
    let all = fixed.iter().copied().chain(flags);
    all.map(String::from).collect()
}

/// `telly precompute --pooled` of the texts in `data`.
fn pooled(model: &Path, data: &Path, cache: &Path, flags: &str) -> Vec<String> {
    let fixed = ["precompute", "--pooled", "--model", text(model), "--data"];
    let rest = [text(data), "--cache", text(cache), "--provider", "cpu"];
    with(&[&fixed[..], &rest[..]].concat(), flags)
}

fn rsa(first: &Path, second: &Path, flags: &str) -> Vec<String> {
    with(
        &["rsa", text(first), text(second), "--bootstrap", "20"],
        flags,
    )
}

#[test]
fn kept_vectors_compare_as_the_models_they_are_of() {
    let space = Workspace::new();
    let [data, model, run] = trained(&space);
    for form in ["", "--pooling unmasked"] {
        let flags = format!(
            "--max-length 48 --provider cpu {form} --data {}",
            text(&data)
        );
        let expected = telly_json(&rsa(&model, &run, &flags));
        let name = |name: &str| space.path(&format!("{name}{}", form.len()));
        let (first, second) = (name("model"), name("run-vectors"));
        for (of, cache) in [(&model, &first), (&run, &second)] {
            let flags = format!("--max-length 48 {form}");
            let found = telly_json(&pooled(of, &data, cache, &flags));
            assert_eq!(found["texts"], TEXTS);
            assert_eq!(found["layers"], 3);
        }
        // What is not said is as the vectors have it, the texts too.
        for command in [
            rsa(&first, &run, "--provider cpu"),
            rsa(&model, &second, "--provider cpu"),
            rsa(&first.join("pooled.safetensors"), &second, ""),
        ] {
            let no_model_is_run = command.last().is_some_and(|last| last == "20");
            let mut process = telly(&command);
            if no_model_is_run {
                process.env("ORT_DYLIB_PATH", "nowhere/libonnxruntime.so");
            }
            let output = process.arg("--json").output().expect("telly runs");
            assert!(output.status.success(), "{}", stderr(&output));
            let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            for same in ["layers", "texts", "pooling", "max_length", "bootstrap"] {
                assert_eq!(found[same], expected[same], "{same}, {command:?}");
            }
        }
    }
}

#[test]
fn fewer_texts_are_the_first_of_those_that_are_kept() {
    let space = Workspace::new();
    let [data, model, run] = trained(&space);
    let kept = space.path("kept");
    telly_ok(&pooled(&model, &data, &kept, "--max-length 48"));
    let flags = format!(
        "--max-length 48 --provider cpu --limit 15 --data {}",
        text(&data)
    );
    let expected = telly_json(&rsa(&model, &run, &flags));
    let found = telly_json(&rsa(&kept, &run, "--provider cpu --limit 15"));
    assert_eq!(found["texts"], 15);
    assert_eq!(found["layers"], expected["layers"]);
    let output = telly_ok(&rsa(&kept, &run, "--provider cpu --limit 100"));
    let said = stderr(&output);
    assert!(said.contains("kept of 40 texts"), "{said}");
}

#[test]
fn numpy_reads_them_and_finds_the_same() {
    let Some(python) = python() else { return };
    let space = Workspace::new();
    let [data, model, run] = trained(&space);
    let (first, second) = (space.path("first"), space.path("second"));
    for (of, cache) in [(&model, &first), (&run, &second)] {
        telly_ok(&pooled(of, &data, cache, "--max-length 48 --freeze 0..3"));
    }
    let found = run_python(&python, "check_pooled.py", &[&first, &second]);
    let found: Value = serde_json::from_str(&found).expect("JSON");
    let expected = telly_json(&rsa(&first, &second, ""));
    assert_eq!(found["shapes"], json!([[TEXTS, 32]; 4].to_vec()));
    assert_eq!(found["dtypes"], json!(["float32"]));
    assert_eq!(found["texts"], json!([[TEXTS, 32], "uint8"]));
    assert_eq!(found["same_texts"], true);
    assert_eq!(found["max_length"], 48);
    let layers = expected["layers"].as_array().expect("layers");
    for (layer, pearson) in layers
        .iter()
        .zip(found["pearson"].as_array().expect("a list"))
    {
        let [telly, numpy] = [&layer["pearson"], pearson].map(Value::as_f64);
        let (telly, numpy) = (telly.expect("a number"), numpy.expect("a number"));
        assert!((telly - numpy).abs() <= 1e-5, "{telly}, NumPy {numpy}");
    }
}

#[test]
fn the_same_again_computes_nothing_and_something_else_needs_force() {
    let space = Workspace::new();
    let data = space.path("texts.jsonl");
    write_long_classification(&data, TEXTS);
    let (model, cache) = (goldens().join("bert-tiny"), space.path("kept"));
    let command = pooled(&model, &data, &cache, "--max-length 32");
    telly_ok(&command);
    let before = support::content(&cache);
    let said = stderr(&telly_ok(&command));
    assert!(said.contains("nothing to compute"), "{said}");
    let fails = |model: &Path, flags: &str, words: &[&str]| {
        let command = pooled(model, &data, &cache, flags);
        fails(telly(&command), WRONG_INPUT, words);
        assert_eq!(support::content(&cache), before, "nothing is lost");
    };
    fails(
        &model,
        "--max-length 24",
        &["max_length: the cache has 32, now 24", "--force"],
    );
    fails(
        &model,
        "--max-length 32 --limit 10",
        &["texts: the cache has", "--force"],
    );
    fails(
        &goldens().join("roberta-tiny"),
        "--max-length 32",
        &["weights: "],
    );
    telly_ok(&pooled(&model, &data, &cache, "--max-length 24 --force"));
    let found = telly_json(&rsa(&cache, &model, "--provider cpu"));
    assert_eq!(found["max_length"], 24);
}

/// The run is another one, by the name of the one whose vectors are kept; and the texts lie elsewhere.
#[test]
fn what_was_trained_anew_needs_force_and_what_was_moved_does_not() {
    let space = Workspace::new();
    let [data, _, run] = trained(&space);
    let kept = space.path("kept");
    telly_ok(&pooled(&run, &data, &kept, "--max-length 32"));
    let elsewhere = space.path("elsewhere.jsonl");
    fs_err::rename(&data, &elsewhere).expect("moved");
    let said = stderr(&telly_ok(&pooled(
        &run,
        &elsewhere,
        &kept,
        "--max-length 32",
    )));
    assert!(said.contains("nothing to compute"), "{said}");
    telly_ok(&rsa(&kept, &run, "--provider cpu"));
    fs_err::remove_dir_all(&run).expect("removed");
    telly_json(&train(
        &space.path("activations"),
        &run,
        "--epochs 1 --seed 9",
    ));
    let command = pooled(&run, &elsewhere, &kept, "--max-length 32");
    fails(
        telly(&command),
        WRONG_INPUT,
        &["run: the cache has", "--force"],
    );
}

/// Ctrl-C leaves nothing behind, and the same command begins again.
#[test]
fn what_is_interrupted_leaves_nothing() {
    let space = Workspace::new();
    let data = space.path("texts.jsonl");
    // Some seconds of work.
    write_long_classification(&data, 20_000);
    let kept = space.path("kept");
    let flags = "--max-length 48 --batch-tokens 64";
    let command = pooled(&goldens().join("bert-tiny"), &data, &kept, flags);
    let mut process = telly(&command);
    let process = process.stderr(Stdio::piped()).spawn();
    let mut child = process.expect("telly runs");
    while !kept.exists() {
        let ended = child.try_wait().expect("it is a child");
        assert!(ended.is_none(), "it ended before it began: {ended:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let asked = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(asked.expect("kill runs").success());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("nothing was written"));
    assert!(!kept.exists(), "the folder stays");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let space = Workspace::new();
    let data = space.path("texts.jsonl");
    write_long_classification(&data, TEXTS);
    let model = goldens().join("bert-tiny");
    let kept = space.path("kept");
    telly_ok(&pooled(&model, &data, &kept, "--max-length 32"));
    let refused = |flags: &str, words: &[&str]| {
        fails(telly(&rsa(&kept, &model, flags)), WRONG_INPUT, words);
    };
    refused(
        "--max-length 16",
        &["--max-length", "16 here", "32 of the vectors in", "kept"],
    );
    refused(
        "--pooling unmasked",
        &["--pooling", "unmasked here", "masked of the vectors"],
    );
    let lines = fs_err::read_to_string(&data).expect("texts");
    let mut lines: Vec<&str> = lines.lines().collect();
    lines.swap(4, 9);
    let other = space.write("other.jsonl", &lines.join("\n"));
    let with_other = format!("--data {}", text(&other));
    refused(
        &with_other,
        &["different texts, from text 5 on", "kept", "bert-tiny"],
    );
    lines.truncate(4);
    space.write("other.jsonl", &lines.join("\n"));
    refused(&with_other, &["different texts, from text 5 on"]);
    let other = goldens().join("modernbert-tiny");
    let command = rsa(&kept, &other, "");
    fails(
        telly(&command),
        WRONG_INPUT,
        &["layers", "found 4", "expected 3"],
    );
    let command = rsa(&kept, &kept, &format!("--data {}", text(&data)));
    fails(
        telly(&command),
        WRONG_INPUT,
        &["--data", "nothing to act on"],
    );
    for flag in ["--provider cpu", "--text-field text", "--batch-tokens 64"] {
        let command = rsa(&kept, &kept, flag);
        let (name, _) = flag.split_once(' ').expect("a value");
        fails(telly(&command), WRONG_INPUT, &[name, "nothing to act on"]);
    }
    let command = rsa(&model, &model, "");
    fails(telly(&command), WRONG_INPUT, &["--data"]);
    let command = rsa(&model, &space.path("no/where"), "");
    fails(telly(&command), WRONG_INPUT, &["there is no", "no/where"]);
    let file = kept.join("pooled.safetensors");
    let bytes = fs_err::read(&file).expect("bytes");
    // A cache of activations is neither put over it, nor taken for it.
    let over = support::precompute("classify", &model, &data, "1", &kept);
    fails(
        telly(&over),
        WRONG_INPUT,
        &["not empty", "no activation cache"],
    );
    assert_eq!(fs_err::read(&file).expect("bytes"), bytes);
    let activations = space.path("activations");
    telly_json(&support::precompute(
        "classify",
        &model,
        &data,
        "1",
        &activations,
    ));
    let command = rsa(&activations, &kept, "");
    let words = ["is a cache of activations", "--pooled"];
    fails(telly(&command), WRONG_INPUT, &words);
    space.write_bytes("kept/pooled.safetensors", &bytes[..bytes.len() / 2]);
    refused(
        "",
        &[
            "pooled.safetensors",
            "damaged",
            "precompute --pooled --force",
        ],
    );
    telly_ok(&pooled(&model, &data, &kept, "--max-length 32 --force"));
    assert_eq!(fs_err::read(&file).expect("bytes"), bytes);
}

#[test]
fn flags_without_a_meaning_are_refused() {
    let space = Workspace::new();
    let data = space.path("texts.jsonl");
    write_long_classification(&data, TEXTS);
    let (model, cache) = (goldens().join("bert-tiny"), space.path("kept"));
    for (flags, words) in [
        ("--task classify", ["--task", "nothing to act on"]),
        ("--precision fp16", ["--precision", "nothing to act on"]),
        ("--shard 1/2", ["--shard", "nothing to act on"]),
        ("--dry-run", ["--dry-run", "nothing to act on"]),
        ("--freeze 1", ["--freeze 1", "every layer"]),
        ("--limit 2", ["2 texts", "expected 3"]),
        ("--text-field body", ["body", "--text-field"]),
    ] {
        let command = pooled(&model, &data, &cache, flags);
        fails(telly(&command), WRONG_INPUT, &words);
        assert!(!cache.exists(), "{flags}");
    }
    // Vectors in a folder of something else would be taken for that.
    for (name, bytes) in support::content(&model) {
        space.write_bytes(&name, &bytes);
    }
    let command = pooled(&model, &data, space.folder(), "");
    fails(
        telly(&command),
        WRONG_INPUT,
        &["folder of a model", "--cache"],
    );
    let activations = space.path("activations");
    telly_ok(&support::precompute(
        "classify",
        &model,
        &data,
        "1",
        &activations,
    ));
    let command = pooled(&model, &data, &activations, "");
    fails(
        telly(&command),
        WRONG_INPUT,
        &["cache of activations", "--cache"],
    );
    let mut command = support::precompute("classify", &model, &data, "1", &cache);
    command.extend(["--limit".into(), "10".into()]);
    let output = telly(&command).output().expect("telly runs");
    assert_eq!(output.status.code(), Some(WRONG_INPUT));
    assert!(stderr(&output).contains("--pooled"), "{}", stderr(&output));
}
