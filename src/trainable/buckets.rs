//! Sequences of about one length side by side: what attention in candle's primitives works on, a
//! few large products where each sequence by itself would take many small ones.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::HashMap;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Dropout, Packing};

/// Of a bucket's length, the share that the shortest of its sequences may lack is one in this many.
const SLACK_SHARE: usize = 8;
/// Or this many tokens, where that is more.
const SLACK_TOKENS: usize = 8;
/// For candle, a row of zeros.
const NO_ROW: u32 = u32::MAX;

/// Sequences that are padded to the longest of them.
pub(super) struct Bucket {
    /// Their numbers in the packing, the longest first.
    sequences: Vec<usize>,
    /// Tokens of the longest.
    pub(super) length: usize,
    /// Tokens of each.
    lengths: Vec<usize>,
    /// Tokens of each one's prefix, if its tokens do not all attend to each other.
    prefixes: Vec<Option<usize>>,
}

/// All sequences of a packing in buckets, one after the other: each bucket has `length` slots for
/// each of its sequences.
pub(super) struct Buckets {
    pub(super) list: Vec<Bucket>,
    /// The token in each slot, `[slots]`; none where there is padding.
    tokens: Tensor,
    /// The slot of each token, `[tokens]`.
    slots: Tensor,
    /// For each window that was asked for, what [`Bucket::hidden`] gives for each bucket: all layers
    /// with one window share it.
    hidden: RefCell<HashMap<Option<usize>, Vec<Option<Tensor>>>>,
}

impl Bucket {
    fn takes(&self, length: usize) -> bool {
        self.length - length <= SLACK_TOKENS.max(self.length / SLACK_SHARE)
    }

    /// How many sequences.
    pub(super) fn sequences(&self) -> usize {
        self.sequences.len()
    }

    /// How many tokens, padding among them.
    pub(super) fn slots(&self) -> usize {
        self.sequences() * self.length
    }

    /// What is added to scores `[sequences, heads, length, length]`: the lowest number where the
    /// key is padding, farther than `window` from the query, or behind it and the prefix; else 0. None
    /// where that is nowhere.
    fn hidden(&self, window: Option<usize>, device: &Device) -> Result<Option<Tensor>> {
        let length = self.length;
        let is_padded = self.lengths.iter().any(|&own| own < length);
        let window = window.filter(|window| length > window + 1);
        let is_ordered = self.prefixes.iter().any(Option::is_some);
        if !is_padded && !is_ordered && window.is_none() {
            return Ok(None);
        }
        let hide = |hidden: bool| if hidden { f32::MIN } else { 0.0 };
        if window.is_none() && !is_ordered {
            // Alike for every query.
            let own = self.lengths.iter();
            let keys = own.flat_map(|&own| (0..length).map(move |key| hide(key >= own)));
            let shape = (self.sequences(), 1, 1, length);
            return Ok(Some(Tensor::from_vec(keys.collect(), shape, device)?));
        }
        let window = window.unwrap_or(length);
        let mut pairs = Vec::with_capacity(self.slots() * length);
        for (&own, prefix) in self.lengths.iter().zip(&self.prefixes) {
            let prefix = prefix.unwrap_or(own);
            for query in 0..length {
                // The keys that are seen lie side by side.
                let end = own.min(prefix.max(query + 1)).min(query + window + 1);
                let seen = query.saturating_sub(window)..end;
                pairs.extend((0..length).map(|key| hide(!seen.contains(&key))));
            }
        }
        let shape = (self.sequences(), 1, length, length);
        Ok(Some(Tensor::from_vec(pairs, shape, device)?))
    }

    /// Dropout's factors of probabilities `[sequences, heads, length, length]`: those of a sequence
    /// are numbered from its one of `starts`, as if it was alone.
    pub(super) fn dropout(
        &self,
        dropout: &Dropout,
        starts: &[usize],
        heads: usize,
        device: &Device,
    ) -> Result<Tensor> {
        let length = self.length;
        let mut factors = vec![0.0f32; self.slots() * heads * length];
        let queries = factors.par_chunks_mut(length.max(1)).enumerate();
        queries.for_each(|(row, factors)| {
            let (head, query) = (row / length, row % length);
            let (sequence, head) = (head / heads, head % heads);
            let own = self.lengths[sequence];
            if query < own {
                let start = starts[self.sequences[sequence]] + (head * own + query) * own;
                for (key, factor) in factors[..own].iter_mut().enumerate() {
                    *factor = dropout.factor(start + key);
                }
            }
        });
        let shape = (self.sequences(), heads, length, length);
        Tensor::from_vec(factors, shape, device)
    }
}

