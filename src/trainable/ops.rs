//! The layers' functions in candle's differentiable primitives, for any device, and the reference
//! for those written out for the CPU (`packed`).
//!
//! candle-nn's own `LayerNorm` and `softmax_last_dim` are not used anywhere: they have no
//! backward and cut the gradient without a word.

use candle_core::{D, DType, Result, Tensor};

use super::buckets::{Buckets, select};
use super::{Dropout, Packing, Pooling};
use crate::checkpoint::Rotation;

/// `y = x Wᵀ + b`: `x` `[tokens, inputs]`, `weight` `[outputs, inputs]`, `bias` `[outputs]` to
/// `[tokens, outputs]`.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    x.matmul(&weight.t()?)?.broadcast_add(bias)
}

/// As [`linear`], computed in `number_type`: to what `x`, `weight` and `bias` are turned, and what
/// comes out.
pub(super) fn linear_in(
    number_type: DType,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let weight = weight.to_dtype(number_type)?;
    let product = x.to_dtype(number_type)?.matmul(&weight.t()?)?;
    match bias {
        None => Ok(product),
        Some(bias) if number_type == bias.dtype() => product.broadcast_add(bias),
        Some(bias) => {
            // On the way back a product adds up over all tokens in f32, which a sum of halves
            // does not.
            let ones = Tensor::ones((x.dim(0)?, 1), number_type, x.device())?;
            product + ones.matmul(&bias.to_dtype(number_type)?.unsqueeze(0)?)?
        }
    }
}

/// Drops elements of `x` `[tokens, width]`; its first row is the batch's row `first_row`. `None`
/// is the identity.
pub fn dropout(x: &Tensor, settings: Option<Dropout>, first_row: usize) -> Result<Tensor> {
    match settings {
        None => Ok(x.clone()),
        Some(settings) => {
            let first = first_row * x.dim(D::Minus1)?;
            x * settings.mask(first, x.shape(), x.device())?
        }
    }
}

/// Layer normalisation over the last dimension (Ba, Kiros, Hinton, 2016):
/// `y = (x - mean) / √(variance + ε) · weight + bias`, if there is a bias.
pub fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    epsilon: f64,
) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let deviation = (variance + epsilon)?.sqrt()?;
    let scaled = centred.broadcast_div(&deviation)?.broadcast_mul(weight)?;
    match bias {
        Some(bias) => scaled.broadcast_add(bias),
        None => Ok(scaled),
    }
}

/// Root mean square normalisation over the last dimension (Zhang, Sennrich, 2019):
/// `y = x / √(mean of x² + ε) · weight + bias`, if there is a bias.
pub fn rms_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    epsilon: f64,
) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    let root = (mean_square + epsilon)?.sqrt()?;
    let scaled = x.broadcast_div(&root)?.broadcast_mul(weight)?;
    match bias {
        Some(bias) => scaled.broadcast_add(bias),
        None => Ok(scaled),
    }
}

/// Turns each head of `x` `[tokens, heads · d]` by its token's position in its sequence: of each
/// pair, `(a cos - b sin, b cos + a sin)`.
pub(super) fn turn(x: &Tensor, packing: &Packing, rotation: &Rotation) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let half = rotation.steps.len();
    let heads = width / (2 * half);
    let number_type = x.dtype();
    let x = x.to_dtype(DType::F32)?.reshape((tokens, heads, 2 * half))?;
    let (first, second) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
    let [cosine, sine] = rotation.tables(packing.longest()).map(|table| {
        let lengths = (0..packing.sequences()).map(|index| packing.length(index));
        let rows: Vec<f32> = lengths
            .flat_map(|length| table[..length * half].iter().copied())
            .collect();
        Tensor::from_vec(rows, (tokens, 1, half), x.device())
    });
    let (cosine, sine) = (cosine?, sine?);
    let turned_first = (first.broadcast_mul(&cosine)? - second.broadcast_mul(&sine)?)?;
    let turned_second = (second.broadcast_mul(&cosine)? + first.broadcast_mul(&sine)?)?;
    let turned = Tensor::cat(&[turned_first, turned_second], 2)?;
    turned.to_dtype(number_type)?.reshape((tokens, width))
}

/// What becomes of attention's scores.
#[derive(Clone, Copy, Default)]
pub struct Scores<'a> {
    /// Added to them, `[heads, longest, longest]`; for a shorter sequence its top left corner.
    pub bias: Option<&'a Tensor>,
    /// Tokens farther apart than this do not attend to each other.
    pub window: Option<usize>,
    /// Of the probabilities.
    pub dropout: Option<Dropout>,
}

