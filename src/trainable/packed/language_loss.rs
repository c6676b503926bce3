//! The cross-entropy of `logits = hidden matrixᵀ` and its gradients, the logits never held whole.
//!
//! Rows are gone through in blocks, the vocabulary in tiles: of the logits there is one tile a
//! thread. The sum of exponentials is kept up along the vocabulary, taken from a maximum that moves
//! with it (Milakov, Gimelshein, 2018, arXiv 1805.02867), and so is the sum of the matrix's rows
//! weighted by them (as attention's values in Rabe, Staats, 2021, arXiv 2112.05682): once a block has
//! seen the whole vocabulary, its gradient is that sum divided by the other. No logit is computed
//! twice.
//!
//! With `p` the probabilities of a row and `t` its target, the gradient with respect to the logits is
//! `p - 1` at `t` and `p` elsewhere. The target is left out of both sums and comes last, with
//! `p_t - 1 = -Σ_(v ≠ t) p_v`: a difference of two numbers near 1 would be mostly error.

use faer::linalg::matmul::matmul;
use faer::{Accum, Par};
use rayon::prelude::*;

use super::math::exp;
use super::matrix::{Target, view, view_mut};
use super::sums::largest;
use crate::simd;

/// Rows of a block at most.
const ROWS: usize = 256;
/// Columns of a tile, each a token of the vocabulary. A tile of logits and what it is made of
/// (`[COLUMNS, width]` of the matrix) stay in the cache between the products that read them.
const COLUMNS: usize = 1024;
/// Pieces of work at least, where the vocabulary has that many tiles: cores share them. They are not
/// as many as there are cores, so that sums do not depend on that.
const PIECES: usize = 32;
/// Numbers of the exponentials that are kept where the matrix is trained: 48 MiB.
const KEPT: usize = 12 << 20;
/// A maximum may lag behind by this much. All there is of a row is scaled when it moves.
const LAG: f32 = 16.0;

/// What tokens' cross-entropies come to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::trainable) struct Total {
    /// Their sum.
    pub(in crate::trainable) loss: f64,
}

/// What the loss is of.
#[derive(Clone, Copy)]
pub(in crate::trainable) struct Problem<'a> {
    /// `[rows, width]`.
    pub(in crate::trainable) hidden: &'a [f32],
    /// `[vocabulary, width]`.
    pub(in crate::trainable) matrix: &'a [f32],
    /// Of each row, below the vocabulary's size.
    pub(in crate::trainable) targets: &'a [u32],
    pub(in crate::trainable) width: usize,
}

/// One row over a stretch of the vocabulary.
#[derive(Clone, Copy)]
struct RowSums {
    /// Taken from a logit before its exponential.
    shift: f32,
    /// Σ exp(logit - shift), the target's left out.
    others: f64,
    /// The largest logit.
    largest: f32,
    /// The target's, where it lies in the stretch.
    target: f32,
}

/// A block of rows over a stretch of the vocabulary.
struct Piece {
    rows: Vec<RowSums>,
    /// `[rows, width]`: Σ exp(logit - shift) · the matrix's row, the target's left out; empty unless
    /// a gradient is asked for.
    weighted: Vec<f32>,
}

/// One row over the whole vocabulary.
#[derive(Clone, Copy)]
struct RowTotal {
    /// Taken from a logit before its exponential.
    shift: f64,
    /// Σ exp(logit - shift).
    sum: f64,
    /// The probability of all but the target.
    others: f64,
    loss: f64,
}

/// Where a piece leaves its exponentials.
struct Kept<'a> {
    /// `[rows, columns]` of one tile after the other.
    exponentials: &'a mut [f32],
    /// What was taken from the logits, `[tiles, rows]`.
    shifts: &'a mut [f32],
}

/// The loss alone.
pub(in crate::trainable) fn evaluate(problem: Problem) -> Total {
    let pieces = problem.pieces(false);
    total(pieces.iter().flat_map(|(_, pieces)| row_totals(pieces)))
}

