//! Twenty training steps go as they do in PyTorch: same weights, batches and hyperparameters,
//! dropout 0, warmup, decay and clipping on.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "small numbers; the figures are shown"
)]

use crate::reference::{LOSS_TOLERANCE, WEIGHT_TOLERANCE, activations, begin, worst_weight};
use crate::support::{Golden, device, goldens};
use telly::checkpoint::{Checkpoint, Freeze};
use telly::targets::Targets;
use telly::task::{Batch, CrossEntropy, HeadSettings, Model, Objective};
use telly::train::{Activations, FreshActivations, Schedule, TrainSettings, Trainer};
use telly::trainable::{OpsChoice, Pooling};

/// The golden's model as PyTorch had it before the first step.
fn initial_model(
    golden: &Golden,
    checkpoint: &Checkpoint,
    freeze: Freeze,
    pooling: Pooling,
) -> Model {
    let told = golden.hyperparameters();
    let objective = match told["objective"].as_str() {
        Some("multi-label") => Objective::MultiLabel,
        Some("regression") => Objective::Regression,
        _ => Objective::SingleLabel,
    };
    let mut outputs = golden.tensors.iter().filter(|(name, _)| {
        let last = [
            "initial.classifier.bias",
            "initial.classifier.out_proj.bias",
        ];
        last.contains(&name.as_str())
    });
    let head = match outputs.next().map(|(_, bias)| bias.elem_count()) {
        Some(classes) if told["head"] == "huggingface" => {
            HeadSettings::HuggingFace { classes, objective }
        }
        Some(classes) => HeadSettings::Linear { classes, objective },
        None => HeadSettings::Match { rank_limit: None },
    };
    let device = device();
    let model = Model::new(checkpoint, freeze, &head, pooling, 1, &device);
    let model = model.expect("a model");
    begin(&model, golden);
    model
}

/// Sequences and targets of a step's rows: for search all queries, then all codes.
fn batch(golden: &Golden, rows: &[i64]) -> (Vec<usize>, Targets) {
    let rows: Vec<usize> = rows.iter().map(|&row| row as usize).collect();
    let all = if golden.tensors.contains_key("labels") {
        Targets::Classes(golden.integers("labels"))
    } else if let Some(sets) = golden.tensors.get("label_sets") {
        let members = sets.flatten_all().and_then(|sets| sets.to_vec1());
        Targets::Sets {
            classes: sets.dims()[1],
            members: members.expect("members"),
        }
    } else if let Some(numbers) = golden.tensors.get("label_numbers") {
        Targets::Numbers(numbers.to_vec1().expect("numbers"))
    } else {
        let queries = rows.iter().map(|row| 2 * row);
        let codes = rows.iter().map(|row| 2 * row + 1);
        return (queries.chain(codes).collect(), Targets::None);
    };
    let targets = all.of_rows(&rows);
    (rows, targets)
}

/// A way of computing the same step.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
struct Way {
    ops: OpsChoice,
    /// The last layer computes every token's state, read or not.
    all_rows: bool,
    micro_batch_tokens: Option<usize>,
    /// Each layer is computed again on the way back.
    recompute: bool,
    /// Every row comes twice, which leaves a mean over rows as it is.
    twice: bool,
    /// A sequence that comes twice is computed once.
    merged: bool,
}

const PLAIN: Way = Way {
    ops: OpsChoice::Fused,
    all_rows: false,
    micro_batch_tokens: None,
    recompute: false,
    twice: false,
    merged: true,
};

/// By either kind of operations: each switch alone, then all together.
fn ways(task: &str) -> Vec<Way> {
    let mut ways = vec![
        PLAIN,
        Way {
            micro_batch_tokens: Some(24),
            ..PLAIN
        },
        Way {
            recompute: true,
            ..PLAIN
        },
    ];
    // A second copy of a code would be one more wrong answer to its query.
    if !task.starts_with("search") {
        ways.extend([
            Way {
                twice: true,
                ..PLAIN
            },
            Way {
                twice: true,
                merged: false,
                ..PLAIN
            },
            Way {
                twice: true,
                micro_batch_tokens: Some(24),
                recompute: true,
                all_rows: true,
                ..PLAIN
            },
        ]);
    }
    let composed = ways.clone().into_iter().map(|way| Way {
        ops: OpsChoice::Composed,
        ..way
    });
    // Composed operations compute all rows whatever they are told.
    let all_rows = Way {
        all_rows: true,
        ..PLAIN
    };
    ways.iter()
        .copied()
        .chain([all_rows])
        .chain(composed)
        // A card has composed operations alone.
        .filter(|way| device().is_cpu() || way.ops == OpsChoice::Composed)
        .collect()
}