/// Multi-head scaled dot-product self-attention, each token attending to every token of its own
/// sequence within the window, or to those that the packing says: `softmax(Q Kᵀ / √d) V` (Vaswani
/// et al., 2017). Matrices are `[tokens, heads · d]`, of any type; the softmax is in f32. Sequences
/// of about one length are computed side by side, in the buckets of their packing. Of the two
/// numbers of heads the second is that of keys and values: each is for as many heads of queries as
/// come on one of them (Ainslie et al., 2023).
pub(super) fn attention(
    [queries, keys, values]: [&Tensor; 3],
    (packing, buckets): (&Packing, &Buckets),
    [heads, shared]: [usize; 2],
    settings: Scores,
) -> Result<Tensor> {
    let (_, width) = queries.dims2()?;
    let head_size = width / heads;
    let scale = 1.0 / (head_size as f64).sqrt();
    let device = queries.device();
    let starts = packing.probabilities(heads);
    let hidden = buckets.hidden(settings.window)?;
    let [queries, keys, values] = [queries, keys, values].map(|x| buckets.spread(x));
    let (queries, keys, values) = (queries?, keys?, values?);
    let mut contexts = Vec::with_capacity(buckets.list.len());
    let mut first = 0;
    for (bucket, hidden) in buckets.list.iter().zip(hidden) {
        let (sequences, length) = (bucket.sequences(), bucket.length);
        let split = |x: &Tensor, heads: usize| {
            let rows = x.narrow(0, first, bucket.slots())?;
            rows.reshape((sequences, length, heads, head_size))?
                .transpose(1, 2)?
                .contiguous()
        };
        let q = split(&queries, heads)?;
        let (k, v) = (split(&keys, shared)?, split(&values, shared)?);
        // Queries of the heads that share keys are one below the other.
        let stacked = |x: &Tensor| {
            let rows = heads / shared * length;
            x.reshape((sequences, shared, rows, x.dim(D::Minus1)?))
        };
        let scores = stacked(&q)?.matmul(&k.t()?)?;
        let scores = scores.reshape((sequences, heads, length, length))?;
        let mut scores = (scores.to_dtype(DType::F32)? * scale)?;
        if let Some(bias) = settings.bias {
            let bias = bias.narrow(1, 0, length)?.narrow(2, 0, length)?;
            scores = scores.broadcast_add(&bias)?;
        }
        if let Some(hidden) = hidden {
            scores = scores.broadcast_add(&hidden)?;
        }
        let mut probabilities = candle_nn::ops::softmax(&scores, D::Minus1)?;
        if let Some(dropout) = settings.dropout {
            let mask = bucket.dropout(&dropout, &starts, heads, device)?;
            probabilities = (probabilities * mask)?;
        }
        let probabilities = probabilities.to_dtype(v.dtype())?;
        let context = stacked(&probabilities)?.matmul(&v)?;
        let context = context.reshape((sequences, heads, length, head_size))?;
        let context = context.transpose(1, 2)?;
        contexts.push(context.reshape((bucket.slots(), width))?);
        first += bucket.slots();
    }
    buckets.gather(&Tensor::cat(&contexts, 0)?)
}

/// One vector a sequence, or the states that are scored: `[tokens, width]` to `[vectors, width]`.
pub fn pool(x: &Tensor, packing: &Packing, pooling: Pooling) -> Result<Tensor> {
    match pooling {
        Pooling::Cls => first_token(x, packing),
        Pooling::Mean => averaging_matrix(packing, x)?.matmul(x),
        Pooling::Scored if packing.reads_all(pooling) => Ok(x.clone()),
        Pooling::Scored => select(x, &packing.rows_read(pooling)),
    }
}

#[allow(clippy::cast_possible_truncation)]
fn first_token(x: &Tensor, packing: &Packing) -> Result<Tensor> {
    let firsts = packing.offsets[..packing.sequences()].iter();
    // Packed batches are far below 2³² tokens.
    let firsts: Vec<u32> = firsts.map(|&offset| offset as u32).collect();
    let rows = firsts.len();
    x.index_select(&Tensor::from_vec(firsts, rows, x.device())?, 0)
}

/// `[sequences, tokens]`: 1 / length where the token belongs to the sequence.
fn averaging_matrix(packing: &Packing, x: &Tensor) -> Result<Tensor> {
    let (sequences, tokens) = (packing.sequences(), packing.tokens());
    let mut matrix = vec![0.0f32; sequences * tokens];
    for (sequence, bounds) in packing.offsets.windows(2).enumerate() {
        let row = &mut matrix[sequence * tokens..][bounds[0]..bounds[1]];
        row.fill(1.0 / (bounds[1] - bounds[0]) as f32);
    }
    Tensor::from_vec(matrix, (sequences, tokens), x.device())
}
