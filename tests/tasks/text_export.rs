//! A run that writes text, exported: the folder is a model of its own with the run's loss, and the
//! graph passes ONNX's checker.

use std::path::Path;

use crate::support::{
    self, goldens, python, run_python, telly_json, telly_ok, text, write_functions,
};
use safetensors::SafeTensors;
use serde_json::{Value, json};

/// Trains `model` in `folder`, where `train.jsonl` is written and `run` is made.
fn train(folder: &Path, model: &str, more: &str) {
    let (data, cache) = (folder.join("train.jsonl"), folder.join("cache"));
    let record = |code: &str, intent: &str| json!({ "intent": intent, "snippet": code });
    write_functions(&data, 1, record);
    let model = goldens().join(model);
    let mut arguments = support::precompute("generate", &model, &data, "1", &cache);
    arguments.extend(["--precision", "fp32"].map(String::from));
    telly_ok(&arguments);
    let flags = format!("--epochs 8 --batch-size 3 --lr 1e-2 {more}");
    telly_ok(&support::train(&cache, &folder.join("run"), &flags));
}

/// Loss and texts of a model on the training file.
fn metrics(folder: &Path, of: &[&str]) -> Value {
    let data = folder.join("train.jsonl");
    let mut arguments = vec!["evaluate", "--data", text(&data)];
    arguments.extend(of);
    telly_json(&arguments)["metrics"].clone()
}

fn check(model: &str, more: &str, class: &str, own_matrix: bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    train(folder, model, more);
    let (run, out) = (folder.join("run"), folder.join("model"));
    telly_ok(&[
        "export",
        "--run",
        text(&run),
        "--format",
        "hf",
        "--out",
        text(&out),
    ]);
    let config = fs_err::read_to_string(out.join("config.json")).expect("a configuration");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(config["architectures"], json!([class]), "{model}");
    assert_eq!(config["tie_word_embeddings"], json!(!own_matrix), "{model}");
    let bytes = fs_err::read(out.join("model.safetensors")).expect("weights");
    let tensors = SafeTensors::deserialize(&bytes).expect("tensors");
    assert_eq!(
        tensors.tensor("lm_head.weight").is_ok(),
        own_matrix,
        "{model}"
    );
    assert!(
        tensors.tensor("model.embed_tokens.weight").is_ok(),
        "{model}"
    );
    let trained = metrics(folder, &["--run", text(&run)]);
    let exported = metrics(folder, &["--model", text(&out), "--task", "generate"]);
    let loss = |metrics: &Value| metrics["loss"].as_f64().expect("a loss");
    let (found, expected) = (loss(&exported), loss(&trained));
    assert!(
        (found - expected).abs() <= 1e-5,
        "{model}: {found}, {expected}"
    );
    for name in ["bleu", "em", "edit_similarity", "chrf"] {
        assert_eq!(exported[name], trained[name], "{model}, {name}");
    }
}

#[test]
fn a_folder_has_the_loss_of_its_run() {
    check("llama-tiny", "", "LlamaForCausalLM", true);
    check("qwen2-tiny", "", "Qwen2ForCausalLM", false);
    check("starcoder2-tiny", "", "Starcoder2ForCausalLM", false);
}

/// What was one matrix are two.
#[test]
fn a_matrix_that_was_trained_apart_is_exported_apart() {
    check("qwen2-tiny", "--train-head", "Qwen2ForCausalLM", true);
}

#[test]
fn the_graph_passes_the_checker() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    train(folder.path(), "llama-tiny", "");
    let (run, out) = (folder.path().join("run"), folder.path().join("onnx"));
    telly_ok(&[
        "export",
        "--run",
        text(&run),
        "--format",
        "onnx",
        "--out",
        text(&out),
    ]);
    run_python(&python, "check_onnx.py", &[&out.join("model.onnx")]);
}
