//! `telly probe`: probes agree with scikit-learn's, find what was put into features and nothing where there is
//! nothing, and the command measures a real model.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "goldens hold f32, classes are small"
)]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::support::{
    self, Golden, WRONG_INPUT, Workspace, fails, goldens, minilm, precompute, python, telly,
    telly_json, telly_ok, text, train, write_long_classification,
};
use candle_core::Device;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde_json::Value;
use telly::study::probe::{
    Features, Paired, ProbeSettings, Readings, probe_classes, probe_vectors,
};

/// Of two probes of the same convex loss, one stopped a little earlier, as a share of test examples.
const NOISE: f64 = 0.015;

fn settings(learning_rate: f64) -> ProbeSettings {
    ProbeSettings {
        epochs: 40,
        batch_size: 64,
        learning_rate,
        seed: 1,
    }
}

/// Examples and their classes.
struct Classified {
    features: Features,
    classes: Vec<u32>,
}

fn probe(train: &Classified, test: &Classified, classes: usize) -> Readings {
    let [train, test] = [train, test].map(|split| (&split.features, &split.classes[..]));
    probe_classes(train, test, classes, &settings(1e-2), "probe").expect("trained")
}

fn random() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(5)
}

/// Numbers without meaning.
fn noise(random: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.sample(StandardNormal)).collect()
}

#[test]
fn probes_agree_with_scikit_learn() {
    let golden = Golden::read("probe.safetensors");
    let expected = golden.floats("accuracies");
    let split = |name: &str| {
        let numbers = golden.floats(&format!("{name}.features")).into_iter();
        let classes = golden.integers(&format!("{name}.classes")).into_iter();
        let values: Vec<f32> = numbers.map(|number| number as f32).collect();
        let classes: Vec<u32> = classes.map(|class| class as u32).collect();
        let width = values.len() / classes.len() / expected.len();
        Classified {
            features: Features::new(values, expected.len(), width),
            classes,
        }
    };
    let [train, test] = ["train", "test"].map(split);
    let found = probe(&train, &test, 4);
    for (layer, (found, expected)) in found.layers.iter().zip(&expected).enumerate() {
        let found = found.mean();
        assert!(
            (found - expected).abs() <= NOISE,
            "layer {layer}: {found}, scikit-learn {expected}"
        );
    }
    // Layers are farther apart from one to the next: the mixture takes the last.
    assert!(found.weights[2] > 0.6, "{:?}", found.weights);
    assert!(found.mixed.mean() > expected[1] + NOISE, "{found:?}");
}

/// Probes of two classes on features that hold the class in layer 1 alone; with `order`, on labels in
/// random order.
fn planted(random_order: bool) -> Readings {
    const WIDTH: usize = 8;
    let mut random = random();
    let mut split = |examples: usize| {
        let mut values = noise(&mut random, examples * 3 * WIDTH);
        let mut classes: Vec<u32> = (0..)
            .take(examples)
            .map(|example: u32| example % 2)
            .collect();
        for (row, &class) in values.chunks_exact_mut(3 * WIDTH).zip(&classes) {
            row[WIDTH + 2] += if class == 1 { 4.0 } else { -4.0 };
        }
        if random_order {
            classes.shuffle(&mut random);
        }
        Classified {
            features: Features::new(values, 3, WIDTH),
            classes,
        }
    };
    let (train, test) = (split(400), split(1000));
    probe(&train, &test, 2)
}

#[test]
fn a_probe_finds_what_is_there_and_no_more() {
    let found = planted(false);
    assert!(
        found.layers[1].mean() > 0.99 && found.mixed.mean() > 0.99,
        "{found:?}"
    );
    assert!(found.weights[1] > 0.8, "{found:?}");
    let sum: f64 = found.weights.iter().sum();
    assert!((sum - 1.0).abs() < 1e-5, "{found:?}");
    for layer in [0, 2] {
        assert!((found.layers[layer].mean() - 0.5).abs() < 0.06, "{found:?}");
    }
    let chance = planted(true);
    for accuracy in chance.layers.iter().chain([&chance.mixed]) {
        assert!((accuracy.mean() - 0.5).abs() < 0.06, "{chance:?}");
    }
}

