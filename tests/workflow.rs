//! The commands one after the other, as a user runs them.

#![allow(clippy::cast_precision_loss, reason = "small numbers")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{
    Workspace, goldens, names, precompute, stderr, telly, telly_json, telly_ok, text, train,
    write_classification, write_search,
};

struct Work {
    space: Workspace,
    model: PathBuf,
}

impl Work {
    fn new(model: &str) -> Self {
        let space = Workspace::new();
        for split in ["train", "valid", "test"] {
            let rows = if split == "train" { 48 } else { 20 };
            write_classification(&space.path(&format!("classify-{split}.jsonl")), rows);
            write_search(&space.path(&format!("search-{split}.jsonl")), rows);
        }
        Self {
            space,
            model: goldens().join(model),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.space.path(name)
    }

    fn precompute(&self, task: &str, freeze: &str, cache: &Path, more: &[&str]) -> Value {
        let [train, valid, test] =
            ["train", "valid", "test"].map(|split| self.path(&format!("{task}-{split}.jsonl")));
        let mut arguments = precompute(task, &self.model, &train, freeze, cache);
        arguments.extend(["--valid", text(&valid), "--test", text(&test)].map(String::from));
        arguments.extend(more.iter().map(ToString::to_string));
        telly_json(&arguments)
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs_err::read_to_string(path).expect("readable");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// Cached and fresh evaluation of the same split: same predictions, loss within 1e-3, for every
/// kind of freezing and both precisions.
#[test]
fn cached_and_fresh_evaluation_agree() {
    for (model, task) in [
        ("bert-tiny", "classify"),
        ("roberta-tiny", "search"),
        ("roberta-tiny", "classify"),
        ("bert-tiny", "search"),
        ("mpnet-tiny", "search"),
    ] {
        let work = Work::new(model);
        for (freeze, precision) in [
            ("0", "fp16"),
            ("2", "fp16"),
            ("2", "fp32"),
            ("none", "fp16"),
        ] {
            let (cache, run) = (
                work.path(&format!("c-{freeze}-{precision}")),
                work.path(&format!("r-{freeze}-{precision}")),
            );
            work.precompute(task, freeze, &cache, &["--precision", precision]);
            let trained = telly_json(&train(&cache, &run, "--epochs 2 --batch-size 8 --lr 1e-3"));
            let test = work.path(&format!("{task}-test.jsonl"));
            let fresh = telly_json(&["evaluate", "--run", text(&run), "--data", text(&test)]);
            let (cached, fresh) = (&trained["test"], &fresh["metrics"]);
            for (name, value) in cached.as_object().expect("metrics") {
                let difference =
                    value.as_f64().expect("a number") - fresh[name].as_f64().expect("a number");
                let tolerance = if name == "loss" { 1e-3 } else { 0.0 };
                assert!(
                    difference.abs() <= tolerance,
                    "{model} {task} freeze {freeze} {precision}: {name} is {value} cached and {} fresh",
                    fresh[name]
                );
            }
        }
    }
}

/// A run from a cache in int8 is evaluated in int8: against the fp32 frozen half its loss would be
/// further off. A batch shares its activations' scales, so the two are close, not equal.
#[test]
fn fresh_evaluation_takes_the_precision_of_the_cache() {
    for (model, task) in [("bert-tiny", "classify"), ("roberta-tiny", "search")] {
        let work = Work::new(model);
        let (cache, run) = (work.path("cache"), work.path("run"));
        let precision = ["--frozen-precision", "int8", "--precision", "fp32"];
        work.precompute(task, "2", &cache, &precision);
        let found = telly_json(&["cache", "inspect", text(&cache)]);
        assert_eq!(found["frozen_precision"], "int8");
        assert_eq!(found["fingerprint"]["frozen_precision"], "int8");
        let trained = telly_json(&train(&cache, &run, "--epochs 2 --batch-size 8 --lr 1e-3"));
        let test = work.path(&format!("{task}-test.jsonl"));
        let evaluate = ["evaluate", "--run", text(&run), "--data", text(&test)];
        let fresh = telly_json(&evaluate);
        let loss = |metrics: &Value| metrics["loss"].as_f64().expect("a loss");
        let difference = (loss(&trained["test"]) - loss(&fresh["metrics"])).abs();
        assert!(difference < 5e-3, "{task}: {trained} {fresh}");

        let other = telly(&precompute(
            task,
            &work.model,
            &work.path(&format!("{task}-train.jsonl")),
            "2",
            &cache,
        ))
        .output()
        .expect("telly runs");
        assert!(
            stderr(&other).contains("frozen_precision: the cache has \"int8\", now \"fp32\""),
            "{}",
            stderr(&other)
        );
    }
}

#[test]
fn a_classifier_learns_and_predicts() {
    let work = Work::new("bert-tiny");
    let (cache, run, output) = (
        work.path("cache"),
        work.path("run"),
        work.path("predictions.jsonl"),
    );
    let made = work.precompute("classify", "1", &cache, &[]);
    assert_eq!(made["sequences"], 88);
    // The tiny vocabulary makes many texts the same tokens; those are stored once.
    assert!(
        made["unique_sequences"].as_u64().expect("a number") < 48,
        "{made}"
    );
    let trained = telly_json(&train(&cache, &run, "--epochs 4 --batch-size 8 --lr 2e-3"));
    assert_eq!(trained["epochs"], 4);
    assert_eq!(trained["steps"], 24);
    assert!(
        trained["test"]["accuracy"].as_f64().expect("a number") > 0.9,
        "{trained}"
    );
    for key in [
        "seconds",
        "epoch_seconds",
        "tokens_per_second",
        "trainable_parameters",
        "peak_rss_bytes",
    ] {
        assert!(
            trained[key].as_f64().expect(key) > 0.0,
            "{key}: {}",
            trained[key]
        );
    }
    for file in [
        "recipe.toml",
        "metrics.jsonl",
        "summary.json",
        "model.safetensors",
    ] {
        assert!(run.join(file).is_file(), "{file}");
    }
    assert_eq!(names(&run.join("tensorboard")).len(), 1);
    let evaluations = lines(&run.join("metrics.jsonl"));
    let of_split = |split: &str| {
        evaluations
            .iter()
            .filter(|line| line["split"] == split)
            .count()
    };
    assert_eq!((of_split("valid"), of_split("test")), (4, 1));

    let input = work.path("classify-test.jsonl");
    telly_ok(&[
        "predict",
        "--run",
        text(&run),
        "--input",
        text(&input),
        "--output",
        text(&output),
    ]);
    let (rows, predictions) = (lines(&input), lines(&output));
    assert_eq!(rows.len(), predictions.len());
    let right = rows
        .iter()
        .zip(&predictions)
        .filter(|(row, line)| row["label"] == line["label"])
        .count();
    let accuracy = trained["test"]["accuracy"].as_f64().expect("a number");
    assert!((right as f64 / rows.len() as f64 - accuracy).abs() < 1e-9);
    for line in &predictions {
        let probabilities = line["probabilities"].as_object().expect("an object");
        let sum: f64 = probabilities.values().filter_map(Value::as_f64).sum();
        assert!((sum - 1.0).abs() < 1e-5);
        let likeliest = line["label"].as_str().expect("a label");
        assert!(probabilities[likeliest].as_f64().expect("a number") >= 0.5);
    }
}

#[test]
fn search_learns_and_finds() {
    let work = Work::new("roberta-tiny");
    let (cache, run) = (work.path("cache"), work.path("run"));
    work.precompute("search", "1", &cache, &[]);
    let test = work.path("search-test.jsonl");
    let zero_shot = telly_json(&[
        "evaluate",
        "--model",
        text(&work.model),
        "--task",
        "search",
        "--data",
        text(&test),
        "--max-query-length",
        "16",
        "--max-code-length",
        "32",
        "--provider",
        "cpu",
    ]);
    let trained = telly_json(&train(&cache, &run, "--epochs 6 --batch-size 8 --lr 2e-3"));
    let mrr = |value: &Value| value["mrr"].as_f64().expect("a number");
    assert!(
        mrr(&trained["test"]) > mrr(&zero_shot["metrics"]) + 0.1,
        "{zero_shot} {trained}"
    );

    let queries = work.path("queries.jsonl");
    fs_err::write(
        &queries,
        "{\"docstring\": \"sort the number\"}\n{\"docstring\": \"read the file\"}\n",
    )
    .expect("written");
    let matches = telly_ok(&[
        "predict",
        "--run",
        text(&run),
        "--input",
        text(&queries),
        "--against",
        text(&test),
        "--top",
        "3",
        "--output",
        "-",
    ]);
    let matches = String::from_utf8(matches.stdout).expect("UTF-8");
    let matches: Vec<Value> = matches
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(matches.len(), 2);
    for line in &matches {
        let found = line["matches"].as_array().expect("an array");
        assert_eq!(found.len(), 3);
        let scores: Vec<f64> = found
            .iter()
            .map(|found| found["score"].as_f64().expect("a score"))
            .collect();
        assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
        assert!(found[0]["record"]["code"].is_string());
    }
    let embeddings = telly_ok(&[
        "predict",
        "--run",
        text(&run),
        "--input",
        text(&queries),
        "--output",
        "-",
    ]);
    let first = String::from_utf8(embeddings.stdout).expect("UTF-8");
    let first: Value = serde_json::from_str(first.lines().next().expect("a line")).expect("JSON");
    let vector: Vec<f64> = serde_json::from_value(first["embedding"].clone()).expect("numbers");
    assert_eq!(vector.len(), 32);
    assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-4);
}

/// The recipe that a run leaves repeats it to the bit; a flag typed wins over it.
#[test]
fn a_recipe_repeats_a_run() {
    let work = Work::new("bert-tiny");
    let cache = work.path("cache");
    work.precompute("classify", "1", &cache, &[]);
    let runs = [work.path("a"), work.path("b"), work.path("c")];
    telly_json(&train(
        &cache,
        &runs[0],
        "--epochs 2 --batch-size 8 --lr 1e-3 --seed 7 --threads 2",
    ));
    let recipe = runs[0].join("recipe.toml");
    telly_json(&["train", "--recipe", text(&recipe), "--out", text(&runs[1])]);
    telly_json(&[
        "train",
        "--recipe",
        text(&recipe),
        "--out",
        text(&runs[2]),
        "--seed",
        "8",
    ]);
    let weights = runs
        .each_ref()
        .map(|run| fs_err::read(run.join("model.safetensors")).expect("weights"));
    assert_eq!(weights[0], weights[1]);
    assert_ne!(weights[0], weights[2]);
}

/// `precompute` takes a recipe too, a dash in its keys as good as an underscore.
#[test]
fn precompute_reads_a_recipe() {
    let work = Work::new("bert-tiny");
    let recipe = work.path("recipe.toml");
    let content = format!(
        "task = \"classify\"\nmodel = {:?}\ntrain = {:?}\nfreeze = 2\nmax-length = 16\nbatch_size = 4\nprovider = \"cpu\"\n",
        work.model,
        work.path("classify-train.jsonl")
    );
    fs_err::write(&recipe, content).expect("written");
    let cache = work.path("cache");
    telly_json(&[
        "precompute",
        "--recipe",
        text(&recipe),
        "--cache",
        text(&cache),
        "--freeze",
        "1",
    ]);
    let found = telly_json(&["cache", "inspect", text(&cache)]);
    assert_eq!(found["fingerprint"]["freeze"], 1);
    assert_eq!(found["fingerprint"]["encoding"]["max_length"], 16);
}

/// A second `precompute` of the same finds the cache fresh and leaves it as it is.
#[test]
fn a_fresh_cache_is_left_alone() {
    let work = Work::new("bert-tiny");
    let cache = work.path("cache");
    work.precompute("search", "1", &cache, &[]);
    let before = folder_bytes(&cache);
    work.precompute("search", "1", &cache, &[]);
    assert_eq!(folder_bytes(&cache), before);
}

fn folder_bytes(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| {
        let bytes = fs_err::read(folder.join(&name)).expect("readable");
        (name, bytes)
    };
    names(folder).into_iter().map(read).collect()
}

#[test]
fn doctor_says_what_is_there() {
    let found = telly_json(&["doctor"]);
    assert!(
        found["onnxruntime"]
            .as_str()
            .expect("a version")
            .starts_with('1'),
        "{found}"
    );
    assert!(
        found["providers"]
            .as_str()
            .expect("providers")
            .contains("cpu")
    );
}

#[test]
fn help_has_an_example_for_each_command() {
    for command in ["precompute", "train", "evaluate", "predict"] {
        let output = telly(&[command, "--help"]).output().expect("telly runs");
        assert!(output.status.success(), "{}", stderr(&output));
        let help = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(
            help.contains("Example") && help.contains(&format!("telly {command} --")),
            "{help}"
        );
    }
}
