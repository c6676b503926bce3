//! What the tests that hold steps against PyTorch's share.

use crate::support::{Golden, device};
use telly::checkpoint::{Checkpoint, Freeze};
use telly::frozen::{FrozenEncoder, ProviderChoice, Runtime, SessionOptions};
use telly::task::Model;
use telly::train::FreshActivations;

/// Of each step's loss, relative.
pub(crate) const LOSS_TOLERANCE: f64 = 1e-4;
/// Of the final weights, absolute.
pub(crate) const WEIGHT_TOLERANCE: f64 = 1e-4;
/// The bias of keys, as the families call it.
const OF_KEYS: [&str; 4] = ["key.bias", "attn.k.bias", "k_lin.bias", "k_proj.bias"];

/// A key's bias adds the same to all scores of a query, or nearly so where it is turned, which softmax does
/// not see: its gradient is rounding noise, of which Adam makes steps in PyTorch as here.
pub(crate) fn is_of_keys(name: &str) -> bool {
    OF_KEYS.iter().any(|key| name.ends_with(key))
}

/// Gives `model` the weights that PyTorch had before the first step.
pub(crate) fn begin(model: &Model, golden: &Golden) {
    for parameter in model.parameters.iter() {
        if let Some(initial) = golden.tensors.get(&format!("initial.{}", parameter.name)) {
            let initial = initial.to_device(&device()).expect("on the device");
            parameter.variable.set(&initial).expect("the same shape");
        }
    }
}

/// The golden's sequences, through the frozen layers if there are any.
pub(crate) fn activations(
    golden: &Golden,
    checkpoint: &Checkpoint,
    freeze: Freeze,
) -> FreshActivations {
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
        pattern: checkpoint.config.attention_pattern,
    }
}

/// The largest difference of a final weight, and its name.
pub(crate) fn worst_weight(golden: &Golden, model: &Model) -> (f64, String) {
    let mut worst = (0.0, String::new());
    for parameter in model.parameters.iter() {
        let expected = golden.floats(&format!("final.{}", parameter.name));
        if is_of_keys(&parameter.name) {
            continue;
        }
        let found = parameter.variable.flatten_all();
        let found = found.and_then(|flat| flat.to_vec1::<f32>());
        for (found, expected) in found.expect("numbers").into_iter().zip(expected) {
            let difference = (f64::from(found) - expected).abs();
            if difference > worst.0 {
                worst = (difference, parameter.name.clone());
            }
        }
    }
    worst
}
