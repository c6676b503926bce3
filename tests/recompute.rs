//! `--recompute` changes what memory the way back takes, and nothing else.

#![allow(clippy::cast_precision_loss, reason = "small numbers")]
#![allow(clippy::print_stdout, reason = "the figures are shown")]

mod support;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::Device;
use peak_alloc::PeakAlloc;
use support::{
    TINY_MODELS, Workspace, goldens, minilm, precompute, telly_json, text, train,
    write_classification,
};
use telly::checkpoint::{Checkpoint, Freeze};
use telly::ragged::Ragged;
use telly::targets::Targets;
use telly::task::{Batch, HeadSettings, Model, Objective};
use telly::trainable::{EncoderInput, Gradients, MixedPrecision, Ops, PartLimit, Pass, Pooling};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory is that of the whole process: one test at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn model(checkpoint: &Checkpoint, freeze: Freeze, pooling: Pooling) -> Model {
    let head = HeadSettings::Linear {
        classes: 2,
        objective: Objective::SingleLabel,
    };
    Model::new(checkpoint, freeze, &head, pooling, 1, &Device::Cpu).expect("a model")
}

/// Sequences of `lengths` tokens.
fn batch(checkpoint: &Checkpoint, freeze: Freeze, lengths: &[usize]) -> Batch {
    let mut offsets = vec![0];
    offsets.extend(lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end)
    }));
    let (tokens, width) = (lengths.iter().sum::<usize>(), checkpoint.config.hidden_size);
    let input = match freeze {
        Freeze::Nothing => {
            let ids = (0..).take(tokens).map(|place: u32| 5 + place * 31 % 300);
            EncoderInput::TokenIds(Ragged::from_parts(ids.collect(), offsets, 1))
        }
        Freeze::Layers(_) => {
            let values = (0..tokens * width).map(|place| (place as f32 * 0.37).sin());
            EncoderInput::HiddenStates(Ragged::from_parts(values.collect(), offsets, width))
        }
    };
    Batch {
        input,
        places: (0..lengths.len()).collect(),
        columns: 1,
        targets: Targets::Classes((0..lengths.len() as i64).map(|row| row % 2).collect()),
    }
}

/// To the bit, dropout on, in every family, for every number of layers, whole and in parts. What all
/// layers add to one table is added up layer by layer, where candle adds it in an order of its own.
#[test]
fn the_gradients_are_the_same() {
    let _turn = turn();
    let ways = [
        (Ops::Fused, MixedPrecision::None),
        (Ops::Composed, MixedPrecision::None),
        (Ops::Composed, MixedPrecision::Bf16),
    ];
    for name in TINY_MODELS {
        let checkpoint = Checkpoint::open(&goldens().join(name)).expect("a checkpoint");
        let depths = (0..=checkpoint.config.layers).map(Freeze::Layers);
        for freeze in depths.chain([Freeze::Nothing]) {
            for (pooling, tokens) in [
                (Pooling::Cls, usize::MAX),
                (Pooling::Mean, usize::MAX),
                (Pooling::Cls, 20),
            ] {
                let model = model(&checkpoint, freeze, pooling);
                let limit = PartLimit {
                    tokens,
                    ..PartLimit::NONE
                };
                for (ops, mixed_precision) in ways {
                    let [kept, recomputed] = [false, true].map(|recompute| {
                        let mut pass = Pass::training(ops, 1, 0);
                        (pass.recompute, pass.mixed_precision) = (recompute, mixed_precision);
                        let mut gradients = Gradients::new(&model.parameters);
                        let batch = batch(&checkpoint, freeze, &[3, 7, 11, 15]);
                        let loss = model.gradients(batch, &pass, limit, &mut gradients);
                        let loss = loss.expect("gradients");
                        let numbers = (0..model.parameters.iter().len())
                            .map(|index| gradients.numbers(index).expect("a gradient").to_vec());
                        (loss, numbers.collect::<Vec<_>>())
                    });
                    let way = format!(
                        "{name}, freeze {freeze}, {pooling:?}, {tokens} tokens, {ops:?}, {mixed_precision:?}"
                    );
                    assert!(kept.0.to_bits() == recomputed.0.to_bits(), "{way}");
                    let parameters = model.parameters.iter();
                    for (parameter, (kept, recomputed)) in
                        parameters.zip(kept.1.iter().zip(&recomputed.1))
                    {
                        let name = &parameter.name;
                        let table =
                            ops == Ops::Composed && name.contains("relative_attention_bias");
                        assert!(
                            kept == recomputed || table && close(kept, recomputed),
                            "{way}, {name}"
                        );
                    }
                }
            }
        }
    }
}

