//! Flags that say what is to be learnt, and of which fields.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::options::missing;
use crate::checkpoint::{Checkpoint, Family};
use crate::dataset::Source;
use crate::error::Error;
use crate::task::text_metrics::TextTask;
use crate::task::{
    CloneEncoding, CloneForm, Encoding, Objective, PositionOffset, SearchEncoding, TaskKind,
    TextEncoding, TextLayout,
};

/// The token that `UniXcoder` is told with to encode and nothing else.
const ENCODER_ONLY: &str = "<encoder-only>";
/// Most tokens of a function unless told otherwise, as in the paper; less where the model ends.
pub(super) const CLONE_LENGTH: usize = 512;
/// Tokens of a text to classify, unless told.
pub(super) const CLASSIFY_LENGTH: usize = 256;
/// Tokens of a query, unless told.
pub(super) const QUERY_LENGTH: usize = 128;
/// Tokens of a code that is searched for, unless told.
pub(super) const CODE_LENGTH: usize = 256;

/// How records become token sequences.
#[derive(Args, Debug, Clone, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Task")]
pub(super) struct TaskOptions {
    /// What is to be learnt. clone takes pairs if records hold two functions, else groups: one
    /// function each, with the label of those that do the same.
    #[arg(long, value_enum)]
    pub task: Option<TaskKind>,
    /// classify, clone by groups, and the functions of pair files: field of the text [default: the first of text, sentence, func,
    /// code].
    #[arg(long, value_name = "FIELD")]
    pub text_field: Option<String>,
    /// classify, clone: field of the label, for pairs 1 or 0, or of the group [default: label or
    /// target].
    #[arg(long, value_name = "FIELD")]
    pub label_field: Option<String>,
    /// classify: what the label field holds: one label, a list of labels, or a number
    /// [default: single-label].
    #[arg(long, value_enum)]
    pub objective: Option<Objective>,
    /// clone by pairs: field of the first function [default: the first of func1, code1, text1,
    /// sentence1].
    #[arg(long, value_name = "FIELD")]
    pub first_field: Option<String>,
    /// classify: field of a second text, put behind the first as the model's tokenizer does
    /// [default: none]. clone by pairs: field of the second function [default: the first of func2, code2, text2,
    /// sentence2].
    #[arg(long, value_name = "FIELD")]
    pub second_field: Option<String>,
    /// search: field of the query [default: the first of `docstring_tokens`, docstring,
    /// query].
    #[arg(long, value_name = "FIELD")]
    pub query_field: Option<String>,
    /// search: field of the code [default: the first of `code_tokens`,
    /// `function_tokens`, code, function].
    #[arg(long, value_name = "FIELD")]
    pub code_field: Option<String>,
    /// search: field of a training query's hard negatives, a code or a list of them; as many of
    /// each are used as the query with the fewest has [default: none].
    #[arg(long, value_name = "FIELD")]
    pub negative_field: Option<String>,
    /// search with --code-base: field that a query and its code share [default: url or idx].
    #[arg(long, value_name = "FIELD")]
    pub key_field: Option<String>,
    /// classify, clone: most tokens of a text, special ones included [default: 256, for clone 512].
    #[arg(long, value_name = "TOKENS")]
    pub max_length: Option<usize>,
    /// search: most tokens of a query [default: 128].
    #[arg(long, value_name = "TOKENS")]
    pub max_query_length: Option<usize>,
    /// search: most tokens of a code [default: 256].
    #[arg(long, value_name = "TOKENS")]
    pub max_code_length: Option<usize>,
    /// summarize, generate, complete: field of the source [default: summarize the first of
    /// `code_tokens`, `function_tokens`, code, function; generate nl, `rewritten_intent`, intent,
    /// description; complete input, code, content, text].
    #[arg(long, value_name = "FIELD")]
    pub source_field: Option<String>,
    /// summarize, generate, complete: field of the target [default: summarize the first of
    /// `docstring_tokens`, docstring, summary, nl; generate code, snippet; complete gt, and in
    /// training whole texts where there is none].
    #[arg(long, value_name = "FIELD")]
    pub target_field: Option<String>,
    /// summarize, generate, complete: most tokens of a source, special ones and prompt included
    /// [default: 256, 350, 936; less where the model ends].
    #[arg(long, value_name = "TOKENS")]
    pub max_source_length: Option<usize>,
    /// summarize, generate, complete: most tokens of a target, special ones included [default: 128,
    /// 150, 64].
    #[arg(long, value_name = "TOKENS")]
    pub max_target_length: Option<usize>,
    /// Decoders that summarize or generate: what stands around the source; the target comes behind
    /// it [default: "{source}\n# Summary:\n" and "# {source}\n"].
    #[arg(long, value_name = "TEXT")]
    pub prompt_template: Option<String>,
    /// UniXcoder that summarizes or generates: where a target's positions start, behind the source
    /// or, as in the reference's training, behind a source of the greatest length [default: true].
    #[arg(long, value_enum)]
    pub position_offset: Option<PositionOffset>,
    /// Token before each text, as in UniXcoder: auto takes <encoder-only> if a RoBERTa-like model
    /// has it, none nothing [default: auto].
    #[arg(long, value_name = "TOKEN")]
    pub mode_token: Option<String>,
}

