//! The trainable half with its head.

use candle_core::{Device, Tensor, Var};

use super::head::{EmbeddedSplit, Head, HeadBuilder, HeadSettings, Predictions, RowScores};
use super::text_metrics::TextTask;
use super::{CrossEntropy, Error, Metrics};
use crate::checkpoint::{AttentionPattern, Checkpoint, Freeze};
use crate::targets::Targets;
use crate::trainable::{
    self, EncoderInput, Footprint, Gradients, Ops, OpsChoice, Parameters, Part, PartLimit, Pass,
    Pooling, Profile, TrainableEncoder,
};

/// Some rows to learn from.
pub struct Batch {
    /// The sequences, each once.
    pub input: EncoderInput,
    /// For each sequence of the rows, column after column, its place in `input`.
    pub places: Vec<usize>,
    /// Sequences a row.
    pub columns: usize,
    /// What the rows are to come to.
    pub targets: Targets,
}

/// What is trained: top layers, head, and their parameters.
pub struct Model {
    /// Every trained tensor.
    pub parameters: Parameters,
    pub(super) encoder: TrainableEncoder,
    pub(super) pooling: Pooling,
    head: Box<dyn Head>,
    layers: usize,
    pattern: AttentionPattern,
    footprint: Footprint,
    ops: Ops,
}

impl Model {
    /// Loads the top layers that `freeze` leaves from `checkpoint` and draws a fresh head with
    /// `seed`: weights normal with the checkpoint's `initializer_range`, biases 0.
    pub fn new(
        checkpoint: &Checkpoint,
        freeze: Freeze,
        head: &HeadSettings,
        pooling: Pooling,
        seed: u64,
        device: &Device,
    ) -> Result<Self, Error> {
        let mut parameters = Parameters::new(device);
        let encoder = TrainableEncoder::load(checkpoint, freeze, &mut parameters)?;
        let mut builder = HeadBuilder::new(&mut parameters, checkpoint, freeze, seed);
        let head = head.build(&mut builder)?;
        Ok(Self {
            parameters,
            encoder,
            pooling,
            head,
            layers: checkpoint.config.layers,
            pattern: checkpoint.config.attention_pattern,
            footprint: Footprint::new(&checkpoint.config, freeze),
            ops: OpsChoice::Auto.resolve(device.is_cpu())?,
        })
    }

    /// Computes its layers by `ops`; by those that suit its device unless told so.
    #[must_use]
    pub fn run_by(mut self, ops: Ops) -> Self {
        self.ops = ops;
        self
    }

    /// What its layers are computed by.
    pub fn ops(&self) -> Ops {
        self.ops
    }

    /// A pass without dropout.
    pub fn evaluation(&self) -> Pass {
        Pass::evaluation(self.ops)
    }

    /// Weighs and smooths the classes of a classifier in training.
    #[must_use]
    pub fn learning_by(mut self, criterion: CrossEntropy) -> Self {
        self.head.learn_by(criterion);
        self
    }

    /// Puts what is trained in the place of the tensors of `checkpoint`, and the head beside them.
    pub fn replace_in(&self, checkpoint: &mut Checkpoint) -> Result<(), Error> {
        for parameter in self.parameters.iter() {
            let values = parameter.variable.flatten_all();
            let values = values.and_then(|flat| flat.to_vec1::<f32>());
            let values = values.map_err(trainable::Error::from)?;
            let shape = parameter.variable.dims();
            checkpoint.weights.replace(&parameter.name, shape, values);
        }
        Ok(())
    }

    /// Layers of the whole encoder, frozen ones among them.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// What [`metrics`](Self::metrics) are called.
    pub fn metric_names(&self) -> Vec<String> {
        self.head.metrics_of_nothing().names()
    }

    /// Whether there are [`row_scores`](Self::row_scores).
    pub fn has_row_scores(&self) -> bool {
        self.head.metrics_of_nothing().is_mean_over_rows()
    }

    /// Numbers that the head holds and does not train.
    pub fn frozen_head_numbers(&self) -> usize {
        self.head.frozen_numbers()
    }

    /// Classes of a classifier of one class a row.
    pub fn classes(&self) -> Option<usize> {
        self.head.classes()
    }

    /// What a batch of `rows` rows weighs in the mean over several batches.
    pub fn weight(&self, targets: &Targets, rows: usize) -> f64 {
        self.head.weight(targets, rows)
    }

    /// One vector a sequence, `[sequences, hidden]`, as the head makes it of the pooled one.
    pub fn embed(&self, input: EncoderInput, pass: &Pass) -> Result<Tensor, Error> {
        let packing = input.packing();
        let pooled = self.encoder.pool(input, packing, self.pooling, pass)?;
        self.from_pooled(&pooled.vectors)
    }

    /// What [`embed`](Self::embed) makes of pooled vectors `[sequences, hidden]`.
    pub fn from_pooled(&self, pooled: &Tensor) -> Result<Tensor, Error> {
        self.head.embed(pooled)
    }

