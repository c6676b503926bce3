//! The loss of a language model, and its logits: `logits = hidden matrixᵀ`, without a bias, and the
//! cross-entropy of each row with the token that is to come.
//!
//! A vocabulary is large: of 2,000 rows over 50,000 tokens the logits alone are 400 MB. They are never
//! held whole, neither forward nor on the way back. Two implementations, as for the layers: written
//! out for the CPU (`packed`), and in candle's primitives for any device, some rows at a time. candle's
//! automatic differentiation would keep every part of the logits until the end; gradients are therefore
//! written out in both.

use candle_core::{D, DType, Tensor};

use super::gradients::Gradients;
use super::packed::language_loss::{self as fused, Problem, Total};
use super::packed::values;
use super::{Error, Ops, Pass, Weight};

#[cfg(test)]
mod tests;

/// Logits of the composed operations at a time: 32 MiB in f32, of which a few copies live.
const LOGITS: usize = 8 << 20;

/// What turns hidden states into logits, `[vocabulary, hidden]`: the word embeddings where they are
/// tied, or a matrix of its own.
#[derive(Debug, Clone)]
pub enum OutputMatrix {
    /// It stays as it is.
    Frozen(Tensor),
    /// It is trained.
    Trained(Weight),
}

/// What some rows' cross-entropies come to.
#[derive(Debug, Clone)]
pub struct LanguageLoss {
    rows: usize,
    /// A scalar, f32 or f64: the sum over all rows.
    sum: Tensor,
}

impl LanguageLoss {
    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The mean over the rows, an f32 scalar on the device of the hidden states, which nobody waits for
    /// yet; 0 of no rows.
    pub fn mean(&self) -> Result<Tensor, Error> {
        Ok((&self.sum / self.rows.max(1) as f64)?.to_dtype(DType::F32)?)
    }

    /// The sum over the rows, in nats. Waits for the device.
    pub fn sum(&self) -> Result<f64, Error> {
        Ok(self.sum.to_dtype(DType::F64)?.to_scalar()?)
    }
}

/// Where the matrix's gradient goes.
enum OfMatrix<'a> {
    /// Nowhere: it is frozen.
    Nowhere,
    /// To the other gradients.
    Gradients(&'a Weight, &'a mut Gradients),
}

impl OutputMatrix {
    /// Its values, `[vocabulary, hidden]`, without a way back.
    fn tensor(&self) -> Tensor {
        match self {
            Self::Frozen(matrix) => matrix.detach(),
            Self::Trained(weight) => weight.detach(),
        }
    }

    /// The loss of `hidden` `[rows, hidden]` with the tokens `targets` `[rows]`, without gradients.
    ///
    /// Fails on a target outside of the vocabulary, and on hidden states of another shape.
    pub fn loss(
        &self,
        hidden: &Tensor,
        targets: &[u32],
        pass: &Pass,
    ) -> Result<LanguageLoss, Error> {
        let matrix = self.checked(hidden, targets)?;
        match pass.ops {
            Ops::Fused => {
                let problem = Flat::new(hidden, &matrix)?;
                let total = problem.with(targets, |problem| Ok(fused::evaluate(problem)))?;
                LanguageLoss::new(targets.len(), total)
            }
            Ops::Composed => {
                let composed = Composed::new(hidden, &matrix, targets, pass)?;
                composed.run(|_, _, _| Ok(()))
            }
        }
    }

    /// The loss, and the gradient of `scale` times its **sum** with respect to `hidden`, f32
    /// `[rows, hidden]`; for the mean, `scale` is 1 / rows. A trained matrix's gradient is added to
    /// `gradients`.
    ///
    /// Fails on a target outside of the vocabulary, and on hidden states of another shape.
    pub fn gradients(
        &self,
        hidden: &Tensor,
        targets: &[u32],
        scale: f64,
        pass: &Pass,
        gradients: &mut Gradients,
    ) -> Result<(LanguageLoss, Tensor), Error> {
        let of_matrix = match self {
            Self::Frozen(_) => OfMatrix::Nowhere,
            Self::Trained(weight) => OfMatrix::Gradients(weight, gradients),
        };
        let matrix = self.checked(hidden, targets)?;
        match pass.ops {
            Ops::Fused => fused_gradients(hidden, &matrix, targets, scale, of_matrix),
            Ops::Composed => {
                let composed = Composed::new(hidden, &matrix, targets, pass)?;
                composed.gradients(scale, of_matrix)
            }
        }
    }

    /// The matrix, for `hidden` and `targets` that fit it.
    fn checked(&self, hidden: &Tensor, targets: &[u32]) -> Result<Tensor, Error> {
        let matrix = self.tensor();
        let (vocabulary, width) = matrix.dims2()?;
        if hidden.dims() != [targets.len(), width] {
            return Err(unfit(format!(
                "hidden states are {:?}, expected [{}, {width}]",
                hidden.dims(),
                targets.len()
            )));
        }
        let outside = |target: &u32| *target as usize >= vocabulary;
        if let Some(row) = targets.iter().position(outside) {
            return Err(unfit(format!(
                "target {} of row {row} is outside of the vocabulary of {vocabulary}",
                targets[row]
            )));
        }
        Ok(matrix)
    }
}

fn unfit(message: String) -> Error {
    candle_core::Error::Msg(message).into()
}

impl LanguageLoss {
    fn new(rows: usize, total: Total) -> Result<Self, Error> {
        let device = &candle_core::Device::Cpu;
        Ok(Self {
            rows,
            sum: Tensor::new(total.loss, device)?,
        })
    }
}

