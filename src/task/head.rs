//! What stands on top of the pooled vectors: the seam between a model and what it learns. A new
//! head is a file with an implementation of [`Head`], and a line in [`HeadSettings`].

use candle_core::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::classify::Classifier;
use super::clone::CloneForm;
use super::concat::Concat;
use super::contrast::Contrast;
use super::cosine::Cosine;
use super::language_head::LanguageHead;
use super::search::Matcher;
use super::text_metrics::TextTask;
use super::{CrossEntropy, Encoding, Error, Labels, Metrics, Objective};
use crate::checkpoint::{
    self, Checkpoint, EncoderConfig, Freeze, HeadInput, Linear, Norm, SequenceHead,
};
use crate::targets::Targets;
use crate::trainable::{Gradients, Parameters, Pass, Pooling, Weight};

/// Which head, and how it was set; kept with a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "head", rename_all = "lowercase")]
pub enum HeadSettings {
    /// Dropout, a linear layer.
    Linear {
        /// How many classes, or outputs.
        classes: usize,
        /// What they stand for.
        #[serde(default)]
        objective: Objective,
    },
    /// What transformers' `…ForSequenceClassification` has in the model's family.
    HuggingFace {
        /// How many classes, or outputs.
        classes: usize,
        /// What they stand for.
        #[serde(default)]
        objective: Objective,
    },
    /// Unit vectors; of a batch, each query's code is to be told from the others.
    Match {
        /// Queries whose code ranks lower count 0 in the mean reciprocal rank.
        rank_limit: Option<usize>,
    },
    /// The cosine of a pair, by its squared distance from the label.
    Cosine {
        /// Pairs above it are clones.
        threshold: f64,
        /// Whether the threshold is chosen on the validation split.
        tuned: bool,
    },
    /// A classifier over a pair's vectors side by side.
    Concat,
    /// Unit vectors; those of one group are to be told from all others.
    Contrast,
    /// The matrix from states to words.
    Language {
        /// What is written.
        task: TextTask,
        /// Whether it is trained though the embeddings are not.
        train_head: bool,
    },
}

impl HeadSettings {
    /// The usual head for what `encoding` makes of records, of the classes `labels` if there are
    /// any: what runs have that do not say.
    pub fn usual(encoding: &Encoding, labels: Option<&Labels>) -> Self {
        match encoding {
            Encoding::Classify { objective, .. } => Self::Linear {
                classes: match objective {
                    Objective::Regression => 1,
                    _ => labels.map_or(0, Labels::count),
                },
                objective: *objective,
            },
            Encoding::Search(_) => Self::Match { rank_limit: None },
            Encoding::Clone(clone) => match clone.form {
                CloneForm::Pairs => Self::Cosine {
                    threshold: 0.5,
                    tuned: false,
                },
                CloneForm::Groups => Self::Contrast,
            },
            Encoding::Summarize(_) | Encoding::Generate(_) | Encoding::Complete(_) => {
                Self::Language {
                    task: encoding.text().map_or(TextTask::Generate, |(task, _)| task),
                    train_head: false,
                }
            }
        }
    }

    /// The same classifier with the head of the model's family; none of what is no classifier.
    pub fn of_family(&self) -> Option<Self> {
        match *self {
            Self::Linear { classes, objective } | Self::HuggingFace { classes, objective } => {
                Some(Self::HuggingFace { classes, objective })
            }
            _ => None,
        }
    }

    /// How a sequence becomes one vector unless told otherwise, in the model of `config`.
    pub fn default_pooling(&self, config: &EncoderConfig) -> Pooling {
        match self {
            Self::HuggingFace { .. } => match config.head.reads {
                HeadInput::FirstToken => Pooling::Cls,
                HeadInput::MeanOfTokens => Pooling::Mean,
            },
            Self::Linear { .. } | Self::Concat => Pooling::Cls,
            Self::Match { .. } | Self::Cosine { .. } | Self::Contrast => Pooling::Mean,
            Self::Language { .. } => Pooling::Scored,
        }
    }

