//! An export gives what the run gives, wherever it is loaded.

#![allow(clippy::print_stdout, reason = "the figures are shown")]

use std::path::{Path, PathBuf};

use crate::support::{
    self, TINY_MODELS, Workspace, content, fails, goldens, minilm, names, precompute, run_python,
    telly, telly_json, telly_ok, text, train, write_classification, write_search,
};
use serde_json::{Value, json};
use telly::frozen::{FrozenPrecision, ModelSession, Runtime, SessionOptions};

/// A run, and what `telly predict` says of some texts.
struct Trained {
    space: Workspace,
    model: PathBuf,
    task: &'static str,
}

impl Trained {
    fn new(model: &Path, task: &'static str, freeze: &str, flags: &str) -> Self {
        let space = Workspace::new();
        let data = space.path("data.jsonl");
        match task {
            "search" => write_search(&data, 40),
            "clone" => write_pairs(&data, 40),
            "sets" | "numbers" => write_targets(&data, task),
            "two-texts" => write_two_texts(&data, 40),
            _ => write_classification(&data, 40),
        }
        let cache = space.path("cache");
        let (kind, objective) = match task {
            "sets" => ("classify", "multi-label"),
            "numbers" => ("classify", "regression"),
            "two-texts" => ("classify", ""),
            _ => (task, ""),
        };
        let mut made = precompute(kind, model, &data, freeze, &cache);
        if !objective.is_empty() {
            made.extend(["--objective", objective].map(String::from));
        }
        made.extend(["--test", text(&data)].map(String::from));
        if task == "two-texts" {
            made.extend(["--second-field", "other"].map(String::from));
        }
        telly_json(&made);
        let flags = format!("--epochs 2 --batch-size 8 --lr 1e-3 {flags}");
        telly_json(&train(&cache, &space.path("run"), &flags));
        Self {
            space,
            model: model.to_owned(),
            task,
        }
    }

    fn has_classes(&self) -> bool {
        let recipe = fs_err::read_to_string(self.run().join("recipe.toml")).expect("a recipe");
        matches!(self.task, "classify" | "sets" | "numbers" | "two-texts")
            || recipe.contains("concat")
    }

    /// Whether it is one linear layer, which a token classifier has too.
    fn has_own_layer(&self) -> bool {
        let recipe = fs_err::read_to_string(self.run().join("recipe.toml")).expect("a recipe");
        self.task == "classify" && !recipe.contains("huggingface")
    }

    fn run(&self) -> PathBuf {
        self.space.path("run")
    }

    fn export(&self, name: &str, flags: &str) -> PathBuf {
        let (run, out) = (self.run(), self.space.path(name));
        let fixed = ["export", "--run", text(&run), "--out", text(&out)];
        let all: Vec<&str> = fixed.into_iter().chain(flags.split_whitespace()).collect();
        telly_json(&all);
        out
    }

    fn predict(&self, model: &[&str], name: &str) -> Vec<Value> {
        let (data, output) = (self.space.path("data.jsonl"), self.space.path(name));
        let fixed = ["predict", "--input", text(&data), "--output", text(&output)];
        let fixed = fixed.into_iter().chain(["--provider", "cpu"]);
        let all: Vec<&str> = fixed.chain(model.iter().copied()).collect();
        telly_ok(&all);
        let text = fs_err::read_to_string(&output).expect("predictions");
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().expect("JSON")
    }

    fn predictions(&self) -> Vec<Value> {
        let run = self.run();
        let all = ["--run", text(&run), "--logits"];
        let count = if self.has_classes() { 3 } else { 2 };
        self.predict(&all[..count], "predictions.jsonl")
    }

    /// What the script that loads exports is told of one.
    fn job(&self, export: &Path, tolerance: &Value) -> Value {
        json!({
            "export": export,
            "input": self.space.path("data.jsonl"),
            "predictions": self.space.path("predictions.jsonl"),
            "fields": match self.task {
                "search" => vec!["docstring"],
                "clone" => vec!["func1", "func2"],
                "two-texts" => vec!["text", "other"],
                _ => vec!["text"],
            },
            "joined": self.task == "two-texts",
            "max_length": if self.task == "search" { 16 } else { 32 },
            "tolerance": tolerance,
        })
    }
}

