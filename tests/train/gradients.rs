//! Every trained tensor receives a gradient, in every family and task; what is frozen stays.

#![allow(clippy::cast_precision_loss, reason = "small numbers")]

use crate::support::{
    TINY_MODELS, Workspace, goldens, precompute, telly_json, train, write_classification,
    write_search,
};
use candle_core::{Device, Tensor};
use telly::checkpoint::{Checkpoint, Freeze};
use telly::ragged::Ragged;
use telly::targets::Targets;
use telly::task::{Batch, HeadSettings, Model, Objective};
use telly::trainable::{EncoderInput, Gradients, Ops, PartLimit, Pass, Pooling};

fn sequences(count: u32) -> Ragged<u32> {
    let mut ids = Ragged::new(1);
    for row in 0..count {
        // Up to 23 tokens: several of MPNet's buckets.
        let sequence: Vec<u32> = (0..3 + 4 * row)
            .map(|position| 5 + (row * 31 + position * 7) % 300)
            .collect();
        ids.push(&sequence);
    }
    ids
}

/// Of three classes, or for search.
fn model(checkpoint: &Checkpoint, freeze: Freeze, classify: bool) -> Model {
    let head = if classify {
        HeadSettings::Linear {
            classes: 3,
            objective: Objective::SingleLabel,
        }
    } else {
        HeadSettings::Match { rank_limit: None }
    };
    let pooling = if classify {
        Pooling::Cls
    } else {
        Pooling::Mean
    };
    Model::new(checkpoint, freeze, &head, pooling, 1, &Device::Cpu).expect("a model")
}

fn batch(checkpoint: &Checkpoint, freeze: Freeze, classify: bool) -> Batch {
    let ids = sequences(6);
    let input = match freeze {
        Freeze::Nothing => EncoderInput::TokenIds(ids),
        Freeze::Layers(_) => {
            let width = checkpoint.config.hidden_size;
            let values = (0..ids.tokens() * width).map(|i| (i as f32 * 0.37).sin());
            let offsets = ids.offsets().to_vec();
            EncoderInput::HiddenStates(Ragged::from_parts(values.collect(), offsets, width))
        }
    };
    Batch {
        input,
        places: (0..6).collect(),
        columns: if classify { 1 } else { 2 },
        targets: Targets::Classes(vec![0, 1, 2, 0, 1, 2]),
    }
}

/// Gradients of one batch, with dropout on, by parameter name: the largest absolute element.
fn gradients(model_name: &str, freeze: Freeze, classify: bool, ops: Ops) -> Vec<(String, f32)> {
    let checkpoint = Checkpoint::open(&goldens().join(model_name)).expect("a checkpoint");
    let model = model(&checkpoint, freeze, classify);
    let pass = Pass::training(ops, 1, 0);
    let mut gradients = Gradients::new(&model.parameters);
    model
        .gradients(
            batch(&checkpoint, freeze, classify),
            &pass,
            PartLimit::NONE,
            &mut gradients,
        )
        .expect("gradients");
    let parameters = model.parameters.iter().enumerate();
    parameters
        .map(|(index, parameter)| {
            let gradient = gradients.numbers(index);
            let gradient = gradient.unwrap_or_else(|| panic!("{} got no gradient", parameter.name));
            let largest = gradient.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
            (parameter.name.clone(), largest)
        })
        .collect()
}

/// By which the layers are computed.
const OPS: [Ops; 2] = [Ops::Fused, Ops::Composed];

