//! Several replicas that share the rows of each batch train as one does: on the CPU here, by the
//! same code that trains on several cards.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "small numbers; the figures are shown"
)]

use crate::support::{
    Classification, WRONG_INPUT, Workspace, fails, goldens, precompute, telly, telly_json, text,
    train, write_search,
};
use candle_core::Device;
use telly::checkpoint::{Checkpoint, Freeze};
use telly::ragged::Ragged;
use telly::targets::Targets;
use telly::task::{Batch, HeadSettings, Model, Objective, Replica};
use telly::train::{TrainSettings, Trainer};
use telly::trainable::{
    Copies, EncoderInput, Gradients, Ops, OpsChoice, PartLimit, Pass, Pooling, Reduce, Staged,
};

/// Lengths of a batch's sequences: in shares of three, one has a sequence, another has five.
const LENGTHS: [usize; 8] = [22, 3, 5, 4, 9, 2, 7, 6];

/// Of three classes, or for search, where each row's loss looks at all other rows.
#[derive(Clone, Copy)]
struct Case {
    checkpoint: &'static str,
    freeze: Freeze,
    classify: bool,
}

impl Case {
    const ALL: [Self; 4] = [
        Self::new("bert-tiny", Freeze::Layers(1), true),
        Self::new("roberta-tiny", Freeze::Layers(2), false),
        Self::new("mpnet-tiny", Freeze::Nothing, true),
        Self::new("modernbert-tiny", Freeze::Layers(1), false),
    ];

    const fn new(checkpoint: &'static str, freeze: Freeze, classify: bool) -> Self {
        Self {
            checkpoint,
            freeze,
            classify,
        }
    }

    fn checkpoint(self) -> Checkpoint {
        Checkpoint::open(&goldens().join(self.checkpoint)).expect("a checkpoint")
    }

    fn model(self) -> Model {
        let objective = Objective::SingleLabel;
        let (head, pooling) = if self.classify {
            let classes = 3;
            (HeadSettings::Linear { classes, objective }, Pooling::Cls)
        } else {
            (HeadSettings::Match { rank_limit: None }, Pooling::Mean)
        };
        let checkpoint = self.checkpoint();
        Model::new(&checkpoint, self.freeze, &head, pooling, 1, &Device::Cpu).expect("a model")
    }

    /// The batch of this number.
    fn batch(self, number: usize) -> Batch {
        let lengths = LENGTHS.iter().cycle().skip(number).take(LENGTHS.len());
        let input = if self.freeze == Freeze::Nothing {
            let mut ids = Ragged::new(1);
            for (row, &length) in lengths.enumerate() {
                let token = |place: usize| (5 + (number * 17 + row * 31 + place * 7) % 300) as u32;
                ids.push(&(0..length).map(token).collect::<Vec<_>>());
            }
            EncoderInput::TokenIds(ids)
        } else {
            let width = self.checkpoint().config.hidden_size;
            let mut states = Ragged::new(width);
            for (row, &length) in lengths.enumerate() {
                let numbers = (0..length * width).map(|i| ((i + 7 * row + number) as f32).sin());
                states.push(&numbers.collect::<Vec<f32>>());
            }
            EncoderInput::HiddenStates(states)
        };
        Batch {
            input,
            places: (0..LENGTHS.len()).collect(),
            columns: if self.classify { 1 } else { 2 },
            targets: if self.classify {
                Targets::Classes((0..8).map(|row| (row + number as i64) % 3).collect())
            } else {
                Targets::None
            },
        }
    }