/// Operands of the written-out loss, row-major.
struct Flat {
    hidden: Tensor,
    matrix: Tensor,
}

impl Flat {
    fn new(hidden: &Tensor, matrix: &Tensor) -> Result<Self, Error> {
        Ok(Self {
            hidden: hidden.contiguous()?,
            matrix: matrix.contiguous()?,
        })
    }

    fn with<T>(
        &self,
        targets: &[u32],
        work: impl FnOnce(Problem) -> Result<T, Error>,
    ) -> Result<T, Error> {
        work(Problem {
            hidden: &values(&self.hidden)?,
            matrix: &values(&self.matrix)?,
            targets,
            width: self.matrix.dim(1)?,
        })
    }
}

fn fused_gradients(
    hidden: &Tensor,
    matrix: &Tensor,
    targets: &[u32],
    scale: f64,
    of_matrix: OfMatrix,
) -> Result<(LanguageLoss, Tensor), Error> {
    let mut of_hidden = vec![0.0; hidden.elem_count()];
    let total = Flat::new(hidden, matrix)?.with(targets, |problem| {
        Ok(match of_matrix {
            OfMatrix::Nowhere => fused::of_hidden(problem, scale, &mut of_hidden),
            OfMatrix::Gradients(weight, gradients) => {
                let (of_matrix, target) = gradients.host(weight);
                fused::of_both(problem, scale, &mut of_hidden, of_matrix, target)
            }
        })
    })?;
    let of_hidden = Tensor::from_vec(of_hidden, hidden.shape(), hidden.device())?;
    Ok((LanguageLoss::new(targets.len(), total)?, of_hidden))
}

/// The loss in candle's primitives, some rows at a time.
struct Composed {
    /// `[rows, hidden]`, of the type that is computed in.
    hidden: Tensor,
    /// `[vocabulary, hidden]`, of that type.
    matrix: Tensor,
    /// `[rows, 1]`.
    targets: Tensor,
    /// At a time.
    rows: usize,
}

impl Composed {
    fn new(hidden: &Tensor, matrix: &Tensor, targets: &[u32], pass: &Pass) -> Result<Self, Error> {
        let number_type = pass.number_type();
        Ok(Self {
            hidden: hidden.detach().to_dtype(number_type)?,
            matrix: matrix.to_dtype(number_type)?,
            targets: Tensor::from_slice(targets, (targets.len(), 1), hidden.device())?,
            rows: (LOGITS / matrix.dim(0)?).max(1),
        })
    }

    /// The loss; `each` gets some rows' probabilities `[rows, vocabulary]`, f32, their hidden states
    /// and their targets.
    fn run(
        &self,
        mut each: impl FnMut(Tensor, &Tensor, &Tensor) -> candle_core::Result<()>,
    ) -> Result<LanguageLoss, Error> {
        let rows = self.hidden.dim(0)?;
        let zero = Tensor::zeros((), DType::F32, self.hidden.device())?;
        let mut sum = zero;
        let transposed = self.matrix.t()?;
        for first in (0..rows).step_by(self.rows) {
            let count = self.rows.min(rows - first);
            let hidden = self.hidden.narrow(0, first, count)?;
            let targets = self.targets.narrow(0, first, count)?;
            let logits = hidden.matmul(&transposed)?.to_dtype(DType::F32)?;
            let largest = logits.max_keepdim(D::Minus1)?;
            let of_targets = (logits.gather(&targets, 1)? - &largest)?;
            let exponentials = logits.broadcast_sub(&largest)?.exp()?;
            drop(logits);
            let sums = exponentials.sum_keepdim(D::Minus1)?;
            sum = (sum + (sums.log()? - &of_targets)?.sum_all()?)?;
            each(exponentials.broadcast_div(&sums)?, &hidden, &targets)?;
        }
        Ok(LanguageLoss { rows, sum })
    }

    fn gradients(&self, scale: f64, of_matrix: OfMatrix) -> Result<(LanguageLoss, Tensor), Error> {
        let mut of_hidden = Vec::new();
        let mut sum: Option<Tensor> = None;
        let trained = matches!(of_matrix, OfMatrix::Gradients(..));
        let loss = self.run(|probabilities, hidden, targets| {
            let minus_one = targets.ones_like()?.to_dtype(DType::F32)?.neg()?;
            let of_logits = probabilities.scatter_add(targets, &minus_one, 1)?;
            drop(probabilities);
            // Scaled at the end: halves have no numbers that small.
            let of_logits = of_logits.to_dtype(hidden.dtype())?;
            let part = of_logits.matmul(&self.matrix)?.to_dtype(DType::F32)?;
            of_hidden.push(part);
            if trained {
                let part = of_logits.t()?.matmul(hidden)?.to_dtype(DType::F32)?;
                sum = Some(match sum.take() {
                    Some(sum) => (sum + part)?,
                    None => part,
                });
            }
            Ok(())
        })?;
        if let OfMatrix::Gradients(weight, gradients) = of_matrix {
            let gradient = match sum {
                Some(sum) => (sum * scale)?,
                None => self.matrix.zeros_like()?.to_dtype(DType::F32)?,
            };
            gradients.add_to(weight, &gradient)?;
        }
        let of_hidden = if of_hidden.is_empty() {
            self.hidden.to_dtype(DType::F32)?
        } else {
            (Tensor::cat(&of_hidden, 0)? * scale)?
        };
        Ok((loss, of_hidden))
    }
}