/// Short texts with a list of labels or a number, as JSON Lines.
fn write_targets(path: &Path, task: &str) {
    let lines = (0..40).map(|row| {
        let word = ["return", "the"][row % 2];
        let label = match task {
            "sets" => json!([vec!["code"], vec!["prose", "short"], vec!["short"]][row % 3]),
            _ => json!(row % 5),
        };
        let text = format!("{} x{row}", vec![word; 1 + row % 7].join(" "));
        json!({ "text": text, "label": label }).to_string() + "\n"
    });
    fs_err::write(path, lines.collect::<String>()).expect("written");
}

/// Pairs of functions, every other one of two that do the same, as JSON Lines.
fn write_pairs(path: &Path, rows: usize) {
    let lines = (0..rows).map(|row| {
        let other = if row % 2 == 0 { row } else { row + 1 };
        let label = 1 - row % 2;
        format!(
            "{{\"func1\": \"return the x{row}\", \"func2\": \"def f(x{other}): return x{other}\", \"label\": {label}}}\n"
        )
    });
    fs_err::write(path, lines.collect::<String>()).expect("written");
}

/// Records of two texts, as JSON Lines.
fn write_two_texts(path: &Path, rows: usize) {
    let lines = (0..rows).map(|row| {
        let [first, second] = [row % 2, row / 2 % 2].map(|word| ["return", "the"][word]);
        let first = format!("{} x{row}", vec![first; 1 + row % 5].join(" "));
        let second = vec![second; 1 + row % 3].join(" ");
        json!({ "text": first, "other": second, "label": row / 2 % 2 }).to_string() + "\n"
    });
    fs_err::write(path, lines.collect::<String>()).expect("written");
}

/// The numbers of each prediction: its embedding or logits.
fn rows(predictions: &[Value]) -> Vec<Vec<f64>> {
    let rows = predictions.iter().map(|line| {
        let row = if line["embedding"].is_array() {
            &line["embedding"]
        } else {
            &line["logits"]
        };
        serde_json::from_value(row.clone()).expect("numbers")
    });
    rows.collect()
}

fn largest_difference(found: &[Vec<f64>], expected: &[Vec<f64>]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected).flat_map(|(found, expected)| {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected)
    });
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// A Python with transformers, sentence-transformers and ONNX Runtime.
fn python_with_transformers() -> Option<PathBuf> {
    let python = std::env::var_os("TELLY_TEST_TRANSFORMERS");
    if python.is_none() {
        println!("TELLY_TEST_TRANSFORMERS is not set, so exports are loaded by telly alone");
    }
    Some(support::project().join(python?))
}

/// Every family, frozen or not, every way to read the states: transformers,
/// sentence-transformers and ONNX Runtime give the run's logits or embeddings within 1e-4.
#[test]
fn other_libraries_give_what_the_run_gives() {
    let Some(python) = python_with_transformers() else {
        return;
    };
    let models = TINY_MODELS.map(|name| goldens().join(name));
    let mut runs = Vec::new();
    for model in &models {
        for freeze in ["2", "none"] {
            runs.push(Trained::new(model, "classify", freeze, ""));
            runs.push(Trained::new(model, "classify", freeze, "--pooling mean"));
            runs.push(Trained::new(model, "search", freeze, ""));
        }
    }
    for model in &models {
        runs.push(Trained::new(model, "classify", "2", "--head huggingface"));
    }
    let modernbert = &models[5];
    let mean = "--head huggingface --pooling mean";
    runs.push(Trained::new(modernbert, "classify", "none", mean));
    let biased = goldens().join("modernbert-biased-tiny");
    for flags in ["", "--pooling mean", "--head huggingface"] {
        runs.push(Trained::new(&biased, "classify", "1", flags));
    }
    runs.push(Trained::new(&models[0], "sets", "2", ""));
    runs.push(Trained::new(&models[1], "numbers", "2", ""));
    for model in &models[..3] {
        runs.push(Trained::new(model, "two-texts", "2", ""));
        runs.push(Trained::new(model, "two-texts", "none", "--pooling mean"));
    }
    runs.push(Trained::new(&models[0], "clone", "2", ""));
    runs.push(Trained::new(&models[1], "clone", "none", "--head concat"));
    runs.push(Trained::new(&minilm(), "classify", "4", ""));
    runs.push(Trained::new(&minilm(), "search", "4", "--pooling cls"));
    let mut jobs = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        run.predictions();
        let exact = json!(1e-4);
        let name = format!(
            "{number}-{}",
            run.model.file_name().expect("a name").display()
        );
        jobs.push(run.job(
            &run.export(&format!("{name}-onnx"), "--format onnx"),
            &exact,
        ));
        let in_transformers = run.task != "clone";
        if in_transformers || !run.has_classes() {
            jobs.push(run.job(&run.export(&format!("{name}-hf"), "--format hf"), &exact));
        }
        if number < 6 {
            for (dtype, tolerance) in [("fp16", 2e-3), ("bf16", 2e-2)] {
                let folder = format!("{name}-{dtype}");
                let folder = run.export(&folder, &format!("--format hf --dtype {dtype}"));
                jobs.push(run.job(&folder, &json!(tolerance)));
            }
        }
        if run.has_own_layer() && in_transformers {
            let token = run.export(&format!("{name}-token"), "--format hf --class token");
            jobs.push(run.job(&token, &exact));
        }
        let int8 = run.export(&format!("{name}-int8"), "--format onnx --precision int8");
        jobs.push(run.job(&int8, &json!(0.1)));
    }
    let file = runs[0].space.path("jobs.json");
    fs_err::write(&file, json!(jobs).to_string()).expect("written");
    println!("{}", run_python(&python, "check_export.py", &[&file]));
}

