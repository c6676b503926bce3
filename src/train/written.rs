//! The texts that a model under training writes, compared with those that are wanted.

use super::Error;
use crate::cache::Split;
use crate::ragged::Ragged;
use crate::targets::Targets;
use crate::task::Model;
use crate::task::text_metrics::{TextMetrics, TextPair, TextScores, TextTask};

/// Writes a text behind each of some prompts, with a model as it is at that moment.
pub type WriteTexts<'a> = dyn FnMut(&Model, &Ragged<u32>) -> Result<Vec<String>, Error> + 'a;

/// Metrics of what `write` makes of the first `rows` rows of `split`, all where it has no more; `ids`
/// reads a sequence's tokens.
///
/// # Panics
/// If `split` has no texts for targets.
pub fn score_texts<E>(
    task: TextTask,
    (split, rows): (&Split, usize),
    ids: impl Fn(usize) -> Vec<u32>,
    write: impl FnOnce(&Ragged<u32>) -> Result<Vec<String>, E>,
) -> Result<TextMetrics, E> {
    let Targets::Texts {
        first_scored,
        references,
        ..
    } = &split.targets
    else {
        panic!("a split of texts is expected")
    };
    let mut prompts = Ragged::new(1);
    for (row, &first) in first_scored.iter().enumerate().take(rows) {
        prompts.push(&ids(split.sequence(row, 0))[..first as usize]);
    }
    let written = write(&prompts)?;
    let pairs = references.iter().zip(&written);
    let pairs: Vec<TextPair> = pairs
        .map(|(reference, hypothesis)| TextPair {
            reference,
            hypothesis,
        })
        .collect();
    Ok(TextScores::new(task, &pairs).metrics())
}
