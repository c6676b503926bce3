//! Twenty training steps of models that write text go as they do in PyTorch: decoders and
//! `UniXcoder`, their output matrix frozen, trained with the embeddings or trained apart from them.
//! The reference computes `UniXcoder`'s source and target in two passes, padded.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "small numbers; the figures are shown"
)]

use crate::reference::{LOSS_TOLERANCE, WEIGHT_TOLERANCE, activations, is_of_keys, worst_weight};
use crate::support::{Golden, goldens};
use candle_core::Device;
use telly::cache::Split;
use telly::checkpoint::{AttentionPattern, Checkpoint, Freeze, PrefixRule};
use telly::targets::Targets;
use telly::task::text_metrics::TextTask;
use telly::task::{HeadSettings, Model};
use telly::train::{TrainSettings, Trainer, read_batch};
use telly::trainable::{Gradients, Ops, OpsChoice, PartLimit, Pass, Pooling};

/// Of a gradient, relative to the largest of its tensor: the golden's are rounded to 16 bits.
const GRADIENT_TOLERANCE: f64 = 2e-3;
/// The checkpoint of `model`, attending as the task of `golden` has it.
fn checkpoint(model: &str, golden: &Golden) -> Checkpoint {
    let mut checkpoint = Checkpoint::open(&goldens().join(model)).expect("a checkpoint");
    checkpoint.config.dropout.set_all(0.0);
    let told = golden.hyperparameters();
    if model == "unixcoder-tiny" {
        let padded = told["padded_source_length"].as_u64();
        checkpoint.config.attention_pattern = match told["task"].as_str() {
            Some("complete") => AttentionPattern::Causal,
            _ => AttentionPattern::Prefix(PrefixRule {
                separator: 2,
                occurrence: 2,
                padded_source: padded.map(|length| length as usize),
            }),
        };
    }
    checkpoint
}

/// The golden's rows: each a sequence of which the last tokens are scored.
fn rows(golden: &Golden) -> Split {
    let sequences = golden.sequences();
    let first = golden.integers("first_scored");
    Split {
        columns: 1,
        rows: (0..sequences.len()).collect(),
        targets: Targets::Texts {
            first_scored: first.into_iter().map(|place| place as u32).collect(),
            lengths: sequences.iter().map(|ids| ids.len() as u32).collect(),
            references: Vec::new(),
        },
    }
}

/// A way of computing the same step.
#[derive(Debug, Clone, Copy)]
struct Way {
    ops: OpsChoice,
    micro_batch_tokens: Option<usize>,
    recompute: bool,
    all_rows: bool,
}

fn ways() -> Vec<Way> {
    let plain = Way {
        ops: OpsChoice::Fused,
        micro_batch_tokens: None,
        recompute: false,
        all_rows: false,
    };
    let fused = [
        plain,
        Way {
            micro_batch_tokens: Some(40),
            recompute: true,
            ..plain
        },
        Way {
            all_rows: true,
            ..plain
        },
    ];
    let composed = fused.map(|way| Way {
        ops: OpsChoice::Composed,
        ..way
    });
    // Composed operations compute all rows whatever they are told.
    fused
        .into_iter()
        .chain(composed.into_iter().take(2))
        .collect()
}

fn model(golden: &Golden, checkpoint: &Checkpoint, freeze: Freeze) -> Model {
    let told = golden.hyperparameters();
    let task = match told["task"].as_str() {
        Some("summarize") => TextTask::Summarize,
        Some("complete") => TextTask::Complete,
        _ => TextTask::Generate,
    };
    let head = HeadSettings::Language {
        task,
        train_head: told["train_head"] == true,
    };
    let model = Model::new(checkpoint, freeze, &head, Pooling::Scored, 1, &Device::Cpu);
    model.expect("a model")
}