/// A search run's export is a checkpoint like any other, with the run's embeddings.
#[test]
fn an_exported_folder_is_a_checkpoint() {
    for (model, freeze) in [
        ("bert-tiny", "2"),
        ("roberta-tiny", "none"),
        ("mpnet-tiny", "1"),
    ] {
        let trained = Trained::new(&goldens().join(model), "search", freeze, "");
        let expected = rows(&trained.predictions());
        let folder = trained.export("again", "--format hf");
        let lengths = ["--max-query-length", "16", "--max-code-length", "32"];
        let options = ["--task", "search", "--model", text(&folder)];
        let options: Vec<&str> = options.into_iter().chain(lengths).collect();
        let found = rows(&trained.predict(&options, "again.jsonl"));
        let difference = largest_difference(&found, &expected);
        println!("{model} {freeze}: {difference}");
        assert!(difference < 1e-5, "{model} {freeze}: {difference}");
        let untrained = text(&trained.model);
        let options = ["--task", "search", "--model", untrained];
        let options: Vec<&str> = options.into_iter().chain(lengths).collect();
        let before = rows(&trained.predict(&options, "before.jsonl"));
        assert!(
            largest_difference(&before, &expected) > 1e-3,
            "nothing was learnt"
        );
    }
}

/// The exported graph in ONNX Runtime gives the run's logits and embeddings; in int8 nearly.
#[test]
fn an_exported_graph_gives_what_the_run_gives() {
    let runtime = Runtime::load(None).expect("ONNX Runtime");
    let cases = [
        ("bert-tiny", "classify", "2", ""),
        ("roberta-tiny", "classify", "none", "--pooling mean"),
        ("mpnet-tiny", "search", "1", ""),
        ("bert-tiny", "search", "none", "--pooling cls"),
    ];
    for (model, task, freeze, flags) in cases {
        let trained = Trained::new(&goldens().join(model), task, freeze, flags);
        let expected = rows(&trained.predictions());
        let checkpoint = telly::checkpoint::Checkpoint::open(&trained.model).expect("a model");
        let data = fs_err::read_to_string(trained.space.path("data.jsonl")).expect("data");
        let (field, length) = match task {
            "search" => ("docstring", 16),
            _ => ("text", 32),
        };
        let texts = data.lines().map(|line| {
            let record: Value = serde_json::from_str(line).expect("JSON");
            record[field].as_str().expect("a text").to_owned()
        });
        let sequences = checkpoint.tokenizer.encode(texts.collect(), length);
        let sequences = sequences.expect("tokens");
        let all: Vec<usize> = (0..sequences.len()).collect();
        for (precision, tolerance) in [("fp32", 1e-5), ("int8", 0.2)] {
            let flags = format!("--format onnx --precision {precision}");
            let file = trained.export(precision, &flags).join("model.onnx");
            let options = SessionOptions {
                precision: FrozenPrecision::default(),
                ..SessionOptions::default()
            };
            let padding = checkpoint.config.padding_id;
            let session = ModelSession::open(&runtime, &file, padding, &options);
            let found = session.expect("a session").run(&sequences, &all);
            let found = found.expect("numbers");
            let width = found.len() / all.len();
            let found = found
                .chunks(width)
                .map(|row| row.iter().copied().map(f64::from).collect());
            let difference = largest_difference(&found.collect::<Vec<_>>(), &expected);
            println!("{model} {task} {freeze} {precision}: {difference}");
            assert!(difference < tolerance, "{model} {precision}: {difference}");
            assert_eq!(difference < 1e-5, precision == "fp32");
        }
    }
}