/// transformers' own heads, with every kind of target.
#[test]
fn every_tensor_of_a_family_head_gets_a_gradient() {
    let (freeze, classes) = (Freeze::Layers(2), 3);
    let targets = [
        (
            Objective::SingleLabel,
            3,
            Targets::Classes(vec![0, 1, 2, 0, 1, 2]),
        ),
        (
            Objective::MultiLabel,
            3,
            Targets::Sets {
                classes,
                members: vec![1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 0, 0, 0, 1, 1, 0, 0],
            },
        ),
        (
            Objective::Regression,
            1,
            Targets::Numbers(vec![0.5, -1.0, 2.0, 0.0, 1.5, -0.25]),
        ),
    ];
    for (name, hidden, count) in [
        // A layer of the encoder, and the head's two.
        ("bert-tiny", "pooler.dense.weight", 16 + 4),
        ("roberta-tiny", "classifier.dense.weight", 16 + 4),
        ("mpnet-tiny", "classifier.dense.weight", 16 + 4),
        // Two layers of six tensors, the last norm, and the head's three without biases but one.
        ("modernbert-tiny", "head.norm.weight", 2 * 6 + 1 + 4),
    ] {
        let checkpoint = Checkpoint::open(&goldens().join(name)).expect("a checkpoint");
        for (objective, classes, targets) in targets.clone() {
            let head = HeadSettings::HuggingFace { classes, objective };
            let device = &Device::Cpu;
            let model = Model::new(&checkpoint, freeze, &head, Pooling::Cls, 1, device);
            let model = model.expect("a model");
            for ops in OPS {
                let batch = Batch {
                    columns: 1,
                    targets: targets.clone(),
                    ..batch(&checkpoint, freeze, true)
                };
                let mut gradients = Gradients::new(&model.parameters);
                let pass = Pass::training(ops, 1, 0);
                let limit = PartLimit::NONE;
                model
                    .gradients(batch, &pass, limit, &mut gradients)
                    .expect("gradients");
                let mut names = Vec::new();
                for (index, parameter) in model.parameters.iter().enumerate() {
                    let name = &parameter.name;
                    let gradient = gradients.numbers(index).expect("a gradient");
                    let dead = gradient.iter().all(|number| number.abs() < 1e-6);
                    assert!(!dead || name.ends_with("key.bias") || name.ends_with("attn.k.bias"));
                    names.push(name.clone());
                }
                assert_eq!(names.len(), count, "{names:?}");
                assert!(names.iter().any(|name| name == hidden), "{names:?}");
            }
        }
    }
}

#[test]
fn every_trained_tensor_gets_a_gradient() {
    let freezes = [Freeze::Nothing, Freeze::Layers(0), Freeze::Layers(2)];
    for model in TINY_MODELS {
        for (classify, freeze) in [true, false]
            .into_iter()
            .flat_map(|c| freezes.map(|f| (c, f)))
        {
            for ops in OPS {
                for (name, largest) in gradients(model, freeze, classify, ops) {
                    // Softmax does not see a key's bias: what it gets is rounding noise.
                    let of_keys = ["key.bias", "attn.k.bias", "k_lin.bias"];
                    let unseen = of_keys.iter().any(|key| name.ends_with(key));
                    let least = if unseen { 0.0 } else { 1e-6 };
                    assert!(
                        largest > least,
                        "{model}, {ops:?}, freeze {freeze}, {name}: largest gradient {largest}"
                    );
                }
            }
        }
    }
}

/// Central finite differences of the loss, dropout on, against the gradients of some elements of
/// every parameter.
#[test]
fn finite_differences_agree() {
    for ((model_name, classify), ops) in [
        ("bert-tiny", true),
        ("roberta-tiny", false),
        ("mpnet-tiny", false),
        ("mpnet-tiny", true),
        ("distilbert-tiny", true),
        ("modernbert-tiny", false),
        ("modernbert-tiny", true),
        ("modernbert-biased-tiny", true),
    ]
    .into_iter()
    .flat_map(|case| OPS.map(|ops| (case, ops)))
    {
        let checkpoint = Checkpoint::open(&goldens().join(model_name)).expect("a checkpoint");
        let model = model(&checkpoint, Freeze::Nothing, classify);
        let loss = |gradients: &mut Gradients| {
            let batch = batch(&checkpoint, Freeze::Nothing, classify);
            let pass = Pass::training(ops, 1, 0);
            let limit = PartLimit::NONE;
            model
                .gradients(batch, &pass, limit, gradients)
                .expect("gradients")
        };
        let mut gradients = Gradients::new(&model.parameters);
        let mut others = Gradients::new(&model.parameters);
        loss(&mut gradients);
        for (index, parameter) in model.parameters.iter().enumerate() {
            let found = gradients.numbers(index).expect("a gradient");
            let original = parameter
                .variable
                .as_detached_tensor()
                .copy()
                .expect("a copy");
            // The element that moves the loss most, and one that anything could be wrong with.
            let largest = (0..found.len())
                .max_by(|&a, &b| found[a].abs().total_cmp(&found[b].abs()))
                .expect("not empty");
            for element in [largest, found.len() / 2] {
                let mut moved = |by: f32| {
                    let mut numbers: Vec<f32> = original
                        .flatten_all()
                        .and_then(|t| t.to_vec1())
                        .expect("numbers");
                    numbers[element] += by;
                    let numbers = Tensor::from_vec(numbers, original.shape(), &Device::Cpu);
                    parameter
                        .variable
                        .set(&numbers.expect("a tensor"))
                        .expect("set");
                    loss(&mut others)
                };
                // Richardson's extrapolation of two central differences: error of order step⁴.
                let step = 2e-2f32;
                let wide = (moved(step) - moved(-step)) / f64::from(2.0 * step);
                let narrow = (moved(step / 2.0) - moved(-step / 2.0)) / f64::from(step);
                let expected = (4.0 * narrow - wide) / 3.0;
                let found = f64::from(found[element]);
                assert!(
                    (found - expected).abs() <= 2e-3 * (1.0 + expected.abs()),
                    "{model_name}, {ops:?}, {}[{element}]: {found}, by differences {expected}",
                    parameter.name
                );
            }
            parameter.variable.set(&original).expect("set");
        }
    }
}