impl Buckets {
    /// Those of `packing`, their places on `device`.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a batch holds far fewer than 2³²"
    )]
    pub(super) fn new(packing: &Packing, device: &Device) -> Result<Self> {
        let list = divide(packing);
        let slot_count = list.iter().map(Bucket::slots).sum();
        let mut tokens = vec![NO_ROW; slot_count];
        let mut slots = vec![NO_ROW; packing.tokens()];
        let mut slot = 0;
        for bucket in &list {
            for &sequence in &bucket.sequences {
                let first = packing.offsets[sequence];
                for place in 0..packing.length(sequence) {
                    tokens[slot + place] = (first + place) as u32;
                    slots[first + place] = (slot + place) as u32;
                }
                slot += bucket.length;
            }
        }
        Ok(Self {
            list,
            tokens: Tensor::from_vec(tokens, slot_count, device)?,
            slots: Tensor::from_vec(slots, packing.tokens(), device)?,
            hidden: RefCell::default(),
        })
    }

    /// For each bucket, what hides from its scores padding, what is farther away than `window` and what
    /// a token does not attend to, `[sequences, 1, 1 or length, length]`; none where that is nothing.
    pub(super) fn hidden(&self, window: Option<usize>) -> Result<Vec<Option<Tensor>>> {
        if let Some(hidden) = self.hidden.borrow().get(&window) {
            return Ok(hidden.clone());
        }
        let device = self.tokens.device();
        let hidden = self.list.iter().map(|bucket| bucket.hidden(window, device));
        let hidden = hidden.collect::<Result<Vec<_>>>()?;
        self.hidden.borrow_mut().insert(window, hidden.clone());
        Ok(hidden)
    }

    /// `[tokens, width]` to `[slots, width]`, 0 in padding.
    pub(super) fn spread(&self, x: &Tensor) -> Result<Tensor> {
        let back = self.slots.clone();
        x.contiguous()?.apply_op2(&self.tokens, Rows { back })
    }

    /// `[slots, width]` to `[tokens, width]`, without the padding.
    pub(super) fn gather(&self, x: &Tensor) -> Result<Tensor> {
        let back = self.tokens.clone();
        x.contiguous()?.apply_op2(&self.slots, Rows { back })
    }
}

/// From the longest sequence to the shortest, a new bucket where one is too short for the last.
fn divide(packing: &Packing) -> Vec<Bucket> {
    let mut order: Vec<usize> = (0..packing.sequences()).collect();
    order.sort_by_key(|&sequence| Reverse(packing.length(sequence)));
    let mut list: Vec<Bucket> = Vec::new();
    for sequence in order {
        let length = packing.length(sequence);
        let prefix = packing.prefix(sequence);
        match list.last_mut() {
            Some(bucket) if bucket.takes(length) => {
                bucket.sequences.push(sequence);
                bucket.lengths.push(length);
                bucket.prefixes.push(prefix);
            }
            _ => list.push(Bucket {
                sequences: vec![sequence],
                length,
                lengths: vec![length],
                prefixes: vec![prefix],
            }),
        }
    }
    list
}

/// Some rows of `x` `[tokens, width]`, none of them twice.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a batch holds far fewer than 2³²"
)]
pub(super) fn select(x: &Tensor, rows: &[usize]) -> Result<Tensor> {
    let (tokens, _) = x.dims2()?;
    let mut back = vec![NO_ROW; tokens];
    for (index, &row) in rows.iter().enumerate() {
        back[row] = index as u32;
    }
    let back = Tensor::from_vec(back, tokens, x.device())?;
    let numbers: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    let rows = Tensor::from_vec(numbers, rows.len(), x.device())?;
    x.contiguous()?.apply_op2(&rows, Rows { back })
}

/// candle's `index_select` of rows, each of which is taken once at most. Its gradient is then
/// another selection of rows; candle's own is a sum over all of them, which on CUDA one thread a
/// column makes by itself.
struct Rows {
    /// Of each row of what is selected from, where it went.
    back: Tensor,
}

impl CustomOp2 for Rows {
    fn name(&self) -> &'static str {
        "rows"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        rows: &CpuStorage,
        rows_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let shape = selected(layout, rows_layout)?;
        Ok((x.index_select(rows, layout, rows_layout, 0)?, shape))
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
        rows: &CudaStorage,
        rows_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let shape = selected(layout, rows_layout)?;
        Ok((x.index_select(rows, layout, rows_layout, 0)?, shape))
    }

    fn bwd(
        &self,
        _x: &Tensor,
        _rows: &Tensor,
        _selected: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?.index_select(&self.back, 0)?;
        Ok((Some(gradient), None))
    }
}

