//! Twenty training steps go as they do in PyTorch: same weights, batches and hyperparameters,
//! dropout 0, warmup, decay and clipping on.

mod support;

use candle_core::Device;
use support::{Golden, goldens};
use telly::checkpoint::{Checkpoint, Freeze};
use telly::frozen::{FrozenEncoder, ProviderChoice, Runtime, SessionOptions};
use telly::task::{Labels, Model, Pooling};
use telly::train::{Activations, FreshActivations, TrainSettings, Trainer};

/// Of each step's loss, relative.
const LOSS_TOLERANCE: f64 = 1e-4;
/// Of the final weights, absolute.
const WEIGHT_TOLERANCE: f64 = 1e-4;

fn check(model_name: &str, task: &str, freeze: &str) {
    let golden = Golden::read(&format!("training/{model_name}.{task}.freeze-{freeze}.safetensors"));
    let freeze: Freeze = freeze.parse().expect("a freeze");
    let mut checkpoint = Checkpoint::open(&goldens().join(model_name)).expect("a checkpoint");
    checkpoint.config.hidden_dropout = 0.0;
    checkpoint.config.attention_dropout = 0.0;

    let classes = golden.tensors.get("initial.classifier.bias").map(candle_core::Tensor::elem_count);
    let labels: Option<Labels> = classes.map(|count| {
        let names: Vec<usize> = (0..count).collect();
        serde_json::from_value(serde_json::json!(names)).expect("labels")
    });
    let pooling = if task == "classify" { Pooling::Cls } else { Pooling::Mean };
    let model = Model::new(&checkpoint, freeze, labels.as_ref(), pooling, 1, &Device::Cpu).expect("a model");
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
        pooling,
        log_every: 1,
    };
    let mut trainer = Trainer::new(model, settings, batches.len()).expect("a trainer");
    let mut activations = FreshActivations {
        sequences: golden.sequences(),
        frozen: match freeze {
            Freeze::Nothing => None,
            Freeze::Layers(layers) => {
                let options = SessionOptions { provider: ProviderChoice::Cpu, threads: Some(1) };
                let runtime = Runtime::load(None).expect("ONNX Runtime");
                Some(FrozenEncoder::new(&runtime, &checkpoint, layers, &options).expect("a session"))
            }
        },
    };

    let (mut worst_loss, mut worst_norm) = (0.0f64, 0.0f64);
    let (losses, norms) = (golden.floats("losses"), golden.floats("gradient_norms"));
    let rates = golden.floats("learning_rates");
    for (step, rows) in batches.iter().enumerate() {
        let rows: Vec<usize> = rows.iter().map(|&row| row as usize).collect();
        let (sequences, labels): (Vec<usize>, Vec<i64>) = if labels.is_some() {
            let all = golden.integers("labels");
            (rows.clone(), rows.iter().map(|&row| all[row]).collect())
        } else {
            let queries = rows.iter().map(|row| 2 * row);
            (queries.chain(rows.iter().map(|row| 2 * row + 1)).collect(), Vec::new())
        };
        let input = activations.input(&sequences).expect("input");
        let report = trainer.step(input, &labels).expect("a step");
        assert!((report.learning_rate - rates[step]).abs() < 1e-12, "rate of step {step}");
        worst_loss = worst_loss.max((report.loss / losses[step] - 1.0).abs());
        worst_norm = worst_norm.max((report.gradient_norm / norms[step] - 1.0).abs());
    }

    let mut worst_weight = (0.0f64, String::new());
    let mut compared = 0;
    for parameter in trainer.model.parameters.iter() {
        let expected = golden.floats(&format!("final.{}", parameter.name));
        let found = parameter.variable.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
        let found = found.expect("numbers");
        compared += 1;
        // A key's bias adds the same to all scores of a query, which softmax does not see: its
        // gradient is rounding noise, of which Adam makes steps in PyTorch as here.
        if parameter.name.ends_with("key.bias") {
            continue;
        }
        let pairs = found.iter().zip(&expected);
        let worst = pairs.map(|(found, expected)| (f64::from(*found) - expected).abs()).fold(0.0, f64::max);
        if worst > worst_weight.0 {
            worst_weight = (worst, parameter.name.clone());
        }
    }
    let finals = golden.tensors.keys().filter(|name| name.starts_with("final.")).count();
    println!(
        "{model_name} {task} freeze {freeze}: loss off by {worst_loss:.1e} relative, gradient norm by \
         {worst_norm:.1e} relative, weights by {:.1e} ({})",
        worst_weight.0, worst_weight.1
    );
    assert_eq!(compared, finals, "every tensor that PyTorch trained is trained here");
    assert!(worst_loss <= LOSS_TOLERANCE);
    assert!(worst_norm <= 1e-3);
    assert!(worst_weight.0 <= WEIGHT_TOLERANCE);
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