/// What frozen layers use and all layers share.
const RELATIVE_POSITIONS: &str = "encoder.relative_attention_bias.weight";

/// A run holds exactly the tensors above K and the head, and training does not write to the
/// checkpoint: not a bit of the frozen half moves.
#[test]
fn only_what_is_above_k_is_trained() {
    let embeddings = "embeddings.";
    let (layer_0, layer_1) = ("encoder.layer.0.", "encoder.layer.1.");
    for (model, task, freeze, frozen_prefixes, trained) in [
        (
            "bert",
            "classify",
            "2",
            &[embeddings, layer_0, layer_1][..],
            16 + 2,
        ),
        ("bert", "classify", "3", &[embeddings, "encoder."], 2),
        ("bert", "search", "0", &[embeddings], 48),
        ("bert", "search", "none", &[], 48 + 5),
        (
            "mpnet",
            "search",
            "1",
            &[embeddings, layer_0, RELATIVE_POSITIONS],
            32,
        ),
        ("mpnet", "search", "0", &[embeddings], 48 + 1),
        ("mpnet", "search", "none", &[], 48 + 1 + 4),
        (
            "distilbert",
            "classify",
            "1",
            &[embeddings, "transformer.layer.0."],
            32 + 2,
        ),
        // Six tensors a layer, five in the first, and the norm after the last.
        (
            "modernbert",
            "classify",
            "4",
            &[embeddings, "layers."],
            1 + 2,
        ),
        (
            "modernbert",
            "search",
            "3",
            &[embeddings, "layers.0.", "layers.2."],
            6 + 1,
        ),
        ("modernbert", "search", "none", &[], 23 + 1 + 2),
    ] {
        let weights = goldens().join(format!("{model}-tiny/model.safetensors"));
        let before = fs_err::read(&weights).expect("weights");
        let runs = trained_weights(model, task, freeze);
        assert_eq!(fs_err::read(&weights).expect("weights"), before);
        let original = safetensors::SafeTensors::deserialize(&before).expect("safetensors");
        for bytes in runs {
            let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
            let names = tensors.names();
            assert_eq!(
                names.len(),
                trained,
                "{model}, {task}, freeze {freeze}: {names:?}"
            );
            for prefix in frozen_prefixes {
                assert!(
                    names.iter().all(|name| !name.starts_with(prefix)),
                    "{names:?}"
                );
            }
            for name in names.iter().filter(|name| !name.starts_with("classifier")) {
                let moved = tensors.tensor(name).expect("there").data();
                let prefix = if model == "modernbert" {
                    "model"
                } else {
                    model
                };
                let initial = original
                    .tensor(&format!("{prefix}.{name}"))
                    .expect("there")
                    .data();
                assert_ne!(moved, initial, "{name} did not move");
            }
        }
    }
}

/// The weights files of runs of one epoch from the tiny `model`, by either kind of operations.
fn trained_weights(model: &str, task: &str, freeze: &str) -> [Vec<u8>; 2] {
    let work = Workspace::new();
    let data = work.path("train.jsonl");
    match task {
        "search" => write_search(&data, 24),
        _ => write_classification(&data, 24),
    }
    let cache = work.path("cache");
    let model = goldens().join(format!("{model}-tiny"));
    telly_json(&precompute(task, &model, &data, freeze, &cache));
    ["fused", "composed"].map(|ops| {
        let run = work.path(ops);
        let flags = format!("--epochs 1 --lr 1e-3 --batch-size 8 --ops {ops}");
        telly_json(&train(&cache, &run, &flags));
        fs_err::read(run.join("model.safetensors")).expect("the run's weights")
    })
}
