//! The training step.

use candle_core::Tensor;

use super::checkpoint::{StateTensor, TrainingState};
use super::{Error, TrainSettings};
use crate::task::{Batch, Model};
use crate::trainable::{
    self, AdamW, AdamWSettings, Gradients, LossScaler, MixedPrecision, Moment, Parameter,
    Parameters, Part, PartLimit, Pass, layer_scales,
};

const PARAMETER: &str = "parameter";
const FIRST_MOMENT: &str = "first_moment";
const SECOND_MOMENT: &str = "second_moment";

/// One optimisation step after the other on a model.
pub struct Trainer {
    /// What is trained.
    pub model: Model,
    /// Whether the last layer computes every token's state though only some are read.
    pub all_rows: bool,
    /// What is kept for the backward pass at a time.
    pub micro_batch: PartLimit,
    gradients: Gradients,
    optimizer: AdamW,
    settings: TrainSettings,
    warmup_steps: usize,
    total_steps: usize,
    step: usize,
    pending: Pending,
    loss_scaler: Option<LossScaler>,
}

/// What the step under way has seen.
#[derive(Default)]
struct Pending {
    batches: usize,
    /// Each batch's mean loss times its share.
    loss: f64,
}

/// What one step did.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Mean loss of the step's rows before the update.
    pub loss: f64,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Global norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// What the loss was multiplied by, in fp16.
    pub loss_scale: Option<f64>,
    /// Whether there was no update, as some gradient was no finite number in fp16.
    pub skipped: bool,
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
        let (parameters, layers) = (&model.parameters, model.layers());
        let optimizer =
            optimizer.with_scales(layer_scales(parameters, layers, settings.layer_decay));
        // As transformers: the share is rounded up to whole steps.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let warmup_steps = (settings.warmup * total_steps as f64).ceil() as usize;
        let ops = settings.ops_on(model.parameters.device())?;
        let scales = settings.mixed_precision == MixedPrecision::Fp16;
        Ok(Self {
            all_rows: false,
            micro_batch: PartLimit::NONE,
            gradients: Gradients::new(&model.parameters),
            model: model.run_by(ops),
            optimizer,
            settings,
            warmup_steps,
            total_steps,
            step: 0,
            pending: Pending::default(),
            loss_scaler: scales.then(LossScaler::default),
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
    pub fn tensors(&self) -> Vec<(String, StateTensor<'_>)> {
        let parameters = self.model.parameters.iter().zip(self.optimizer.moments());
        let tensors = parameters.flat_map(|(parameter, moments)| {
            let variable = parameter.variable.as_tensor();
            let [first, second] = moments.map(|moment| match moment {
                Moment::Host(numbers) => StateTensor::Numbers {
                    numbers,
                    shape: variable.dims(),
                },
                Moment::Device(tensor) => StateTensor::Tensor(tensor),
            });
            [
                (PARAMETER, StateTensor::Tensor(variable)),
                (FIRST_MOMENT, first),
                (SECOND_MOMENT, second),
            ]
            .map(|(kind, tensor)| (format!("{kind}/{}", parameter.name), tensor))
        });
        tensors.collect()
    }

    /// What scales the loss, in fp16.
    pub fn loss_scaler(&self) -> Option<&LossScaler> {
        self.loss_scaler.as_ref()
    }

    /// Goes on from `state`.
    pub fn restore(&mut self, state: &TrainingState) -> Result<(), Error> {
        let parameters = &self.model.parameters;
        let values = named(parameters, PARAMETER, state);
        for (parameter, value) in parameters.iter().zip(values) {
            let set = parameter.variable.set(&value?);
            set.map_err(trainable::Error::from)?;
        }
        let first = named(parameters, FIRST_MOMENT, state);
        let second = named(parameters, SECOND_MOMENT, state);
        let moments = first.zip(second);
        let moments = moments.map(|(first, second)| Ok([first?, second?]));
        let step = state.position.step;
        self.loss_scaler.clone_from(&state.position.loss_scaler);
        let skipped = self.loss_scaler.as_ref().map_or(0, LossScaler::skipped);
        self.optimizer
            .restore(step.saturating_sub(skipped), moments)?;
        self.step = step;
        Ok(())
    }

    /// One forward and backward pass over a batch, and an update.
    pub fn step(&mut self, batch: Batch) -> Result<StepReport, Error> {
        self.accumulate(batch, 1.0)?;
        self.update()
    }

    /// One forward and backward pass over a batch that has `share` in the step under way; the
    /// shares of a step's batches sum to 1.
    pub fn accumulate(&mut self, batch: Batch, share: f64) -> Result<(), Error> {
        // Inside the pool of threads from here on: entering it for each piece of parallel work
        // would cost a wake-up each.
        rayon::scope(|_| self.accumulate_here(batch, share))
    }

    fn accumulate_here(&mut self, batch: Batch, share: f64) -> Result<(), Error> {
        // Each batch of a run draws its own masks.
        let number = self.step * self.settings.gradient_accumulation + self.pending.batches;
        let mut pass = Pass::training(self.model.ops(), self.settings.seed, number as u64);
        pass.all_rows = self.all_rows;
        pass.mixed_precision = self.settings.mixed_precision;
        pass.recompute = self.settings.recompute;
        let scale = self.loss_scaler.as_ref().map_or(1.0, LossScaler::scale);
        let gradients = &mut self.gradients;
        if self.pending.batches == 0 {
            gradients.clear();
        }
        let loss =
            self.model
                .add_gradients(batch, share * scale, &pass, self.micro_batch, gradients)?;
        // In fp16 the step will be skipped, and the scale tells when it is of no use any more.
        if !loss.is_finite() && self.loss_scaler.is_none() {
            return Err(Error::Diverged {
                step: self.step,
                loss,
            });
        }
        self.pending.batches += 1;
        self.pending.loss += share * loss;
        Ok(())
    }

    /// Moves the parameters by what has been accumulated.
    pub fn update(&mut self) -> Result<StepReport, Error> {
        rayon::scope(|_| self.update_here())
    }

    fn update_here(&mut self) -> Result<StepReport, Error> {
        let rate = self.settings.schedule.learning_rate(
            self.step,
            self.warmup_steps,
            self.total_steps,
            self.settings.lr,
        );
        let loss_scale = self.loss_scaler.as_ref().map(LossScaler::scale);
        let scale = loss_scale.unwrap_or(1.0);
        let (parameters, gradients) = (&self.model.parameters, &self.gradients);
        let norm = AdamW::norm(parameters, gradients, scale)?;
        let skipped = loss_scale.is_some() && !norm.is_finite();
        if let Some(scaler) = &mut self.loss_scaler {
            scaler.update(!skipped);
            if scaler.is_exhausted() {
                let step = self.step;
                return Err(Error::LossScale { step, scale });
            }
        }
        if !skipped {
            self.model.profile().time(Part::Optimizer, || {
                self.optimizer
                    .step(parameters, gradients, (norm, scale), rate)
            })?;
        }
        self.step += 1;
        let Pending { loss, .. } = std::mem::take(&mut self.pending);
        Ok(StepReport {
            loss,
            learning_rate: rate,
            gradient_norm: norm,
            loss_scale,
            skipped,
        })
    }
}

/// Takes out of `tensors` those of `kind`, one a parameter, in order.
pub(super) fn named(
    parameters: &Parameters,
    kind: &str,
    state: &TrainingState,
) -> impl Iterator<Item = Result<Tensor, trainable::Error>> {
    let read = move |parameter: &Parameter| {
        let name = format!("{kind}/{}", parameter.name);
        let shape = parameter.variable.dims();
        let mismatch = |found: String| trainable::Error::Mismatch {
            name: name.clone(),
            found,
            expected: format!("{shape:?}"),
        };
        let tensor = state.tensor(&name)?;
        let tensor = tensor.ok_or_else(|| mismatch("nothing".into()))?;
        if tensor.dims() != shape {
            return Err(mismatch(format!("{:?}", tensor.dims())));
        }
        Ok(tensor.to_device(parameters.device())?)
    };
    parameters.iter().map(read)
}
