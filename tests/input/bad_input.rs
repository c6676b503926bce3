//! Bad input: one clear error that says what, where, found, expected and what to do; exit status
//! 2; nothing left behind.

#![allow(clippy::print_stdout, reason = "the errors are shown")]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    self, Classification, WRONG_INPUT, fails, goldens, names, stderr, telly, text,
};

/// As `fails`, for a `precompute` that must not leave a cache behind.
fn refused(work: &Classification, command: Command, words: &[&str]) {
    fails(command, WRONG_INPUT, words);
    assert!(!work.path("cache").exists(), "a cache was left behind");
}

/// A copy of a tiny checkpoint that a test may spoil.
fn copy_of_model(work: &Classification, name: &str) -> PathBuf {
    let target = work.path(&format!("model-{name}"));
    fs_err::create_dir_all(&target).expect("a folder");
    for file in names(&goldens().join(name)) {
        fs_err::copy(goldens().join(name).join(&file), target.join(&file)).expect("copied");
    }
    target
}

/// The tokenizers library panics at it, of which the user sees nothing.
#[test]
fn a_broken_tokenizer() {
    let work = Classification::new();
    let model = copy_of_model(&work, "bert-tiny");
    let path = model.join("tokenizer.json");
    let whole = fs_err::read_to_string(&path).expect("text");
    let listed = "\"special_tokens\": {\n      \"[CLS]\"";
    let broken = whole.replace(listed, "\"special_tokens\": {\n      \"[CLT]\"");
    assert_ne!(whole, broken);
    fs_err::write(&path, broken).expect("written");
    let command = work.precompute(&model, &work.path("train.jsonl"), "1");
    refused(
        &work,
        command,
        &["cannot load the tokenizer", "tokenizer.json"],
    );
}

#[test]
fn data_files() {
    let work = Classification::new();
    let model = goldens().join("bert-tiny");
    let precompute = |path: &Path| work.precompute(&model, path, "1");

    let missing = work.path("nothing.jsonl");
    refused(
        &work,
        precompute(&missing),
        &["nothing.jsonl", "No such file"],
    );

    let empty = work.0.write("empty.jsonl", "\n\n");
    refused(&work, precompute(&empty), &["empty.jsonl", "no records"]);

    let good = fs_err::read_to_string(work.path("train.jsonl")).expect("text");
    let mut lines: Vec<&str> = good.lines().collect();
    lines[16] = "{\"text\": \"cut off";
    let broken = work.0.write("broken.jsonl", &lines.join("\n"));
    refused(
        &work,
        precompute(&broken),
        &["broken.jsonl", "line 17", "JSON object"],
    );

    lines[16] = "{\"texts\": \"a\", \"label\": \"code\"}";
    let renamed = work.0.write("renamed.jsonl", &lines.join("\n"));
    refused(
        &work,
        precompute(&renamed),
        &["line 17", "`text`", "`texts`", "--text-field"],
    );

    lines[16] = "{\"text\": 5, \"label\": \"code\"}";
    let number = work.0.write("number.jsonl", &lines.join("\n"));
    refused(
        &work,
        precompute(&number),
        &["line 17", "`text` is 5", "a string"],
    );

    let one_class = work.0.write(
        "one.jsonl",
        "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b\", \"label\": 1}\n",
    );
    refused(
        &work,
        precompute(&one_class),
        &["one.jsonl", "label 1", "at least two"],
    );

    let unseen = work.0.write(
        "unseen.jsonl",
        "{\"text\": \"a\", \"label\": \"code\"}\n{\"text\": \"b\", \"label\": \"poetry\"}\n",
    );
    let mut command = precompute(&work.path("train.jsonl"));
    command.args(["--valid", text(&unseen)]);
    refused(
        &work,
        command,
        &[
            "unseen.jsonl",
            "line 2",
            "\"poetry\"",
            "\"code\", \"prose\"",
        ],
    );
}