    /// Whether it can stand on vectors of `pooling` in the model of `config`: most families' own
    /// classifiers read the first token and nothing else.
    pub fn takes(&self, pooling: Pooling, config: &EncoderConfig) -> bool {
        let own = config.sequence_head();
        if (pooling == Pooling::Scored) != matches!(self, Self::Language { .. }) {
            return false;
        }
        let chosen = own.is_some_and(|head| head.fields.reads.is_some());
        chosen || pooling == Pooling::Cls || !matches!(self, Self::HuggingFace { .. })
    }

    /// A fresh head; what it trains is added to the builder's parameters.
    pub(super) fn build(&self, builder: &mut HeadBuilder) -> Result<Box<dyn Head>, Error> {
        Ok(match self {
            Self::Linear { classes, objective } => {
                Box::new(Classifier::linear(builder, *classes, *objective)?)
            }
            Self::HuggingFace { classes, objective } => {
                Box::new(Classifier::hugging_face(builder, *classes, *objective)?)
            }
            Self::Match { rank_limit } => Box::new(Matcher {
                rank_limit: *rank_limit,
            }),
            Self::Cosine { threshold, tuned } => Box::new(Cosine {
                threshold: *threshold,
                tuned: *tuned,
            }),
            Self::Concat => Box::new(Concat::new(builder)?),
            Self::Contrast => Box::new(Contrast),
            Self::Language { task, train_head } => {
                Box::new(LanguageHead::new(builder, *task, *train_head)?)
            }
        })
    }
}

/// A score for each row, where it has one.
pub type RowScores = Vec<Option<f64>>;

/// A head: from the pooled vectors of a row to a loss, predictions and metrics.
///
/// A row has one or more columns, the sequences that it is made of. `columns` holds a matrix
/// `[rows, hidden]` for each, put out by [`embed`](Self::embed).
pub trait Head: Send + Sync {
    /// How to make it again.
    fn settings(&self) -> HeadSettings;

    /// What is made of pooled vectors `[sequences, hidden]` whichever column they stand in.
    fn embed(&self, pooled: &Tensor) -> Result<Tensor, Error>;

    /// The mean loss over the rows of a batch, a scalar.
    fn loss(&self, columns: &[Tensor], targets: &Targets, pass: &Pass) -> Result<Tensor, Error>;

    /// The sum of the losses of `vectors` in nats, of a head whose rows do not look at each other.
    fn total_loss(
        &self,
        _vectors: &Tensor,
        _targets: &Targets,
        _pass: &Pass,
    ) -> Result<Option<f64>, Error> {
        Ok(None)
    }

    /// The mean loss of `vectors`, a scalar that nobody waits for yet, and `share` times its gradient
    /// with respect to them, of a head that computes both without candle's way back; those of its own
    /// parameters go to `gradients`.
    fn loss_and_gradient(
        &self,
        _vectors: &Tensor,
        (_targets, _share): (&Targets, f64),
        _pass: &Pass,
        _gradients: &mut Gradients,
    ) -> Option<Result<(Tensor, Tensor), Error>> {
        None
    }

    /// Numbers that it holds and does not train.
    fn frozen_numbers(&self) -> usize {
        0
    }

    /// What is written, of a head that writes text.
    fn task(&self) -> Option<TextTask> {
        None
    }

    /// What the rows come to.
    fn predict(&self, columns: &[Tensor], pass: &Pass) -> Result<Predictions, Error>;

    /// Logits `[rows, classes]` of a head that has classes.
    fn logits(&self, _columns: &[Tensor], _pass: &Pass) -> Result<Option<Tensor>, Error> {
        Ok(None)
    }

    /// How good that is on a whole split.
    fn metrics(&self, split: &EmbeddedSplit, pass: &Pass) -> Result<Metrics, Error>;

    /// Of each row of a whole split what the metric that chooses is the mean of; none of a row that does
    /// not count. Nothing of a head whose metric is no mean over rows.
    fn row_scores(&self, _split: &EmbeddedSplit, _pass: &Pass) -> Result<Option<RowScores>, Error> {
        Ok(None)
    }

