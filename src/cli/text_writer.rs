//! A loaded model that writes text: from prompts to what it says.

use super::generation_options::GenerationOptions;
use super::model::LoadedModel;
use super::options::RuntimeOptions;
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::frozen::FrozenPrecision;
use crate::generation::{BeamRule, Decoder, GenerationSettings};
use crate::progress::Progress;
use crate::ragged::Ragged;
use crate::task::text_metrics::TextTask;
use crate::task::{Encoding, TextLayout};

/// Writes texts as its task asks for them.
pub(super) struct TextWriter {
    decoder: Decoder,
    checkpoint: Checkpoint,
    task: TextTask,
    pub(super) settings: GenerationSettings,
}

impl TextWriter {
    /// Of `loaded`, as `options` say; none if its task writes no text.
    pub(super) fn of(
        loaded: &LoadedModel,
        options: &GenerationOptions,
    ) -> Result<Option<Self>, Error> {
        let Some((task, encoding)) = loaded.encoding.text() else {
            return Ok(None);
        };
        let stop_tokens = encoding.stop_tokens(task, &loaded.checkpoint)?;
        let settings = options.settings(&usual(&loaded.encoding, stop_tokens))?;
        let checkpoint = loaded.trained_checkpoint()?;
        let decoder = decoder(&loaded.runtime, &checkpoint)?;
        checkpoint.weights.release();
        Ok(Some(Self {
            decoder,
            checkpoint,
            task,
            settings,
        }))
    }

    /// What it writes after each of `prompts`.
    pub(super) fn write(
        &mut self,
        prompts: &Ragged<u32>,
        progress: Option<&mut Progress>,
    ) -> Result<Vec<String>, Error> {
        let mut shown = progress;
        let mut advance = |finished: usize| {
            if let Some(progress) = &mut shown {
                progress.advance(finished as u64);
            }
        };
        let written = self
            .decoder
            .generate(prompts, &self.settings, &mut advance)?;
        let texts = written.iter().map(|written| {
            let text = self.checkpoint.tokenizer.decode(&written.ids)?;
            Ok(match self.task {
                // What comes behind the line is not part of it.
                TextTask::Complete => text.lines().next().unwrap_or_default().trim().to_owned(),
                TextTask::Summarize | TextTask::Generate => text.trim().to_owned(),
            })
        });
        texts.collect()
    }
}

/// The decoder of `checkpoint`, in fp32.
fn decoder(runtime: &RuntimeOptions, checkpoint: &Checkpoint) -> Result<Decoder, Error> {
    let session = runtime.session(FrozenPrecision::Fp32, None)?;
    Ok(Decoder::new(&runtime.runtime()?, checkpoint, &session)?)
}

/// How texts of `encoding` are written unless told: `UniXcoder`'s as its published recipes do, by
/// beams of 10, 3 and 5; a decoder's greedily.
pub(super) fn usual(encoding: &Encoding, stop_tokens: Vec<u32>) -> GenerationSettings {
    let Some((task, text)) = encoding.text() else {
        return GenerationSettings::default();
    };
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