/// The loss; `of_hidden` `[rows, width]` gets the gradient of `scale` times it with respect to the
/// hidden states.
pub(in crate::trainable) fn of_hidden(
    problem: Problem,
    scale: f64,
    of_hidden: &mut [f32],
) -> Total {
    let blocks = problem.pieces(true);
    let rows: Vec<RowTotal> = blocks
        .iter()
        .flat_map(|(_, pieces)| row_totals(pieces))
        .collect();
    let mut rest = of_hidden;
    let mut first = 0;
    for (block, pieces) in &blocks {
        let count = block.targets.len();
        let (of_block, below) = rest.split_at_mut(count * problem.width);
        finish(*block, pieces, &rows[first..first + count], scale, of_block);
        (rest, first) = (below, first + count);
    }
    total(rows)
}

/// As [`of_hidden`], with respect to the matrix too: `of_matrix` `[vocabulary, width]` gets it, or
/// has it added.
pub(in crate::trainable) fn of_both(
    problem: Problem,
    scale: f64,
    of_hidden: &mut [f32],
    of_matrix: &mut [f32],
    target: Target,
) -> Total {
    let (width, vocabulary) = (problem.width, problem.vocabulary());
    let rows = (KEPT / vocabulary).clamp(1, ROWS);
    let rows = even(problem.targets.len(), rows);
    let tiles = vocabulary.div_ceil(COLUMNS);
    let mut exponentials = vec![0.0; rows * vocabulary];
    let mut shifts = vec![0.0; rows * tiles];
    if target == Target::Replace && problem.targets.is_empty() {
        of_matrix.fill(0.0);
    }
    let mut all = Total::default();
    let mut accumulation = target.accumulation();
    let blocks = problem.blocks(rows);
    for (block, of_hidden) in blocks.zip(of_hidden.chunks_mut((rows * width).max(1))) {
        let rows = block.targets.len();
        let stretch = tiles.div_ceil(PIECES) * COLUMNS;
        let pieces: Vec<Piece> = exponentials[..rows * vocabulary]
            .par_chunks_mut(rows * stretch)
            .zip(shifts[..rows * tiles].par_chunks_mut(rows * stretch / COLUMNS))
            .enumerate()
            .with_max_len(1)
            .map(|(index, (exponentials, shifts))| {
                let start = index * stretch;
                let end = vocabulary.min(start + stretch);
                let kept = Kept {
                    exponentials,
                    shifts,
                };
                block.piece(start..end, true, Some(kept))
            })
            .collect();
        let totals: Vec<RowTotal> = row_totals(&pieces).collect();
        finish(block, &pieces, &totals, scale, of_hidden);
        drop(pieces);
        of_matrix
            .par_chunks_mut(COLUMNS * width)
            .zip(exponentials[..rows * vocabulary].par_chunks(rows * COLUMNS))
            .zip(shifts[..rows * tiles].par_chunks(rows))
            .with_max_len(1)
            .for_each_init(
                || vec![0.0; rows * width],
                |states, ((of_matrix, exponentials), shifts)| {
                    block.scaled(&totals, shifts, scale, states);
                    let columns = of_matrix.len() / width;
                    let exponentials = view(exponentials, columns).transpose();
                    let (output, states) = (view_mut(of_matrix, width), view(states, width));
                    matmul(output, accumulation, exponentials, states, 1.0, Par::Seq);
                },
            );
        for (row, (state, &target)) in block.states().zip(block.targets).enumerate() {
            let factor = narrow(-scale * totals[row].others);
            let of_target = &mut of_matrix[target as usize * width..][..width];
            for (sum, number) in of_target.iter_mut().zip(state) {
                *sum += factor * number;
            }
        }
        let of_block = total(totals);
        all.loss += of_block.loss;
        accumulation = Accum::Add;
    }
    all
}

impl<'a> Problem<'a> {
    fn vocabulary(&self) -> usize {
        self.matrix.len() / self.width
    }