    /// Its metrics of no rows at all, for their names.
    fn metrics_of_nothing(&self) -> Metrics;

    /// What a batch of `rows` rows weighs in the mean over several batches.
    fn weight(&self, _targets: &Targets, rows: usize) -> f64 {
        rows as f64
    }

    /// Classes of a classifier of one class a row.
    fn classes(&self) -> Option<usize> {
        None
    }

    /// Weighs and smooths classes in training, where there are any.
    fn learn_by(&mut self, _criterion: CrossEntropy) {}

    /// Whether each row of a batch is to come with another row of its class, as a second column.
    fn needs_partners(&self) -> bool {
        false
    }

    /// Chooses on the validation split what is not learnt by gradients.
    fn tune(&mut self, _split: &EmbeddedSplit, _pass: &Pass) -> Result<(), Error> {
        Ok(())
    }

    /// Takes up what was chosen when `metrics` were measured.
    fn adopt(&mut self, _metrics: &Metrics) {}
}

/// What rows come to.
pub enum Predictions {
    /// A probability a class, `[rows, classes]`.
    Probabilities(Tensor),
    /// A probability for each label by itself, `[rows, labels]`.
    Labels(Tensor),
    /// A number a row.
    Numbers(Vec<f32>),
    /// The vectors themselves, `[rows, hidden]`.
    Vectors(Tensor),
    /// Of pairs.
    Pairs {
        /// What a threshold is put to.
        scores: Vec<f32>,
        /// Whether each is above it.
        clones: Vec<bool>,
    },
}

/// A split run through the model.
pub struct EmbeddedSplit<'a> {
    /// For each column, `[rows, hidden]`.
    pub columns: Vec<Tensor>,
    /// For each column the number of each row's sequence: equal sequences have equal numbers.
    pub sequences: Vec<Vec<usize>>,
    /// What the rows are to come to.
    pub targets: &'a Targets,
    /// What the rows are to be found among, if that is not another of their columns.
    pub candidates: Option<Candidates>,
}

/// What rows are searched in; their targets are places among them.
pub struct Candidates {
    /// `[candidates, hidden]`.
    pub vectors: Tensor,
    /// The number of each one's sequence.
    pub sequences: Vec<usize>,
}

/// What a fresh head is made from.
pub(super) struct HeadBuilder<'a> {
    parameters: &'a mut Parameters,
    checkpoint: &'a Checkpoint,
    pub(super) freeze: Freeze,
    random: ChaCha8Rng,
}

