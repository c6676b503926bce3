//! A classifier with transformers' own head, with sets of labels, with numbers: as a user trains,
//! measures and applies them.

#![allow(clippy::cast_precision_loss, reason = "small numbers")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::support::{
    WRONG_INPUT, Workspace, content, fails, goldens, precompute, telly, telly_json, telly_ok, text,
    train, write_classification,
};
use serde_json::{Value, json};
use telly::checkpoint::Checkpoint;

/// Texts of up to 12 words out of two; the labels say which of them occur, or how many of them are
/// the first.
fn write(path: &Path, rows: usize, objective: &str) {
    let mut lines = String::new();
    for row in 0..rows {
        let counts = [row % 5, row / 5 % 4];
        let words = ["return", "the"].map(|word| format!("{word} "));
        let text = words[0].repeat(counts[0]) + &words[1].repeat(counts[1]);
        let label = match objective {
            "multi-label" => {
                let named = ["code", "prose"].into_iter().zip(counts);
                let named = named.filter(|(_, count)| *count > 0).map(|(name, _)| name);
                json!(named.collect::<Vec<_>>())
            }
            _ => json!(counts[0] as f64 / 2.0),
        };
        let line = json!({ "text": format!("x {text}"), "label": label });
        writeln!(lines, "{line}").expect("written");
    }
    fs_err::write(path, lines).expect("written");
}

/// A cache of three splits of the same kind.
fn cached(space: &Workspace, model: &str, objective: &str) -> PathBuf {
    let paths = ["train", "valid", "test"].map(|name| space.path(&format!("{name}.jsonl")));
    for (path, rows) in paths.iter().zip([120, 40, 40]) {
        match objective {
            "single-label" => write_classification(path, rows),
            _ => write(path, rows, objective),
        }
    }
    let cache = space.path("cache");
    let mut command = precompute("classify", &goldens().join(model), &paths[0], "1", &cache);
    let more = ["--valid", text(&paths[1]), "--test", text(&paths[2])];
    command.extend(more.map(String::from));
    command.extend(["--objective", objective].map(String::from));
    telly_json(&command);
    cache
}

/// What the trained layers are computed by.
const OPS: [&str; 2] = ["fused", "composed"];

