//! How the tasks that write text encode records: source and target in one sequence, of which the
//! target's tokens are scored. `UniXcoder`'s layouts are those of its published recipes (Guo et al.,
//! 2022); a decoder gets a prompt.

use serde::{Deserialize, Serialize};

use super::text_metrics::TextTask;
use super::{EncodedSplit, Error, Role};
use crate::checkpoint::{AttentionPattern, Checkpoint, PrefixRule};
use crate::dataset::{Dataset, FieldChoice, Record};
use crate::distinct::Distinct;
use crate::targets::Targets;

/// Where a prompt has the source.
pub const SOURCE: &str = "{source}";
/// With it `UniXcoder` reads a source and writes a target.
const ENCODER_DECODER: &str = "<encoder-decoder>";
/// With it `UniXcoder` goes on with a text.
const DECODER_ONLY: &str = "<decoder-only>";
/// What a target of `UniXcoder`'s begins with.
const MASK: &str = "<mask0>";
/// The end of a line in CodeXGLUE's data for completion, and what every text there begins with.
const END_OF_LINE: &str = "<EOL>";
const START: &str = "<s>";

/// How records become sequences of a source and a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextEncoding {
    /// Where the source is; the usual names when absent.
    pub source_field: Option<String>,
    /// Where the target is; the usual names when absent.
    pub target_field: Option<String>,
    /// Most tokens of a source, special tokens included.
    pub max_source_length: usize,
    /// Most tokens of a target, special tokens included.
    pub max_target_length: usize,
    /// How they are put together.
    pub layout: TextLayout,
}

/// How source and target are put together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextLayout {
    /// As `UniXcoder` was made with: every token of the source attends to all of it.
    Unixcoder {
        /// Where a target's positions start.
        position_offset: PositionOffset,
    },
    /// A prompt that holds the source, then the target: each token attends to those before it.
    Prompt {
        /// The prompt, with `{source}` where the source is to be.
        template: String,
        /// Ends a target.
        end: u32,
    },
}

/// `--position-offset`: where the positions of a target of `UniXcoder`'s start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PositionOffset {
    /// Behind the source, as when text is written.
    #[default]
    True,
    /// Behind a source of the greatest length, as the reference's training has them.
    Padded,
}

impl TextLayout {
    /// `UniXcoder`'s where the model of `checkpoint` has its tokens; else a prompt, `template` or the
    /// usual one of `task`.
    pub fn of(
        checkpoint: &Checkpoint,
        task: TextTask,
        template: Option<&str>,
        position_offset: Option<PositionOffset>,
    ) -> Result<Self, Error> {
        let config = &checkpoint.config;
        if config.attention_pattern.is_bidirectional() {
            let mode = match task {
                TextTask::Summarize | TextTask::Generate => ENCODER_DECODER,
                TextTask::Complete => DECODER_ONLY,
            };
            if checkpoint.tokenizer.id(mode).is_none() || checkpoint.tokenizer.id(MASK).is_none() {
                return Err(Error::WritesNoText {
                    folder: checkpoint.folder.clone(),
                    token: mode,
                });
            }
            return Ok(Self::Unixcoder {
                position_offset: position_offset.unwrap_or_default(),
            });
        }
        let usual = match task {
            TextTask::Summarize => "{source}\n# Summary:\n",
            TextTask::Generate => "# {source}\n",
            TextTask::Complete => SOURCE,
        };
        let template = template.unwrap_or(usual);
        if template.matches(SOURCE).count() != 1 {
            return Err(Error::Template {
                template: template.into(),
            });
        }
        let end = config.end_tokens.first().copied();
        let end = end.ok_or_else(|| Error::NoEndToken {
            folder: checkpoint.folder.clone(),
        })?;
        Ok(Self::Prompt {
            template: template.into(),
            end,
        })
    }
}

/// The parts that every sequence of a split is made of.
struct Frame {
    /// In front of the source.
    before: Vec<u32>,
    /// Behind the source.
    after: Vec<u32>,
    /// In front of the target: written by nobody.
    start: Vec<u32>,
    /// Behind the target.
    end: Vec<u32>,
    /// Whether the end of a source that is too long is kept, not its start.
    keeps_tail: bool,
    /// No text is encoded to it.
    separator: Option<u32>,
}

impl TextEncoding {
    pub(super) fn source_field(&self, task: TextTask) -> FieldChoice {
        let named = self.source_field.as_deref();
        FieldChoice::new("--source-field", named, task.source_fields())
    }

    fn target_field(&self, task: TextTask) -> FieldChoice {
        let named = self.target_field.as_deref();
        FieldChoice::new("--target-field", named, task.target_fields())
    }