fn read(
    activations: &mut FreshActivations,
    sequences: &[usize],
    targets: Targets,
    way: Way,
) -> Batch {
    let (places, read) = if way.twice && way.merged {
        let places = (0..sequences.len()).chain(0..sequences.len()).collect();
        (places, sequences.to_vec())
    } else if way.twice {
        ((0..2 * sequences.len()).collect(), sequences.repeat(2))
    } else {
        ((0..sequences.len()).collect(), sequences.to_vec())
    };
    Batch {
        input: activations.input(&read).expect("input"),
        places,
        columns: if targets == Targets::None { 2 } else { 1 },
        targets: if way.twice {
            let rows: Vec<usize> = (0..targets.len()).collect();
            targets.of_rows(&rows.repeat(2))
        } else {
            targets
        },
    }
}

/// A golden, and what it is a training of.
struct Case {
    name: String,
    golden: Golden,
    checkpoint: Checkpoint,
    freeze: Freeze,
    pooling: Pooling,
}

fn check(model_name: &str, task: &str, freeze: &str) {
    let golden = Golden::read(&format!(
        "training/{model_name}.{task}.freeze-{freeze}.safetensors"
    ));
    let name = format!("{model_name} {task} freeze {freeze}");
    let freeze: Freeze = freeze.parse().expect("a freeze");
    let mut checkpoint = Checkpoint::open(&goldens().join(model_name)).expect("a checkpoint");
    checkpoint.config.dropout.set_all(0.0);
    if task.ends_with("pairs") {
        checkpoint.take_pairs().expect("a separator");
    }
    let told = golden.hyperparameters();
    if let Some(bias) = told["classifier_bias"].as_bool() {
        checkpoint.config.head.bias = bias;
    }
    let pooling = if told["pooling"] == "cls" {
        Pooling::Cls
    } else {
        Pooling::Mean
    };
    // Making the frozen layers' session takes longer than a training.
    let mut activations = activations(&golden, &checkpoint, freeze);
    let case = Case {
        name,
        golden,
        checkpoint,
        freeze,
        pooling,
    };
    for way in ways(task) {
        case.check(&mut activations, way);
    }
}

impl Case {
    fn check(&self, activations: &mut FreshActivations, way: Way) {
        let golden = &self.golden;
        let told = golden.hyperparameters();
        let model = initial_model(golden, &self.checkpoint, self.freeze, self.pooling);
        let model = model.learning_by(CrossEntropy {
            label_smoothing: told["label_smoothing"].as_f64().unwrap_or(0.0),
            class_weights: serde_json::from_value(told["class_weights"].clone()).expect("weights"),
        });
        let batches = golden.tensors["batches"].to_vec2::<i64>().expect("batches");
        let settings = TrainSettings {
            epochs: 1,
            batch_size: batches[0].len(),
            lr: 2e-3,
            pooling: self.pooling,
            schedule: match told["schedule"].as_str() {
                Some("cosine") => Schedule::Cosine,
                _ => Schedule::Linear,
            },
            layer_decay: told["layer_decay"].as_f64().unwrap_or(1.0),
            ops: way.ops,
            recompute: way.recompute,
            ..TrainSettings::default()
        };
        let accumulation = told["accumulation"].as_u64().unwrap_or(1) as usize;
        let mut trainer = Trainer::new(model, settings, batches.len()).expect("a trainer");
        trainer.all_rows = way.all_rows;
        trainer.micro_batch.tokens = way.micro_batch_tokens.unwrap_or(usize::MAX);

        let (mut worst_loss, mut worst_norm) = (0.0f64, 0.0f64);
        let (losses, norms) = (golden.floats("losses"), golden.floats("gradient_norms"));
        let rates = golden.floats("learning_rates");
        for (step, rows) in batches.iter().enumerate() {
            for rows in rows.chunks(rows.len() / accumulation) {
                let (sequences, targets) = batch(golden, rows);
                let batch = read(activations, &sequences, targets, way);
                let share = 1.0 / accumulation as f64;
                trainer.accumulate(batch, share).expect("a batch");
            }
            let report = trainer.update().expect("a step");
            assert!(
                (report.learning_rate - rates[step]).abs() < 1e-12,
                "rate of step {step}"
            );
            worst_loss = worst_loss.max((report.loss / losses[step] - 1.0).abs());
            worst_norm = worst_norm.max((report.gradient_norm / norms[step] - 1.0).abs());
        }

        let (worst_weight, name) = worst_weight(golden, &trainer.model);
        println!(
            "{}: loss off by {worst_loss:.1e} relative, gradient norm by {worst_norm:.1e} relative, \
             weights by {worst_weight:.1e} ({name}); {way:?}",
            self.name
        );
        let finals = golden
            .tensors
            .keys()
            .filter(|name| name.starts_with("final."))
            .count();
        let tensors = trainer.model.parameters.iter().len();
        assert_eq!(
            tensors, finals,
            "the tensors that PyTorch trained are trained here"
        );
        assert!(worst_loss <= LOSS_TOLERANCE);
        assert!(worst_norm <= 1e-3);
        assert!(worst_weight <= WEIGHT_TOLERANCE);
    }
}

#[test]
fn bert_classify_with_a_layer_frozen() {
    check("bert-tiny", "classify", "1");
}

#[test]
fn bert_classify_by_mean_pooling() {
    check("bert-tiny", "classify-mean", "1");
}

