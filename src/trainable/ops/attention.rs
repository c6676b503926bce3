//! Multi-head scaled dot-product self-attention over packed sequences, each token attending to
//! every token of its own sequence: `softmax(Q Kᵀ / √d + B) V` (Vaswani et al., 2017), `B` a
//! bias where a family has one.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, D, Device, Layout, Result, Shape, Tensor};
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder};
use pulp::Arch;
use rayon::prelude::*;

use super::math::exp;
use super::storage::{slice, with_slice};
use super::{Dropout, Ops};

/// Attention of `heads` heads. `queries`, `keys` and `values` are `[tokens, heads · d]`, as is
/// the result; sequence `i` is the rows `offsets[i]..offsets[i + 1]`. `bias` is added to the
/// scores, `[heads, longest, longest]`: a sequence takes its top left corner. `settings` drops
/// attention probabilities.
pub fn attention(
    ops: Ops,
    [queries, keys, values]: [&Tensor; 3],
    offsets: &Arc<[usize]>,
    heads: usize,
    bias: Option<&Tensor>,
    settings: Option<Dropout>,
) -> Result<Tensor> {
    match ops {
        // The fused operation knows no bias.
        Ops::Fused if bias.is_none() => queries.contiguous()?.apply_op3(
            &keys.contiguous()?,
            &values.contiguous()?,
            Fused {
                offsets: Arc::clone(offsets),
                heads,
                settings,
            },
        ),
        _ => composed([queries, keys, values], offsets, heads, bias, settings),
    }
}

/// Where the probabilities of sequence `index`, `[heads, length, length]`, start in the
/// numbering by which dropout draws: after those of all earlier sequences.
fn probability_offsets(offsets: &[usize], heads: usize) -> Vec<usize> {
    let squares = offsets.windows(2).scan(0, |start, bounds| {
        let length = bounds[1] - bounds[0];
        let this = *start;
        *start += heads * length * length;
        Some(this)
    });
    squares.collect()
}

/// Sequence after sequence in candle's primitives.
fn composed(
    [queries, keys, values]: [&Tensor; 3],
    offsets: &[usize],
    heads: usize,
    bias: Option<&Tensor>,
    settings: Option<Dropout>,
) -> Result<Tensor> {
    let (_, width) = queries.dims2()?;
    let head_size = width / heads;
    let scale = 1.0 / (head_size as f64).sqrt();
    let starts = probability_offsets(offsets, heads);
    let mut contexts = Vec::with_capacity(starts.len());
    for (bounds, start) in offsets.windows(2).zip(starts) {
        let length = bounds[1] - bounds[0];
        let split = |x: &Tensor| {
            let rows = x.narrow(0, bounds[0], length)?;
            rows.reshape((length, heads, head_size))?
                .transpose(0, 1)?
                .contiguous()
        };
        let (q, k, v) = (split(queries)?, split(keys)?, split(values)?);
        let mut scores = (q.matmul(&k.t()?)? * scale)?;
        if let Some(bias) = bias {
            scores = (scores + bias.narrow(1, 0, length)?.narrow(2, 0, length)?)?;
        }
        let mut probabilities = candle_nn::ops::softmax(&scores, D::Minus1)?;
        if let Some(settings) = settings {
            let mask = mask(settings, start, heads, length, queries.device())?;
            probabilities = (probabilities * mask)?;
        }
        let context = probabilities.matmul(&v)?.transpose(0, 1)?;
        contexts.push(context.reshape((length, width))?);
    }
    Tensor::cat(&contexts, 0)
}

fn mask(
    settings: Dropout,
    start: usize,
    heads: usize,
    length: usize,
    device: &Device,
) -> Result<Tensor> {
    let count = heads * length * length;
    let factors: Vec<f32> = (start..start + count).map(|i| settings.factor(i)).collect();
    Tensor::from_vec(factors, (heads, length, length), device)
}

struct Fused {
    offsets: Arc<[usize]>,
    heads: usize,
    settings: Option<Dropout>,
}

/// One head of one sequence.
struct Task {
    /// The sequence's rows.
    rows: std::ops::Range<usize>,
    head: usize,
    /// Where its probabilities start in dropout's numbering.
    probabilities: usize,
}

impl Task {
    fn length(&self) -> usize {
        self.rows.len()
    }

    /// This head's columns of this sequence's rows of `[tokens, width]`: `[length, head size]`.
    fn view<'a>(&self, matrix: &'a [f32], width: usize, head_size: usize) -> ArrayView2<'a, f32> {
        let start = self.rows.start * width + self.head * head_size;
        let shape = (self.length(), head_size).strides((width, 1));
        ArrayView2::from_shape(
            shape,
            &matrix[start..self.rows.end * width - width + (self.head + 1) * head_size],
        )
        .expect("the slice runs from the head's first number to its last")
    }
}