    /// How a sequence becomes one vector.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// The sizes of what is trained, without the head.
    pub fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    /// Where the time of all passes so far went.
    pub fn profile(&self) -> &Profile {
        self.encoder.profile()
    }

    /// The mean loss over the rows of `batch`, and its `gradients`.
    pub fn gradients(
        &self,
        batch: Batch,
        pass: &Pass,
        limit: PartLimit,
        gradients: &mut Gradients,
    ) -> Result<f64, Error> {
        gradients.clear();
        let loss = self.add_gradients(&mut [], (batch, 1.0), pass, limit, gradients)?;
        Ok(f64::from(loss.to_scalar::<f32>()?))
    }

    /// The loss of pooled `vectors`, a scalar that nobody waits for yet, and the rows' share of its
    /// gradient with respect to them; those of the head's own parameters go to `gradients`.
    pub(super) fn head(
        &self,
        vectors: &Tensor,
        rows: Rows,
        pass: &Pass,
        gradients: &mut Gradients,
    ) -> Result<(Tensor, Tensor), Error> {
        self.profile().time(Part::Head, || {
            let targets = (rows.targets, rows.share);
            if let Some(found) = self
                .head
                .loss_and_gradient(vectors, targets, pass, gradients)
            {
                return found;
            }
            let vectors = Var::from_tensor(vectors)?;
            let columns = rows.columns_of(&self.head.embed(&vectors)?)?;
            let loss = self.head.loss(&columns, rows.targets, pass)?;
            let store = (&loss * rows.share)?.backward()?;
            gradients.add(&self.parameters, &store)?;
            let gradient = match store.get(vectors.as_tensor()) {
                Some(gradient) => gradient.clone(),
                None => vectors.zeros_like()?,
            };
            Ok((loss.detach(), gradient))
        })
    }

    /// What is written, of a model that writes text.
    pub fn text_task(&self) -> Option<TextTask> {
        self.head.task()
    }

    /// Which tokens of a sequence attend to which.
    pub fn attention_pattern(&self) -> AttentionPattern {
        self.pattern
    }

    /// The sum of the losses of the tokens that are scored in `batch`, in nats, and how many they are:
    /// of a model that writes text, without gradients. None of another one.
    pub fn total_loss(&self, batch: Batch, pass: &Pass) -> Result<Option<(f64, usize)>, Error> {
        let packing = batch.input.packing();
        let pooled = self
            .encoder
            .pool(batch.input, packing, self.pooling, pass)?;
        let sum = self
            .head
            .total_loss(&pooled.vectors, &batch.targets, pass)?;
        Ok(sum.map(|sum| (sum, batch.targets.scored())))
    }

    /// What rows come to. `columns` holds, for each column, the embedded `[rows, hidden]`.
    pub fn predict(&self, columns: &[Tensor], pass: &Pass) -> Result<Predictions, Error> {
        self.head.predict(columns, pass)
    }

    /// Logits `[rows, classes]` of those columns, if its head has classes.
    pub fn logits(&self, columns: &[Tensor], pass: &Pass) -> Result<Option<Tensor>, Error> {
        self.head.logits(columns, pass)
    }

    /// Metrics of one split.
    pub fn metrics(&self, split: &EmbeddedSplit, pass: &Pass) -> Result<Metrics, Error> {
        self.head.metrics(split, pass)
    }

    /// Of each row of one split what the metric that chooses is the mean of; none where it is no mean
    /// over rows.
    pub fn row_scores(
        &self,
        split: &EmbeddedSplit,
        pass: &Pass,
    ) -> Result<Option<RowScores>, Error> {
        self.head.row_scores(split, pass)
    }

    /// How to make its head again.
    pub fn head_settings(&self) -> HeadSettings {
        self.head.settings()
    }

    /// Whether each row of a batch is to come with another row of its class.
    pub fn needs_partners(&self) -> bool {
        self.head.needs_partners()
    }

    /// Chooses on the validation split what is not learnt by gradients.
    pub fn tune(&mut self, split: &EmbeddedSplit, pass: &Pass) -> Result<(), Error> {
        self.head.tune(split, pass)
    }

    /// Takes up what was chosen when `metrics` were measured.
    pub fn adopt(&mut self, metrics: &Metrics) {
        self.head.adopt(metrics);
    }
}

/// Which vectors a batch's rows are made of, and what they are to come to.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) places: &'a [usize],
    pub(super) columns: usize,
    pub(super) targets: &'a Targets,
    /// Of the mean over several batches.
    pub(super) share: f64,
}

impl Rows<'_> {
    /// For each column, `[rows, hidden]` out of `vectors` `[sequences, hidden]`.
    fn columns_of(&self, vectors: &Tensor) -> Result<Vec<Tensor>, Error> {
        let columns = self.places.chunks(self.places.len() / self.columns);
        let columns = columns.map(|places| {
            #[allow(clippy::cast_possible_truncation)] // A batch holds far fewer than 2³².
            let places = places.iter().map(|&place| place as u32);
            let places = Tensor::from_iter(places, vectors.device())?;
            Ok(vectors.index_select(&places, 0)?)
        });
        columns.collect()
    }
}
