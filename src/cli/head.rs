//! Flags that say what stands on top of the pooled vectors.

use std::str::FromStr;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::task::foreign_flag;
use crate::checkpoint::EncoderConfig;
use crate::error::Error;
use crate::task::{Encoding, HeadSettings, Labels};
use crate::trainable::Pooling;

/// Which head, and how it judges.
#[derive(Args, Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct HeadOptions {
    /// classify: linear, a layer on the pooled vector, or huggingface, what transformers has in the
    /// model's family, as BERT's pooler with its weights [default: linear]. clone by pairs: cosine
    /// learns the cosine of two vectors by its squared distance from the label, as the paper does;
    /// concat puts CodeXGLUE's classifier on both [default: cosine].
    #[arg(long, value_enum, help_heading = "Training")]
    pub head: Option<HeadChoice>,
    /// summarize, generate, complete: train the matrix from states to words too, apart from the frozen
    /// embeddings where it was the same.
    #[arg(long, help_heading = "Training")]
    #[serde(default)]
    pub train_head: bool,
    #[command(flatten)]
    #[serde(flatten)]
    pub judgement: JudgementOptions,
}

/// How a head judges, which a finished run can be told anew.
#[derive(Args, Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct JudgementOptions {
    /// clone by cosine: pairs above it are clones; tuned, in training: the one with the highest F1
    /// on the validation split [default: 0.5].
    #[arg(
        long,
        value_name = "COSINE",
        help_heading = "Task",
        allow_negative_numbers = true
    )]
    pub threshold: Option<Threshold>,
    /// search: a rank beyond it counts 0 in the mean reciprocal rank; 1000 in the paper [default:
    /// none].
    #[arg(long, value_name = "RANK", help_heading = "Task")]
    pub rank_limit: Option<usize>,
}

/// `--head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum HeadChoice {
    /// Dropout and a linear layer.
    Linear,
    /// What transformers' `…ForSequenceClassification` has in the model's family.
    #[value(name = "huggingface")]
    HuggingFace,
    /// The cosine of two vectors.
    Cosine,
    /// A classifier over both.
    Concat,
}

/// `--threshold`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Threshold {
    /// This cosine.
    At(f64),
    /// Chosen on the validation split.
    Tuned(Tuned),
}

/// The word that a recipe has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tuned {
    Tuned,
}

impl FromStr for Threshold {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse::<f64>()) {
            ("tuned", _) => Ok(Self::Tuned(Tuned::Tuned)),
            (_, Ok(cosine)) if (-1.0..=1.0).contains(&cosine) => Ok(Self::At(cosine)),
            _ => Err("expected a cosine from -1 to 1, or `tuned`"),
        }
    }
}

impl HeadOptions {
    /// The head that is meant for what `encoding` makes of records.
    pub(super) fn settings(
        &self,
        encoding: &Encoding,
        labels: Option<&Labels>,
    ) -> Result<HeadSettings, Error> {
        let mut usual = HeadSettings::usual(encoding, labels);
        match &mut usual {
            HeadSettings::Language { train_head, .. } => *train_head = self.train_head,
            _ if self.train_head => return Err(foreign_flag("--train-head", encoding.task())),
            _ => {}
        }
        let of_pairs = matches!(usual, HeadSettings::Cosine { .. });
        let head = match (self.head, usual.of_family()) {
            (None, _) | (Some(HeadChoice::Linear), Some(_)) => usual,
            (Some(HeadChoice::HuggingFace), Some(of_family)) => of_family,
            (Some(HeadChoice::Cosine), _) if of_pairs => usual,
            (Some(HeadChoice::Concat), _) if of_pairs => HeadSettings::Concat,
            (Some(_), _) => {
                return Err(Error::Usage {
                    problem: "this `--head` is of another task".into(),
                    hint: "`linear` and `huggingface` are of `--task classify`, `cosine` and `concat` of `--task clone` with two functions a record".into(),
                });
            }
        };
        self.judgement.over(head, encoding)
    }
}

impl JudgementOptions {
    /// `head` as it is to judge.
    pub(super) fn over(
        &self,
        head: HeadSettings,
        encoding: &Encoding,
    ) -> Result<HeadSettings, Error> {
        Ok(match (head, self.rank_limit, self.threshold) {
            (HeadSettings::Match { rank_limit }, limit, None) => {
                if limit == Some(0) {
                    return Err(Error::Usage {
                        problem: "`--rank-limit 0` leaves no rank that counts".into(),
                        hint: "pass at least 1, or leave the flag out".into(),
                    });
                }
                HeadSettings::Match {
                    rank_limit: limit.or(rank_limit),
                }
            }
            (HeadSettings::Cosine { .. }, None, Some(Threshold::At(threshold))) => {
                HeadSettings::Cosine {
                    threshold,
                    tuned: false,
                }
            }
            (HeadSettings::Cosine { threshold, .. }, None, Some(Threshold::Tuned(_))) => {
                HeadSettings::Cosine {
                    threshold,
                    tuned: true,
                }
            }
            (HeadSettings::Concat, None, Some(_)) => {
                return Err(Error::Usage {
                    problem: "`--threshold` is a cosine, and `--head concat` has none".into(),
                    hint: "leave it out: a pair is a clone if that is likelier than not".into(),
                });
            }
            (head, None, None) => head,
            (_, Some(_), _) => return Err(foreign_flag("--rank-limit", encoding.task())),
            (_, None, Some(_)) => return Err(foreign_flag("--threshold", encoding.task())),
        })
    }
}

/// Refuses a `pooling` that `head` cannot stand on in the model of `config`.
pub(super) fn check_pooling(
    pooling: Option<Pooling>,
    head: &HeadSettings,
    config: &EncoderConfig,
) -> Result<(), Error> {
    if pooling.is_none_or(|pooling| head.takes(pooling, config)) {
        return Ok(());
    }
    let (problem, hint) = match head {
        HeadSettings::Language { .. } => (
            "`--pooling` makes one vector of a text, and this task writes one",
            "leave it out",
        ),
        _ => (
            "`--head huggingface` reads the first token in this model's family",
            "leave `--pooling` out, or use `--head linear`",
        ),
    };
    Err(Error::Usage {
        problem: problem.into(),
        hint: hint.into(),
    })
}