impl TaskOptions {
    /// The encoding that is meant for `checkpoint` and the data in `source`; a flag of another task is refused.
    pub(super) fn encoding(
        &self,
        checkpoint: &Checkpoint,
        source: Option<&Source>,
    ) -> Result<Encoding, Error> {
        let task = self.task.ok_or_else(|| missing("--task"))?;
        self.refuse_others(task)?;
        if let Some((task, lengths)) = written(task) {
            return self.text_encoding(checkpoint, task, lengths);
        }
        let mode_token = self.mode_token(checkpoint)?;
        Ok(match task {
            TaskKind::Classify => Encoding::Classify {
                mode_token: self.mode_token_of_pairs(mode_token)?,
                second_field: self.second_field.clone(),
                text_field: self.text_field.clone(),
                label_field: self.label_field.clone(),
                max_length: self.max_length.unwrap_or(CLASSIFY_LENGTH),
                objective: self.objective.unwrap_or_default(),
            },
            TaskKind::Search => Encoding::Search(SearchEncoding {
                query_field: self.query_field.clone(),
                code_field: self.code_field.clone(),
                negative_field: self.negative_field.clone(),
                key_field: self.key_field.clone(),
                max_query_length: self.max_query_length.unwrap_or(QUERY_LENGTH),
                max_code_length: self.max_code_length.unwrap_or(CODE_LENGTH),
                mode_token,
            }),
            TaskKind::Clone => {
                let longest = checkpoint.config.longest_sequence();
                Encoding::Clone(CloneEncoding {
                    form: self.clone_form(source)?,
                    first_field: self.first_field.clone(),
                    second_field: self.second_field.clone(),
                    text_field: self.text_field.clone(),
                    label_field: self.label_field.clone(),
                    max_length: self.max_length.unwrap_or(CLONE_LENGTH.min(longest)),
                    mode_token,
                })
            }
            TaskKind::Summarize | TaskKind::Generate | TaskKind::Complete => {
                unreachable!("text is written")
            }
        })
    }

