//! `telly rsa`: its measures agree with `SciPy` and `NumPy`, its vectors with transformers, and what a run
//! has frozen comes out as the same.
#![allow(
    clippy::cast_possible_truncation,
    clippy::float_cmp,
    reason = "goldens hold f32, and the same numbers are compared with themselves"
)]

use std::path::{Path, PathBuf};

use crate::support::{
    self, Golden, WRONG_INPUT, Workspace, fails, goldens, precompute, telly, telly_json, telly_ok,
    text, train, write_long_classification,
};
use serde_json::Value;
use telly::checkpoint::Checkpoint;
use telly::frozen::{FrozenEncoder, ProviderChoice, Runtime, SessionOptions};
use telly::study::{Estimate, LayerSimilarity, Resamples, TextPooling, compare, layer_vectors};

/// The promise of the project's issue.
const TOLERANCE: f64 = 1e-5;
/// Texts of the golden.
const TEXTS: usize = 150;

fn close(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() <= TOLERANCE,
        "{what}: {found}, expected {expected}"
    );
}

/// The golden's two models, each `[TEXTS, width]`.
fn features(golden: &Golden) -> [Vec<f32>; 2] {
    ["x", "y"].map(|name| {
        let numbers = golden.floats(name).into_iter();
        numbers.map(|number| number as f32).collect()
    })
}

fn estimate(found: Option<Estimate>) -> Estimate {
    found.expect("a number")
}

#[test]
fn the_measures_agree_with_scipy_and_numpy() {
    let golden = Golden::read("rsa.safetensors");
    let [x, y] = features(&golden);
    let draws = golden.integers("draws");
    let resamples = Resamples::from_draws(TEXTS, draws.len() / TEXTS, |resample, place| {
        usize::try_from(draws[resample * TEXTS + place]).expect("a text")
    });
    let found = compare([&x, &y], &resamples).expect("enough texts");
    for (name, found) in [
        ("pearson", found.pearson),
        ("spearman", found.spearman),
        ("cka", found.cka),
    ] {
        let Estimate { value, interval } = estimate(found);
        close(value, golden.floats(name)[0], name);
        let interval = interval.expect("an interval");
        let expected = golden.floats(&format!("{name}_interval"));
        close(interval[0], expected[0], &format!("{name}, low"));
        close(interval[1], expected[1], &format!("{name}, high"));
    }
    assert_eq!(found.alike, [false, false]);
}

/// To the last bit: one would otherwise read rounding as a change.
#[test]
fn equal_vectors_are_one_exactly() {
    let golden = Golden::read("rsa.safetensors");
    let one = Estimate {
        value: 1.0,
        interval: Some([1.0, 1.0]),
    };
    for vectors in features(&golden) {
        let found = compare([&vectors, &vectors.clone()], &Resamples::draw(TEXTS, 50, 3));
        let all = LayerSimilarity {
            pearson: Some(one),
            spearman: Some(one),
            cka: Some(one),
            alike: [false, false],
        };
        assert_eq!(found.expect("enough texts"), all);
    }
}

/// Neither measure sees how long vectors are, nor how they are turned.
#[test]
fn a_turn_and_a_scale_change_nothing() {
    let golden = Golden::read("rsa.safetensors");
    let [x, _] = features(&golden);
    let turned: Vec<f32> = x
        .chunks_exact(2)
        .flat_map(|pair| {
            let (sine, cosine) = 0.7f32.sin_cos();
            let [first, second] = [pair[0], pair[1]];
            [
                3.0 * (cosine * first - sine * second),
                3.0 * (sine * first + cosine * second),
            ]
        })
        .collect();
    let found = compare([&x, &turned], &Resamples::draw(TEXTS, 0, 0)).expect("enough texts");
    // Not Spearman: rounding takes ties apart.
    for found in [found.pearson, found.cka] {
        let Estimate { value, interval } = estimate(found);
        close(value, 1.0, "turned");
        assert_eq!(interval, None, "no resamples");
    }
}

#[test]
fn vectors_that_are_all_alike_have_no_correlation() {
    let golden = Golden::read("rsa.safetensors");
    let [x, _] = features(&golden);
    let alike = [0.3, -1.7, 0.9].repeat(TEXTS);
    let found = compare([&alike, &x], &Resamples::draw(TEXTS, 10, 0)).expect("enough texts");
    assert_eq!(found.alike, [true, false]);
    assert_eq!(found.pearson, None);
    assert_eq!(found.spearman, None);
    assert_eq!(found.cka, None);
}

