//! Twenty training steps of each clone detector go as they do in PyTorch: `scripts/goldens/clones.py`.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "small numbers; the figures are shown"
)]

mod support;

use candle_core::Device;
use support::{Golden, goldens};
use telly::cache::Split;
use telly::checkpoint::{Checkpoint, Freeze};
use telly::frozen::{FrozenEncoder, ProviderChoice, Runtime, SessionOptions};
use telly::targets::Targets;
use telly::task::{HeadSettings, Model};
use telly::train::{FreshActivations, Shuffle, TrainSettings, Trainer, read_batch};
use telly::trainable::Ops;

/// Of each step's loss, relative, and of the final weights, absolute.
const TOLERANCE: f64 = 1e-4;

/// Rows as a cache would have them: a function that is in several of them has one number.
fn split(golden: &Golden, kind: &str) -> Split {
    let indices = |name| {
        let values = golden.integers(name).into_iter();
        values.map(|value| value as usize).collect::<Vec<_>>()
    };
    let (rows, targets) = if kind == "contrast" {
        let partners = indices("partners").into_iter().enumerate();
        let rows = partners.flat_map(|(row, partner)| [row, partner]).collect();
        (rows, "groups")
    } else {
        (indices("pairs"), "labels")
    };
    Split {
        columns: 2,
        rows,
        targets: Targets::Classes(golden.integers(targets)),
    }
}

fn head(kind: &str) -> HeadSettings {
    match kind {
        "cosine" => HeadSettings::Cosine {
            threshold: 0.5,
            tuned: false,
        },
        "concat" => HeadSettings::Concat,
        _ => HeadSettings::Contrast,
    }
}

fn activations(golden: &Golden, checkpoint: &Checkpoint, freeze: Freeze) -> FreshActivations {
    let frozen = match freeze {
        Freeze::Nothing => None,
        Freeze::Layers(layers) => {
            let options = SessionOptions {
                provider: ProviderChoice::Cpu,
                threads: Some(1),
                ..SessionOptions::default()
            };
            let runtime = Runtime::load(None).expect("ONNX Runtime");
            let frozen = FrozenEncoder::new(&runtime, checkpoint, &[layers], &options);
            Some(frozen.expect("a session"))
        }
    };
    FreshActivations {
        sequences: golden.sequences(),
        frozen,
    }
}

/// By either kind of operations, in one piece and in parts.
fn check(model_name: &str, kind: &str, freeze: &str) {
    for (ops, tokens) in [
        (Ops::Fused, usize::MAX),
        (Ops::Fused, 40),
        (Ops::Composed, usize::MAX),
    ] {
        check_way(model_name, kind, freeze, ops, tokens);
    }
}

fn check_way(model_name: &str, kind: &str, freeze: &str, ops: Ops, tokens: usize) {
    let golden = Golden::read(&format!(
        "training/{model_name}.clone-{kind}.freeze-{freeze}.safetensors"
    ));
    let freeze: Freeze = freeze.parse().expect("a freeze");
    let mut checkpoint = Checkpoint::open(&goldens().join(model_name)).expect("a checkpoint");
    checkpoint.config.hidden_dropout = 0.0;
    checkpoint.config.attention_dropout = 0.0;
    let head = head(kind);
    let pooling = head.default_pooling();
    let model = Model::new(&checkpoint, freeze, &head, pooling, 1, &Device::Cpu).expect("a model");
    for parameter in model.parameters.iter() {
        if let Some(initial) = golden.tensors.get(&format!("initial.{}", parameter.name)) {
            parameter.variable.set(initial).expect("the same shape");
        }
    }
    let batches = golden.tensors["batches"].to_vec2::<i64>().expect("batches");
    let settings = TrainSettings {
        epochs: 1,
        batch_size: batches[0].len(),
        lr: 2e-3,
        warmup: 0.1,
        weight_decay: 0.01,
        clip: 1.0,
        dropout: None,
        seed: 1,
        shuffle: Shuffle::Exact,
        pooling,
        head: None,
        log_every: 1,
        checkpoint_seconds: 300,
        micro_batch: None,
        memory_budget: None,
    };
    let mut trainer = Trainer::new(model, settings, batches.len()).expect("a trainer");
    trainer.ops = ops;
    trainer.micro_batch.tokens = tokens;
    let (split, losses) = (split(&golden, kind), golden.floats("losses"));
    let mut activations = activations(&golden, &checkpoint, freeze);
    let mut worst_loss = 0.0f64;
    for (rows, expected) in batches.iter().zip(losses) {
        let rows: Vec<usize> = rows.iter().map(|&row| row as usize).collect();
        let batch = read_batch(&mut activations, &split, &rows).expect("a batch");
        let report = trainer.step(batch).expect("a step");
        worst_loss = worst_loss.max((report.loss - expected).abs() / expected.abs());
    }
    let mut worst = (0.0, "");
    for parameter in trainer.model.parameters.iter() {
        let name = &parameter.name;
        // Its gradient is rounding noise: see training_parity.rs.
        if name.ends_with("key.bias") || name.ends_with("attn.k.bias") {
            continue;
        }
        let expected = golden.floats(&format!("final.{name}"));
        let found = parameter.variable.flatten_all();
        let found = found.and_then(|flat| flat.to_vec1::<f32>());
        for (found, expected) in found.expect("numbers").into_iter().zip(expected) {
            let difference = (f64::from(found) - expected).abs();
            if difference > worst.0 {
                worst = (difference, name);
            }
        }
    }
    println!(
        "{model_name}, {kind}, freeze {freeze}, {ops:?}: loss within {worst_loss:.1e}, weights within {:.1e}, the worst {}",
        worst.0, worst.1
    );
    assert!(worst_loss < TOLERANCE && worst.0 < TOLERANCE);
}

#[test]
fn the_cosine_of_pairs() {
    check("bert-tiny", "cosine", "1");
}

#[test]
fn the_cosine_of_pairs_with_nothing_frozen() {
    check("roberta-tiny", "cosine", "none");
}

#[test]
fn a_classifier_over_pairs() {
    check("bert-tiny", "concat", "1");
    check("roberta-tiny", "concat", "1");
}

#[test]
fn contrast_by_groups() {
    check("bert-tiny", "contrast", "1");
    check("mpnet-tiny", "contrast", "1");
}