    /// The encoding of a task that has text written, of sources and targets of so many tokens unless
    /// told.
    fn text_encoding(
        &self,
        checkpoint: &Checkpoint,
        task: TextTask,
        [source, target]: [usize; 2],
    ) -> Result<Encoding, Error> {
        let template = self.prompt_template.as_deref();
        let layout = TextLayout::of(checkpoint, task, template, self.position_offset)?;
        if self.position_offset.is_some() && task == TextTask::Complete {
            return Err(foreign_flag("--position-offset", TaskKind::Complete));
        }
        let foreign = match layout {
            TextLayout::Unixcoder { .. } => ("--prompt-template", template.is_some()),
            TextLayout::Prompt { .. } => ("--position-offset", self.position_offset.is_some()),
        };
        if let (flag, true) = foreign {
            return Err(Error::Usage {
                problem: format!(
                    "`{flag}` does not belong to a model of `model_type` {:?}",
                    checkpoint.config.family.model_type()
                ),
                hint: "leave it out".into(),
            });
        }
        // Both are in one sequence; of a shorter model the target keeps its share.
        let longest = checkpoint.config.longest_sequence();
        let target = target.min(longest / 4);
        let max_target_length = self.max_target_length.unwrap_or(target);
        let room = longest.saturating_sub(max_target_length);
        let encoding = TextEncoding {
            source_field: self.source_field.clone(),
            target_field: self.target_field.clone(),
            max_source_length: self.max_source_length.unwrap_or(source.min(room)),
            max_target_length,
            layout,
        };
        Ok(match task {
            TextTask::Summarize => Encoding::Summarize(encoding),
            TextTask::Generate => Encoding::Generate(encoding),
            TextTask::Complete => Encoding::Complete(encoding),
        })
    }

    fn text_fields(&self, text: TextEncoding) -> TextEncoding {
        TextEncoding {
            source_field: self.source_field.clone().or(text.source_field),
            target_field: self.target_field.clone().or(text.target_field),
            ..text
        }
    }

    fn refuse_others(&self, task: TaskKind) -> Result<(), Error> {
        use TaskKind::{Classify, Clone, Complete, Generate, Search, Summarize};
        let texts: &[TaskKind] = &[Summarize, Generate, Complete];
        let flags: [(&str, bool, &[TaskKind]); 19] = [
            ("--source-field", self.source_field.is_some(), texts),
            ("--target-field", self.target_field.is_some(), texts),
            (
                "--max-source-length",
                self.max_source_length.is_some(),
                texts,
            ),
            (
                "--max-target-length",
                self.max_target_length.is_some(),
                texts,
            ),
            ("--prompt-template", self.prompt_template.is_some(), texts),
            ("--position-offset", self.position_offset.is_some(), texts),
            (
                "--mode-token",
                self.mode_token.is_some(),
                &[Classify, Clone, Search],
            ),
            ("--objective", self.objective.is_some(), &[Classify]),
            (
                "--text-field",
                self.text_field.is_some(),
                &[Classify, Clone],
            ),
            (
                "--label-field",
                self.label_field.is_some(),
                &[Classify, Clone],
            ),
            (
                "--max-length",
                self.max_length.is_some(),
                &[Classify, Clone],
            ),
            ("--query-field", self.query_field.is_some(), &[Search]),
            ("--code-field", self.code_field.is_some(), &[Search]),
            ("--negative-field", self.negative_field.is_some(), &[Search]),
            ("--key-field", self.key_field.is_some(), &[Search]),
            (
                "--max-query-length",
                self.max_query_length.is_some(),
                &[Search],
            ),
            (
                "--max-code-length",
                self.max_code_length.is_some(),
                &[Search],
            ),
            ("--first-field", self.first_field.is_some(), &[Clone]),
            (
                "--second-field",
                self.second_field.is_some(),
                &[Classify, Clone],
            ),
        ];
        let foreign =
            |(_, given, tasks): &&(&str, bool, &[TaskKind])| *given && !tasks.contains(&task);
        match flags.iter().find(foreign) {
            Some((flag, ..)) => Err(foreign_flag(flag, task)),
            None => Ok(()),
        }
    }

    /// As the flags say, or else as the data looks.
    pub(super) fn clone_form(&self, source: Option<&Source>) -> Result<CloneForm, Error> {
        if source.is_some_and(|source| source.text_file().is_some()) {
            return Ok(CloneForm::Pairs);
        }
        let pairs = self.first_field.is_some() || self.second_field.is_some();
        match (pairs, self.text_field.is_some()) {
            (true, true) => Err(Error::Usage {
                problem: "`--text-field` is of groups, `--first-field` and `--second-field` of pairs"
                    .into(),
                hint: "a record holds two functions and whether they are clones, or one function and its group".into(),
            }),
            (true, false) => Ok(CloneForm::Pairs),
            (false, true) => Ok(CloneForm::Groups),
            (false, false) => match source.map(Source::records).transpose()? {
                Some(mut records) => {
                    let first = records.next().transpose()?;
                    Ok(first.as_ref().map_or(CloneForm::Groups, CloneForm::of))
                }
                None => Ok(CloneForm::Pairs),
            },
        }
    }

