//! A task's pairs, scored one by one and together.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::words::stripped;
use super::{
    BLEU_ORDER, CHRF_ORDER, Overlap, TextMetrics, TextPair, bleu_overlap, chrf, chrf_overlap,
    corpus_bleu, edit_similarity, edit_similarity_levenshtein, exact_match, plain_literals,
    rouge_l, sentence_bleu,
};

/// A task that puts out text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TextTask {
    /// Code to a summary.
    Summarize,
    /// A description to code.
    Generate,
    /// The rest of a line of code.
    Complete,
}

impl TextTask {
    /// What a source is usually called: by CodeXGLUE, and CoNaLa.
    pub fn source_fields(self) -> &'static [&'static str] {
        match self {
            Self::Summarize => &["code_tokens", "function_tokens", "code", "function"],
            Self::Generate => &["nl", "rewritten_intent", "intent", "description"],
            Self::Complete => &["input", "code", "content", "text"],
        }
    }

    /// As [`source_fields`](Self::source_fields), a target.
    pub fn target_fields(self) -> &'static [&'static str] {
        match self {
            Self::Summarize => &["docstring_tokens", "docstring", "summary", "nl"],
            Self::Generate => &["code", "snippet"],
            Self::Complete => &["gt"],
        }
    }
}

/// One pair's scores, 0 to 100; none that its task does not report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExampleScores {
    /// BLEU-4 of this pair alone: sentence BLEU of `summarize`, the corpus formula of `generate`.
    pub bleu: Option<f64>,
    /// 100 for an exact match, else 0.
    pub em: f64,
    /// By `difflib`.
    pub edit_similarity: Option<f64>,
    /// By Levenshtein's insertions and deletions.
    pub edit_similarity_levenshtein: Option<f64>,
    /// F1 of ROUGE-L.
    pub rouge_l: Option<f64>,
    /// chrF2 of this pair alone.
    pub chrf: f64,
    /// What corpus BLEU sums.
    words: Overlap<BLEU_ORDER>,
    /// What chrF sums.
    letters: Overlap<CHRF_ORDER>,
}

impl ExampleScores {
    /// The scores that need nothing but the texts and that every task has.
    fn common(pair: TextPair) -> Self {
        let letters = chrf_overlap(pair);
        Self {
            bleu: None,
            em: if exact_match(pair) { 100.0 } else { 0.0 },
            edit_similarity: None,
            edit_similarity_levenshtein: None,
            rouge_l: None,
            chrf: chrf(&letters),
            words: bleu_overlap(pair),
            letters,
        }
    }

    fn with_edit_similarities(self, pair: TextPair) -> Self {
        Self {
            edit_similarity: Some(edit_similarity(pair)),
            edit_similarity_levenshtein: Some(edit_similarity_levenshtein(pair)),
            ..self
        }
    }
}

/// The scores of a task's pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct TextScores {
    /// The task.
    pub task: TextTask,
    /// Pair after pair.
    pub examples: Vec<ExampleScores>,
}

impl TextScores {
    /// Those of `task`. White space around texts does not count.
    pub fn new(task: TextTask, pairs: &[TextPair]) -> Self {
        match task {
            TextTask::Summarize => Self::summarize(pairs),
            TextTask::Generate => Self::generate(pairs),
            TextTask::Complete => Self::complete(pairs),
        }
    }

    /// Sentence BLEU, exact match, ROUGE-L, chrF.
    pub fn summarize(pairs: &[TextPair]) -> Self {
        Self::of(TextTask::Summarize, pairs, |pair| ExampleScores {
            bleu: Some(sentence_bleu(pair)),
            rouge_l: Some(rouge_l(pair)),
            ..ExampleScores::common(pair)
        })
    }

    /// Corpus BLEU, exact match, edit similarities, chrF.
    pub fn generate(pairs: &[TextPair]) -> Self {
        Self::of(TextTask::Generate, pairs, |pair| {
            let common = ExampleScores::common(pair).with_edit_similarities(pair);
            ExampleScores {
                bleu: Some(corpus_bleu(&common.words)),
                ..common
            }
        })
    }

    /// Exact match, edit similarities, chrF, of texts whose literals are written out
    /// ([`plain_literals`]).
    pub fn complete(pairs: &[TextPair]) -> Self {
        Self::of(TextTask::Complete, pairs, |pair| {
            let [reference, hypothesis] = [pair.reference, pair.hypothesis].map(plain_literals);
            let pair = TextPair {
                reference: &reference,
                hypothesis: &hypothesis,
            };
            ExampleScores::common(pair).with_edit_similarities(pair)
        })
    }