    /// The loss of batch 0, and every parameter's gradient, with dropout, by `count` replicas.
    fn gradients(self, count: usize, ops: Ops, limit: PartLimit) -> (f32, Vec<Vec<f32>>) {
        let models: Vec<Model> = (0..count).map(|_| self.model()).collect();
        let mut models = models.into_iter();
        let first = models.next().expect("a model");
        let mut gradients = Gradients::new(&first.parameters);
        let others = models.map(|model| Replica {
            gradients: Gradients::new(&model.parameters),
            model,
        });
        let mut others: Vec<Replica> = others.collect();
        let mut pass = Pass::training(ops, 1, 0);
        pass.recompute = count == 3;
        let batch = (self.batch(0), 1.0);
        let loss = first.add_gradients(&mut others, batch, &pass, limit, &mut gradients);
        let loss = loss.expect("gradients").to_scalar().expect("a number");
        let theirs: Vec<&Gradients> = others.iter().map(|other| &other.gradients).collect();
        Copies.sum(&mut gradients, &theirs).expect("a sum");
        let numbers = (0..first.parameters.iter().len()).map(|index| gradients.numbers(index));
        let numbers = numbers.map(|numbers| numbers.expect("a gradient").to_vec());
        (loss, numbers.collect())
    }
}

/// The largest difference, as a share of the largest number.
fn difference(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    let (found, expected) = (found.concat(), expected.concat());
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    let pairs = found.iter().zip(&expected);
    pairs.fold(0.0f32, |a, (x, y)| a.max((x - y).abs())) / largest
}

const FEW_TOKENS: PartLimit = PartLimit {
    tokens: 10,
    sequences: usize::MAX,
};

#[test]
fn gradients_are_those_of_one() {
    for case in Case::ALL {
        for ops in [Ops::Fused, Ops::Composed] {
            let (loss, expected) = case.gradients(1, ops, PartLimit::NONE);
            for count in [2, 3, 11] {
                for limit in [PartLimit::NONE, FEW_TOKENS] {
                    let (found_loss, found) = case.gradients(count, ops, limit);
                    assert!((found_loss / loss - 1.0).abs() < 1e-5);
                    let off = difference(&found, &expected);
                    let name = case.checkpoint;
                    println!("{name} {ops:?}, {count} replicas, {limit:?}: off by {off:.1e}");
                    assert!(off < 1e-5);
                }
            }
        }
    }
}

/// Losses of eight steps of two batches each, and the weights after them.
fn trained(case: Case, count: usize, ops: OpsChoice) -> (Vec<f64>, Vec<Vec<f32>>) {
    let settings = TrainSettings {
        batch_size: 8,
        lr: 1e-3,
        gradient_accumulation: 2,
        ops,
        ..TrainSettings::default()
    };
    let others = (1..count).map(|_| case.model()).collect();
    let trainer = Trainer::new(case.model(), settings, 8).expect("a trainer");
    let mut trainer = trainer.with_replicas(others).expect("replicas");
    let losses = (0..8).map(|step| {
        for half in 0..2 {
            let batch = case.batch(2 * step + half);
            trainer.accumulate(batch, 0.5).expect("a batch");
        }
        trainer.update().expect("a step").loss
    });
    let losses = losses.collect();
    // The gradient of a key's bias is rounding noise, of which Adam makes whole steps.
    let parameters = trainer.model.parameters.iter();
    let parameters = parameters.filter(|parameter| !parameter.name.ends_with("k.bias"));
    let parameters = parameters.filter(|parameter| !parameter.name.ends_with("key.bias"));
    let weights = parameters.map(|parameter| {
        let flat = parameter.variable.flatten_all().expect("flat");
        flat.to_vec1().expect("numbers")
    });
    (losses, weights.collect())
}

#[test]
fn losses_and_weights_are_those_of_one() {
    for case in Case::ALL {
        for ops in [OpsChoice::Fused, OpsChoice::Composed] {
            let (expected_losses, expected) = trained(case, 1, ops);
            for count in [2, 3] {
                let (losses, weights) = trained(case, count, ops);
                let pairs = losses.iter().zip(&expected_losses);
                let off = pairs.fold(0.0f64, |a, (x, y)| a.max((x / y - 1.0).abs()));
                let weights_off = difference(&weights, &expected);
                println!(
                    "{} {ops:?}, {count} replicas: losses off by {off:.1e}, weights by \
                     {weights_off:.1e}",
                    case.checkpoint
                );
                assert!(off < 1e-4 && weights_off < 1e-4);
                // The same again is the same to the bit.
                assert_eq!(trained(case, count, ops), (losses, weights));
            }
        }
    }
}

