//! The loop.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::{
    Activations as _, CachedActivations, Error, RunFolder, TrainSettings, epoch_batches, evaluate,
    learning_rate,
};
use crate::cache::{Cache, Split};
use crate::interrupt;
use crate::progress::Progress;
use crate::task::{Metrics, Model};
use crate::trainable::{AdamW, AdamWSettings, EncoderInput, Pass};

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

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Epochs trained.
    pub epochs: usize,
    /// Steps taken.
    pub steps: usize,
    /// Seconds from the first step to the end, evaluation included.
    pub seconds: f64,
    /// Median training time of an epoch, evaluation left out.
    pub epoch_seconds: f64,
    /// Tokens of the training split, seen once, over `epoch_seconds`.
    pub tokens_per_second: f64,
    /// How many numbers were trained.
    pub trainable_parameters: usize,
    /// Metrics of the kept weights on the validation split.
    pub valid: Option<Metrics>,
    /// Metrics of the kept weights on the test split.
    pub test: Option<Metrics>,
    /// The epoch, from 1, whose weights were kept.
    pub best_epoch: usize,
    /// Whether Ctrl-C ended it early.
    pub interrupted: bool,
}

/// Trains `model` from `cache`, evaluates each epoch on the validation split if there is one,
/// keeps the best weights, and evaluates them on the test split. Writes every step's and every
/// evaluation's figures to `run`.
pub fn train(
    model: Model,
    cache: &Cache,
    settings: &TrainSettings,
    run: &mut RunFolder,
) -> Result<(Model, Summary), Error> {
    let load = |name: &str| cache.split(name);
    let training = load("train")?.ok_or_else(|| crate::cache::Error::NoSplit {
        folder: cache.folder().to_owned(),
        split: "train".into(),
    })?;
    let (valid, test) = (load("valid")?, load("test")?);
    let steps_per_epoch = training.len().div_ceil(settings.batch_size);
    let mut trainer = Trainer::new(model, settings.clone(), steps_per_epoch * settings.epochs)?;
    let mut activations = CachedActivations(cache);
    let started = Instant::now();
    let mut epoch_seconds = Vec::new();
    let mut best = Best::default();
    let mut interrupted = false;
    for epoch in 0..settings.epochs {
        let (seconds, finished) = train_epoch(&mut trainer, cache, &training, epoch, run)?;
        epoch_seconds.push(seconds);
        interrupted = !finished;
        if interrupted {
            break;
        }
        let Some(valid) = &valid else { continue };
        let metrics = evaluate(&trainer.model, &mut activations, valid, "valid")?;
        run.log(&json!({
            "step": trainer.steps(),
            "epoch": epoch + 1,
            "split": "valid",
            "metrics": metrics.to_json(),
        }))?;
        best.offer(&trainer.model, epoch + 1, metrics)?;
    }
    let best_epoch = best.epoch.unwrap_or(epoch_seconds.len());
    if let Some(weights) = &best.weights {
        trainer.model.parameters.restore(weights)?;
    }
    let test = match test {
        Some(test) if !interrupted => {
            let metrics = evaluate(&trainer.model, &mut activations, &test, "test")?;
            run.log(&json!({
                "step": trainer.steps(),
                "epoch": best_epoch,
                "split": "test",
                "metrics": metrics.to_json(),
            }))?;
            Some(metrics)
        }
        _ => None,
    };
    let tokens: usize = training
        .rows
        .iter()
        .map(|&sequence| activations.length(sequence))
        .sum();
    let median = median(&mut epoch_seconds);
    let summary = Summary {
        epochs: epoch_seconds.len(),
        steps: trainer.steps(),
        seconds: started.elapsed().as_secs_f64(),
        epoch_seconds: median,
        tokens_per_second: tokens as f64 / median,
        trainable_parameters: trainer.model.parameters.count(),
        valid: best.metrics,
        test,
        best_epoch,
        interrupted,
    };
    Ok((trainer.model, summary))
}

