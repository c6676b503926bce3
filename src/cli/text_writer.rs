//! A loaded model that writes text: from prompts to what it says.

use super::generation_options::GenerationOptions;
use super::model::LoadedModel;
use super::options::RuntimeOptions;
use super::task::foreign_flag;
use crate::checkpoint::{Checkpoint, Tokenizer};
use crate::error::Error;
use crate::frozen::{FrozenPrecision, Runtime, SessionOptions};
use crate::generation::{self, BeamRule, Decoder, GenerationSettings};
use crate::progress::Progress;
use crate::ragged::Ragged;
use crate::task::text_metrics::TextTask;
use crate::task::{self, TextEncoding, TextLayout};
use crate::train;

/// Writes texts as its task asks for them.
pub(super) struct TextWriter {
    decoder: Decoder,
    tokenizer: Tokenizer,
    task: TextTask,
    pub(super) settings: GenerationSettings,
    /// A text ends behind the first of these that it holds.
    stop_texts: Vec<String>,
    /// Prompts so far, those of an earlier command among them.
    pub(super) prompts: usize,
    /// Tokens written so far.
    pub(super) tokens: usize,
}

impl TextWriter {
    /// Of `loaded`, as `options` say; none if its task writes no text.
    pub(super) fn of(
        loaded: &LoadedModel,
        options: &GenerationOptions,
    ) -> Result<Option<Self>, Error> {
        let Some((task, encoding)) = loaded.encoding.text() else {
            return match options.given() {
                Some(flag) => Err(foreign_flag(flag, loaded.encoding.task())),
                None => Ok(None),
            };
        };
        let settings = settings((task, encoding), &loaded.checkpoint, options)?;
        let checkpoint = loaded.trained_checkpoint()?;
        let running = Running::of(&loaded.runtime)?;
        let writer = Self::new(task, settings, checkpoint, &running)?;
        Ok(Some(Self {
            stop_texts: options.stop_text.clone(),
            ..writer
        }))
    }

    /// Of `checkpoint` as it is.
    pub(super) fn new(
        task: TextTask,
        settings: GenerationSettings,
        checkpoint: Checkpoint,
        running: &Running,
    ) -> Result<Self, train::Error> {
        let Running { runtime, session } = running;
        Ok(Self {
            decoder: Decoder::new(runtime, &checkpoint, session)?,
            tokenizer: checkpoint.tokenizer,
            task,
            settings,
            stop_texts: Vec::new(),
            prompts: 0,
            tokens: 0,
        })
    }

    /// What it writes after each of `prompts`; `progress` is told of each text.
    pub(super) fn write(
        &mut self,
        prompts: &Ragged<u32>,
        progress: &mut Progress,
    ) -> Result<Vec<String>, train::Error> {
        let numbered = (self.prompts, prompts);
        let mut advance = |texts: usize| progress.advance(texts as u64);
        let written = self
            .decoder
            .generate(numbered, &self.settings, &mut advance)
            .map_err(|error| match error {
                generation::Error::Interrupted { .. } => train::Error::Interrupted,
                error => error.into(),
            })?;
        self.prompts += prompts.len();
        self.tokens += written.iter().map(|text| text.ids.len()).sum::<usize>();
        let texts = written.into_iter().map(|written| {
            // A token may hold the last of a text and its end.
            let ids: Vec<u32> = written.ids.into_iter().chain(written.end).collect();
            let text = self.tokenizer.decode(&ids).map_err(task::Error::from)?;
            let line = match self.task {
                // What comes behind the line is not part of it.
                TextTask::Complete => text.lines().next().unwrap_or_default(),
                TextTask::Summarize | TextTask::Generate => &text,
            };
            Ok(ended(line, &self.stop_texts).trim().to_owned())
        });
        texts.collect()
    }
}

/// `text` up to the end of the first of `stops` in it.
fn ended<'t>(text: &'t str, stops: &[String]) -> &'t str {
    let ends = stops
        .iter()
        .filter_map(|stop| Some(text.find(stop)? + stop.len()));
    &text[..ends.min().unwrap_or(text.len())]
}

/// What runs a decoder, in fp32.
pub(super) struct Running {
    runtime: Runtime,
    session: SessionOptions,
}

impl Running {
    /// As `options` say.
    pub(super) fn of(options: &RuntimeOptions) -> Result<Self, Error> {
        Ok(Self {
            runtime: options.runtime()?,
            session: options.session(FrozenPrecision::Fp32, None)?,
        })
    }
}

/// How texts of `task` are written, as `options` say.
pub(super) fn settings(
    (task, encoding): (TextTask, &TextEncoding),
    checkpoint: &Checkpoint,
    options: &GenerationOptions,
) -> Result<GenerationSettings, Error> {
    let mut stop_tokens = encoding.stop_tokens(task, checkpoint)?;
    for text in &options.stop_text {
        let holding = if text.is_empty() {
            Vec::new()
        } else {
            checkpoint.tokenizer.holding(text)?
        };
        if holding.is_empty() {
            return Err(Error::Usage {
                problem: format!("`--stop-text {text:?}` is in no token of the vocabulary"),
                hint: "take a shorter text, such as a single character".into(),
            });
        }
        stop_tokens.extend(holding);
    }
    stop_tokens.sort_unstable();
    stop_tokens.dedup();
    options.settings(&usual(task, encoding, stop_tokens))
}

/// How texts of `task` in `text` are written unless told: `UniXcoder`'s as its published recipes do, by
/// beams of 10, 3 and 5; a decoder's greedily.
fn usual(task: TextTask, text: &TextEncoding, stop_tokens: Vec<u32>) -> GenerationSettings {
    let (beam_size, beam_rule) = match (&text.layout, task) {
        (TextLayout::Prompt { .. }, _) => (1, BeamRule::Transformers),
        (TextLayout::Unixcoder { .. }, TextTask::Summarize) => (10, BeamRule::Reference),
        (TextLayout::Unixcoder { .. }, TextTask::Generate) => (3, BeamRule::Reference),
        (TextLayout::Unixcoder { .. }, TextTask::Complete) => (5, BeamRule::Reference),
    };
    GenerationSettings {
        beam_size,
        beam_rule,
        max_new_tokens: text.max_target_length,
        stop_tokens,
        ..GenerationSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_end_behind_what_stops_them() {
        let stops = [";", "{"].map(String::from);
        assert_eq!(ended("if (x) { y ; }", &stops), "if (x) {");
        assert_eq!(ended("y ; {", &stops), "y ;");
        assert_eq!(ended("y", &stops), "y");
        assert_eq!(ended("y ;", &[]), "y ;");
    }
}