/// The vectors of the texts of `MODEL.hidden.safetensors`, `[layers + 1][texts * width]`.
fn vectors_of(model: &str, pooling: TextPooling) -> Vec<Vec<f32>> {
    let checkpoint = Checkpoint::open(&goldens().join(model)).expect("a checkpoint");
    let golden = Golden::read(&format!("{model}.hidden.safetensors"));
    let sequences = golden.sequences();
    let runtime = Runtime::load(None).expect("ONNX Runtime");
    let options = SessionOptions {
        provider: ProviderChoice::Cpu,
        threads: Some(2),
        batch_tokens: Some(100),
        ..SessionOptions::default()
    };
    let depths = [0, 1, 2, 3];
    let frozen = FrozenEncoder::without_hashes(&runtime, &checkpoint, &depths, &options);
    let frozen = frozen.expect("a session");
    let mut frozen = match pooling {
        TextPooling::Masked => frozen,
        TextPooling::Unmasked => frozen.padded_to(64),
    };
    let rows: Vec<u32> = (0..6).collect();
    let found = layer_vectors(&mut frozen, &sequences, &rows, pooling, "test");
    let found = found.expect("vectors");
    assert_eq!((found.texts, found.width), (6, 32));
    found.layers
}

fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        close(f64::from(*found), *expected, what);
    }
}

#[test]
fn unmasked_vectors_are_those_of_transformers() {
    let golden = Golden::read("rsa.safetensors");
    for model in ["bert-tiny", "roberta-tiny"] {
        let expected = golden.floats(&format!("{model}.unmasked"));
        let found = vectors_of(model, TextPooling::Unmasked).concat();
        assert_close(&found, &expected, model);
    }
}

#[test]
fn masked_vectors_are_the_means_over_tokens() {
    for model in ["bert-tiny", "roberta-tiny", "mpnet-tiny"] {
        let golden = Golden::read(&format!("{model}.hidden.safetensors"));
        let offsets = golden.sequences().offsets().to_vec();
        for (layer, found) in vectors_of(model, TextPooling::Masked).iter().enumerate() {
            let states = golden.floats(&format!("hidden.{layer}"));
            let means = offsets.windows(2).flat_map(|ends| {
                let states = &states[ends[0] * 32..ends[1] * 32];
                (0..32).map(move |column| {
                    let numbers = states[column..].iter().step_by(32);
                    numbers.sum::<f64>() / (states.len() / 32) as f64
                })
            });
            let means: Vec<f64> = means.collect();
            assert_close(found, &means, &format!("{model}, layer {layer}"));
        }
    }
}

fn rsa(first: &Path, second: &Path, data: &Path, flags: &str) -> Vec<String> {
    let fixed = ["rsa", text(first), text(second), "--data", text(data)];
    let fixed = fixed.into_iter().chain(["--provider", "cpu"]);
    fixed
        .chain(flags.split_whitespace())
        .map(String::from)
        .collect()
}

/// A layer's numbers that are no intervals, and its intervals.
fn numbers(layer: &Value) -> ([f64; 3], [[f64; 2]; 3]) {
    let names = ["pearson", "spearman", "cka"];
    let values = names.map(|name| layer[name].as_f64().expect("a number"));
    let intervals = names.map(|name| {
        let interval = layer[format!("{name}_interval")].clone();
        serde_json::from_value(interval).expect("an interval")
    });
    (values, intervals)
}

/// 60 texts, and a run on 40 others of them that has `freeze` layers frozen.
fn trained(space: &Workspace, model: &str, freeze: &str) -> (PathBuf, PathBuf) {
    let (data, run) = (
        space.path("texts.jsonl"),
        space.path(&format!("run-{freeze}")),
    );
    write_long_classification(&data, 60);
    let cache = space.path(&format!("cache-{freeze}"));
    telly_json(&precompute(
        "classify",
        &goldens().join(model),
        &data,
        freeze,
        &cache,
    ));
    telly_json(&train(&cache, &run, "--epochs 2 --batch-size 8 --lr 5e-3"));
    (data, run)
}