    /// Which tokens of such sequences attend to which.
    pub(super) fn attention_pattern(
        &self,
        task: TextTask,
        checkpoint: &Checkpoint,
    ) -> Result<AttentionPattern, Error> {
        let TextLayout::Unixcoder { position_offset } = self.layout else {
            return Ok(AttentionPattern::Causal);
        };
        if task == TextTask::Complete {
            return Ok(AttentionPattern::Causal);
        }
        let [_, _, separator] = checkpoint.tokenizer.around(ENCODER_DECODER)?;
        Ok(AttentionPattern::Prefix(PrefixRule {
            separator,
            // The first stands behind the mode token.
            occurrence: 2,
            padded_source: (position_offset == PositionOffset::Padded)
                .then_some(self.max_source_length),
        }))
    }

    /// Tokens that end what is written: those that end a text and, of a completion, all that hold the
    /// end of a line.
    pub fn stop_tokens(&self, task: TextTask, checkpoint: &Checkpoint) -> Result<Vec<u32>, Error> {
        let tokenizer = &checkpoint.tokenizer;
        let mut stops = match &self.layout {
            TextLayout::Unixcoder { .. } => {
                let [_, _, end] = tokenizer.around(DECODER_ONLY)?;
                vec![end]
            }
            TextLayout::Prompt { .. } => checkpoint.config.end_tokens.clone(),
        };
        if task == TextTask::Complete && matches!(self.layout, TextLayout::Prompt { .. }) {
            stops.extend(tokenizer.holding("\n")?);
        }
        stops.sort_unstable();
        stops.dedup();
        Ok(stops)
    }

    fn frame(&self, task: TextTask, checkpoint: &Checkpoint) -> Result<Frame, Error> {
        let tokenizer = &checkpoint.tokenizer;
        match &self.layout {
            TextLayout::Unixcoder { .. } => {
                let completes = task == TextTask::Complete;
                let mode = if completes {
                    DECODER_ONLY
                } else {
                    ENCODER_DECODER
                };
                let before @ [_, _, end] = tokenizer.around(mode)?;
                let mask = tokenizer.id(MASK).unwrap_or_default();
                let before = before.to_vec();
                Ok(match task {
                    TextTask::Summarize => Frame {
                        before: [&before[..], &[mask]].concat(),
                        after: vec![end],
                        start: vec![mask],
                        end: vec![end],
                        keeps_tail: false,
                        separator: Some(end),
                    },
                    TextTask::Generate => Frame {
                        before,
                        after: vec![mask, end],
                        start: vec![mask],
                        end: vec![end],
                        keeps_tail: false,
                        separator: Some(end),
                    },
                    TextTask::Complete => Frame {
                        before,
                        after: Vec::new(),
                        start: Vec::new(),
                        end: Vec::new(),
                        keeps_tail: true,
                        separator: None,
                    },
                })
            }
            TextLayout::Prompt { template, end } => {
                let (before, after) = template.split_once(SOURCE).unwrap_or((template, ""));
                let texts = vec![before.to_owned(), after.to_owned()];
                let mut parts = tokenizer.encode_plain(texts)?.into_iter();
                let (before, after) = (parts.next().unwrap_or_default(), parts.next());
                let completes = task == TextTask::Complete;
                Ok(Frame {
                    before: [tokenizer.start_tokens()?, before].concat(),
                    after: after.unwrap_or_default(),
                    start: Vec::new(),
                    end: if completes { Vec::new() } else { vec![*end] },
                    keeps_tail: completes,
                    separator: None,
                })
            }
        }
    }

    /// What `record` has to say, as it is encoded: source and, if there is one and it is `wanted`,
    /// target.
    fn texts(
        &self,
        task: TextTask,
        (record, data): (&Record, &Dataset),
        wanted: bool,
    ) -> Result<(String, Option<String>), Error> {
        let (source, target) = (self.source_field(task), self.target_field(task));
        let plain = matches!(self.layout, TextLayout::Unixcoder { .. });
        let read = |field: &FieldChoice| {
            if plain {
                field.text(record, &data.path)
            } else {
                field.verbatim(record, &data.path)
            }
        };
        let mut text = read(&source)?;
        // A whole file is learnt from without a target.
        let has_target = wanted && (task != TextTask::Complete || target.is_in(record));
        let mut answer = has_target.then(|| read(&target)).transpose()?;
        if task == TextTask::Complete {
            text = self.whole_lines(&text);
            answer = answer.map(|answer| {
                let answer = self.whole_lines(&answer);
                if plain || text.ends_with(char::is_whitespace) {
                    answer
                } else {
                    format!(" {answer}")
                }
            });
        }
        Ok((text, answer))
    }