    fn states(&self) -> impl Iterator<Item = &'a [f32]> {
        self.hidden.chunks_exact(self.width)
    }

    /// The same of `rows` rows at a time.
    fn blocks(self, rows: usize) -> impl Iterator<Item = Self> {
        let hidden = self.hidden.chunks((rows * self.width).max(1));
        let blocks = hidden.zip(self.targets.chunks(rows.max(1)));
        blocks.map(move |(hidden, targets)| Self {
            hidden,
            targets,
            ..self
        })
    }

    /// Every block of rows, and what it comes to over one stretch of the vocabulary after the other.
    fn pieces(self, gradient: bool) -> Vec<(Self, Vec<Piece>)> {
        let vocabulary = self.vocabulary();
        let blocks: Vec<Self> = self.blocks(even(self.targets.len(), ROWS)).collect();
        let stretches = PIECES.div_ceil(blocks.len().max(1));
        let stretch = vocabulary.div_ceil(COLUMNS).div_ceil(stretches) * COLUMNS;
        let stretches = vocabulary.div_ceil(stretch);
        let pieces = (0..blocks.len() * stretches)
            .into_par_iter()
            .with_max_len(1);
        let pieces = pieces.map(|index| {
            let start = index % stretches * stretch;
            let end = vocabulary.min(start + stretch);
            blocks[index / stretches].piece(start..end, gradient, None)
        });
        let mut pieces = pieces.collect::<Vec<_>>().into_iter();
        let blocks = blocks.into_iter();
        blocks
            .map(|block| (block, pieces.by_ref().take(stretches).collect()))
            .collect()
    }

    /// All its rows over the tokens of `stretch`, on the calling thread.
    fn piece(
        &self,
        stretch: std::ops::Range<usize>,
        gradient: bool,
        mut kept: Option<Kept>,
    ) -> Piece {
        let (width, count) = (self.width, self.targets.len());
        let none = RowSums {
            shift: f32::NEG_INFINITY,
            others: 0.0,
            largest: f32::NEG_INFINITY,
            target: f32::NEG_INFINITY,
        };
        let mut rows = vec![none; count];
        let mut weighted = vec![0.0; if gradient { count * width } else { 0 }];
        let mut own = vec![0.0; if kept.is_none() { count * COLUMNS } else { 0 }];
        let matrix = &self.matrix[stretch.start * width..stretch.end * width];
        let hidden = view(self.hidden, width);
        for (index, matrix) in matrix.chunks(COLUMNS * width).enumerate() {
            let columns = matrix.len() / width;
            let tile = match &mut kept {
                Some(kept) => &mut kept.exponentials[index * COLUMNS * count..],
                None => &mut own[..],
            };
            let tile = &mut tile[..columns * count];
            let matrix = view(matrix, width);
            let logits = view_mut(tile, columns);
            matmul(
                logits,
                Accum::Replace,
                hidden,
                matrix.transpose(),
                1.0,
                Par::Seq,
            );
            let first = stretch.start + index * COLUMNS;
            simd::dispatch(
                #[inline(always)]
                || self.add_tile(first, tile, &mut rows, &mut weighted),
            );
            if gradient {
                let sums = view_mut(&mut weighted, width);
                matmul(sums, Accum::Add, view(tile, columns), matrix, 1.0, Par::Seq);
            }
            if let Some(kept) = &mut kept {
                let shifts = &mut kept.shifts[index * count..][..count];
                for (shift, row) in shifts.iter_mut().zip(&rows) {
                    *shift = row.shift;
                }
            }
        }
        Piece { rows, weighted }
    }

    /// Adds the logits of the tokens from `first` on to the sums of `rows`, and turns them into
    /// exponentials. `weighted` is scaled for what is to be added to it.
    #[inline(always)]
    fn add_tile(
        &self,
        first: usize,
        logits: &mut [f32],
        rows: &mut [RowSums],
        weighted: &mut [f32],
    ) {
        let columns = logits.len() / rows.len();
        let logits = logits.chunks_exact_mut(columns).zip(self.targets);
        for (index, (row, (logits, &target))) in rows.iter_mut().zip(logits).enumerate() {
            let here = largest(logits);
            row.largest = row.largest.max(here);
            if here > row.shift + LAG {
                let factor = exp(row.shift - here);
                row.others *= f64::from(factor);
                if let Some(sums) = weighted.get_mut(index * self.width..(index + 1) * self.width) {
                    for sum in sums {
                        *sum *= factor;
                    }
                }
                row.shift = here;
            }
            let own = (target as usize).checked_sub(first);
            if let Some(own) = own.and_then(|own| logits.get_mut(own)) {
                row.target = std::mem::replace(own, f32::NEG_INFINITY);
            }
            row.others += f64::from(exponentials(logits, row.shift));
        }
    }

    /// `output ← ` each row of the hidden states times `scale` and what turns exponentials taken from
    /// `shifts` into probabilities.
    fn scaled(&self, totals: &[RowTotal], shifts: &[f32], scale: f64, output: &mut [f32]) {
        let rows = output.chunks_exact_mut(self.width).zip(self.states());
        for ((output, state), (total, &shift)) in rows.zip(totals.iter().zip(shifts)) {
            let factor = narrow(scale * total.probability(shift));
            for (output, number) in output.iter_mut().zip(state) {
                *output = factor * number;
            }
        }
    }
}

