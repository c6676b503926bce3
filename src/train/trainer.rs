//! The training step.

use std::collections::HashMap;

use candle_core::Tensor;

use super::{Error, TrainSettings, learning_rate};
use crate::task::Model;
use crate::trainable::{AdamW, AdamWSettings, EncoderInput, Parameter, Parameters, Pass};

const PARAMETER: &str = "parameter";
const FIRST_MOMENT: &str = "first_moment";
const SECOND_MOMENT: &str = "second_moment";

/// One optimisation step after the other on a model.
pub struct Trainer {
    /// What is trained.
    pub model: Model,
    optimizer: AdamW,
    settings: TrainSettings,
    warmup_steps: usize,
    total_steps: usize,
    step: usize,
}

/// What one step did.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Mean loss of the batch before the update.
    pub loss: f64,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Global norm of the gradients before clipping.
    pub gradient_norm: f64,
}

impl Trainer {
    /// For `total_steps` steps in all.
    pub fn new(model: Model, settings: TrainSettings, total_steps: usize) -> Result<Self, Error> {
        let optimizer = AdamW::new(
            &model.parameters,
            AdamWSettings {
                weight_decay: settings.weight_decay,
                clip_norm: (settings.clip > 0.0).then_some(settings.clip),
            },
        )?;
        // As transformers: the share is rounded up to whole steps.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let warmup_steps = (settings.warmup * total_steps as f64).ceil() as usize;
        Ok(Self {
            model,
            optimizer,
            settings,
            warmup_steps,
            total_steps,
            step: 0,
        })
    }

    /// Steps done.
    pub fn steps(&self) -> usize {
        self.step
    }

    /// Steps in all.
    pub fn total_steps(&self) -> usize {
        self.total_steps
    }

    /// What the run was told.
    pub fn settings(&self) -> &TrainSettings {
        &self.settings
    }

    /// What every further step depends on, by names that [`restore`](Self::restore) knows: the
    /// parameters, and the optimizer's running means. Dropout's masks follow from the seed and
    /// the number of the step.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let moments = self.optimizer.moments();
        let parameters = self.model.parameters.iter().zip(moments);
        let tensors = parameters.flat_map(|(parameter, [first, second])| {
            [
                (PARAMETER, parameter.variable.as_detached_tensor()),
                (FIRST_MOMENT, first.clone()),
                (SECOND_MOMENT, second.clone()),
            ]
            .map(|(kind, tensor)| (format!("{kind}/{}", parameter.name), tensor))
        });
        tensors.collect()
    }

    /// Goes on after `step` steps that left `tensors`.
    pub fn restore(
        &mut self,
        step: usize,
        tensors: &mut HashMap<String, Tensor>,
    ) -> Result<(), Error> {
        let parameters = &self.model.parameters;
        parameters.restore(&named(parameters, PARAMETER, tensors)?)?;
        let first = named(parameters, FIRST_MOMENT, tensors)?;
        let second = named(parameters, SECOND_MOMENT, tensors)?;
        let moments = first.into_iter().zip(second);
        self.optimizer.restore(
            step,
            moments.map(|(first, second)| [first, second]).collect(),
        );
        self.step = step;
        Ok(())
    }

    /// One forward and backward pass over a batch, and an update.
    pub fn step(&mut self, input: EncoderInput, labels: &[i64]) -> Result<StepReport, Error> {
        let device = self.model.parameters.device().clone();
        let pass = Pass::training(&device, self.settings.seed, self.step as u64);
        let loss = self.model.loss(input, labels, &pass)?;
        let tensor_error = |error| Error::from(crate::trainable::Error::from(error));
        let value = f64::from(loss.to_scalar::<f32>().map_err(tensor_error)?);
        if !value.is_finite() {
            return Err(Error::Diverged {
                step: self.step,
                loss: value,
            });
        }
        let gradients = loss.backward().map_err(tensor_error)?;
        let rate = learning_rate(
            self.step,
            self.warmup_steps,
            self.total_steps,
            self.settings.lr,
        );
        let norm = self
            .optimizer
            .step(&self.model.parameters, &gradients, rate)?;
        self.step += 1;
        Ok(StepReport {
            loss: value,
            learning_rate: rate,
            gradient_norm: norm,
        })
    }
}

/// Takes out of `tensors` those of `kind`, one a parameter, in order.
pub(super) fn named(
    parameters: &Parameters,
    kind: &str,
    tensors: &mut HashMap<String, Tensor>,
) -> Result<Vec<Tensor>, Error> {
    let take = |parameter: &Parameter| {
        let name = format!("{kind}/{}", parameter.name);
        let shape = parameter.variable.dims();
        let found = tensors.remove(&name);
        let mismatch = |found: String| crate::trainable::Error::Mismatch {
            name: name.clone(),
            found,
            expected: format!("{shape:?}"),
        };
        let tensor = found.ok_or_else(|| mismatch("nothing".into()))?;
        if tensor.dims() != shape {
            return Err(mismatch(format!("{:?}", tensor.dims())).into());
        }
        tensor
            .to_device(parameters.device())
            .map_err(|error| crate::trainable::Error::from(error).into())
    };
    parameters.iter().map(take).collect()
}