/// The shape of the rows selected from a matrix.
fn selected(matrix: &Layout, rows: &Layout) -> Result<Shape> {
    let (_, width) = matrix.shape().dims2()?;
    Ok(Shape::from((rows.shape().dims1()?, width)))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Result, Tensor, Var};

    use super::{Bucket, Buckets, divide};
    use crate::trainable::ops::{Scores, attention};
    use crate::trainable::{Dropout, Packing};

    /// A packing of sequences of these lengths.
    fn packing(lengths: &[usize]) -> Packing {
        let mut offsets = vec![0];
        offsets.extend(lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        }));
        Packing::new(&offsets)
    }

    /// As in a batch of code: short ones, long ones, none of them in order.
    const LENGTHS: [usize; 12] = [70, 3, 512, 17, 64, 470, 9, 9, 33, 66, 1, 200];

    #[test]
    fn little_is_padding() {
        let packing = packing(&LENGTHS);
        let list = divide(&packing);
        let mut seen: Vec<usize> = list
            .iter()
            .flat_map(|bucket| bucket.sequences.clone())
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..LENGTHS.len()).collect::<Vec<_>>());
        assert!(list.len() < LENGTHS.len() && list.len() > 1);
        for bucket in &list {
            for &length in &bucket.lengths {
                let lacks = bucket.length - length;
                assert!(
                    lacks <= 8 || lacks * 8 <= bucket.length,
                    "{length} of {}",
                    bucket.length
                );
            }
        }
        let slots: usize = list.iter().map(Bucket::slots).sum();
        let padded = packing.longest() * packing.sequences();
        // 1574 slots for 1454 tokens; 6144 if all were padded to the longest.
        assert!(
            slots * 8 <= packing.tokens() * 9 && slots * 3 < padded,
            "{slots}"
        );
    }

    #[test]
    fn rows_go_there_and_back() -> Result<()> {
        let packing = packing(&[2, 30, 1, 27, 12]);
        let buckets = Buckets::new(&packing, &Device::Cpu)?;
        let x = Var::randn(0f32, 1.0, (packing.tokens(), 3), &Device::Cpu)?;
        let spread = buckets.spread(&x)?;
        assert!(spread.dim(0)? > packing.tokens());
        let total = |x: &Tensor| x.abs()?.sum_all()?.to_scalar::<f32>();
        assert!((total(&spread)? - total(&x)?).abs() < 1e-3);
        let again = buckets.gather(&spread)?;
        assert_eq!(again.to_vec2::<f32>()?, x.to_vec2::<f32>()?);
        // Of what is seen through both, the gradient comes back as it went in.
        let weights = Tensor::randn(0f32, 1.0, x.dims(), &Device::Cpu)?;
        let store = (again * &weights)?.sum_all()?.backward()?;
        let gradient = store.get(x.as_tensor()).expect("a gradient");
        assert_eq!(gradient.to_vec2::<f32>()?, weights.to_vec2::<f32>()?);
        Ok(())
    }

    /// The context and the gradients of queries, keys, values and bias.
    fn there_and_back(
        inputs: &[Var; 3],
        bias: &Var,
        packing: &Packing,
        settings: Scores,
        weights: &Tensor,
    ) -> Result<Vec<Vec<f32>>> {
        let [q, k, v] = inputs.each_ref().map(Var::as_tensor);
        let first = packing.first_token;
        let own = |x: &Tensor| x.narrow(0, first, packing.tokens());
        let (q_own, k_own, v_own) = (own(q)?, own(k)?, own(v)?);
        let settings = Scores {
            bias: Some(bias),
            ..settings
        };
        let buckets = Buckets::new(packing, &Device::Cpu)?;
        let inputs = [&q_own, &k_own, &v_own];
        let context = attention(inputs, (packing, &buckets), [2, 2], settings)?;
        let store = (&context * own(weights)?)?.sum_all()?.backward()?;
        let mut results = vec![context.flatten_all()?.to_vec1()?];
        for variable in [q, k, v, bias.as_tensor()] {
            let gradient = store.get(variable).expect("a gradient");
            results.push(gradient.flatten_all()?.to_vec1()?);
        }
        Ok(results)
    }

    #[test]
    fn beside_others_as_alone() -> Result<()> {
        let packing = packing(&[12, 3, 30, 30, 17, 1, 24, 11]);
        let (tokens, longest) = (packing.tokens(), packing.longest());
        let random = |shape: &[usize]| Var::randn(0f32, 1.0, shape, &Device::Cpu);
        let inputs = [
            random(&[tokens, 8])?,
            random(&[tokens, 8])?,
            random(&[tokens, 8])?,
        ];
        let bias = random(&[2, longest, longest])?;
        let weights = Tensor::randn(0f32, 1.0, (tokens, 8), &Device::Cpu)?;
        for (window, dropout) in [
            (None, None),
            (Some(4), None),
            (Some(4), Some(Dropout::new(0.2, 9))),
        ] {
            let settings = Scores {
                bias: None,
                window,
                dropout,
            };
            let all = there_and_back(&inputs, &bias, &packing, settings, &weights)?;
            let mut sums: Vec<Vec<f32>> = Vec::new();
            for sequence in 0..packing.sequences() {
                let alone = packing.part(sequence..sequence + 1);
                let one = there_and_back(&inputs, &bias, &alone, settings, &weights)?;
                if sums.is_empty() {
                    sums = one;
                    continue;
                }
                sums[0].extend(&one[0]);
                for (sum, one) in sums.iter_mut().zip(&one).skip(1) {
                    for (sum, one) in sum.iter_mut().zip(one) {
                        *sum += one;
                    }
                }
            }
            for (all, sum) in all.iter().zip(&sums) {
                assert_eq!(all.len(), sum.len());
                let worst = all.iter().zip(sum).map(|(a, b)| (a - b).abs());
                let worst = worst.fold(0.0, f32::max);
                assert!(worst < 2e-5, "{worst}");
            }
        }
        Ok(())
    }
}
