//! The training step.

use candle_core::{Device, Tensor};

use super::checkpoint::{StateTensor, TrainingState};
use super::{Error, TrainSettings};
use crate::task::{Batch, Model, Replica};
use crate::trainable::{
    self, AdamW, AdamWSettings, Copies, Gradients, InUse, LossScaler, MixedPrecision, Moment,
    Parameter, Parameters, Part, PartLimit, Pass, Reduce, layer_scales, reduce_over,
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
    /// What each replica keeps for the backward pass at a time.
    pub micro_batch: PartLimit,
    /// Those that share the rows of each batch with `model`.
    replicas: Vec<Replica>,
    reduce: Box<dyn Reduce>,
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
    /// Each batch's share.
    shares: Vec<f64>,
    /// Each batch's mean loss, on the device: reading it would wait for what is being computed.
    losses: Vec<Tensor>,
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
            replicas: Vec::new(),
            reduce: Box::new(Copies),
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

    /// Shares the rows of each batch with `models`, replicas of the trained one on devices of their
    /// own: to the same losses and weights but for rounding. The optimizer's moments are kept once,
    /// beside the first.
    pub fn with_replicas(mut self, models: Vec<Model>) -> Result<Self, Error> {
        let ops = self.model.ops();
        let replicas = models.into_iter().map(|model| Replica {
            gradients: Gradients::new(&model.parameters),
            model: model.run_by(ops),
        });
        self.replicas = replicas.collect();
        self.reduce = reduce_over(&self.devices())?;
        self.tell_replicas()?;
        Ok(self)
    }

    /// Where the first replica computes, and the others.
    pub fn devices(&self) -> Vec<&Device> {
        let others = self.replicas.iter().map(|replica| &replica.model);
        let all = std::iter::once(&self.model).chain(others);
        all.map(|model| model.parameters.device()).collect()
    }

    /// Gives the replicas the parameters of the first.
    fn tell_replicas(&self) -> Result<(), Error> {
        let others = self.replicas.iter();
        let others: Vec<&Parameters> = others.map(|other| &other.model.parameters).collect();
        Ok(self.reduce.spread(&self.model.parameters, &others)?)
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
        self.tell_replicas()
    }

    /// One forward and backward pass over a batch, and an update.
    pub fn step(&mut self, batch: Batch) -> Result<StepReport, Error> {
        self.accumulate(batch, 1.0)?;
        self.update()
    }

    /// One forward and backward pass over a batch that has `share` in the step under way; the
    /// shares of a step's batches sum to 1.
    pub fn accumulate(&mut self, batch: Batch, share: f64) -> Result<(), Error> {
        if self.replicas.is_empty() {
            // Inside the pool of threads from here on: entering it for each piece of parallel work
            // would cost a wake-up each.
            rayon::scope(|_| self.accumulate_here(batch, share))
        } else {
            // Replicas wait for each other, which a thread of the pool must not.
            self.accumulate_here(batch, share)
        }
    }

    fn accumulate_here(&mut self, batch: Batch, share: f64) -> Result<(), Error> {
        let batches = self.pending.shares.len();
        // Each batch of a run draws its own masks.
        let number = self.step * self.settings.gradient_accumulation + batches;
        let mut pass = Pass::training(self.model.ops(), self.settings.seed, number as u64);
        pass.all_rows = self.all_rows;
        pass.mixed_precision = self.settings.mixed_precision;
        pass.recompute = self.settings.recompute;
        let scale = self.loss_scaler.as_ref().map_or(1.0, LossScaler::scale);
        let gradients = &mut self.gradients;
        if batches == 0 {
            gradients.clear();
            for replica in &mut self.replicas {
                replica.gradients.clear();
            }
        }
        let (limit, share_scaled) = (self.micro_batch, share * scale);
        let replicas = &mut self.replicas;
        let in_use = InUse::of(&batch.input);
        let loss =
            self.model
                .add_gradients(replicas, (batch, share_scaled), &pass, limit, gradients)?;
        drop(in_use);
        self.pending.shares.push(share);
        self.pending.losses.push(loss);
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
        let Pending { shares, losses } = std::mem::take(&mut self.pending);
        let others = self.replicas.iter().map(|replica| &replica.gradients);
        let others: Vec<&Gradients> = others.collect();
        self.reduce.sum(&mut self.gradients, &others)?;
        let (parameters, gradients) = (&self.model.parameters, &self.gradients);
        let (norm, losses) = AdamW::norm(parameters, gradients, scale, &losses)?;
        // In fp16 the step will be skipped, and the scale tells when it is of no use any more.
        let diverged = losses.iter().find(|loss| !loss.is_finite());
        if let (Some(&loss), None) = (diverged, &self.loss_scaler) {
            let step = self.step;
            return Err(Error::Diverged { step, loss });
        }
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
            self.tell_replicas()?;
        }
        self.step += 1;
        let losses = shares.iter().zip(losses);
        Ok(StepReport {
            loss: losses.fold(0.0, |sum, (share, loss)| sum + share * loss),
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