/// Two exports of a run are the same bytes; what is there is replaced by `--force` only, and only
/// if it is an export.
#[test]
fn a_folder_that_is_there_is_left_alone() {
    let trained = Trained::new(&goldens().join("bert-tiny"), "classify", "2", "");
    let first = trained.export("first", "--format hf");
    let wanted = [
        "README.md",
        "config.json",
        "model.safetensors",
        "telly.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names(&first), wanted);
    let second = trained.export("second", "--format hf");
    assert_eq!(content(&first), content(&second));
    let (run, theirs) = (trained.run(), trained.space.path("theirs"));
    let export = |out: &Path, flags: &[&str]| {
        let fixed = [
            "export",
            "--run",
            text(&run),
            "--format",
            "hf",
            "--out",
            text(out),
        ];
        let all: Vec<&str> = fixed.into_iter().chain(flags.iter().copied()).collect();
        telly(&all)
    };
    fails(export(&first, &[]), 2, &["is there already", "--force"]);
    assert_eq!(content(&first), content(&second));
    fs_err::create_dir(&theirs).expect("a folder");
    fs_err::write(theirs.join("thesis.tex"), "years").expect("written");
    fails(export(&theirs, &["--force"]), 2, &["is no export"]);
    assert_eq!(names(&theirs), ["thesis.tex"]);
    let replaced = export(&first, &["--force", "--dtype", "bf16"]).output();
    assert!(replaced.expect("telly runs").status.success());
    assert_eq!(names(&first), wanted);
    assert_ne!(content(&first), content(&second));
    let left: Vec<String> = names(trained.space.folder());
    assert!(left.iter().all(|name| !name.starts_with('.')), "{left:?}");
    fails(
        export(&theirs, &["--precision", "int8"]),
        2,
        &["`--precision`"],
    );
}

/// No sequence classifier reads the mean over all tokens: that is said, not approximated.
#[test]
fn what_no_class_computes_is_refused() {
    let trained = Trained::new(
        &goldens().join("bert-tiny"),
        "classify",
        "2",
        "--pooling mean",
    );
    let (run, out) = (trained.run(), trained.space.path("out"));
    let fixed = [
        "export",
        "--run",
        text(&run),
        "--format",
        "hf",
        "--out",
        text(&out),
    ];
    let sequence: Vec<&str> = fixed.into_iter().chain(["--class", "sequence"]).collect();
    let words = ["BertForSequenceClassification", "--format onnx"];
    fails(telly(&sequence), 2, &words);
    assert!(!out.exists());
    let flags = "--pooling mean";
    let modernbert = Trained::new(&goldens().join("modernbert-tiny"), "classify", "2", flags);
    let run = modernbert.run();
    let mut sequence = sequence;
    sequence[2] = text(&run);
    let words = [
        "ModernBertForSequenceClassification",
        "a norm over the mean",
    ];
    fails(telly(&sequence), 2, &words);
    let pairs = Trained::new(&goldens().join("bert-tiny"), "clone", "2", "--head concat");
    let run = pairs.run();
    let both = [
        "export",
        "--run",
        text(&run),
        "--format",
        "hf",
        "--out",
        text(&out),
    ];
    fails(telly(&both), 2, &["--head concat", "--format onnx"]);
    let made = telly_json(&fixed);
    assert_eq!(made["class"], "BertForTokenClassification");
    assert_eq!(made["reading"], "mean-of-tokens");
    let card = fs_err::read_to_string(out.join("README.md")).expect("a card");
    for word in ["accuracy", "BLAKE3", "pooling = \"mean\"", "license: other"] {
        assert!(card.contains(word), "no {word}: {card}");
    }
    assert!(!card.contains(text(trained.space.folder())), "{card}");
}
