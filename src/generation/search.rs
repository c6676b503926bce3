//! One prompt's search for a text. It knows nothing of others: what it finds does not depend on what
//! is searched beside it.

use super::beam::BeamSearch;
use super::decoder::Generated;
use super::reference_beam::ReferenceBeamSearch;
use super::single::SingleSearch;
use super::{BeamRule, GenerationSettings};

/// New tokens, the one that ended them included, and their score.
#[derive(Debug, Clone, Default)]
pub(super) struct Hypothesis {
    pub(super) ids: Vec<u32>,
    pub(super) score: f64,
}

/// Which of the hypotheses is gone on with, and by which token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Continuation {
    pub(super) parent: usize,
    pub(super) token: u32,
}

/// What a step led to.
pub(super) enum Outcome {
    Done(Generated),
    /// The hypotheses from now on.
    Running(Vec<Continuation>),
}

/// The search of one prompt.
pub(super) enum Search {
    Single(SingleSearch),
    Beams(BeamSearch),
    Reference(ReferenceBeamSearch),
}

impl Search {
    /// For a text of at most `limit` tokens behind prompt number `prompt`.
    pub(super) fn new(settings: &GenerationSettings, prompt: usize, limit: usize) -> Self {
        match settings.beam_rule {
            _ if settings.beam_size == 1 => {
                Self::Single(SingleSearch::new(settings, prompt, limit))
            }
            BeamRule::Transformers => Self::Beams(BeamSearch::new(settings, limit)),
            BeamRule::Reference => Self::Reference(ReferenceBeamSearch::new(settings, limit)),
        }
    }

    /// Hypotheses that are gone on with; one before the first step.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Single(_) => 1,
            Self::Beams(search) => search.rows(),
            Self::Reference(search) => search.rows(),
        }
    }

    /// Goes on by one token; `logits` are `[rows, vocabulary]`.
    pub(super) fn advance(&mut self, logits: &[f32]) -> Outcome {
        match self {
            Self::Single(search) => search.advance(logits),
            Self::Beams(search) => search.advance(logits),
            Self::Reference(search) => search.advance(logits),
        }
    }
}

impl Hypothesis {
    /// This one with `token` behind it and a new score.
    pub(super) fn with(&self, token: u32, score: f64) -> Self {
        let mut ids = Vec::with_capacity(self.ids.len() + 1);
        ids.extend_from_slice(&self.ids);
        ids.push(token);
        Self { ids, score }
    }

    /// As the outside takes it; its last token is no part of the text if it is one of `stop_tokens`.
    pub(super) fn into_generated(self, stop_tokens: &[u32]) -> Generated {
        let Self { mut ids, score } = self;
        let end = ids.pop_if(|last| stop_tokens.contains(last));
        Generated {
            ids,
            score,
            finished: end.is_some(),
            end,
        }
    }
}