impl RowTotal {
    /// What an exponential taken from `shift` is multiplied by to be a probability.
    fn probability(&self, shift: f32) -> f64 {
        (f64::from(shift) - self.shift).exp() / self.sum
    }
}

/// Turns `logits` into `exp(logit - shift)`, and returns their sum.
#[inline(always)]
fn exponentials(logits: &mut [f32], shift: f32) -> f32 {
    let (chunks, rest) = logits.as_chunks_mut::<16>();
    let mut lanes = [0.0f32; 16];
    for chunk in chunks {
        for (lane, number) in lanes.iter_mut().zip(chunk) {
            *number = exp(*number - shift);
            *lane += *number;
        }
    }
    let mut sum = lanes.iter().sum::<f32>();
    for number in rest {
        *number = exp(*number - shift);
        sum += *number;
    }
    sum
}

/// Each row over the stretches of `pieces` together.
fn row_totals(pieces: &[Piece]) -> impl Iterator<Item = RowTotal> {
    let rows = pieces.first().map_or(0, |piece| piece.rows.len());
    (0..rows).map(move |row| {
        let parts = || pieces.iter().map(|piece| piece.rows[row]);
        let largest = parts()
            .map(|part| part.largest)
            .fold(f32::NEG_INFINITY, f32::max);
        let target = parts()
            .map(|part| part.target)
            .fold(f32::NEG_INFINITY, f32::max);
        // The target's exponential is 1 where it is the largest, and the others' sum is small then.
        let shift = f64::from(largest);
        let others = parts().map(|part| part.others * (f64::from(part.shift) - shift).exp());
        let others = others.sum::<f64>();
        let own = (f64::from(target) - shift).exp();
        let sum = others + own;
        RowTotal {
            shift,
            sum,
            others: others / sum,
            loss: if target >= largest {
                others.ln_1p()
            } else {
                shift - f64::from(target) + sum.ln()
            },
        }
    })
}

fn total(rows: impl IntoIterator<Item = RowTotal>) -> Total {
    rows.into_iter().fold(Total::default(), |total, row| Total {
        loss: total.loss + row.loss,
    })
}

/// `of_hidden ← ` the gradient of a block's rows, out of all its pieces.
fn finish(
    block: Problem,
    pieces: &[Piece],
    totals: &[RowTotal],
    scale: f64,
    of_hidden: &mut [f32],
) {
    let width = block.width;
    let rows = of_hidden
        .par_chunks_exact_mut(width)
        .zip(totals)
        .enumerate();
    rows.for_each(|(index, (output, total))| {
        let target = &block.matrix[block.targets[index] as usize * width..][..width];
        let factor = narrow(-scale * total.others);
        for (output, number) in output.iter_mut().zip(target) {
            *output = factor * number;
        }
        for piece in pieces {
            let factor = narrow(scale * total.probability(piece.rows[index].shift));
            let weighted = &piece.weighted[index * width..][..width];
            for (output, number) in output.iter_mut().zip(weighted) {
                *output += factor * number;
            }
        }
    });
}

/// Rows a block for `rows` rows in as few blocks of at most `most` as there can be, all about as long.
fn even(rows: usize, most: usize) -> usize {
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

/// A factor for numbers that are f32.
#[allow(clippy::cast_possible_truncation, reason = "that is what it is for")]
fn narrow(factor: f64) -> f32 {
    factor as f32
}