#[test]
fn a_checkpoint_is_itself_at_every_layer() {
    let space = Workspace::new();
    let data = space.path("texts.jsonl");
    write_long_classification(&data, 40);
    for pooling in ["masked", "unmasked"] {
        let flags = format!("--bootstrap 20 --max-length 48 --pooling {pooling}");
        let model = goldens().join("roberta-tiny");
        let found = telly_json(&rsa(&model, &model, &data, &flags));
        assert_eq!(found["texts"], 40);
        assert_eq!(found["pooling"], pooling);
        let layers = found["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), 4);
        for (number, layer) in layers.iter().enumerate() {
            assert_eq!(layer["layer"], number);
            assert_eq!(numbers(layer), ([1.0; 3], [[1.0, 1.0]; 3]), "{number}");
        }
    }
}

#[test]
fn frozen_layers_are_one_exactly_and_those_above_less() {
    let space = Workspace::new();
    for (model, freeze, frozen) in [
        ("bert-tiny", "1", 2),
        ("mpnet-tiny", "2", 3),
        ("bert-tiny", "none", 0),
    ] {
        let (data, run) = trained(&space, model, freeze);
        let flags = "--bootstrap 30 --max-length 32";
        let found = telly_json(&rsa(&goldens().join(model), &run, &data, flags));
        for (number, layer) in found["layers"]
            .as_array()
            .expect("layers")
            .iter()
            .enumerate()
        {
            let (values, intervals) = numbers(layer);
            if number < frozen {
                assert_eq!((values, intervals), ([1.0; 3], [[1.0, 1.0]; 3]), "{number}");
                continue;
            }
            for (value, [low, high]) in values.into_iter().zip(intervals) {
                assert!(value < 1.0, "{model}, layer {number}: {value}");
                assert!(low <= high && high <= 1.0, "{low} {high}");
            }
        }
    }
}

/// The way round does not matter, the seed does to intervals alone, and a table is shown.
#[test]
fn the_flags_do_what_they_say() {
    let space = Workspace::new();
    let (data, run) = trained(&space, "bert-tiny", "1");
    let model = goldens().join("bert-tiny");
    let found = |first: &Path, second: &Path, flags: &str| {
        let found = telly_json(&rsa(first, second, &data, flags));
        (numbers(&found["layers"][3]), found["texts"].clone())
    };
    let (there, texts) = found(&model, &run, "--bootstrap 30 --max-length 32");
    assert_eq!(texts, 60);
    let (back, _) = found(&run, &model, "--bootstrap 30 --max-length 32");
    for (there, back) in there.0.into_iter().zip(back.0) {
        close(there, back, "the other way round");
    }
    let (again, _) = found(&model, &run, "--bootstrap 30 --max-length 32");
    assert_eq!(again, there);
    let (other, _) = found(&model, &run, "--bootstrap 30 --seed 5 --max-length 32");
    assert_eq!(other.0, there.0);
    assert_ne!(other.1, there.1);
    let (fewer, texts) = found(&model, &run, "--bootstrap 30 --limit 20 --max-length 32");
    assert_eq!(texts, 20);
    assert_ne!(fewer.0, there.0);
    let (unmasked, _) = found(
        &model,
        &run,
        "--bootstrap 30 --pooling unmasked --max-length 48",
    );
    assert_ne!(unmasked.0, there.0);
    let output = telly_ok(&rsa(&model, &run, &data, "--max-length 32 --bootstrap 0"));
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 5, "{shown}");
    assert_eq!(
        lines[1].split_whitespace().collect::<Vec<_>>(),
        ["0", "1.0000", "1.0000", "1.0000"]
    );
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let space = Workspace::new();
    let data = space.path("texts.jsonl");
    write_long_classification(&data, 20);
    let fails = |second: &str, data: &Path, flags: &str, words: &[&str]| {
        let (first, second) = (goldens().join("bert-tiny"), goldens().join(second));
        let command = rsa(&first, &second, data, flags);
        fails(telly(&command), WRONG_INPUT, words);
    };
    fails(
        "modernbert-tiny",
        &data,
        "",
        &["layers", "found 4", "expected 3"],
    );
    fails(
        "roberta-tiny",
        &data,
        "--limit 2",
        &["2 texts", "expected 3"],
    );
    fails("roberta-tiny", &data, "--limit 0", &["0 texts"]);
    fails(
        "roberta-tiny",
        &data,
        "--text-field body",
        &["body", "texts.jsonl", "--text-field"],
    );
    fails(
        "roberta-tiny",
        &data,
        "--max-length 500",
        &["--max-length", "500"],
    );
    fails("nowhere", &data, "", &["nowhere"]);
}

/// Every text is the same: each layer says that there is nothing to correlate.
#[test]
fn the_same_text_over_and_over_has_no_correlation() {
    let space = Workspace::new();
    let data = space.write(
        "same.jsonl",
        &"{\"text\": \"return the list\"}\n".repeat(12),
    );
    let model = goldens().join("bert-tiny");
    let command = rsa(&model, &model, &data, "");
    let output = telly_ok(&command);
    let said = support::stderr(&output);
    assert!(said.contains("no correlation"), "{said}");
    let found = telly_json(&command);
    for layer in found["layers"].as_array().expect("layers") {
        for name in ["pearson", "spearman", "cka", "pearson_interval"] {
            assert!(layer[name].is_null(), "{layer}");
        }
    }
}