    /// The mode token of a text; two texts have none.
    fn mode_token_of_pairs(&self, mode_token: Option<String>) -> Result<Option<String>, Error> {
        if self.second_field.is_none() {
            return Ok(mode_token);
        }
        match self.mode_token.as_deref() {
            None | Some("auto" | "none") => Ok(None),
            Some(token) => Err(Error::Usage {
                problem: format!(
                    "`--mode-token {token}` is for one text, and `--second-field` names a second"
                ),
                hint: "leave one of them out".into(),
            }),
        }
    }

    fn mode_token(&self, checkpoint: &Checkpoint) -> Result<Option<String>, Error> {
        let knows = |token| checkpoint.tokenizer.id(token).is_some();
        match self.mode_token.as_deref() {
            None | Some("auto") => {
                let meant = checkpoint.config.family == Family::Roberta && knows(ENCODER_ONLY);
                Ok(meant.then(|| ENCODER_ONLY.into()))
            }
            Some("none") => Ok(None),
            Some(token) if knows(token) => Ok(Some(token.into())),
            Some(token) => Err(Error::Usage {
                problem: format!(
                    "`--mode-token {token}`: the vocabulary of `{}` does not have it",
                    checkpoint.folder.display()
                ),
                hint: "leave the flag out: `<encoder-only>` is used where a model has it".into(),
            }),
        }
    }

    /// `encoding` with the field names that were typed: they may differ from file to file. All
    /// else is as it was.
    pub(super) fn with_fields(&self, encoding: Encoding) -> Encoding {
        let or = |typed: &Option<String>, field: Option<String>| typed.clone().or(field);
        match encoding {
            Encoding::Classify {
                text_field,
                label_field,
                max_length,
                objective,
                mode_token,
                second_field,
            } => Encoding::Classify {
                // A run learns of one text or of two.
                second_field: second_field.map(|field| self.second_field.clone().unwrap_or(field)),
                text_field: or(&self.text_field, text_field),
                label_field: or(&self.label_field, label_field),
                max_length,
                objective,
                mode_token,
            },
            Encoding::Search(search) => Encoding::Search(SearchEncoding {
                query_field: or(&self.query_field, search.query_field),
                code_field: or(&self.code_field, search.code_field),
                key_field: or(&self.key_field, search.key_field),
                ..search
            }),
            Encoding::Clone(clone) => Encoding::Clone(CloneEncoding {
                first_field: or(&self.first_field, clone.first_field),
                second_field: or(&self.second_field, clone.second_field),
                text_field: or(&self.text_field, clone.text_field),
                label_field: or(&self.label_field, clone.label_field),
                ..clone
            }),
            Encoding::Summarize(text) => Encoding::Summarize(self.text_fields(text)),
            Encoding::Generate(text) => Encoding::Generate(self.text_fields(text)),
            Encoding::Complete(text) => Encoding::Complete(self.text_fields(text)),
        }
    }
}

/// What `task` has written, if anything, and the most tokens of its sources and targets in the
/// paper.
pub(super) fn written(task: TaskKind) -> Option<(TextTask, [usize; 2])> {
    match task {
        TaskKind::Summarize => Some((TextTask::Summarize, [256, 128])),
        TaskKind::Generate => Some((TextTask::Generate, [350, 150])),
        TaskKind::Complete => Some((TextTask::Complete, [936, 64])),
        TaskKind::Classify | TaskKind::Search | TaskKind::Clone => None,
    }
}

/// `flag` was given for another task than those that it is of.
pub(super) fn foreign_flag(flag: &str, task: TaskKind) -> Error {
    Error::Usage {
        problem: format!("`{flag}` does not belong to `--task {task}`"),
        hint: "`telly precompute --help` says which flags a task takes".into(),
    }
}