/// `rows` after a linear map.
fn mapped(rows: &[f32], map: &[f32], width: usize) -> Vec<f32> {
    let rows = rows.chunks_exact(width);
    rows.flat_map(|row| {
        (0..width).map(|column| {
            let products = row.iter().enumerate();
            products
                .map(|(place, number)| number * map[place * width + column])
                .sum()
        })
    })
    .collect()
}

#[test]
fn a_probe_learns_the_map_from_one_side_to_the_other() {
    const WIDTH: usize = 8;
    let mut random = random();
    // One map takes both sides there: codes are queries with their first half turned into the second.
    let swap: Vec<f32> = (0..WIDTH * WIDTH)
        .map(|place| {
            f32::from(u8::from(
                place / WIDTH == (place % WIDTH + WIDTH / 2) % WIDTH,
            ))
        })
        .collect();
    let mut split = |examples: usize| {
        let meaning = noise(&mut random, examples * WIDTH / 2);
        let mut side = |first: bool| {
            let rows = meaning.chunks_exact(WIDTH / 2);
            let values = rows.flat_map(|row| {
                let empty = noise(&mut random, WIDTH / 2);
                if first {
                    [row.to_vec(), empty]
                } else {
                    [empty, row.to_vec()]
                }
                .concat()
            });
            values.collect::<Vec<f32>>()
        };
        let (queries, codes) = (side(true), side(false));
        // The codes' meaning is where the queries' is once they are turned.
        let codes = mapped(&codes, &swap, WIDTH);
        Paired::Sides {
            queries: Features::new(queries, 1, WIDTH),
            codes: Features::new(codes, 1, WIDTH),
            groups: (0..).take(examples).collect(),
        }
    };
    let (train, test) = (split(600), split(200));
    let untrained = ProbeSettings {
        epochs: 0,
        ..settings(1e-2)
    };
    let before = probe_vectors(train.clone(), test.clone(), &untrained, "probe").expect("measured");
    let after = probe_vectors(train, test, &settings(1e-2), "probe").expect("trained");
    // The noise beside the meaning is what has to be left out.
    assert!(before.layers[0].mean() < 0.9, "{before:?}");
    assert!(
        after.layers[0].mean() > 0.95 && after.mixed.mean() > 0.95,
        "{after:?}"
    );
}

#[test]
fn a_probe_learns_what_groups_have_in_common() {
    const WIDTH: usize = 6;
    let mut random = random();
    let mut split = |groups: usize, first: i64| {
        let mut values = Vec::new();
        let mut numbers = Vec::new();
        for group in 0..groups {
            let common = noise(&mut random, 3);
            for _ in 0..10 {
                let own = noise(&mut random, 3);
                values.extend(common.iter().chain(&own));
                numbers.push(first + group as i64);
            }
        }
        Paired::Groups {
            features: Features::new(values, 1, WIDTH),
            groups: numbers,
        }
    };
    // Other groups than those that it learnt from.
    let (train, test) = (split(60, 0), split(15, 1000));
    let untrained = ProbeSettings {
        epochs: 0,
        ..settings(1e-2)
    };
    let before = probe_vectors(train.clone(), test.clone(), &untrained, "probe").expect("measured");
    let after = probe_vectors(train, test, &settings(1e-2), "probe").expect("trained");
    assert!(before.layers[0].mean() < 0.8, "{before:?}");
    assert!(after.layers[0].mean() > 0.9, "{before:?} {after:?}");
}

/// A file of Python functions, no two alike: loops, conditions, numbers, strings.
fn write_python(workspace: &Workspace, name: &str, first: usize, count: usize) -> PathBuf {
    let mut lines = String::new();
    for number in first..first + count {
        let mut code = format!("def name_{number}(values, limit={number}):\n    total = 0\n");
        for depth in 0..number % 6 {
            let _ = writeln!(
                code,
                "    if limit > {}:\n        total += {depth}",
                depth * number
            );
        }
        if number % 2 == 0 {
            code.push_str("    for value in values:\n        total -= value\n");
        }
        let _ = writeln!(code, "    print('it is', \"{number}\")\n    return total");
        let record = serde_json::json!({ "code": code, "language": "python", "label": number % 5 });
        let _ = writeln!(lines, "{record}");
    }
    workspace.write(name, &lines)
}

