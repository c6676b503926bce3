//! A decoder that goes on with several prompts at a time.

use ndarray::{Array1, Array2};
use rayon::prelude::*;

use super::search::{Outcome, Search};
use super::{Error, GenerationSettings};
use crate::checkpoint::{AttentionPattern, Checkpoint, Positions};
use crate::frozen::{
    self, BatchSize, DecoderSession, KeysAndValues, Runtime, SessionOptions, Step,
};
use crate::interrupt;
use crate::ragged::Ragged;

/// Bytes that the keys and values of a batch may take. Twice that is needed while a step is taken.
const KEYS_AND_VALUES: usize = 512 << 20;
/// Attention scores of a batch's prompts in a layer, 256 MiB in f32. A few copies of them live.
const SCORES: usize = 64 << 20;
/// Hypotheses that are gone on with at a time.
const MOST_ROWS: usize = 64;

/// A checkpoint that writes text.
pub struct Decoder {
    session: DecoderSession,
    pattern: AttentionPattern,
    /// The position of a sequence's first token.
    first_position: usize,
    longest: usize,
    /// Attention heads a layer.
    heads: usize,
}

/// A text that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Its tokens, without the prompt and without the token that ended it.
    pub ids: Vec<u32>,
    /// In nats, the sum of the log-probabilities of all new tokens, the one that ended it included; of
    /// transformers' beam search divided as its length penalty says.
    pub score: f64,
    /// Whether a token ended it, rather than the most tokens that there may be.
    pub finished: bool,
    /// The token that ended it.
    pub end: Option<u32>,
}

/// A prompt that is gone on with.
struct Active {
    prompt: usize,
    /// Its tokens.
    length: usize,
    prefix_length: usize,
    /// Where its first new token stands.
    position: usize,
    search: Search,
}

impl Decoder {
    /// All of `checkpoint` as one graph, and a session to run it: by its own output matrix, or
    /// `lm_head.weight` where that was [put in](crate::checkpoint::Weights::replace).
    pub fn new(
        runtime: &Runtime,
        checkpoint: &Checkpoint,
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        let config = &checkpoint.config;
        if config.attention_pattern.is_bidirectional() {
            return Err(Error::NotADecoder);
        }
        let first_position = match config.embeddings().positions {
            Some((_, Positions::AfterPadding)) => config.padding_id as usize + 1,
            Some((_, Positions::FromZero)) | None => 0,
        };
        Ok(Self {
            session: DecoderSession::new(runtime, checkpoint, options)?,
            pattern: config.attention_pattern,
            first_position,
            longest: config.longest_sequence(),
            heads: config.attention_heads,
        })
    }