    fn of(
        task: TextTask,
        pairs: &[TextPair],
        score: impl Fn(TextPair) -> ExampleScores + Sync,
    ) -> Self {
        let examples = pairs.par_iter().map(|pair| {
            score(TextPair {
                reference: stripped(pair.reference),
                hypothesis: stripped(pair.hypothesis),
            })
        });
        Self {
            task,
            examples: examples.collect(),
        }
    }

    /// The metrics over all pairs.
    pub fn metrics(&self) -> TextMetrics {
        self.metrics_of(0..self.examples.len())
    }

    /// The metrics over the pairs `rows`, which may come more than once: a sample of a bootstrap.
    pub fn metrics_of(&self, rows: impl IntoIterator<Item = usize>) -> TextMetrics {
        let examples = rows.into_iter().map(|row| &self.examples[row]);
        let examples: Vec<&ExampleScores> = examples.collect();
        let mean = |of: fn(&ExampleScores) -> Option<f64>| -> Option<f64> {
            let scores = examples.iter().map(|example| of(example));
            let sum: Option<f64> = scores.sum();
            sum.map(|sum| sum / examples.len().max(1) as f64)
        };
        let words: Overlap<BLEU_ORDER> = examples.iter().map(|example| example.words).sum();
        let letters: Overlap<CHRF_ORDER> = examples.iter().map(|example| example.letters).sum();
        TextMetrics {
            task: self.task,
            bleu: match self.task {
                TextTask::Summarize => mean(|example| example.bleu),
                TextTask::Generate => Some(corpus_bleu(&words)),
                TextTask::Complete => None,
            },
            em: mean(|example| Some(example.em)),
            edit_similarity: mean(|example| example.edit_similarity),
            edit_similarity_levenshtein: mean(|example| example.edit_similarity_levenshtein),
            rouge_l: mean(|example| example.rouge_l),
            chrf: Some(chrf(&letters)),
            perplexity: None,
            loss: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair<'a>((reference, hypothesis): (&'a str, &'a str)) -> TextPair<'a> {
        TextPair {
            reference,
            hypothesis,
        }
    }

    #[test]
    fn each_task_reports_what_it_is_measured_by() {
        for (task, fields) in [
            (TextTask::Summarize, "bleu em rouge_l chrf"),
            (
                TextTask::Generate,
                "bleu em edit_similarity edit_similarity_levenshtein chrf",
            ),
            (
                TextTask::Complete,
                "em edit_similarity edit_similarity_levenshtein chrf",
            ),
        ] {
            let metrics = TextScores::new(task, &[pair(("a b", "a c"))]).metrics();
            let found = |metrics: TextMetrics| -> String {
                let names: Vec<String> = metrics
                    .to_json()
                    .into_iter()
                    .map(|(name, _)| name)
                    .collect();
                names.join(" ")
            };
            assert_eq!(found(metrics), fields);
            let with_loss = metrics.with_loss(2.0);
            assert_eq!(found(with_loss), format!("{fields} perplexity loss"));
            assert_eq!(with_loss.perplexity, Some(2f64.exp()));
        }
    }

    /// Corpus metrics of a sample are those of the sampled texts, not means over examples.
    #[test]
    fn a_sample_of_rows_is_scored_as_a_corpus_of_its_own() {
        let texts = [
            ("int a = b ;", "int a = c ;"),
            ("return a ;", "return b"),
            ("x", ""),
        ];
        let pairs = texts.map(pair);
        for task in [TextTask::Summarize, TextTask::Generate, TextTask::Complete] {
            let rows = [2, 0, 0];
            let sampled = TextScores::new(task, &pairs).metrics_of(rows);
            let alone = TextScores::new(task, &rows.map(|row| pairs[row])).metrics();
            assert_eq!(sampled, alone);
        }
    }

    #[test]
    fn white_space_around_texts_does_not_count() {
        let scores = TextScores::complete(&[pair((" <NUM_LIT:1> ;\n", "1 ;"))]);
        assert_eq!(scores.metrics().edit_similarity, Some(100.0));
        assert!(scores.examples[0].em > 0.0);
    }
}