#[test]
fn checkpoints() {
    let work = Classification::new();
    let train = work.path("train.jsonl");

    refused(
        &work,
        work.precompute(&work.path("nowhere"), &train, "1"),
        &["nowhere", "setup.sh"],
    );
    refused(
        &work,
        work.precompute(&goldens().join("bert-tiny"), &train, "4"),
        &["--freeze 4", "3 layers", "0 to 3"],
    );

    let model = copy_of_model(&work, "bert-tiny");
    let weights = model.join("model.safetensors");
    let whole = fs_err::read(&weights).expect("weights");
    fs_err::write(&weights, &whole[..whole.len() - 1000]).expect("written");
    refused(
        &work,
        work.precompute(&model, &train, "1"),
        &["model.safetensors", "not a whole safetensors file"],
    );

    fs_err::remove_file(&weights).expect("removed");
    fs_err::write(model.join("pytorch_model.bin"), b"PK").expect("written");
    refused(
        &work,
        work.precompute(&model, &train, "1"),
        &["pytorch_model.bin", "zip archive is damaged"],
    );

    // Another layer than the weights have.
    let model = copy_of_model(&work, "roberta-tiny");
    let config = fs_err::read_to_string(model.join("config.json")).expect("text");
    let spoil = |from: &str, to: &str| {
        assert!(config.contains(from), "{from} in {config}");
        fs_err::write(model.join("config.json"), config.replace(from, to)).expect("written");
    };
    spoil("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4");
    refused(
        &work,
        work.precompute(&model, &train, "1"),
        &["no tensor `encoder.layer.3.", "`roberta.`"],
    );
    spoil("\"intermediate_size\": 64", "\"intermediate_size\": 65");
    refused(
        &work,
        work.precompute(&model, &train, "1"),
        &["intermediate.dense.weight", "[64, 32]", "[65, 32]"],
    );
    for (from, to, words) in [
        (
            "\"model_type\": \"roberta\"",
            "\"model_type\": \"t5\"",
            [
                "`model_type` is \"t5\"",
                "xlm-roberta, mpnet, distilbert, modernbert",
            ],
        ),
        (
            "\"hidden_act\": \"gelu\"",
            "\"hidden_act\": \"relu\"",
            ["`hidden_act` is \"relu\"", "\"gelu\""],
        ),
        (
            "\"hidden_size\": 32",
            "\"position_embedding_type\": \"relative_key\", \"hidden_size\": 32",
            ["relative_key", "\"absolute\""],
        ),
    ] {
        spoil(from, to);
        let output = work
            .precompute(&model, &train, "1")
            .output()
            .expect("telly runs");
        assert_eq!(output.status.code(), Some(WRONG_INPUT));
        let said = stderr(&output);
        println!("{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}

/// Names of so many layers' tensors would not fit in memory.
#[test]
fn more_layers_than_can_be() {
    let work = Classification::new();
    let model = copy_of_model(&work, "bert-tiny");
    let config = fs_err::read_to_string(model.join("config.json")).expect("text");
    let layers = "\"num_hidden_layers\": 3";
    assert!(config.contains(layers));
    let config = config.replace(layers, "\"num_hidden_layers\": 18446744073709551615");
    fs_err::write(model.join("config.json"), config).expect("written");
    refused(
        &work,
        work.precompute(&model, &work.path("train.jsonl"), "1"),
        &["has no tensor `encoder.layer.3."],
    );
}

#[test]
fn checkpoints_of_mpnet() {
    let work = Classification::new();
    let train = work.path("train.jsonl");
    let model = copy_of_model(&work, "mpnet-tiny");

    let cache = work.path("cache");
    let mut longer = support::precompute("classify", &model, &train, "1", &cache);
    *longer.last_mut().expect("the length") = "145".into();
    says(telly(&longer), &["--max-length", "145", "144"]);

    let config = fs_err::read_to_string(model.join("config.json")).expect("text");
    for (from, to, words) in [
        (
            "\"relative_attention_num_buckets\": 32",
            "\"relative_attention_num_buckets\": 64",
            ["`relative_attention_num_buckets` is 64", "supported: 32"],
        ),
        (
            "\"num_hidden_layers\": 3",
            "\"num_hidden_layers\": 4",
            ["no tensor `encoder.layer.3.attention.attn.q", "`mpnet.`"],
        ),
    ] {
        assert!(config.contains(from), "{from} in {config}");
        fs_err::write(model.join("config.json"), config.replace(from, to)).expect("written");
        says(work.precompute(&model, &train, "1"), &words);
    }
}

#[test]
fn checkpoints_of_distilbert_and_modernbert() {
    let work = Classification::new();
    let train = work.path("train.jsonl");
    for (model, from, to, words) in [
        (
            "distilbert-tiny",
            "\"activation\": \"gelu\"",
            "\"activation\": \"relu\"",
            &["`activation` is \"relu\"", "\"gelu\""][..],
        ),
        (
            "distilbert-tiny",
            "\"n_heads\": 4",
            "\"n_heads\": 5",
            &["`dim` 32", "`n_heads` 5"],
        ),
        (
            "distilbert-tiny",
            "\"n_layers\": 3",
            "\"x\": 3",
            &["n_layers"],
        ),
        (
            "modernbert-tiny",
            "\"hidden_activation\": \"gelu\"",
            "\"hidden_activation\": \"silu\"",
            &["`hidden_activation` is \"silu\""],
        ),
        (
            "modernbert-tiny",
            "\"num_hidden_layers\": 4",
            "\"num_hidden_layers\": 5",
            &["`layer_types` names 4 layers, `num_hidden_layers` is 5"],
        ),
        (
            "modernbert-tiny",
            "\"sliding_attention\",",
            "\"chunked_attention\",",
            &[
                "\"chunked_attention\" in one layer",
                "\"sliding_attention\"",
            ],
        ),
        (
            "modernbert-tiny",
            "\"rope_type\": \"default\"",
            "\"rope_type\": \"yarn\"",
            &["`rope_type` is \"yarn\"", "\"default\""],
        ),
        (
            "modernbert-tiny",
            "\"num_attention_heads\": 4",
            "\"num_attention_heads\": 32",
            &["`hidden_size` / `num_attention_heads` is 1", "even"],
        ),
        (
            "modernbert-tiny",
            "\"pad_token_id\": 3",
            "\"pad_token_id\": 50283",
            &["`pad_token_id` 50283", "`vocab_size` 400"],
        ),
        (
            "modernbert-tiny",
            "\"mlp_dropout\": 0.1",
            "\"mlp_dropout\": 1.0",
            &["dropout probability of 1", "[0, 1)"],
        ),
        (
            "modernbert-tiny",
            "\"mlp_bias\": false",
            "\"mlp_bias\": true",
            &["no tensor `layers.0.mlp.Wi.bias`", "`model.`"],
        ),
    ] {
        let folder = copy_of_model(&work, model);
        let config = fs_err::read_to_string(folder.join("config.json")).expect("text");
        assert!(config.contains(from), "{from} in {config}");
        fs_err::write(folder.join("config.json"), config.replace(from, to)).expect("written");
        says(work.precompute(&folder, &train, "1"), words);
    }
}

/// The command is refused in these words; with or without a hint.
fn says(mut command: Command, words: &[&str]) {
    let output = command.output().expect("telly runs");
    assert_eq!(output.status.code(), Some(WRONG_INPUT));
    let said = stderr(&output);
    println!("{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
}

#[test]
fn a_cache_of_something_else() {
    let work = Classification::new();
    let (cache, _) = work.trained();
    let train = |more: &[&str]| {
        let out = work.path("refused");
        let mut command = telly(&["train", "--cache", text(&cache), "--out", text(&out)]);
        command.args(more);
        command
    };
    fails(
        train(&["--freeze", "2"]),
        WRONG_INPUT,
        &["freeze: the cache has 1, now 2"],
    );

    let model = copy_of_model(&work, "bert-tiny");
    let weights = model.join("model.safetensors");
    let mut bytes = fs_err::read(&weights).expect("weights");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs_err::write(&weights, bytes).expect("written");
    fails(
        train(&["--model", text(&model)]),
        WRONG_INPUT,
        &["weights: the cache has \"", ", now \""],
    );

    let other = work.path("other.jsonl");
    fails(
        train(&["--train", text(&other)]),
        WRONG_INPUT,
        &["train: the cache has \"", ", now \""],
    );
    fails(
        train(&["--max-length", "16"]),
        WRONG_INPUT,
        &["encoding: the cache has"],
    );
    assert!(!work.path("refused").exists(), "a run was left behind");
    assert!(
        train(&[
            "--train",
            text(&work.path("train.jsonl")),
            "--freeze",
            "1",
            "--epochs",
            "1"
        ])
        .status()
        .expect("telly runs")
        .success()
    );

    // The same folder for another cache is refused too, and the good one stays.
    let before = fs_err::read(cache.join("manifest.json")).expect("bytes");
    fails(
        work.precompute(&goldens().join("bert-tiny"), &work.path("train.jsonl"), "2"),
        WRONG_INPUT,
        &["freeze: the cache has 1, now 2", "--force"],
    );
    assert_eq!(
        fs_err::read(cache.join("manifest.json")).expect("bytes"),
        before
    );
}

#[test]
fn runs() {
    let work = Classification::new();
    let (cache, run) = work.trained();
    fails(
        telly(&["train", "--cache", text(&cache), "--out", text(&run)]),
        WRONG_INPUT,
        &["not empty", "--force"],
    );
    fails(
        telly(&[
            "evaluate",
            "--run",
            text(&cache),
            "--data",
            text(&work.path("train.jsonl")),
        ]),
        WRONG_INPUT,
        &["no finished run"],
    );
    let wrong = work
        .0
        .write("wrong.jsonl", "{\"text\": \"a\", \"label\": 3}\n");
    fails(
        telly(&["evaluate", "--run", text(&run), "--data", text(&wrong)]),
        WRONG_INPUT,
        &["label 3", "\"code\""],
    );
    fails(
        telly(&["train", "--cache", text(&work.path("none"))]),
        WRONG_INPUT,
        &["no activation cache", "telly precompute"],
    );
    fails(telly(&["train"]), WRONG_INPUT, &["`--cache` is missing"]);
    fails(
        telly(&[
            "train",
            "--cache",
            text(&cache),
            "--out",
            text(&work.path("x")),
            "--dropout",
            "1.5",
        ]),
        WRONG_INPUT,
        &["--dropout 1.5"],
    );
    let recipe = work.0.write("recipe.toml", "epoch = 3\n");
    fails(
        telly(&["train", "--recipe", text(&recipe)]),
        WRONG_INPUT,
        &["recipe.toml", "`--epoch`"],
    );
    assert!(!work.path("x").exists());
}

/// A model that was changed after the training is not the one it was trained from.
#[test]
fn a_changed_model() {
    let work = Classification::new();
    let (_, run) = work.trained();
    let data = work.path("other.jsonl");
    let evaluate = |model: &Path| {
        telly(&[
            "evaluate",
            "--run",
            text(&run),
            "--data",
            text(&data),
            "--model",
            text(model),
        ])
    };
    let model = copy_of_model(&work, "bert-tiny");
    assert!(evaluate(&model).status().expect("telly runs").success());
    for (file, what, from, to) in [
        (
            "config.json",
            "config",
            "\"layer_norm_eps\": 1e-12",
            "\"layer_norm_eps\": 1e-6",
        ),
        ("tokenizer.json", "tokenizer", "{", "{ "),
    ] {
        let path = model.join(file);
        let good = fs_err::read_to_string(&path).expect("text");
        assert!(good.contains(from), "{file}");
        fs_err::write(&path, good.replacen(from, to, 1)).expect("written");
        let words = ["is not the model that", what, "expected", "--model"];
        fails(evaluate(&model), WRONG_INPUT, &words);
        fs_err::write(&path, good).expect("written");
    }
    let path = model.join("model.safetensors");
    let mut weights = fs_err::read(&path).expect("weights");
    *weights.last_mut().expect("numbers") ^= 1;
    fs_err::write(&path, weights).expect("written");
    fails(
        evaluate(&model),
        WRONG_INPUT,
        &["is not the model that", "weights"],
    );
}

/// What a run has trained is all of what its layers and its head hold: nothing is filled in from the model
/// that it was trained from.
#[test]
fn a_run_that_lacks_a_tensor() {
    let work = Classification::new();
    let (_, run) = work.trained();
    let file = run.join("model.safetensors");
    let mut bytes = fs_err::read(&file).expect("the run's weights");
    let (name, other) = ("query.weight", "query.weighs");
    let place = bytes.windows(name.len());
    let place = place
        .enumerate()
        .find_map(|(place, found)| (found == name.as_bytes()).then_some(place))
        .expect("a tensor of that name");
    bytes[place..place + name.len()].copy_from_slice(other.as_bytes());
    fs_err::write(&file, bytes).expect("written");
    let data = work.path("other.jsonl");
    let exported = work.path("exported");
    let (run, data, exported) = (text(&run), text(&data), text(&exported));
    for command in [
        &["evaluate", "--run", run, "--data", data][..],
        &["predict", "--run", run, "--input", data, "--output", "-"],
        &["export", "--run", run, "--format", "hf", "--out", exported],
        &[
            "rsa",
            run,
            text(&goldens().join("bert-tiny")),
            "--data",
            data,
        ],
        &["probe", run, "--data", data, "--language", "python"],
    ] {
        let words = [
            "model.safetensors` is damaged",
            "query.weight`: found nothing",
        ];
        fails(telly(command), WRONG_INPUT, &words);
    }
    assert!(!work.path("exported").exists(), "an export was left behind");
}
