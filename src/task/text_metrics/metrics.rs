//! What is reported of a generative task.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{TextTask, perplexity};

/// The metrics of a generative task on one split; none is there that the task does not report.
/// Shares are in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TextMetrics {
    /// The task, which says what BLEU is.
    pub task: TextTask,
    /// BLEU-4, 0 to 100: of `summarize` the mean of smoothed sentence BLEU, of `generate` corpus BLEU.
    pub bleu: Option<f64>,
    /// Exact match: share of hypotheses with the words of their reference, 0 to 100.
    pub em: Option<f64>,
    /// Mean edit similarity by `difflib`, 0 to 100.
    pub edit_similarity: Option<f64>,
    /// Mean edit similarity by Levenshtein's insertions and deletions, 0 to 100.
    pub edit_similarity_levenshtein: Option<f64>,
    /// Mean F1 of ROUGE-L, 0 to 100.
    pub rouge_l: Option<f64>,
    /// chrF2 of the corpus, 0 to 100.
    pub chrf: Option<f64>,
    /// exp(loss), from 1; absent where only texts are known.
    pub perplexity: Option<f64>,
    /// Mean cross-entropy a token in nats, from 0; absent where only texts are known.
    pub loss: Option<f64>,
}

impl TextMetrics {
    /// Those of `task` where no text was written: the mean loss a token, and what follows from it.
    pub fn of_loss(task: TextTask, mean_loss: f64) -> Self {
        let nothing = Self {
            task,
            bleu: None,
            em: None,
            edit_similarity: None,
            edit_similarity_levenshtein: None,
            rouge_l: None,
            chrf: None,
            perplexity: None,
            loss: None,
        };
        nothing.with_loss(mean_loss)
    }

    /// These, with the mean loss a token and what follows from it.
    #[must_use]
    pub fn with_loss(self, mean_loss: f64) -> Self {
        Self {
            perplexity: Some(perplexity(mean_loss)),
            loss: Some(mean_loss),
            ..self
        }
    }

    /// By the names of the contract.
    pub fn to_json(&self) -> Map<String, Value> {
        self.reported(|field, _| field)
    }

    /// By the names that papers have for them.
    pub fn to_table(&self) -> Map<String, Value> {
        self.reported(|_, name| name)
    }

    fn reported(
        &self,
        called: impl Fn(&'static str, &'static str) -> &'static str,
    ) -> Map<String, Value> {
        let bleu = match self.task {
            TextTask::Summarize => "sentence BLEU-4 (smoothed)",
            TextTask::Generate | TextTask::Complete => "corpus BLEU-4",
        };
        let levenshtein = (
            "edit_similarity_levenshtein",
            "edit similarity (Levenshtein)",
        );
        let all = [
            ("bleu", bleu, self.bleu),
            ("em", "exact match", self.em),
            (
                "edit_similarity",
                "edit similarity (difflib)",
                self.edit_similarity,
            ),
            (
                levenshtein.0,
                levenshtein.1,
                self.edit_similarity_levenshtein,
            ),
            ("rouge_l", "ROUGE-L (F1)", self.rouge_l),
            ("chrf", "chrF2", self.chrf),
            ("perplexity", "perplexity", self.perplexity),
            ("loss", "loss", self.loss),
        ];
        let known = all.into_iter().filter_map(|(field, name, value)| {
            Some((called(field, name).to_owned(), value?.into()))
        });
        known.collect()
    }
}