/// Trains one epoch; returns its seconds, and whether it came to its end.
fn train_epoch(
    trainer: &mut Trainer,
    cache: &Cache,
    training: &Split,
    epoch: usize,
    run: &mut RunFolder,
) -> Result<(f64, bool), Error> {
    let settings = trainer.settings.clone();
    let batches = epoch_batches(training.len(), settings.batch_size, settings.seed, epoch);
    let tokens: usize = training
        .rows
        .iter()
        .map(|&sequence| cache.length(sequence))
        .sum();
    let label = format!("epoch {}/{}", epoch + 1, settings.epochs);
    let mut progress = Progress::new(&label, tokens as u64, "tokens");
    let started = Instant::now();
    let mut done = 0;
    for rows in &batches {
        if interrupt::requested() {
            return Ok((started.elapsed().as_secs_f64(), false));
        }
        let (sequences, labels) = batch(training, rows);
        let input = CachedActivations(cache).input(&sequences)?;
        let batch_tokens = input.tokens();
        let report = trainer.step(input, &labels)?;
        done += batch_tokens;
        progress.set_message(format!("loss {:.4}", report.loss));
        progress.advance(batch_tokens as u64);
        let step = trainer.steps();
        if step.is_multiple_of(settings.log_every) || step == trainer.total_steps {
            run.log(&json!({
                "step": step,
                "epoch": epoch + 1,
                "loss": report.loss,
                "learning_rate": report.learning_rate,
                "gradient_norm": report.gradient_norm,
                "tokens_per_second": done as f64 / started.elapsed().as_secs_f64(),
            }))?;
        }
    }
    Ok((started.elapsed().as_secs_f64(), true))
}

/// The sequences of `rows`, column after column, and their classes.
fn batch(split: &Split, rows: &[usize]) -> (Vec<usize>, Vec<i64>) {
    let columns = 0..split.columns;
    let sequences =
        columns.flat_map(|column| rows.iter().map(move |&row| split.sequence(row, column)));
    let labels = rows
        .iter()
        .filter_map(|&row| split.labels.get(row).copied());
    (sequences.collect(), labels.collect())
}

/// The best epoch so far.
#[derive(Default)]
struct Best {
    epoch: Option<usize>,
    metrics: Option<Metrics>,
    weights: Option<Vec<candle_core::Tensor>>,
}

impl Best {
    /// Keeps `model`'s weights if `metrics` are strictly better than the best so far.
    fn offer(&mut self, model: &Model, epoch: usize, metrics: Metrics) -> Result<(), Error> {
        let best = self.metrics.as_ref().map(|best| best.selection().1);
        if best.is_none_or(|best| metrics.selection().1 > best) {
            self.weights = Some(model.parameters.snapshot()?);
            self.epoch = Some(epoch);
            self.metrics = Some(metrics);
        }
        Ok(())
    }
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => 0.0,
        count if count % 2 == 1 => numbers[middle],
        _ => f64::midpoint(numbers[middle - 1], numbers[middle]),
    }
}

impl Summary {
    /// By the names of the contract; `peak_rss_bytes` and `run` are the caller's to add.
    pub fn to_json(&self) -> Map<String, Value> {
        let metrics =
            |metrics: &Option<Metrics>| metrics.as_ref().map_or_else(Map::new, Metrics::to_json);
        let value = json!({
            "epochs": self.epochs,
            "steps": self.steps,
            "seconds": self.seconds,
            "epoch_seconds": self.epoch_seconds,
            "tokens_per_second": self.tokens_per_second,
            "trainable_parameters": self.trainable_parameters,
            "best_epoch": self.best_epoch,
            "valid": metrics(&self.valid),
            "test": metrics(&self.test),
        });
        match value {
            Value::Object(map) => map,
            _ => unreachable!("an object"),
        }
    }
}