#[test]
fn bert_classify_with_nothing_frozen() {
    check("bert-tiny", "classify", "none");
}

#[test]
fn bert_search_with_a_layer_frozen() {
    check("bert-tiny", "search", "1");
}

#[test]
fn bert_search_with_nothing_frozen() {
    check("bert-tiny", "search", "none");
}

#[test]
fn roberta_classify_with_a_layer_frozen() {
    check("roberta-tiny", "classify", "1");
}

#[test]
fn roberta_classify_with_nothing_frozen() {
    check("roberta-tiny", "classify", "none");
}

#[test]
fn roberta_search_with_a_layer_frozen() {
    check("roberta-tiny", "search", "1");
}

#[test]
fn roberta_search_with_nothing_frozen() {
    check("roberta-tiny", "search", "none");
}

#[test]
fn mpnet_classify_with_a_layer_frozen() {
    check("mpnet-tiny", "classify", "1");
}

/// The table of relative positions is trained above frozen embeddings.
#[test]
fn mpnet_classify_with_the_embeddings_frozen() {
    check("mpnet-tiny", "classify", "0");
}

#[test]
fn mpnet_classify_with_nothing_frozen() {
    check("mpnet-tiny", "classify", "none");
}

#[test]
fn mpnet_search_with_a_layer_frozen() {
    check("mpnet-tiny", "search", "1");
}

#[test]
fn mpnet_search_with_nothing_frozen() {
    check("mpnet-tiny", "search", "none");
}

#[test]
fn layer_decay_in_two_families() {
    check("roberta-tiny", "classify-layer-decay", "none");
    check("mpnet-tiny", "classify-layer-decay", "none");
}

#[test]
fn label_smoothing_and_class_weights() {
    check("bert-tiny", "classify-label-smoothing", "1");
    check("bert-tiny", "classify-class-weights", "1");
    check("bert-tiny", "classify-weights-and-smoothing", "1");
}

#[test]
fn two_batches_a_step() {
    check("bert-tiny", "search-accumulation", "1");
}

#[test]
fn cosine_schedule() {
    check("bert-tiny", "classify-cosine", "1");
}

#[test]
fn the_heads_of_transformers() {
    check("bert-tiny", "classify-huggingface", "1");
    check("roberta-tiny", "classify-huggingface", "1");
    check("mpnet-tiny", "classify-huggingface", "1");
    check("distilbert-tiny", "classify-huggingface", "1");
    check("xlm-roberta-tiny", "classify-huggingface", "none");
    check("modernbert-tiny", "classify-huggingface", "1");
    check("modernbert-biased-tiny", "classify-huggingface-mean", "1");
}

#[test]
fn pairs_told_apart_by_token_types() {
    check("bert-tiny", "classify-huggingface-pairs", "none");
    check("bert-tiny", "classify-huggingface-pairs", "1");
}

#[test]
fn sets_of_labels_and_numbers() {
    check("bert-tiny", "classify-huggingface-multi-label", "1");
    check("roberta-tiny", "classify-huggingface-regression", "1");
}

#[test]
fn xlm_roberta_classify_with_a_layer_frozen() {
    check("xlm-roberta-tiny", "classify", "1");
}

#[test]
fn xlm_roberta_search_with_nothing_frozen() {
    check("xlm-roberta-tiny", "search", "none");
}

#[test]
fn distilbert_classify_with_a_layer_frozen() {
    check("distilbert-tiny", "classify", "1");
}

#[test]
fn distilbert_classify_with_nothing_frozen() {
    check("distilbert-tiny", "classify", "none");
}

#[test]
fn distilbert_search_with_a_layer_frozen() {
    check("distilbert-tiny", "search", "1");
}

#[test]
fn distilbert_search_with_nothing_frozen() {
    check("distilbert-tiny", "search", "none");
}

/// Two layers with a window, one without.
#[test]
fn modernbert_classify_with_a_layer_frozen() {
    check("modernbert-tiny", "classify", "1");
}

#[test]
fn modernbert_classify_by_mean_pooling() {
    check("modernbert-tiny", "classify-mean", "2");
}

#[test]
fn modernbert_classify_with_nothing_frozen() {
    check("modernbert-tiny", "classify", "none");
}

/// The norm after the last layer is trained, whatever is frozen.
#[test]
fn modernbert_classify_with_all_layers_frozen() {
    check("modernbert-tiny", "classify", "4");
}

#[test]
fn modernbert_search_with_all_layers_frozen() {
    check("modernbert-tiny", "search", "4");
}

#[test]
fn modernbert_search_with_a_layer_frozen() {
    check("modernbert-tiny", "search", "1");
}

#[test]
fn modernbert_search_with_nothing_frozen() {
    check("modernbert-tiny", "search", "none");
}

#[test]
fn modernbert_with_biases_classify_with_the_embeddings_frozen() {
    check("modernbert-biased-tiny", "classify", "0");
}

#[test]
fn modernbert_with_biases_search_with_nothing_frozen() {
    check("modernbert-biased-tiny", "search", "none");
}