/// But for the order of sums.
fn close(a: &[f32], b: &[f32]) -> bool {
    let largest = a
        .iter()
        .fold(0.0f32, |largest, number| largest.max(number.abs()));
    a.iter()
        .zip(b)
        .all(|(a, b)| (a - b).abs() <= 1e-5 * largest)
}

/// Six layers of all-MiniLM-L6-v2 take less than half of what they did.
#[test]
fn less_memory() {
    let _turn = turn();
    let checkpoint = Checkpoint::open(&minilm()).expect("a checkpoint");
    let freeze = Freeze::Layers(0);
    let peak = |ops: Ops, recompute: bool| {
        // The memory that a model uses again goes with it.
        let model = model(&checkpoint, freeze, Pooling::Mean);
        let mut pass = Pass::training(ops, 1, 0);
        pass.recompute = recompute;
        let mut gradients = Gradients::new(&model.parameters);
        let batch = batch(&checkpoint, freeze, &[64; 16]);
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let loss = model.gradients(batch, &pass, PartLimit::NONE, &mut gradients);
        loss.expect("gradients");
        MEMORY.peak_usage() - before
    };
    // The first products of all take room for good.
    peak(Ops::Fused, false);
    for ops in [Ops::Fused, Ops::Composed] {
        let [kept, recomputed] = [false, true].map(|recompute| peak(ops, recompute));
        println!(
            "{ops:?}: {:.1} MB kept, {:.1} MB recomputed",
            kept as f64 / 1e6,
            recomputed as f64 / 1e6
        );
        assert!(2 * recomputed < kept, "{ops:?}: {recomputed} of {kept}");
    }
}

/// By the real binary; a recipe says it, and a flag takes it back.
#[test]
fn a_run_comes_to_the_same_weights() {
    let _turn = turn();
    let space = Workspace::new();
    let data = space.path("train.jsonl");
    write_classification(&data, 48);
    let cache = space.path("cache");
    let model = goldens().join("bert-tiny");
    telly_json(&precompute("classify", &model, &data, "0", &cache));
    let weights = |run: &Path| fs_err::read(run.join("model.safetensors")).expect("weights");
    let recipe = |run: &Path| fs_err::read_to_string(run.join("recipe.toml")).expect("a recipe");
    for ops in ["fused", "composed"] {
        let [kept, recomputed] = ["", "--recompute"].map(|flag| {
            let run = space.path(&format!("{ops}{flag}"));
            let flags = format!("--epochs 2 --batch-size 8 --lr 1e-3 --ops {ops} {flag}");
            telly_json(&train(&cache, &run, &flags));
            run
        });
        assert!(weights(&kept) == weights(&recomputed), "{ops}");
        assert!(recipe(&kept).contains("recompute = false"));
        assert!(recipe(&recomputed).contains("recompute = true"));
        let back = space.path(&format!("{ops}-back"));
        let from = recomputed.join("recipe.toml");
        telly_json(&[
            "train",
            "--recipe",
            text(&from),
            "--recompute=false",
            "--out",
            text(&back),
        ]);
        assert!(recipe(&back).contains("recompute = false"));
        assert!(weights(&back) == weights(&kept), "{ops}");
    }
}