impl Fused {
    /// Every head of every sequence, in the order of their results in scratch memory.
    fn tasks(&self) -> Vec<Task> {
        let starts = probability_offsets(&self.offsets, self.heads);
        let sequences = self.offsets.windows(2).zip(starts);
        sequences
            .flat_map(|(bounds, start)| {
                let length = bounds[1] - bounds[0];
                (0..self.heads).map(move |head| Task {
                    rows: bounds[0]..bounds[1],
                    head,
                    probabilities: start + head * length * length,
                })
            })
            .collect()
    }

    /// `softmax(Q Kᵀ / √d)`, `[length, length]`.
    fn probabilities(q: &ArrayView2<f32>, k: &ArrayView2<f32>) -> Vec<f32> {
        let (length, head_size) = q.dim();
        let mut scores = vec![0.0; length * length];
        let scale = 1.0 / (head_size as f32).sqrt();
        general_mat_mul(scale, q, &k.t(), 0.0, &mut square(&mut scores, length));
        Arch::new().dispatch(
            #[inline(always)]
            || scores.chunks_exact_mut(length).for_each(softmax_in_place),
        );
        scores
    }

    fn drop_out(&self, numbers: &mut [f32], start: usize) {
        if let Some(settings) = self.settings {
            for (index, number) in numbers.iter_mut().enumerate() {
                *number *= settings.factor(start + index);
            }
        }
    }

    /// Context of one head, `[length, head size]`.
    fn forward(&self, task: &Task, [q, k, v]: [ArrayView2<f32>; 3], context: &mut [f32]) {
        let mut probabilities = Self::probabilities(&q, &k);
        self.drop_out(&mut probabilities, task.probabilities);
        let length = task.length();
        let probabilities = square(&mut probabilities, length);
        general_mat_mul(1.0, &probabilities, &v, 0.0, &mut matrix(context, length));
    }

    /// Gradients of one head's queries, keys and values, each `[length, head size]`.
    ///
    /// With `P` the probabilities, `M` dropout's factors and `G` the context's gradient:
    /// `dV = (P∘M)ᵀ G`, `dP = (G Vᵀ)∘M`, `dS = P∘(dP - rowsum(dP∘P))`, `dQ = dS K / √d`,
    /// `dK = dSᵀ Q / √d`.
    fn backward(
        &self,
        task: &Task,
        [q, k, v, gradient]: [ArrayView2<f32>; 4],
        [of_q, of_k, of_v]: [&mut [f32]; 3],
    ) {
        let length = task.length();
        let mut probabilities = Self::probabilities(&q, &k);
        let mut of_scores = vec![0.0; length * length];
        general_mat_mul(
            1.0,
            &gradient,
            &v.t(),
            0.0,
            &mut square(&mut of_scores, length),
        );
        self.drop_out(&mut of_scores, task.probabilities);
        for (of_row, row) in of_scores
            .chunks_exact_mut(length)
            .zip(probabilities.chunks_exact(length))
        {
            let mean: f32 = of_row.iter().zip(row).map(|(g, p)| g * p).sum();
            of_row
                .iter_mut()
                .zip(row)
                .for_each(|(g, p)| *g = p * (*g - mean));
        }
        let scale = 1.0 / (q.ncols() as f32).sqrt();
        let of_scores = square(&mut of_scores, length);
        general_mat_mul(scale, &of_scores, &k, 0.0, &mut matrix(of_q, length));
        general_mat_mul(scale, &of_scores.t(), &q, 0.0, &mut matrix(of_k, length));
        self.drop_out(&mut probabilities, task.probabilities);
        let probabilities = square(&mut probabilities, length);
        general_mat_mul(
            1.0,
            &probabilities.t(),
            &gradient,
            0.0,
            &mut matrix(of_v, length),
        );
    }

    /// Scratch memory, task after task, to `[tokens, width]`.
    fn join_heads(&self, scratch: &[f32], width: usize) -> Vec<f32> {
        let head_size = width / self.heads;
        let mut joined = vec![0.0; scratch.len()];
        let mut rest = joined.as_mut_slice();
        let mut sequences = Vec::new();
        for bounds in self.offsets.windows(2) {
            let (sequence, others) = rest.split_at_mut((bounds[1] - bounds[0]) * width);
            sequences.push((bounds[0] * width, sequence));
            rest = others;
        }
        sequences.into_par_iter().for_each(|(start, sequence)| {
            let length = sequence.len() / width;
            let source = &scratch[start..start + sequence.len()];
            for (row, target) in sequence.chunks_exact_mut(width).enumerate() {
                for (head, target) in target.chunks_exact_mut(head_size).enumerate() {
                    let from = (head * length + row) * head_size;
                    target.copy_from_slice(&source[from..from + head_size]);
                }
            }
        });
        joined
    }
}

/// Splits scratch memory into one piece a task: its `[length, head size]`.
fn pieces<'a>(mut scratch: &'a mut [f32], tasks: &[Task], head_size: usize) -> Vec<&'a mut [f32]> {
    let mut pieces = Vec::with_capacity(tasks.len());
    for task in tasks {
        let (piece, rest) = scratch.split_at_mut(task.length() * head_size);
        pieces.push(piece);
        scratch = rest;
    }
    pieces
}

fn square(numbers: &mut [f32], length: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((length, length), numbers).expect("length² numbers")
}

