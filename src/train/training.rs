//! The loop.

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use candle_core::Tensor;
use serde_json::json;

use super::batches::with_batches;
use super::checkpoint::{BestEpoch, Position, StateTensor, TrainingState};
use super::evaluation::{embed_split, evaluate};
use super::memory::part_limit;
use super::summary::{Summary, median};
use super::trainer::{StepReport, Trainer, named};
use super::{
    CachedActivations, EpochOrder, Error, Lengths, RunFolder, TrainSettings, TrainingShape,
    WriteTexts, draw_partners, score_texts, with_partners,
};
use crate::cache::{Cache, Split};
use crate::estimate::Place;
use crate::progress::Progress;
use crate::task::text_metrics::TextTask;
use crate::task::{Batch, Metrics, Model, Role};
use crate::trainable::{Part, Profile, Stage, stage_for};
use crate::{cuda, interrupt};

/// The split that chooses what is kept.
const VALID: &str = "valid";
/// The kind of the kept weights in a checkpoint.
const BEST: &str = "best";

/// How a run ended.
pub enum Outcome {
    /// All epochs are trained; the model has the weights that were kept.
    Finished(Model, Box<Summary>),
    /// Ctrl-C. A checkpoint is written; the model has the best epoch's weights, or those of the
    /// last step when no epoch has been evaluated.
    Interrupted(Model, Box<Position>),
}

/// Trains `model`, which shares each batch with `replicas`, from `cache`, evaluates each epoch on the
/// validation split if there is one, and every `evaluate_every` steps, keeps the best weights, stops
/// early if it is told to and they get no better, and evaluates them on the test split. Writes every step's and every
/// evaluation's figures to `run`, and a checkpoint after each epoch, every
/// `checkpoint_seconds`, and on Ctrl-C. With `state` it goes on from there, to the same weights
/// as a run that was never stopped. Of a task that writes text, `writer` writes the texts of
/// `decode_samples` rows at each evaluation.
pub fn train(
    (model, replicas): (Model, Vec<Model>),
    cache: &Cache,
    settings: &TrainSettings,
    run: &mut RunFolder,
    (state, writer): (Option<TrainingState>, Option<&mut WriteTexts>),
) -> Result<Outcome, Error> {
    let split = |name: &str| cache.split(name);
    let training = split("train")?.ok_or_else(|| crate::cache::Error::NoSplit {
        folder: cache.folder().to_owned(),
        split: "train".into(),
    })?;
    let (valid, test) = (split("valid")?, split("test")?);
    settings.check(&model, valid.is_some())?;
    let code_base = split(Role::CODE_BASE)?;
    let models = (model, replicas);
    let mut training = Training::new(models, cache, training, settings, run, valid.is_some())?;
    training.code_base = code_base;
    training.writer = writer;
    if let Some(state) = state {
        training.restore(state)?;
    }
    match training.run(valid.as_ref(), test.as_ref()) {
        Ok(summary) => Ok(Outcome::Finished(training.trainer.model, Box::new(summary))),
        Err(Error::Interrupted) => {
            training.checkpoint()?;
            training.restore_best()?;
            Ok(Outcome::Interrupted(
                training.trainer.model,
                Box::new(training.position),
            ))
        }
        Err(error) => Err(error),
    }
}

/// What a run of `model` over `rows` is about.
fn shape(
    model: &Model,
    settings: &TrainSettings,
    rows: &Split,
    cache: &Cache,
    keeps_best: bool,
) -> Result<TrainingShape, Error> {
    let device = model.parameters.device();
    let footprint = model.footprint().clone();
    Ok(TrainingShape {
        head: model.parameters.count() - footprint.parameters,
        frozen_head: model.frozen_head_numbers(),
        footprint,
        lengths: Lengths::of(rows.rows.iter().map(|&sequence| cache.length(sequence))),
        batch_size: settings.batch_size,
        columns: rows.columns,
        rows: Some(rows.len()),
        pooling: settings.pooling,
        mixed_precision: settings.mixed_precision,
        recompute: settings.recompute,
        keeps_best,
        replicas: 0,
        ops: settings.ops_on(device)?,
        place: if device.is_cpu() {
            Place::Cpu
        } else {
            Place::Cuda
        },
        threads: rayon::current_num_threads(),
    })
}

