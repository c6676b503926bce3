//! Running the model over whole splits, without dropout.

use candle_core::Tensor;

use super::estimate::EVALUATED_TOKENS;
use super::{Activations, Error, read_batch};
use crate::cache::Split;
use crate::frozen::by_token_budget;
use crate::interrupt;
use crate::progress::Progress;
use crate::task::text_metrics::TextMetrics;
use crate::task::{Candidates, EmbeddedSplit, Metrics, Model, RowScores};

/// One vector for each of `sequences`, `[sequences, hidden]`; each is computed once however
/// often it is asked for.
pub fn embed(
    model: &Model,
    activations: &mut dyn Activations,
    sequences: &[usize],
    label: &str,
) -> Result<Tensor, Error> {
    let mut distinct = sequences.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let tokens = distinct.iter().map(|&index| activations.length(index));
    let mut progress = Progress::new(label, tokens.sum::<usize>() as u64, "tokens");
    embed_with(model, activations, sequences, |tokens| {
        progress.advance(tokens);
    })
}

/// As [`embed`]; after each batch `report` is told of its tokens.
pub fn embed_with(
    model: &Model,
    activations: &mut dyn Activations,
    sequences: &[usize],
    mut report: impl FnMut(u64),
) -> Result<Tensor, Error> {
    let mut distinct = sequences.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let lengths: Vec<usize> = distinct
        .iter()
        .map(|&index| activations.length(index))
        .collect();
    let pass = model.evaluation();
    let mut vectors: Vec<Option<Tensor>> = vec![None; distinct.len()];
    for batch in by_token_budget(&lengths, EVALUATED_TOKENS) {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        let indices: Vec<usize> = batch.iter().map(|&member| distinct[member]).collect();
        let embedded = model.embed(activations.input(&indices)?, &pass)?.detach();
        for (row, &member) in batch.iter().enumerate() {
            let vector = embedded
                .narrow(0, row, 1)
                .map_err(crate::trainable::Error::from)?;
            vectors[member] = Some(vector);
        }
        report(batch.iter().map(|&member| lengths[member] as u64).sum());
    }
    let rows: Vec<Tensor> = sequences
        .iter()
        .filter_map(|index| vectors[distinct.partition_point(|other| other < index)].clone())
        .collect();
    Ok(Tensor::cat(&rows, 0).map_err(crate::trainable::Error::from)?)
}

/// `split` run through `model`; with a `code_base`, of one sequence a row, that is what its rows
/// are to be found in.
pub(super) fn embed_split<'a>(
    model: &Model,
    activations: &mut dyn Activations,
    split: &'a Split,
    code_base: Option<&Split>,
    label: &str,
) -> Result<EmbeddedSplit<'a>, Error> {
    let searched = code_base.map_or(&[][..], |code_base| &code_base.rows);
    let sequences = [&split.rows, searched].concat();
    let vectors = embed(model, activations, &sequences, label)?;
    let columns = (0..split.columns)
        .map(|column| {
            #[allow(clippy::cast_possible_truncation)] // The index file counts in u32 too.
            let rows = (0..split.len()).map(|row| (row * split.columns + column) as u32);
            let rows = Tensor::from_iter(rows, vectors.device())?;
            vectors.index_select(&rows, 0)
        })
        .collect::<Result<_, _>>()
        .map_err(crate::trainable::Error::from)?;
    let sequences = (0..split.columns).map(|column| {
        let rows = 0..split.len();
        rows.map(|row| split.sequence(row, column)).collect()
    });
    let candidates = code_base.map(|code_base| {
        let vectors = vectors.narrow(0, split.rows.len(), code_base.rows.len());
        Ok(Candidates {
            vectors: vectors.map_err(crate::trainable::Error::from)?,
            sequences: code_base.rows.clone(),
        })
    });
    Ok(EmbeddedSplit {
        columns,
        sequences: sequences.collect(),
        targets: &split.targets,
        candidates: candidates.transpose().map_err(Error::Trainable)?,
    })
}

/// The mean loss of the tokens that are scored in `split`, a few rows at a time.
fn mean_loss(
    model: &Model,
    activations: &mut dyn Activations,
    split: &Split,
    label: &str,
) -> Result<f64, Error> {
    let lengths: Vec<usize> = (0..split.len())
        .map(|row| activations.length(split.sequence(row, 0)))
        .collect();
    let mut progress = Progress::new(label, lengths.iter().sum::<usize>() as u64, "tokens");
    let pass = model.evaluation();
    let (mut sum, mut count) = (0.0, 0);
    for rows in by_token_budget(&lengths, EVALUATED_TOKENS) {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        let batch = read_batch(activations, split, &rows)?;
        if let Some((loss, tokens)) = model.total_loss(batch, &pass)? {
            sum += loss;
            count += tokens;
        }
        progress.advance(rows.iter().map(|&row| lengths[row] as u64).sum());
    }
    // No number where nothing is scored: nothing is better than it, nor worse.
    Ok(sum / count as f64)
}

/// Metrics of `model` on `split`, whose rows are to be found in `code_base` if there is one.
pub fn evaluate(
    model: &Model,
    activations: &mut dyn Activations,
    split: &Split,
    code_base: Option<&Split>,
    label: &str,
) -> Result<Metrics, Error> {
    if let Some(task) = model.text_task() {
        let loss = mean_loss(model, activations, split, label)?;
        return Ok(Metrics::Text(TextMetrics::of_loss(task, loss)));
    }
    let embedded = embed_split(model, activations, split, code_base, label)?;
    Ok(model.metrics(&embedded, &model.evaluation())?)
}

/// As [`evaluate`], with what each row adds to the metric that chooses; without that where the metric is
/// no mean over rows.
pub fn evaluate_rows(
    model: &Model,
    activations: &mut dyn Activations,
    split: &Split,
    code_base: Option<&Split>,
    label: &str,
) -> Result<(Metrics, Option<RowScores>), Error> {
    if model.text_task().is_some() {
        let metrics = evaluate(model, activations, split, code_base, label)?;
        return Ok((metrics, None));
    }
    let embedded = embed_split(model, activations, split, code_base, label)?;
    let pass = model.evaluation();
    let metrics = model.metrics(&embedded, &pass)?;
    Ok((metrics, model.row_scores(&embedded, &pass)?))
}