fn matrix(numbers: &mut [f32], rows: usize) -> ArrayViewMut2<'_, f32> {
    let columns = numbers.len() / rows;
    ArrayViewMut2::from_shape((rows, columns), numbers).expect("whole rows")
}

#[inline(always)]
fn softmax_in_place(row: &mut [f32]) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for number in row.iter_mut() {
        *number = exp(*number - largest);
    }
    let share = 1.0 / row.iter().sum::<f32>();
    for number in row {
        *number *= share;
    }
}

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, width) = q_layout.shape().dims2()?;
        let head_size = width / self.heads;
        let inputs = [
            slice(q, q_layout)?,
            slice(k, k_layout)?,
            slice(v, v_layout)?,
        ];
        let tasks = self.tasks();
        let mut scratch = vec![0.0; inputs[0].len()];
        let contexts = pieces(&mut scratch, &tasks, head_size);
        tasks.par_iter().zip(contexts).for_each(|(task, context)| {
            let views = inputs.map(|input| task.view(input, width, head_size));
            self.forward(task, views, context);
        });
        let joined = self.join_heads(&scratch, width);
        Ok((CpuStorage::F32(joined), q_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (_, width) = q.dims2()?;
        let head_size = width / self.heads;
        let tasks = self.tasks();
        let mut scratch = [(); 3].map(|()| vec![0.0; q.elem_count()]);
        {
            let [of_q, of_k, of_v] = &mut scratch;
            let of_q = pieces(of_q, &tasks, head_size);
            let of_k = pieces(of_k, &tasks, head_size);
            let of_v = pieces(of_v, &tasks, head_size);
            let run = |inputs: [&[f32]; 4]| {
                tasks
                    .par_iter()
                    .zip(of_q.into_par_iter().zip(of_k).zip(of_v))
                    .for_each(|(task, ((of_q, of_k), of_v))| {
                        let views = inputs.map(|input| task.view(input, width, head_size));
                        self.backward(task, views, [of_q, of_k, of_v]);
                    });
            };
            with_slice(q, |q| {
                with_slice(k, |k| {
                    with_slice(v, |v| with_slice(gradient, |g| run([q, k, v, g])))
                })
            })????;
        }
        let [of_q, of_k, of_v] = scratch.map(|scratch| {
            let joined = self.join_heads(&scratch, width);
            Tensor::from_vec(joined, q.shape(), q.device())
        });
        Ok((Some(of_q?), Some(of_k?), Some(of_v?)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{assert_close, check, random};
    use super::*;

    /// Odd shapes: a sequence of one token, one that is the whole batch, several together.
    #[test]
    fn fused_and_composed_agree_and_gradients_are_true() -> Result<()> {
        for offsets in [vec![0, 1], vec![0, 7], vec![0, 3, 4, 9]] {
            let offsets: Arc<[usize]> = offsets.into();
            let tokens = offsets[offsets.len() - 1];
            let [q, k, v] = [1, 2, 3].map(|seed| random(&[tokens, 6], seed));
            let (q, k, v) = (q?, k?, v?);
            for settings in [None, Some(Dropout::new(0.3, 5))] {
                let apply = |ops| {
                    let inputs = [q.as_tensor(), k.as_tensor(), v.as_tensor()];
                    attention(ops, inputs, &offsets, 2, None, settings)
                };
                assert_close(&apply(Ops::Fused)?, &apply(Ops::Composed)?, 1e-5)?;
                check(&[&q, &k, &v], apply)?;
            }
        }
        Ok(())
    }

    #[test]
    fn a_bias_is_added_to_the_scores_and_gets_a_true_gradient() -> Result<()> {
        let offsets: Arc<[usize]> = [0, 3, 4, 9].into();
        let [q, k, v] = [1, 2, 3].map(|seed| random(&[9, 6], seed));
        let (q, k, v, bias) = (q?, k?, v?, random(&[2, 5, 5], 4)?);
        let inputs = [q.as_tensor(), k.as_tensor(), v.as_tensor()];
        for settings in [None, Some(Dropout::new(0.3, 5))] {
            check(&[&q, &k, &v, &bias], |ops| {
                attention(ops, inputs, &offsets, 2, Some(bias.as_tensor()), settings)
            })?;
            let nothing = bias.zeros_like()?;
            assert_close(
                &attention(Ops::Composed, inputs, &offsets, 2, Some(&nothing), settings)?,
                &attention(Ops::Fused, inputs, &offsets, 2, None, settings)?,
                1e-5,
            )?;
        }
        Ok(())
    }

    #[test]
    fn sequences_do_not_see_each_other() -> Result<()> {
        let x = random(&[9, 6], 1)?;
        let x = x.as_tensor();
        let whole = attention(Ops::Fused, [x, x, x], &[0, 4, 9].into(), 3, None, None)?;
        let alone = x.narrow(0, 4, 5)?.contiguous()?;
        let alone = attention(Ops::Fused, [&alone; 3], &[0, 5].into(), 3, None, None)?;
        assert_close(&whole.narrow(0, 4, 5)?, &alone, 1e-6)
    }
}