/// A run under way.
struct Training<'a, 'w> {
    trainer: Trainer,
    stage: Arc<dyn Stage>,
    cache: &'a Cache,
    split: Arc<Split>,
    /// The current epoch's rows: those of `split`, with partners if the head needs them.
    rows: Arc<Split>,
    code_base: Option<Split>,
    writer: Option<&'a mut WriteTexts<'w>>,
    run: &'a mut RunFolder,
    position: Position,
    best_weights: Option<Vec<Tensor>>,
    /// When `position.seconds` was last brought up to date.
    clock: Instant,
    last_checkpoint: Instant,
}

impl<'a> Training<'a, '_> {
    fn new(
        (model, replicas): (Model, Vec<Model>),
        cache: &'a Cache,
        split: Split,
        settings: &TrainSettings,
        run: &'a mut RunFolder,
        keeps_best: bool,
    ) -> Result<Self, Error> {
        let mut split = Arc::new(split);
        let mut rows = Arc::clone(&split);
        if model.needs_partners() {
            split = Arc::new(with_partners(&split));
            rows = Arc::new(draw_partners(&split, settings.seed, 0));
        }
        let batches = split.len().div_ceil(settings.batch_size);
        let steps = batches.div_ceil(settings.gradient_accumulation) * settings.epochs;
        let now = Instant::now();
        let criterion = settings.criterion(&model, &split.targets)?;
        let model = model.learning_by(criterion);
        let mut shape = shape(&model, settings, &rows, cache, keeps_best)?;
        if shape.place == Place::Cpu {
            shape.replicas = replicas.len();
        }
        let mut micro_batch = part_limit(
            &shape,
            settings,
            cuda::free_bytes(model.parameters.device()),
        )?;
        if micro_batch.tokens < usize::MAX {
            micro_batch.tokens /= 1 + shape.replicas;
        }
        let mut trainer = Trainer::new(model, settings.clone(), steps)?.with_replicas(replicas)?;
        trainer.micro_batch = micro_batch;
        Ok(Self {
            stage: stage_for(&trainer.devices())?.into(),
            trainer,
            cache,
            split,
            rows,
            code_base: None,
            writer: None,
            run,
            position: Position {
                settings: settings.clone(),
                cache: cache.identity(),
                step: 0,
                epoch: 0,
                batch: 0,
                epoch_seconds: Vec::new(),
                seconds: 0.0,
                best: None,
                evaluated: 0,
                without_better: 0,
                loss_scaler: None,
                metrics_bytes: 0,
                tensorboard_bytes: 0,
            },
            best_weights: None,
            clock: now,
            last_checkpoint: now,
        })
    }

    fn restore(&mut self, state: TrainingState) -> Result<(), Error> {
        state.position.check(&self.position, self.run.path())?;
        self.trainer.restore(&state)?;
        if state.position.best.is_some() {
            let best = named(&self.trainer.model.parameters, BEST, &state);
            self.best_weights = Some(best.collect::<Result<_, _>>()?);
        }
        self.position = Position {
            settings: self.trainer.settings().clone(),
            ..state.position
        };
        Ok(())
    }

    /// The remaining epochs, then the test split.
    fn run(&mut self, valid: Option<&Split>, test: Option<&Split>) -> Result<Summary, Error> {
        let epochs = self.trainer.settings().epochs;
        while self.position.epoch < epochs && self.reason_to_stop().is_none() {
            let whole = self.train_epoch(valid)?;
            if let Some(valid) = valid.filter(|_| whole) {
                self.validate(valid)?;
            }
            if whole {
                self.position.epoch += 1;
                self.position.batch = 0;
            }
            self.checkpoint()?;
        }
        self.restore_best()?;
        let trained = self.position.epoch + usize::from(self.position.batch > 0);
        let best = self.position.best.as_ref();
        let best_epoch = best.map_or(trained, |best| best.epoch);
        let best_step = best.map_or(self.position.step, |best| best.step);
        let test = test.map(|test| self.evaluate(test, "test", best_epoch));
        let test = test.transpose()?;
        self.tick();
        let epoch_seconds = self.epoch_seconds();
        Ok(Summary {
            epochs: trained,
            steps: self.trainer.steps(),
            seconds: self.position.seconds,
            epoch_seconds,
            tokens_per_second: self.tokens() as f64 / epoch_seconds,
            tokens_at_a_time: Some(self.trainer.micro_batch.tokens)
                .filter(|&most| most < usize::MAX),
            trainable_parameters: self.trainer.model.parameters.count(),
            valid: self.position.best.clone().map(|best| best.metrics),
            test,
            best_epoch,
            best_step,
            stopped: self.reason_to_stop(),
        })
    }

    /// The median time of the whole epochs; if the first was broken off, what it would have taken.
    fn epoch_seconds(&self) -> f64 {
        let times = &self.position.epoch_seconds;
        match self.position.epoch {
            0 => {
                let batch_size = self.trainer.settings().batch_size;
                let batches = self.split.len().div_ceil(batch_size);
                median(times) * batches as f64 / self.position.batch.max(1) as f64
            }
            whole => median(&times[..whole.min(times.len())]),
        }
    }

    /// What is left of the current epoch; false if training is to stop within it.
    fn train_epoch(&mut self, valid: Option<&Split>) -> Result<bool, Error> {
        let settings = self.trainer.settings().clone();
        let epoch = self.position.epoch;
        if self.trainer.model.needs_partners() {
            self.rows = Arc::new(draw_partners(&self.split, settings.seed, epoch));
        }
        let (cache, split) = (self.cache, Arc::clone(&self.rows));
        let stage = Arc::clone(&self.stage);
        let pattern = self.trainer.model.attention_pattern();
        let order = EpochOrder::new(settings.shuffle, cache, &split, settings.seed, epoch);
        let batches = order.batches(settings.batch_size);
        self.position.epoch_seconds.resize(epoch + 1, 0.0);
        let label = format!("epoch {}/{}", epoch + 1, settings.epochs);
        let mut progress = Progress::new(&label, self.tokens() as u64, "tokens");
        let before = batches[..self.position.batch].concat();
        progress.skip(self.tokens_of(&before) as u64);
        let left = &batches[self.position.batch..];
        with_batches(
            (cache, pattern, &*stage),
            &split,
            left,
            (&order, before.len()),
            |ahead| {
                let (mut tokens, mut seconds) = (0, 0.0);
                for group in left.chunks(settings.gradient_accumulation) {
                    if let Some(valid) = valid.filter(|_| self.is_evaluation_due()) {
                        self.validate(valid)?;
                        if self.reason_to_stop().is_some() {
                            return Ok(false);
                        }
                    }
                    if interrupt::requested() {
                        return Err(Error::Interrupted);
                    }
                    let step_started = Instant::now();
                    let report = self.step(group, &ahead)?;
                    let step_time = step_started.elapsed();
                    self.profile().add_step(step_time);
                    self.position.epoch_seconds[epoch] += step_time.as_secs_f64();
                    let step_tokens = self.tokens_of(&group.concat());
                    tokens += step_tokens;
                    seconds += step_time.as_secs_f64();
                    progress.set_message(format!("loss {:.4}", report.loss));
                    progress.advance(step_tokens as u64);
                    self.log_step(epoch, report, tokens as f64 / seconds)?;
                    let interval = Duration::from_secs(settings.checkpoint_seconds);
                    if self.last_checkpoint.elapsed() >= interval {
                        self.checkpoint()?;
                    }
                }
                Ok(true)
            },
        )
    }

    /// One step over the batches of `group`, which come out of `ahead`.
    fn step(
        &mut self,
        group: &[Vec<usize>],
        ahead: &Receiver<Result<Batch, Error>>,
    ) -> Result<StepReport, Error> {
        let weight = |rows: &Vec<usize>| {
            let targets = self.rows.targets.of_rows(rows);
            self.trainer.model.weight(&targets, rows.len())
        };
        let weights: Vec<f64> = group.iter().map(weight).collect();
        let all: f64 = weights.iter().sum();
        for weight in weights {
            let wait = || ahead.recv().unwrap_or(Err(Error::Interrupted));
            let batch = self.profile().time(Part::DataWait, wait)?;
            self.trainer.accumulate(batch, weight / all)?;
        }
        let report = self.trainer.update()?;
        self.position.step += 1;
        self.position.batch += group.len();
        Ok(report)
    }

    /// A line for this step, if it is one of those that are logged.
    fn log_step(
        &mut self,
        epoch: usize,
        report: StepReport,
        tokens_per_second: f64,
    ) -> Result<(), Error> {
        let step = self.position.step;
        let log_every = self.trainer.settings().log_every;
        if !step.is_multiple_of(log_every) && step != self.trainer.total_steps() {
            return Ok(());
        }
        let mut line = json!({
            "step": step,
            "epoch": epoch + 1,
            "loss": report.loss,
            "learning_rate": report.learning_rate,
            "gradient_norm": report.gradient_norm,
            "tokens_per_second": tokens_per_second,
        });
        if let Some(scale) = report.loss_scale {
            line["loss_scale"] = json!(scale);
            line["skipped"] = json!(report.skipped);
        }
        self.run.log(&line)
    }

    fn evaluate(&mut self, split: &Split, name: &str, epoch: usize) -> Result<Metrics, Error> {
        let mut activations = CachedActivations {
            cache: self.cache,
            pattern: self.trainer.model.attention_pattern(),
        };
        if let Some(task) = self.trainer.model.text_task() {
            let metrics = self.profile().time_apart(Part::Evaluation, || {
                evaluate(&self.trainer.model, &mut activations, split, None, name)
            })?;
            // Nothing may be scored of rows that are all cut before their answers.
            if self.trainer.model.weight(&split.targets, split.len()) > 0.0 {
                self.check_loss(&metrics)?;
            }
            let metrics = self.with_texts(task, split, metrics)?;
            self.log_metrics(name, epoch, &metrics)?;
            return Ok(metrics);
        }
        let code_base = self.code_base.as_ref();
        let embedded = self.profile().time_apart(Part::Evaluation, || {
            embed_split(
                &self.trainer.model,
                &mut activations,
                split,
                code_base,
                name,
            )
        })?;
        let pass = self.trainer.model.evaluation();
        if name == VALID {
            self.trainer.model.tune(&embedded, &pass)?;
        }
        let metrics = self.profile().time_apart(Part::Evaluation, || {
            self.trainer.model.metrics(&embedded, &pass)
        })?;
        self.check_loss(&metrics)?;
        self.log_metrics(name, epoch, &metrics)?;
        Ok(metrics)
    }

    /// Refuses to go on with weights that the last step has made useless: the loss of the next one would
    /// tell, but there may be none.
    fn check_loss(&self, metrics: &Metrics) -> Result<(), Error> {
        let (step, loss) = (self.position.step, metrics.loss());
        if loss.is_finite() {
            Ok(())
        } else {
            Err(Error::Diverged { step, loss })
        }
    }

    /// `metrics` of the loss with those of the texts of the first rows of `split`, if they are wanted.
    fn with_texts(
        &mut self,
        task: TextTask,
        split: &Split,
        metrics: Metrics,
    ) -> Result<Metrics, Error> {
        let settings = self.trainer.settings();
        let rows = settings.decode_samples.unwrap_or_default();
        let Some(writer) = self.writer.as_deref_mut().filter(|_| rows > 0) else {
            return Ok(metrics);
        };
        let (cache, model) = (self.cache, &self.trainer.model);
        let ids = |sequence| cache.token_ids(&[sequence]).into_parts().0;
        let write = || score_texts(task, (split, rows), ids, |prompts| writer(model, prompts));
        let written = model.profile().time_apart(Part::Evaluation, write)?;
        Ok(Metrics::Text(written.with_loss(metrics.loss())))
    }

    fn log_metrics(&mut self, name: &str, epoch: usize, metrics: &Metrics) -> Result<(), Error> {
        self.run.log(&json!({
            "step": self.position.step,
            "epoch": epoch,
            "split": name,
            "metrics": metrics.to_json(),
        }))
    }

    /// Whether the validation split is to be evaluated before the next step.
    fn is_evaluation_due(&self) -> bool {
        let Position {
            step, evaluated, ..
        } = self.position;
        let every = self.trainer.settings().evaluate_every;
        every.is_some_and(|every| step > evaluated && step.is_multiple_of(every))
    }

    /// Evaluates the validation split, unless it has been after these very steps, and keeps the
    /// weights if they are strictly better than the best so far.
    fn validate(&mut self, valid: &Split) -> Result<(), Error> {
        let step = self.position.step;
        if self.position.evaluated == step {
            return Ok(());
        }
        let epoch = self.position.epoch + 1;
        let metrics = self.evaluate(valid, VALID, epoch)?;
        self.position.evaluated = step;
        let name = self.trainer.settings().best_metric.as_deref();
        let score = |metrics: &Metrics| metrics.score(name).unwrap_or(f64::NAN);
        let best = self.position.best.as_ref().map(|best| score(&best.metrics));
        let better = |best: f64| score(&metrics).partial_cmp(&best) == Some(Ordering::Greater);
        if best.is_some_and(|best| !best.is_nan() && !better(best)) {
            self.position.without_better += 1;
            return Ok(());
        }
        self.position.without_better = 0;
        // Not both at a time.
        self.best_weights = None;
        self.best_weights = Some(self.trainer.model.parameters.snapshot()?);
        self.position.best = Some(BestEpoch {
            epoch,
            step,
            metrics,
        });
        Ok(())
    }

    /// Why training is to stop before its last step, if it is.
    fn reason_to_stop(&self) -> Option<String> {
        let settings = self.trainer.settings();
        let patience = settings.early_stopping?;
        let best = self.position.best.as_ref()?;
        let left = self.trainer.total_steps() - self.position.step;
        (self.position.without_better >= patience && left > 0).then(|| {
            let name = settings.best_metric.as_deref();
            format!(
                "stopped early: no better {} in {patience} evaluations; the best is that of step {}, in epoch {}",
                name.unwrap_or(best.metrics.selection().0),
                best.step,
                best.epoch
            )
        })
    }

    fn restore_best(&mut self) -> Result<(), Error> {
        if let Some(weights) = &self.best_weights {
            self.trainer.model.parameters.restore(weights)?;
        }
        if let Some(best) = &self.position.best {
            self.trainer.model.adopt(&best.metrics);
        }
        Ok(())
    }

    /// Writes everything that the run needs to go on from here.
    fn checkpoint(&mut self) -> Result<(), Error> {
        self.tick();
        self.position.loss_scaler = self.trainer.loss_scaler().cloned();
        let mut tensors = self.trainer.tensors();
        if let Some(best) = &self.best_weights {
            let parameters = self.trainer.model.parameters.iter();
            let best = parameters.zip(best);
            tensors.extend(best.map(|(parameter, tensor)| {
                let name = format!("{BEST}/{}", parameter.name);
                (name, StateTensor::Tensor(tensor))
            }));
        }
        self.run.write_checkpoint(&mut self.position, tensors)?;
        self.last_checkpoint = Instant::now();
        Ok(())
    }

    fn profile(&self) -> &Profile {
        self.trainer.model.profile()
    }

    fn tick(&mut self) {
        self.position.seconds += self.clock.elapsed().as_secs_f64();
        self.clock = Instant::now();
    }

    /// Tokens of the training split, seen once.
    fn tokens(&self) -> usize {
        let lengths = self.rows.rows.iter();
        lengths.map(|&sequence| self.cache.length(sequence)).sum()
    }

    /// Tokens of `rows`.
    fn tokens_of(&self, rows: &[usize]) -> usize {
        let sequences = self.rows.sequences_of(rows).into_iter();
        sequences.map(|sequence| self.cache.length(sequence)).sum()
    }
}