/// Trains by `ops`, measures again without the cache, and applies the run: the summary and what was
/// predicted for each row of the test split.
fn trained(space: &Workspace, cache: &Path, ops: &str, flags: &str) -> (Value, Vec<Value>) {
    let run = space.path("run");
    let fixed = "--epochs 6 --batch-size 8 --lr 2e-3 --force --ops";
    let summary = telly_json(&train(cache, &run, &format!("{fixed} {ops} {flags}")));
    let test = space.path("test.jsonl");
    let fresh = [
        "evaluate",
        "--run",
        text(&run),
        "--data",
        text(&test),
        "--ops",
        ops,
    ];
    let fresh = telly_json(&fresh);
    for (name, number) in summary["test"].as_object().expect("metrics") {
        let again = fresh["metrics"][name].as_f64().expect("a number");
        let difference = (number.as_f64().expect("a number") - again).abs();
        assert!(difference < 1e-2, "{name}: {number} cached, {again} fresh");
    }
    let output = space.path("predictions.jsonl");
    let [input, run, written] = [&test, &run, &output].map(|path| text(path));
    telly_ok(&[
        "predict", "--run", run, "--input", input, "--output", written, "--ops", ops,
    ]);
    let lines = fs_err::read_to_string(&output).expect("predictions");
    let lines = lines.lines();
    let lines = lines.map(|line| serde_json::from_str(line).expect("JSON"));
    (summary, lines.collect())
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn sets_of_labels() {
    let space = Workspace::new();
    let cache = cached(&space, "bert-tiny", "multi-label");
    for ops in OPS {
        let (summary, predictions) = trained(&space, &cache, ops, "");
        let test = &summary["test"];
        assert!(number(&test["micro_f1"]) > 0.9, "{summary}");
        let names: Vec<&String> = test.as_object().expect("metrics").keys().collect();
        let expected = [
            "micro_f1",
            "macro_f1",
            "precision",
            "recall",
            "accuracy",
            "loss",
        ];
        assert_eq!(names, expected);
        let records = fs_err::read_to_string(space.path("test.jsonl")).expect("records");
        let right = records.lines().zip(&predictions).filter(|(record, found)| {
            let record: Value = serde_json::from_str(record).expect("JSON");
            assert_eq!(found["probabilities"].as_object().expect("labels").len(), 2);
            record["label"] == found["labels"]
        });
        assert!((right.count() as f64 / 40.0 - number(&test["accuracy"])).abs() < 1e-9);
    }

    let run = space.path("other");
    let refused = |flags: &str, words: &[&str]| {
        fails(telly(&train(&cache, &run, flags)), WRONG_INPUT, words);
    };
    refused(
        "--label-smoothing 0.1",
        &["is for classes of which each row has one"],
    );
    refused("--objective single-label", &["encoding: the cache has"]);
    let wrong = space.write("wrong.jsonl", "{\"text\": \"a\", \"label\": \"code\"}\n");
    let command = precompute(
        "classify",
        &goldens().join("bert-tiny"),
        &wrong,
        "1",
        &space.path("none"),
    );
    let mut command = telly(&command);
    command.args(["--objective", "multi-label"]);
    fails(
        command,
        WRONG_INPUT,
        &["wrong.jsonl", "line 1", "a list of strings or of integers"],
    );
}

#[test]
fn numbers() {
    let space = Workspace::new();
    let cache = cached(&space, "mpnet-tiny", "regression");
    let flags = "--head huggingface --best-metric mse";
    for ops in OPS {
        let (summary, predictions) = trained(&space, &cache, ops, flags);
        assert!(number(&summary["test"]["pearson"]) > 0.8, "{summary}");
        let records = fs_err::read_to_string(space.path("test.jsonl")).expect("records");
        let squares = records.lines().zip(&predictions).map(|(record, found)| {
            let record: Value = serde_json::from_str(record).expect("JSON");
            (number(&record["label"]) - number(&found["number"])).powi(2)
        });
        let mean = squares.sum::<f64>() / 40.0;
        assert!(
            (mean - number(&summary["test"]["mse"])).abs() < 1e-2,
            "{mean} {summary}"
        );
    }
}

#[test]
fn heads_as_transformers_names_them() {
    for ((model, hidden), ops) in [
        ("bert-tiny", "pooler.dense.weight"),
        ("roberta-tiny", "classifier.dense.weight"),
        ("modernbert-tiny", "head.norm.weight"),
    ]
    .into_iter()
    .flat_map(|case| OPS.map(|ops| (case, ops)))
    {
        let space = Workspace::new();
        let cache = cached(&space, model, "single-label");
        let (summary, _) = trained(&space, &cache, ops, "--head huggingface");
        assert!(number(&summary["test"]["accuracy"]) > 0.9, "{summary}");
        let run = space.path("run");
        let weights = |run: &Path| fs_err::read(run.join("model.safetensors")).expect("weights");
        let bytes = weights(&run);
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
        assert!(tensors.tensor(hidden).is_ok(), "{:?}", tensors.names());

        // The recipe repeats it.
        let recipe = run.join("recipe.toml");
        let told = fs_err::read_to_string(&recipe).expect("a recipe");
        assert!(told.contains(&format!("ops = \"{ops}\"")), "{told}");
        let again = space.path("again");
        telly_json(&["train", "--recipe", text(&recipe), "--out", text(&again)]);
        assert_eq!(weights(&again), bytes);
        let mean = train(
            &cache,
            &space.path("x"),
            "--head huggingface --pooling mean",
        );
        if model == "modernbert-tiny" {
            telly_json(&mean);
        } else {
            let words = ["`--head huggingface` reads the first token"];
            fails(telly(&mean), WRONG_INPUT, &words);
        }
    }
}

/// What `config.json` sets of ModernBERT's classifier: the default of `--pooling`, a bias, and an
/// activation, of which one that Telly does not compute is refused, but for `--head linear`.
#[test]
fn a_classifier_that_the_configuration_sets() {
    let space = Workspace::new();
    let model = space.path("model");
    let set = |pooling: &str, activation: &str| {
        let source = goldens().join("modernbert-biased-tiny");
        fs_err::create_dir_all(&model).expect("a folder");
        for name in ["model.safetensors", "tokenizer.json"] {
            fs_err::copy(source.join(name), model.join(name)).expect("copied");
        }
        let config = fs_err::read_to_string(source.join("config.json")).expect("a configuration");
        let mut config: Value = serde_json::from_str(&config).expect("JSON");
        config["classifier_pooling"] = pooling.into();
        config["classifier_bias"] = true.into();
        config["classifier_activation"] = activation.into();
        fs_err::write(model.join("config.json"), config.to_string()).expect("written");
    };
    set("mean", "tanh");
    let cache = cached(&space, text(&model), "single-label");
    trained(&space, &cache, "fused", "--head huggingface");
    let run = space.path("run");
    let recipe = fs_err::read_to_string(run.join("recipe.toml")).expect("a recipe");
    assert!(recipe.contains("pooling = \"mean\""), "{recipe}");
    let bytes = fs_err::read(run.join("model.safetensors")).expect("weights");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
    for name in ["head.dense.bias", "head.norm.bias", "classifier.bias"] {
        assert!(tensors.tensor(name).is_ok(), "{:?}", tensors.names());
    }
    fs_err::remove_dir_all(&cache).expect("removed");
    set("cls", "silu");
    let out = space.path("other");
    let export = ["export", "--run", text(&run), "--format", "onnx"];
    let export = export.into_iter().chain(["--out", text(&out)]);
    // What it was trained with is known.
    let words = ["is not the model that", "config"];
    fails(telly(&export.collect::<Vec<_>>()), WRONG_INPUT, &words);
    let cache = cached(&space, text(&model), "single-label");
    let words = ["classifier_activation", "silu", "--head linear"];
    let refused = telly(&train(&cache, &out, "--head huggingface"));
    fails(refused, WRONG_INPUT, &words);
    telly_json(&train(&cache, &out, "--epochs 1"));
}

#[test]
fn pairs_are_put_together_as_in_transformers() {
    let text = fs_err::read_to_string(goldens().join("pairs.json")).expect("a golden");
    let golden: Value = serde_json::from_str(&text).expect("JSON");
    let length = golden["max_length"].as_u64().expect("a length");
    let length = usize::try_from(length).expect("small");
    let pairs = golden["pairs"].as_array().expect("pairs");
    for model in ["bert-tiny", "roberta-tiny", "mpnet-tiny"] {
        let mut checkpoint = Checkpoint::open(&goldens().join(model)).expect("a checkpoint");
        checkpoint.take_pairs().expect("a separator");
        let pairs: Vec<&Value> = pairs.iter().filter(|pair| pair["model"] == model).collect();
        assert!(pairs.len() > 40);
        let word = |pair: &Value, field: &str| pair[field].as_str().expect(field).to_owned();
        let texts = pairs
            .iter()
            .map(|pair| (word(pair, "first"), word(pair, "second")));
        let encoded = checkpoint.encode_pairs(texts.collect(), length);
        for (pair, found) in pairs.into_iter().zip(encoded.expect("sequences").iter()) {
            let expected: Vec<u32> = serde_json::from_value(pair["ids"].clone()).expect("ids");
            assert_eq!(found, expected, "{model}: {pair}");
        }
    }
}

#[test]
fn two_texts() {
    let space = Workspace::new();
    let lines = |rows: usize| -> String {
        let line = |row: usize| {
            let words = ["return", "the"];
            // The label is in the second text alone.
            let (first, second) = (words[row % 2], words[row / 2 % 2]);
            let (first, second) = (vec![first; 1 + row % 5], vec![second; 1 + row % 3]);
            let (first, second) = (first.join(" "), second.join(" "));
            let label = row / 2 % 2;
            format!(
                "{}\n",
                json!({ "text": first, "other": second, "label": label })
            )
        };
        (0..rows).map(line).collect()
    };
    let data = space.write("train.jsonl", &lines(120));
    let test = space.write("test.jsonl", &lines(40));
    let command = |model: &str, cache: &str| {
        let (model, cache) = (goldens().join(model), space.path(cache));
        let mut command = precompute("classify", &model, &data, "1", &cache);
        command.extend(["--test", text(&test), "--second-field", "other"].map(String::from));
        command
    };
    for model in ["roberta-tiny", "bert-tiny"] {
        let cache = space.path(model);
        telly_json(&command(model, model));
        for ops in OPS {
            let (summary, predictions) = trained(&space, &cache, ops, "");
            assert!(number(&summary["test"]["accuracy"]) > 0.9, "{summary}");
            assert_eq!(predictions.len(), 40);
        }
        let (shard, verify) = (cache.join("shard-00000.safetensors"), ["cache", "verify"]);
        let before = content(&cache);
        fs_err::remove_file(shard).expect("removed");
        let verify = verify.into_iter().chain([text(&cache), "--repair"]);
        telly_ok(&verify.collect::<Vec<_>>());
        assert_eq!(content(&cache), before);
    }
    let holds = "{\"text\": \"a\", \"other\": \"b\", \"label\": 0}\n{\"text\": \"a [SEP] b\", \"other\": \"b\", \"label\": 1}\n";
    let holds = space.write("holds.jsonl", holds);
    let mut refused = precompute(
        "classify",
        &goldens().join("bert-tiny"),
        &holds,
        "1",
        &space.path("none"),
    );
    refused.extend(["--second-field", "other"].map(String::from));
    fails(
        telly(&refused),
        WRONG_INPUT,
        &[
            "holds.jsonl`, line 2: a text holds [SEP]",
            "hint: write [SEP] in another way",
        ],
    );
    let mut moded = telly(&command("roberta-tiny", "none"));
    moded.args(["--mode-token", "<s>"]);
    fails(moded, WRONG_INPUT, &["is for one text"]);
}

/// What goes without saying is not said: a cache is the same with and without the flag.
#[test]
fn one_label_is_the_default() {
    let space = Workspace::new();
    let cache = cached(&space, "bert-tiny", "single-label");
    let other = space.path("other");
    let mut command = precompute(
        "classify",
        &goldens().join("bert-tiny"),
        &space.path("train.jsonl"),
        "1",
        &other,
    );
    let [valid, test] = ["valid.jsonl", "test.jsonl"].map(|name| space.path(name));
    command.extend(["--valid", text(&valid), "--test", text(&test)].map(String::from));
    telly_json(&command);
    assert_eq!(content(&cache), content(&other));
    let flags = "--epochs 1 --objective single-label";
    telly_json(&train(&cache, &space.path("run"), flags));
}
