//! Twenty training steps of each clone detector go as they do in PyTorch: `scripts/goldens/clones.py`.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "small numbers; the figures are shown"
)]

use crate::reference::{
    LOSS_TOLERANCE, WEIGHT_TOLERANCE, activations, begin, is_of_keys, worst_weight,
};
use crate::support::{Golden, device, goldens};
use candle_core::Device;
use telly::cache::Split;
use telly::checkpoint::{Checkpoint, Freeze};
use telly::ragged::Ragged;
use telly::targets::Targets;
use telly::task::{Batch, HeadSettings, Model};
use telly::train::{TrainSettings, Trainer, read_batch};
use telly::trainable::{EncoderInput, Gradients, Ops, OpsChoice, PartLimit, Pass};

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

/// By either kind of operations, in one piece and in parts.
fn check(model_name: &str, kind: &str, freeze: &str) {
    for (ops, tokens) in [
        (OpsChoice::Fused, usize::MAX),
        (OpsChoice::Fused, 40),
        (OpsChoice::Composed, usize::MAX),
        (OpsChoice::Composed, 40),
    ] {
        // A card has composed operations alone.
        if device().is_cpu() || ops == OpsChoice::Composed {
            check_way(model_name, kind, freeze, ops, tokens);
        }
    }
}

fn check_way(model_name: &str, kind: &str, freeze: &str, ops: OpsChoice, tokens: usize) {
    let golden = Golden::read(&format!(
        "training/{model_name}.clone-{kind}.freeze-{freeze}.safetensors"
    ));
    let freeze: Freeze = freeze.parse().expect("a freeze");
    let mut checkpoint = Checkpoint::open(&goldens().join(model_name)).expect("a checkpoint");
    checkpoint.config.dropout.set_all(0.0);
    let head = head(kind);
    let pooling = head.default_pooling(&checkpoint.config);
    let device = device();
    let model = Model::new(&checkpoint, freeze, &head, pooling, 1, &device).expect("a model");
    begin(&model, &golden);
    let batches = golden.tensors["batches"].to_vec2::<i64>().expect("batches");
    let settings = TrainSettings {
        epochs: 1,
        batch_size: batches[0].len(),
        lr: 2e-3,
        pooling,
        ops,
        ..TrainSettings::default()
    };
    let mut trainer = Trainer::new(model, settings, batches.len()).expect("a trainer");
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
    let worst = worst_weight(&golden, &trainer.model);
    println!(
        "{model_name}, {kind}, freeze {freeze}, {ops:?}: loss within {worst_loss:.1e}, weights within {:.1e}, the worst {}",
        worst.0, worst.1
    );
    assert!(worst_loss < LOSS_TOLERANCE && worst.0 < WEIGHT_TOLERANCE);
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

/// With dropout on, whatever is frozen, by either kind of operations.
#[test]
fn every_trained_tensor_gets_a_gradient() {
    for model_name in ["bert-tiny", "roberta-tiny", "mpnet-tiny"] {
        let checkpoint = Checkpoint::open(&goldens().join(model_name)).expect("a checkpoint");
        for (kind, freeze) in ["cosine", "concat", "contrast"]
            .into_iter()
            .flat_map(|kind| ["none", "1", "3"].map(|freeze| (kind, freeze)))
        {
            let freeze: Freeze = freeze.parse().expect("a freeze");
            let (head, device) = (head(kind), Device::Cpu);
            let pooling = head.default_pooling(&checkpoint.config);
            let model = Model::new(&checkpoint, freeze, &head, pooling, 1, &device);
            let model = model.expect("a model");
            for ops in [Ops::Fused, Ops::Composed] {
                let pass = Pass::training(ops, 1, 0);
                let mut gradients = Gradients::new(&model.parameters);
                model
                    .gradients(
                        batch(&checkpoint, freeze),
                        &pass,
                        PartLimit::NONE,
                        &mut gradients,
                    )
                    .expect("gradients");
                for (index, parameter) in model.parameters.iter().enumerate() {
                    let name = &parameter.name;
                    let numbers = gradients.numbers(index);
                    let numbers = numbers.unwrap_or_else(|| panic!("{name} got no gradient"));
                    let largest = numbers.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
                    let noise = is_of_keys(name);
                    assert!(
                        noise || largest > 1e-7,
                        "{model_name}, {kind}, {ops:?}, freeze {freeze}, {name}: {largest}"
                    );
                }
            }
        }
    }
}

/// Six functions of several lengths in six rows, two in each group.
fn batch(checkpoint: &Checkpoint, freeze: Freeze) -> Batch {
    let mut ids = Ragged::new(1);
    for row in 0..6u32 {
        let sequence = (0..3 + 4 * row).map(|place| 5 + (row * 31 + place * 7) % 300);
        ids.push(&sequence.collect::<Vec<_>>());
    }
    let input = match freeze {
        Freeze::Nothing => EncoderInput::TokenIds(ids),
        Freeze::Layers(_) => {
            let width = checkpoint.config.hidden_size;
            #[allow(clippy::cast_precision_loss)] // Small numbers.
            let values = (0..ids.tokens() * width).map(|i| (i as f32 * 0.37).sin());
            let offsets = ids.offsets().to_vec();
            EncoderInput::HiddenStates(Ragged::from_parts(values.collect(), offsets, width))
        }
    };
    Batch {
        input,
        places: vec![0, 1, 2, 3, 4, 5, 3, 4, 5, 0, 1, 2],
        columns: 2,
        targets: Targets::Classes(vec![0, 1, 1, 0, 1, 1]),
    }
}