    /// A text of CodeXGLUE's with lines for its marks of them, or what `UniXcoder` has for those.
    fn whole_lines(&self, text: &str) -> String {
        let text = text.strip_prefix(START).map_or(text, str::trim_start);
        match self.layout {
            TextLayout::Unixcoder { .. } => text.replace(END_OF_LINE, "</s>"),
            TextLayout::Prompt { .. } => text
                .replace(&format!(" {END_OF_LINE} "), "\n")
                .replace(END_OF_LINE, "\n"),
        }
    }

    /// Encodes `data` for `role`, one sequence a row; without targets where those are not `wanted`.
    pub(super) fn encode(
        &self,
        task: TextTask,
        data: &Dataset,
        checkpoint: &Checkpoint,
        (role, wanted): (Role, bool),
    ) -> Result<EncodedSplit, Error> {
        let frame = self.frame(task, checkpoint)?;
        let (mut sources, mut answers, mut references) = (Vec::new(), Vec::new(), Vec::new());
        let ends_line = task == TextTask::Complete;
        let line_end = match self.layout {
            TextLayout::Unixcoder { .. } => "",
            TextLayout::Prompt { .. } => "\n",
        };
        for record in &data.records {
            let (source, answer) = self.texts(task, (record, data), wanted)?;
            let answer = match answer {
                Some(answer) => Some(answer),
                None if role == Role::Evaluation && wanted => {
                    // Says what is missing.
                    Some(self.target_field(task).text(record, &data.path)?)
                }
                None => None,
            };
            if role == Role::Evaluation
                && let Some(answer) = &answer
            {
                references.push(answer.trim().to_owned());
            }
            answers.push(answer.map(|answer| if ends_line { answer + line_end } else { answer }));
            sources.push(source);
        }
        let has_answer: Vec<bool> = answers.iter().map(Option::is_some).collect();
        let sources = checkpoint.tokenizer.encode_plain(sources)?;
        let answers = answers.into_iter().map(Option::unwrap_or_default).collect();
        let answers = checkpoint.tokenizer.encode_plain(answers)?;
        let room = self
            .max_source_length
            .saturating_sub(frame.before.len() + frame.after.len());
        let answer_room = self
            .max_target_length
            .saturating_sub(frame.start.len() + frame.end.len());
        let mut distinct = Distinct::default();
        let (mut rows, mut first_scored, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (source, answer)) in sources.iter().zip(&answers).enumerate() {
            for part in [source, answer] {
                if frame
                    .separator
                    .is_some_and(|separator| part.contains(&separator))
                {
                    return Err(separator_in(data, row, &frame, checkpoint));
                }
            }
            let whole_file = ends_line && wanted && !has_answer[row];
            let room = if whole_file { room + answer_room } else { room };
            let cut = source.len().min(room);
            let source = if frame.keeps_tail {
                &source[source.len() - cut..]
            } else {
                &source[..cut]
            };
            let mut ids = [&frame.before, source, &frame.after].concat();
            let prompt = ids.len();
            if !whole_file {
                ids.extend(&frame.start);
            }
            if wanted && !whole_file {
                ids.extend(&answer[..answer.len().min(answer_room)]);
                ids.extend(&frame.end);
            }
            // A file is learnt from as a whole, but for its first token.
            let first = if ends_line && role == Role::Training {
                1
            } else {
                prompt + frame.start.len()
            };
            if ids.is_empty() || first == 0 {
                return Err(Error::EmptyText {
                    path: data.path.clone(),
                    line: data.records.get(row).map_or(0, |record| record.line),
                });
            }
            first_scored.push(u32::try_from(first.min(ids.len())).unwrap_or(u32::MAX));
            lengths.push(u32::try_from(ids.len()).unwrap_or(u32::MAX));
            rows.push(distinct.index(&ids));
        }
        Ok(EncodedSplit {
            sequences: distinct.sequences,
            rows,
            columns: 1,
            targets: if wanted {
                Targets::Texts {
                    first_scored,
                    lengths,
                    references,
                }
            } else {
                Targets::None
            },
            notice: None,
        })
    }
}

/// A text in `row` of `data` holds what ends a source.
fn separator_in(data: &Dataset, row: usize, frame: &Frame, checkpoint: &Checkpoint) -> Error {
    let token = frame
        .separator
        .and_then(|id| checkpoint.tokenizer.token(id));
    Error::SeparatorInText {
        path: data.path.clone(),
        line: data.records.get(row).map_or(0, |record| record.line),
        token: token.unwrap_or_default(),
    }
}