fn result_of(result: &Value, name: &str) -> Value {
    let probes = result["probes"].as_array().expect("probes");
    let found = probes.iter().find(|found| found["probe"] == name);
    found
        .unwrap_or_else(|| panic!("no {name} in {result}"))
        .clone()
}

#[test]
fn the_command_measures_a_model_and_its_controls() {
    let workspace = Workspace::new();
    let data = write_python(&workspace, "train.jsonl", 0, 60);
    let test = write_python(&workspace, "test.jsonl", 200, 30);
    let model = minilm();
    let arguments = [
        "probe",
        text(&model),
        "--data",
        text(&data),
        "--test",
        text(&test),
        "--probe",
        "lexical,syntactic,structural,semantic",
        "--control",
        "weights,labels",
        "--max-length",
        "128",
        "--tokens",
        "600",
    ];
    let features = workspace.path("features.safetensors");
    let found = telly_json(&[&arguments[..], &["--features", text(&features)]].concat());
    assert_eq!(
        found["texts"],
        serde_json::json!({ "train": 60, "test": 30 })
    );
    let lexical = result_of(&found, "lexical");
    assert_eq!(lexical["metric"], "accuracy");
    let layers = lexical["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 7);
    for layer in layers {
        // These tokens tell their class to every layer of a trained model.
        assert!(layer["value"].as_f64() > Some(0.95), "{layer}");
        let chance = layer["random_labels"].as_f64().expect("a number");
        assert!(
            chance < lexical["chance"].as_f64().expect("a number") + 0.05,
            "{layer}"
        );
    }
    // An interval is about its value, and what is above random weights about the difference.
    let number = |value: &Value| value.as_f64().expect("a number");
    let intervals = |name: &'static str| {
        layers.iter().filter_map(move |layer| {
            let interval = layer.get(name)?;
            Some((layer, [number(&interval[0]), number(&interval[1])]))
        })
    };
    for (layer, [low, high]) in intervals("interval") {
        let value = number(&layer["value"]);
        assert!(
            0.0 <= low && low < value && value < high && high <= 1.0,
            "{layer}"
        );
    }
    for (layer, [low, high]) in intervals("above_random_weights") {
        let middle = number(&layer["value"]) - number(&layer["random_weights"]);
        assert!(
            (f64::midpoint(low, high) - middle).abs() < 1e-9 && low < high,
            "{layer}"
        );
    }
    assert!(intervals("interval").count() > 3 && intervals("above_random_weights").count() > 3);
    // Another model, not this one again.
    let other = layers
        .iter()
        .filter(|layer| layer["random_weights"] != layer["value"]);
    assert!(other.count() >= 4, "{layers:?}");
    let weights = layers
        .iter()
        .map(|layer| layer["weight"].as_f64().expect("a number"));
    assert!((weights.sum::<f64>() - 1.0).abs() < 1e-4);
    let structural = result_of(&found, "structural");
    assert_eq!(structural["train"], 60);
    // Functions of a problem are not independent, whichever probe looks at them.
    for name in ["lexical", "syntactic", "structural", "semantic"] {
        assert_eq!(result_of(&found, name)["test_clusters"], 5, "{name}");
    }
    assert!(structural["mixed"]["value"].as_f64() > structural["chance"].as_f64());
    let syntactic = result_of(&found, "syntactic");
    assert_eq!(syntactic["metric"], "mrr");
    assert!(syntactic["mixed"]["value"].as_f64() > syntactic["chance"].as_f64());
    assert_eq!(result_of(&found, "semantic")["metric"], "map@r");
    // Few problems tell little of others: their intervals are wide, where there is any.
    let semantic = &result_of(&found, "semantic")["layers"][6];
    let [low, high] = [0, 1].map(|end| number(&semantic["interval"][end]));
    assert!(high - low > 0.05, "{semantic}");
    // What was probed is there to be probed by others.
    let tensors = candle_core::safetensors::load(&features, &Device::Cpu).expect("tensors");
    assert_eq!(tensors["train.codes"].dims(), [60, 7, 384]);
    assert_eq!(tensors["test.traversals"].dims(), [30, 7, 384]);
    assert_eq!(tensors["train.tokens"].dims(), [600, 7, 384]);
    assert_eq!(tensors["train.token_classes"].dims(), [600]);
    let texts = tensors["train.token_texts"].to_vec1::<u32>();
    let texts = texts.expect("the texts of tokens");
    assert!(
        texts.is_sorted() && texts.len() == 600 && texts.iter().all(|text| (0..60).contains(text))
    );
    if let Some(python) = python() {
        let script = "import sys, safetensors.numpy as s; t = s.load_file(sys.argv[1]); print(t['test.complexities'].shape[0])";
        let output = std::process::Command::new(python)
            .args(["-c", script, text(&features)])
            .output()
            .expect("Python runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "30");
    }
}

/// Where the numbers of the tensor `name` begin in the safetensors file `bytes`.
fn start_of(bytes: &[u8], name: &str) -> usize {
    let length = u64::from_le_bytes(*bytes.first_chunk().expect("a length")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    let start = header[name]["data_offsets"][0].as_u64();
    8 + length + start.expect("a place") as usize
}

#[test]
fn a_file_of_features_is_probed_for_what_it_holds() {
    let workspace = Workspace::new();
    let functions = write_python(&workspace, "functions.jsonl", 0, 40);
    let model = goldens().join("bert-tiny");
    let features = workspace.path("features.safetensors");
    let fixed = [
        "probe",
        text(&model),
        "--data",
        text(&functions),
        "--max-length",
        "32",
    ];
    let flags = [
        "--probe",
        "lexical,syntactic,structural,semantic",
        "--control",
        "labels",
        "--features",
        text(&features),
        "--seed",
        "4",
    ];
    let expected = telly_json(&[&fixed[..], &flags[..]].concat());
    let probe = |flags: &[&str]| -> Vec<String> {
        let all = ["probe", text(&features)]
            .into_iter()
            .chain(flags.iter().copied());
        all.map(String::from).collect()
    };
    // All but the times.
    let mut found = telly_json(&probe(&["--control", "labels"]));
    for seconds in ["seconds", "train_seconds"] {
        found[seconds] = expected[seconds].clone();
    }
    assert_eq!(found, expected);
    assert!(
        !expected["problems"].is_null() && expected["cut"]["traversals"].as_f64() > Some(0.0),
        "{expected}"
    );
    // Without the semantic probe there is less in the file; functions are there in any case.
    let mut only_lexical = flags;
    only_lexical[1] = "lexical";
    let expected = telly_json(&[&fixed[..], &only_lexical[..]].concat());
    let found = telly_json(&probe(&["--probe", "structural", "--seed", "3"]));
    assert_eq!(found["texts"], expected["texts"]);
    assert_eq!(
        result_of(&found, "structural")["train"],
        found["texts"]["train"]
    );
    let fails = |flags: &[&str], words: &[&str]| fails(telly(&probe(flags)), WRONG_INPUT, words);
    fails(
        &["--probe", "lexical,semantic"],
        &["no features for the semantic probe"],
    );
    fails(
        &["--control", "weights"],
        &["--control weights", "file of features"],
    );
    fails(
        &["--data", text(&functions)],
        &["--data", "nothing to act on"],
    );
    fails(
        &["--beside", text(&model)],
        &["--beside", "file of features"],
    );
    fails(&["--provider", "cpu"], &["--provider", "nothing to act on"]);
    fails(&["--limit", "9"], &["--limit", "nothing to act on"]);
    fails(&["--tokens", "9"], &["--tokens", "nothing to act on"]);
    let weights = goldens().join("bert-tiny/model.safetensors");
    let other = telly(&["probe", text(&weights)]);
    support::fails(other, WRONG_INPUT, &["no features of probes", "--features"]);
    let bytes = fs_err::read(&features).expect("bytes");
    for end in [0, 5, 300, bytes.len() - 1] {
        workspace.write_bytes("features.safetensors", &bytes[..end]);
        fails(&[], &["features.safetensors", "damaged", "--features"]);
    }
    // A class and a text that there are none of, and a number that is none.
    for (tensor, problem) in [
        ("token_classes", "4294967295, expected 0 to 4"),
        ("token_texts", "4294967295, expected 0 to"),
        ("tokens", "not finite"),
    ] {
        let name = format!("train.{tensor}");
        let start = start_of(&bytes, &name);
        let mut other = bytes.clone();
        other[start..start + 4].fill(255);
        workspace.write_bytes("features.safetensors", &other);
        fails(&[], &["features.safetensors", "damaged", &name, problem]);
    }
}

/// A run of bert-tiny with two of its three layers frozen.
fn trained(workspace: &Workspace) -> PathBuf {
    let data = workspace.path("rows.jsonl");
    write_long_classification(&data, 40);
    let (cache, run) = (workspace.path("cache"), workspace.path("run"));
    telly_ok(&precompute(
        "classify",
        &goldens().join("bert-tiny"),
        &data,
        "2",
        &cache,
    ));
    telly_ok(&train(&cache, &run, "--epochs 3 --lr 1e-2"));
    run
}

#[test]
fn a_run_is_held_beside_what_it_was_trained_from() {
    let workspace = Workspace::new();
    let run = trained(&workspace);
    let functions = write_python(&workspace, "functions.jsonl", 0, 120);
    let model = goldens().join("bert-tiny");
    let probe = |first: &Path, second: &Path| {
        let fixed = ["probe", text(first), "--beside", text(second)];
        let flags = ["--data", text(&functions), "--max-length", "64"];
        let probes = ["--probe", "lexical,structural", "--tokens", "400"];
        [&fixed[..], &flags, &probes]
            .concat()
            .into_iter()
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let found = telly_json(&probe(&run, &model));
    assert_eq!(found["beside"], text(&model));
    for name in ["lexical", "structural"] {
        let finding = result_of(&found, name);
        let layers = finding["layers"].as_array().expect("layers");
        for layer in &layers[..3] {
            // The same to the bit, so that there is nothing to judge by.
            assert_eq!(layer["beside"], layer["value"], "{finding}");
            assert_eq!(layer.get("above_beside"), None, "{finding}");
            // Another pass than this was not asked for.
            assert_eq!(layer.get("random_weights"), None, "{finding}");
        }
    }
    // Where problems are not known, each text is by itself, and its tokens are not.
    let independent =
        ["lexical", "structural"].map(|name| result_of(&found, name)["test_clusters"].clone());
    assert_eq!(independent, [40, 40]);
    let last = &result_of(&found, "lexical")["layers"][3];
    let number = |value: &Value| value.as_f64().expect("a number");
    let [low, high] = [0, 1].map(|end| number(&last["above_beside"][end]));
    let difference = number(&last["value"]) - number(&last["beside"]);
    assert!(low < difference && difference < high, "{last}");
    // Other tokens of the same functions: the functions can be held against each other.
    let found = telly_json(&probe(&model, &goldens().join("roberta-tiny")));
    let has_pairs = |name: &str| {
        let layers = result_of(&found, name)["layers"].as_array().cloned();
        layers
            .expect("layers")
            .iter()
            .any(|layer| layer.get("above_beside").is_some())
    };
    assert!(has_pairs("structural") && !has_pairs("lexical"), "{found}");
    let printed = telly_ok(&probe(&run, &model));
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(
        printed.contains("above beside [95 %]")
            && printed.contains("same")
            && printed.contains("beside: "),
        "{printed}"
    );
    let file = run.join("model.safetensors");
    fails(
        telly(&probe(&run, &file)),
        WRONG_INPUT,
        &["--beside", "is a file"],
    );
    fails(
        telly(&probe(&run, &minilm())),
        WRONG_INPUT,
        &["found 6, expected 3"],
    );
}

#[test]
fn a_run_is_probed_with_what_it_has_learnt() {
    let workspace = Workspace::new();
    let run = trained(&workspace);
    let functions = write_python(&workspace, "functions.jsonl", 0, 40);
    let path = workspace.path("features.safetensors");
    let features = |model: &Path| {
        let found = telly_json(&[
            "probe",
            text(model),
            "--data",
            text(&functions),
            "--max-length",
            "64",
            "--probe",
            "structural",
            "--control",
            "none",
            "--features",
            text(&path),
        ]);
        let structural = result_of(&found, "structural");
        // Some were kept back.
        assert_eq!(
            (&structural["train"], &structural["test"]),
            (&27.into(), &13.into())
        );
        assert_eq!(structural["layers"].as_array().map(Vec::len), Some(4));
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu).expect("tensors");
        tensors["train.codes"].clone()
    };
    let [before, after] = [goldens().join("bert-tiny"), run].map(|model| features(&model));
    let difference = |layer: usize| {
        let layers =
            [&before, &after].map(|features| features.get_on_dim(1, layer).expect("a layer"));
        let difference =
            (&layers[0] - &layers[1]).and_then(|difference| difference.abs()?.max_all());
        difference
            .expect("a number")
            .to_scalar::<f32>()
            .expect("a number")
    };
    assert!([0, 1, 2].iter().all(|&layer| difference(layer) == 0.0));
    assert!(difference(3) > 1e-3);
}

#[test]
fn what_cannot_be_probed_is_refused() {
    let workspace = Workspace::new();
    let functions = write_python(&workspace, "functions.jsonl", 0, 40);
    let model = goldens().join("bert-tiny");
    let probe = |flags: &[&str]| telly(&[&["probe", text(&model)], flags].concat());
    let data = text(&functions);
    fails(
        probe(&["--data", data, "--language", "java"]),
        WRONG_INPUT,
        &["0 functions to learn from", "40 records", "--language"],
    );
    let missing = workspace.path("missing.safetensors");
    fails(
        telly(&["probe", text(&missing)]),
        WRONG_INPUT,
        &["there is no", "missing.safetensors"],
    );
    fails(
        telly(&[
            "probe",
            text(&model.join("model.safetensors")),
            "--data",
            data,
        ]),
        WRONG_INPUT,
        &["holds no features of probes", "--features"],
    );
    let few = write_python(&workspace, "few.jsonl", 0, 9);
    fails(
        probe(&["--data", text(&few)]),
        WRONG_INPUT,
        &["expected at least 8"],
    );
    let unnamed = workspace.write("unnamed.jsonl", "{\"code\": \"def f(): pass\"}\n");
    fails(
        probe(&["--data", text(&unnamed)]),
        WRONG_INPUT,
        &["unnamed.jsonl`, line 1", "`language`", "--language"],
    );
    fails(
        probe(&[
            "--data",
            text(&unnamed),
            "--language",
            "python",
            "--probe",
            "semantic",
        ]),
        WRONG_INPUT,
        &["unnamed.jsonl", "label", "--label-field"],
    );
    for flag in ["--tokens", "--limit", "--test-limit"] {
        fails(probe(&["--data", data, flag, "0"]), WRONG_INPUT, &[flag]);
    }
    fails(
        probe(&["--data", data, "--control", "none,labels"]),
        WRONG_INPUT,
        &["none alone"],
    );
    let alone = workspace.path("alone.jsonl");
    let functions = fs_err::read_to_string(&functions).expect("read");
    let alone_text = functions
        .replace("\"label\":1", "\"label\":0")
        .replace("\"label\":2", "\"label\":0");
    let alone_text = alone_text
        .replace("\"label\":3", "\"label\":0")
        .replace("\"label\":4", "\"label\":0");
    workspace.write("alone.jsonl", &alone_text);
    fails(
        probe(&["--data", text(&alone), "--probe", "semantic"]),
        WRONG_INPUT,
        &["expected at least"],
    );
    fails(
        probe(&["--data", data, "--features", "no/such/folder/f.safetensors"]),
        WRONG_INPUT,
        &["no/such/folder"],
    );
    fails(
        probe(&["--data", data, "--max-length", "9999"]),
        WRONG_INPUT,
        &["--max-length 9999"],
    );
}