/// As on a card, whose batches are there before the step.
#[test]
fn staged_states_train_as_those_of_the_host() {
    let case = Case::ALL[0];
    let model = case.model();
    for ops in [Ops::Fused, Ops::Composed] {
        for limit in [PartLimit::NONE, FEW_TOKENS] {
            let gradients = |staged: bool| {
                let mut batch = case.batch(3);
                if let (EncoderInput::HiddenStates(states), true) = (&batch.input, staged) {
                    let staged = Staged::copied(states.clone(), &Device::Cpu);
                    batch.input = EncoderInput::Staged(staged.expect("staged"));
                }
                assert_eq!(staged, matches!(batch.input, EncoderInput::Staged(_)));
                let mut gradients = Gradients::new(&model.parameters);
                let pass = Pass::training(ops, 1, 0);
                let loss = model.gradients(batch, &pass, limit, &mut gradients);
                let all = (0..model.parameters.iter().len()).map(|index| {
                    let numbers = gradients.numbers(index);
                    numbers.expect("a gradient").to_vec()
                });
                (loss.expect("a loss"), all.collect::<Vec<_>>())
            };
            assert_eq!(gradients(true), gradients(false), "{ops:?}, {limit:?}");
        }
    }
}

/// The real binary: search, whose codes are each other's wrong answers.
#[test]
fn workers_of_the_command() {
    let space = Workspace::new();
    write_search(&space.path("train.jsonl"), 60);
    let cache = space.path("cache");
    let model = goldens().join("roberta-tiny");
    telly_json(&precompute(
        "search",
        &model,
        &space.path("train.jsonl"),
        "1",
        &cache,
    ));
    let losses = |name: &str, flags: &str| -> Vec<f64> {
        let flags = format!("--epochs 2 --batch-size 8 --lr 1e-3 --log-every 1 {flags}");
        telly_json(&train(&cache, &space.path(name), &flags));
        let log = space.path(name).join("metrics.jsonl");
        let log = fs_err::read_to_string(log).expect("a log");
        let lines = log.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            line["loss"].as_f64()
        });
        lines.flatten().collect()
    };
    let one = losses("one", "");
    assert_eq!(one.len(), 16);
    for (name, flags) in [
        ("two", "--workers 2"),
        ("three", "--workers 3 --micro-batch 2 --threads 1"),
        ("composed", "--workers 2 --ops composed"),
    ] {
        let found = losses(name, flags);
        assert_eq!(found.len(), one.len());
        for (found, one) in found.iter().zip(&one) {
            assert!(
                (found / one - 1.0).abs() < 1e-4,
                "{name}: {found}, not {one}"
            );
        }
    }
    let recipe = fs_err::read_to_string(space.path("two").join("recipe.toml")).expect("a recipe");
    assert!(recipe.contains("workers = 2"), "{recipe}");
}

#[test]
fn replicas_nobody_can_make() {
    let work = Classification::new();
    let (cache, _) = work.trained();
    let run = work.path("new");
    for (flags, words) in [
        ("--workers 0", "`--workers 0` leaves nobody to train"),
        (
            "--cuda-devices 0,1 --device cpu",
            "`--cuda-devices` names cards, and `--device cpu` takes none",
        ),
        (
            "--cuda-devices 0,1 --ops fused",
            "`--ops fused` is written for the CPU",
        ),
    ] {
        fails(telly(&train(&cache, &run, flags)), WRONG_INPUT, &[words]);
    }
    let recipe = work.path("both.toml");
    fs_err::write(&recipe, "workers = 2\ncuda_devices = [0]\n").expect("written");
    let command = train(&cache, &run, &format!("--recipe {}", text(&recipe)));
    let words = "`--cuda-devices` and `--workers 2` cannot both be";
    fails(telly(&command), WRONG_INPUT, &[words]);
    if cfg!(not(feature = "cuda")) {
        let words = &["this telly is built without CUDA"];
        let command = train(&cache, &run, "--cuda-devices 0,1");
        fails(telly(&command), WRONG_INPUT, words);
    }
    assert!(!run.exists(), "nothing is begun");
}