fn check(model_name: &str, task: &str, freeze: &str) {
    let golden = Golden::read(&format!(
        "training/{model_name}.{task}.freeze-{freeze}.safetensors"
    ));
    let freeze: Freeze = freeze.parse().expect("a freeze");
    let checkpoint = checkpoint(model_name, &golden);
    let split = rows(&golden);
    for ops in [Ops::Fused, Ops::Composed] {
        check_gradients(model_name, task, &golden, &checkpoint, freeze, ops);
    }
    let batches = golden.tensors["batches"].to_vec2::<i64>().expect("batches");
    for way in ways() {
        let settings = TrainSettings {
            epochs: 1,
            batch_size: batches[0].len(),
            lr: 2e-3,
            pooling: Pooling::Scored,
            ops: way.ops,
            recompute: way.recompute,
            ..TrainSettings::default()
        };
        let model = model(&golden, &checkpoint, freeze);
        let mut trainer = Trainer::new(model, settings, batches.len()).expect("a trainer");
        trainer.all_rows = way.all_rows;
        trainer.micro_batch.tokens = way.micro_batch_tokens.unwrap_or(usize::MAX);
        let mut activations = activations(&golden, &checkpoint, freeze);
        let (losses, norms) = (golden.floats("losses"), golden.floats("gradient_norms"));
        let (mut worst_loss, mut worst_norm) = (0.0f64, 0.0f64);
        for (step, numbers) in batches.iter().enumerate() {
            let numbers: Vec<usize> = numbers.iter().map(|&row| row as usize).collect();
            let batch = read_batch(&mut activations, &split, &numbers).expect("a batch");
            trainer.accumulate(batch, 1.0).expect("computed");
            let report = trainer.update().expect("a step");
            worst_loss = worst_loss.max((report.loss / losses[step] - 1.0).abs());
            worst_norm = worst_norm.max((report.gradient_norm / norms[step] - 1.0).abs());
        }
        let (worst_weight, _) = worst_weight(&golden, &trainer.model);
        println!(
            "{model_name} {task} freeze {freeze}: loss off by {worst_loss:.1e} relative, gradient \
             norm by {worst_norm:.1e} relative, weights by {worst_weight:.1e}; {way:?}"
        );
        assert!(worst_loss <= LOSS_TOLERANCE, "loss: {worst_loss}");
        assert!(worst_norm <= 1e-3, "norm: {worst_norm}");
        assert!(worst_weight <= WEIGHT_TOLERANCE, "weights: {worst_weight}");
    }
}

/// The first step's gradients, before clipping.
fn check_gradients(
    model_name: &str,
    task: &str,
    golden: &Golden,
    checkpoint: &Checkpoint,
    freeze: Freeze,
    ops: Ops,
) {
    let model = model(golden, checkpoint, freeze);
    let mut activations = activations(golden, checkpoint, freeze);
    let batches = golden.tensors["batches"].to_vec2::<i64>().expect("batches");
    let numbers: Vec<usize> = batches[0].iter().map(|&row| row as usize).collect();
    let batch = read_batch(&mut activations, &rows(golden), &numbers).expect("a batch");
    let mut gradients = Gradients::new(&model.parameters);
    let pass = Pass::training(ops, 1, 0);
    let loss = model.gradients(batch, &pass, PartLimit::NONE, &mut gradients);
    let expected = golden.floats("losses")[0];
    assert!((loss.expect("a loss") / expected - 1.0).abs() <= LOSS_TOLERANCE);
    let mut compared = 0;
    for (index, parameter) in model.parameters.iter().enumerate() {
        let name = &parameter.name;
        let expected = golden.floats(&format!("gradient.{name}"));
        if is_of_keys(name) {
            continue;
        }
        let found = gradients.numbers(index).expect("every parameter has one");
        let largest = expected
            .iter()
            .fold(0.0f64, |most, number| most.max(number.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            let difference = (f64::from(*found) - expected).abs() / largest.max(1e-7);
            assert!(
                difference <= GRADIENT_TOLERANCE,
                "{model_name} {task}, {name}: {found}, expected {expected}"
            );
        }
        compared += 1;
    }
    let trained = golden
        .tensors
        .keys()
        .filter(|name| name.starts_with("final."));
    let trained = trained.filter(|name| !is_of_keys(name));
    assert_eq!(
        compared,
        trained.count(),
        "what PyTorch trained is trained here"
    );
}

#[test]
fn llama() {
    check("llama-tiny", "generate", "1");
    check("llama-tiny", "generate", "none");
    check("llama-tiny", "generate-train-head", "1");
}

#[test]
fn llama_with_scaled_positions_and_tied_matrices() {
    check("llama-scaled-tiny", "generate", "0");
}

#[test]
fn qwen2() {
    check("qwen2-tiny", "generate", "1");
    check("qwen2-tiny", "generate", "none");
    check("qwen2-tiny", "generate-train-head", "1");
    check("qwen2-tiny", "complete", "2");
}

#[test]
fn starcoder2() {
    check("starcoder2-tiny", "generate", "1");
}

#[test]
fn unixcoder() {
    check("unixcoder-tiny", "summarize", "1");
    check("unixcoder-tiny", "summarize", "none");
    check("unixcoder-tiny", "summarize-padded", "1");
    check("unixcoder-tiny", "complete", "1");
}