impl<'a> HeadBuilder<'a> {
    /// For a head on top of `checkpoint`, drawn with `seed`.
    pub(super) fn new(
        parameters: &'a mut Parameters,
        checkpoint: &'a Checkpoint,
        freeze: Freeze,
        seed: u64,
    ) -> Self {
        Self {
            parameters,
            checkpoint,
            freeze,
            random: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Numbers of a pooled vector.
    pub(super) fn hidden(&self) -> usize {
        self.checkpoint.config.hidden_size
    }

    /// Dropout probability of the head.
    pub(super) fn dropout(&self) -> f64 {
        self.checkpoint.config.dropout.head
    }

    /// A linear layer under the names `name.weight` `[outputs, inputs]`, drawn normal with the
    /// checkpoint's `initializer_range`, and `name.bias` `[outputs]`, 0.
    pub(super) fn linear(
        &mut self,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<(Weight, Weight), Error> {
        let weight = self.normal(outputs * inputs);
        let parameters = &mut *self.parameters;
        Ok((
            parameters.add(&format!("{name}.weight"), &[outputs, inputs], weight)?,
            parameters.add(&format!("{name}.bias"), &[outputs], vec![0.0; outputs])?,
        ))
    }

    /// What turns the last states into logits.
    pub(super) fn language_head(&self) -> checkpoint::LanguageHead {
        self.checkpoint.config.language_head()
    }

    /// The handle of a parameter that is there already.
    pub(super) fn parameter(&self, name: &str) -> Option<Weight> {
        self.parameters.handle(name)
    }

    /// The checkpoint's matrix `name` `[vocabulary, hidden]` as the parameter `own`.
    pub(super) fn own_matrix(&mut self, name: &str, own: &str) -> Result<Weight, Error> {
        let shape = self.matrix_shape();
        // A run's own is read back under its own name.
        let weights = &self.checkpoint.weights;
        let values = match weights.check(own, &shape) {
            Ok(()) => weights.tensor(own, &shape)?,
            Err(_) => weights.tensor(name, &shape)?,
        };
        Ok(self.parameters.add(own, &shape, values)?)
    }

    /// The checkpoint's matrix `name` `[vocabulary, hidden]`, not to be trained.
    pub(super) fn frozen_matrix(&self, name: &str) -> Result<Tensor, Error> {
        let shape = self.matrix_shape();
        let values = self.checkpoint.weights.tensor(name, &shape)?;
        let matrix = Tensor::from_vec(values, &shape[..], self.parameters.device());
        Ok(matrix.map_err(crate::trainable::Error::from)?)
    }

    fn matrix_shape(&self) -> [usize; 2] {
        let config = &self.checkpoint.config;
        [config.vocabulary_size, config.hidden_size]
    }

    /// The classifier of the model's family.
    pub(super) fn sequence_head(&self) -> Option<SequenceHead> {
        self.checkpoint.config.sequence_head()
    }

    /// That its activation is none that Telly computes.
    pub(super) fn unknown_activation(&self) -> checkpoint::Error {
        self.checkpoint.unknown_activation()
    }

    /// Added to the variance in a LayerNorm.
    pub(super) fn epsilon(&self) -> f64 {
        self.checkpoint.config.layer_norm_epsilon
    }

    /// A linear layer with the checkpoint's own values where it has all of its tensors; else its
    /// weight is drawn as that of [`linear`](Self::linear), and a bias is 0.
    pub(super) fn pretrained(
        &mut self,
        linear: &Linear,
    ) -> Result<(Weight, Option<Weight>), Error> {
        self.own_or(linear.tensors().collect(), Self::normal)
    }

    /// As [`pretrained`](Self::pretrained), a LayerNorm: else its weight is 1.
    pub(super) fn norm(&mut self, norm: &Norm) -> Result<(Weight, Option<Weight>), Error> {
        let tensors = norm.tensors(self.hidden()).collect();
        self.own_or(tensors, |_, count| vec![1.0; count])
    }

    /// The checkpoint's `tensors`, a weight and perhaps a bias; if it lacks one of them, `weight`
    /// and zeros.
    fn own_or(
        &mut self,
        tensors: Vec<(String, Vec<usize>)>,
        weight: impl Fn(&mut Self, usize) -> Vec<f32>,
    ) -> Result<(Weight, Option<Weight>), Error> {
        let weights = &self.checkpoint.weights;
        let missing = tensors.iter().any(|(name, shape)| {
            matches!(
                weights.check(name, shape),
                Err(checkpoint::Error::MissingTensor { .. })
            )
        });
        let mut tensor = |(name, shape): (String, Vec<usize>), is_bias: bool| {
            if !missing {
                return self.parameters.load(weights, &name, &shape);
            }
            let count = shape.iter().product();
            let values = if is_bias {
                vec![0.0; count]
            } else {
                weight(self, count)
            };
            self.parameters.add(&name, &shape, values)
        };
        let mut tensors = tensors.into_iter();
        let first = tensors.next();
        let first = first.unwrap_or_else(|| unreachable!("every layer has a weight"));
        let made = tensor(first, false)?;
        let bias = tensors.next().map(|bias| tensor(bias, true));
        Ok((made, bias.transpose()?))
    }

    fn normal(&mut self, count: usize) -> Vec<f32> {
        let config = &self.checkpoint.config;
        config.fresh_weights(&mut self.random, count)
    }
}