    /// Writes a text behind each of `prompts`, in their order, and tells `progress` how many more are
    /// done each time some are. Where tokens are drawn the prompts are numbered from `first` on, and
    /// each number has draws of its own. A text does not depend on which others are written beside it, but for the
    /// rounding of sums.
    pub fn generate(
        &mut self,
        (first, prompts): (usize, &Ragged<u32>),
        settings: &GenerationSettings,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Generated>, Error> {
        settings.check()?;
        let limits = (0..prompts.len())
            .map(|prompt| self.limit(prompt, prompts.sequence(prompt), settings))
            .collect::<Result<Vec<usize>, Error>>()?;
        let lengths = limits.iter().enumerate();
        let lengths = lengths.map(|(prompt, limit)| prompts.length(prompt) + limit);
        let batches = self
            .batch_size(prompts, settings)
            .batches(&lengths.collect::<Vec<_>>());
        let mut written: Vec<Option<Generated>> = vec![None; prompts.len()];
        for batch in &batches {
            let active = batch.iter().map(|&prompt| {
                let search = Search::new(settings, first + prompt, limits[prompt]);
                self.active(prompt, prompts.sequence(prompt), search)
            });
            let active = active.collect();
            let whole = self.write(prompts, active, &mut |texts| {
                progress(texts.len());
                for (prompt, text) in texts {
                    written[prompt] = Some(text);
                }
            })?;
            if !whole {
                return Err(Error::Interrupted {
                    finished: written.iter().flatten().count(),
                    prompts: prompts.len(),
                });
            }
        }
        let written: Vec<Generated> = written.into_iter().flatten().collect();
        debug_assert_eq!(written.len(), prompts.len());
        Ok(written)
    }

    /// How many tokens may be written behind `prompt`: the last one's position is not needed.
    fn limit(
        &self,
        index: usize,
        prompt: &[u32],
        settings: &GenerationSettings,
    ) -> Result<usize, Error> {
        if prompt.is_empty() {
            return Err(Error::Empty { prompt: index });
        }
        let prefix_length = self.pattern.prefix_length(prompt);
        let tokens = prompt.len() + self.pattern.position_shift(prefix_length);
        if tokens > self.longest {
            return Err(Error::TooLong {
                prompt: index,
                tokens,
                allowed: self.longest,
            });
        }
        Ok(settings.max_new_tokens.min(self.longest - tokens + 1))
    }

    /// How many prompts, and tokens of them and behind them, are at work at a time.
    fn batch_size(&self, prompts: &Ragged<u32>, settings: &GenerationSettings) -> BatchSize {
        let lengths = (0..prompts.len()).map(|prompt| prompts.length(prompt));
        let longest = lengths.max().unwrap_or(0).max(1);
        let tokens = KEYS_AND_VALUES / self.session.bytes_a_token() / settings.beam_size;
        match settings.batch {
            Some(rows) => BatchSize {
                tokens: usize::MAX,
                rows,
            },
            None => BatchSize {
                // In the first step each token has a score for each of its prompt.
                tokens: tokens.min(SCORES / (self.heads * longest)),
                rows: MOST_ROWS / settings.beam_size,
            },
        }
    }

    fn active(&self, prompt: usize, ids: &[u32], search: Search) -> Active {
        let prefix_length = self.pattern.prefix_length(ids);
        let shift = self.pattern.position_shift(prefix_length);
        Active {
            prompt,
            length: ids.len(),
            prefix_length,
            position: self.first_position + ids.len() + shift,
            search,
        }
    }

    /// Writes behind the prompts `active`, together, and hands on those that are done after each step;
    /// whether it came to the end before Ctrl-C.
    fn write(
        &mut self,
        prompts: &Ragged<u32>,
        mut active: Vec<Active>,
        done: &mut dyn FnMut(Vec<(usize, Generated)>),
    ) -> Result<bool, Error> {
        let width = active.iter().map(|one| one.length).max().unwrap_or(0);
        let step = self.first_step(prompts, &active, width);
        let nothing = self.session.nothing(active.len())?;
        let (mut logits, mut states) = self.step(&active, step, nothing)?;
        for new in 0.. {
            if interrupt::requested() {
                return Ok(false);
            }
            let Advanced {
                texts,
                still,
                parents,
                tokens,
            } = advance(active, &logits, self.session.vocabulary());
            active = still;
            if !texts.is_empty() {
                done(texts);
            }
            if active.is_empty() {
                break;
            }
            let rows = parents.len();
            let in_place = logits.len() == rows * self.session.vocabulary()
                && parents.iter().copied().eq(0..rows);
            if !in_place {
                states = self.session.gather(states, &parents)?;
            }
            let step = next_step(&active, &tokens, width, new);
            (logits, states) = self.step(&active, step, states)?;
        }
        Ok(true)
    }

    fn step(
        &mut self,
        active: &[Active],
        step: Step,
        states: KeysAndValues,
    ) -> Result<(Vec<f32>, KeysAndValues), Error> {
        self.session.run(step, states).map_err(|error| {
            let frozen::Error::NotFinite { sequence: row } = error else {
                return error.into();
            };
            let sequence = by_row(active).nth(row).map_or(row, |one| one.prompt);
            frozen::Error::NotFinite { sequence }.into()
        })
    }

    /// All of the prompts, padded to `width`.
    fn first_step(&self, prompts: &Ragged<u32>, active: &[Active], width: usize) -> Step {
        let shape = (active.len(), width);
        // Padding takes the first position, which every model has.
        let mut positions = Array2::from_elem(shape, self.first_position as i64);
        let (mut ids, mut mask) = (Array2::zeros(shape), Array2::zeros(shape));
        for (row, one) in active.iter().enumerate() {
            for (column, &id) in prompts.sequence(one.prompt).iter().enumerate() {
                let position = if column < one.prefix_length {
                    self.first_position + column
                } else {
                    one.position - one.length + column
                };
                ids[[row, column]] = i64::from(id);
                mask[[row, column]] = 1;
                positions[[row, column]] = position as i64;
            }
        }
        Step {
            ids,
            mask,
            positions,
            prefix_lengths: active.iter().map(|one| one.prefix_length as i64).collect(),
            last_tokens: active.iter().map(|one| one.length as i64 - 1).collect(),
        }
    }
}

/// Each prompt as often as it has hypotheses.
fn by_row(active: &[Active]) -> impl Iterator<Item = &Active> {
    active
        .iter()
        .flat_map(|one| std::iter::repeat_n(one, one.search.rows()))
}

/// The new tokens number `new` of all hypotheses, behind prompts padded to `width`.
fn next_step(active: &[Active], tokens: &[u32], width: usize, new: usize) -> Step {
    let rows = tokens.len();
    let mut mask = Array2::ones((rows, width + new + 1));
    for (mut mask, one) in mask.rows_mut().into_iter().zip(by_row(active)) {
        mask.slice_mut(ndarray::s![one.length..width]).fill(0);
    }
    let positions = by_row(active).map(|one| (one.position + new) as i64);
    let positions: Array1<i64> = positions.collect();
    let ids: Array1<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
    let column = ndarray::Axis(1);
    Step {
        ids: ids.insert_axis(column),
        mask,
        positions: positions.insert_axis(column),
        prefix_lengths: by_row(active).map(|one| one.prefix_length as i64).collect(),
        last_tokens: Array1::zeros(rows),
    }
}

/// Where a step's logits led.
struct Advanced {
    /// What is done, by prompt.
    texts: Vec<(usize, Generated)>,
    /// What is not.
    still: Vec<Active>,
    /// The row before it of each hypothesis.
    parents: Vec<usize>,
    /// Its new token.
    tokens: Vec<u32>,
}

/// Has all searches go on by one token, side by side.
fn advance(active: Vec<Active>, logits: &[f32], vocabulary: usize) -> Advanced {
    let starts = active.iter().scan(0, |start, one| {
        let first = *start;
        *start += one.search.rows();
        Some(first)
    });
    let starts: Vec<usize> = starts.collect();
    let moved = active.into_par_iter().zip(starts).map(|(mut one, start)| {
        let rows = start * vocabulary..(start + one.search.rows()) * vocabulary;
        let outcome = one.search.advance(&logits[rows]);
        (one, start, outcome)
    });
    let moved: Vec<(Active, usize, Outcome)> = moved.collect();
    let mut advanced = Advanced {
        texts: Vec::new(),
        still: Vec::new(),
        parents: Vec::new(),
        tokens: Vec::new(),
    };
    for (one, start, outcome) in moved {
        match outcome {
            Outcome::Done(text) => advanced.texts.push((one.prompt, text)),
            Outcome::Running(continuations) => {
                for continuation in continuations {
                    advanced.parents.push(start + continuation.parent);
                    advanced.tokens.push(continuation.token);
                }
                advanced.still.push(one);
            }
        }
    }
    advanced
}
