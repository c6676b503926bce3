//! AdamW (Loshchilov and Hutter, 2019) with gradients clipped by their global norm.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result as CandleResult, Tensor};
use rayon::prelude::*;

use super::packed::dot;
use super::{Error, Gradients, Parameters};
use crate::simd;

const FIRST_DECAY: f64 = 0.9;
const SECOND_DECAY: f64 = 0.999;
const EPSILON: f64 = 1e-8;
/// Elements a thread takes at a time.
const CHUNK: usize = 1 << 14;

/// Optimizer settings that stay the same all run long.
#[derive(Debug, Clone, Copy)]
pub struct AdamWSettings {
    /// Decoupled weight decay, on everything but biases and LayerNorms.
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm; `None` leaves them.
    pub clip_norm: Option<f64>,
}

/// AdamW over all parameters of a model: betas 0.9 and 0.999, epsilon 1e-8, bias-corrected, as
/// in PyTorch.
pub struct AdamW {
    settings: AdamWSettings,
    steps: i32,
    moments: Vec<Moments>,
    /// Of each parameter's learning rate.
    scales: Vec<f64>,
}

/// Running means of a parameter's gradient and of its square.
enum Moments {
    /// On the CPU, changed in place.
    Host { first: Vec<f32>, second: Vec<f32> },
    /// Elsewhere.
    Device { first: Tensor, second: Tensor },
}

/// One of a parameter's running means, as it lies in memory.
#[derive(Debug, Clone, Copy)]
pub enum Moment<'a> {
    /// On the CPU: its numbers, in the parameter's shape.
    Host(&'a [f32]),
    /// Elsewhere.
    Device(&'a Tensor),
}

impl AdamW {
    /// For `parameters`, before the first step.
    pub fn new(parameters: &Parameters, settings: AdamWSettings) -> Result<Self, Error> {
        let moments = parameters.iter().map(|parameter| {
            let variable = parameter.variable.as_tensor();
            if variable.device().is_cpu() {
                let zeros = || vec![0.0; variable.elem_count()];
                return Ok(Moments::Host {
                    first: zeros(),
                    second: zeros(),
                });
            }
            Ok(Moments::Device {
                first: variable.zeros_like()?,
                second: variable.zeros_like()?,
            })
        });
        Ok(Self {
            settings,
            steps: 0,
            moments: moments.collect::<Result<_, Error>>()?,
            scales: vec![1.0; parameters.iter().len()],
        })
    }

    /// Multiplies each parameter's learning rate by its one of `scales`, its weight decay with it,
    /// as a parameter group's own `lr` does in PyTorch.
    #[must_use]
    pub fn with_scales(mut self, scales: Vec<f64>) -> Self {
        self.scales = scales;
        self
    }

    /// The running means of each parameter's gradient and of its square, in the order and the
    /// shapes of the parameters.
    pub fn moments(&self) -> impl Iterator<Item = [Moment<'_>; 2]> {
        self.moments.iter().map(|moments| match moments {
            Moments::Host { first, second } => [first, second].map(|mean| Moment::Host(mean)),
            Moments::Device { first, second } => [first, second].map(Moment::Device),
        })
    }

    /// Goes on after `steps` steps that left these `moments`, in the parameters' order and
    /// shapes.
    pub fn restore(
        &mut self,
        steps: usize,
        moments: impl Iterator<Item = Result<[Tensor; 2], Error>>,
    ) -> Result<(), Error> {
        self.steps = i32::try_from(steps).unwrap_or(i32::MAX);
        for (moments, read) in self.moments.iter_mut().zip(moments) {
            let [first, second] = read?;
            *moments = match moments {
                Moments::Host { .. } => Moments::Host {
                    first: first.flatten_all()?.to_vec1()?,
                    second: second.flatten_all()?.to_vec1()?,
                },
                Moments::Device { .. } => Moments::Device { first, second },
            };
        }
        Ok(())
    }

    /// The global norm of `gradients`, of a loss that was multiplied by `loss_scale`, as if it had
    /// not been; no finite number if one of them is none.
    ///
    /// Fails when a parameter has no gradient: some operation has cut it off.
    pub fn norm(
        parameters: &Parameters,
        gradients: &Gradients,
        loss_scale: f64,
    ) -> Result<f64, Error> {
        Ok(global_norm(parameters, gradients)? / loss_scale)
    }

    /// Updates `parameters` by `gradients`, whose [`norm`](Self::norm) with this `loss_scale` is
    /// `norm`, with `learning_rate`.
    pub fn step(
        &mut self,
        parameters: &Parameters,
        gradients: &Gradients,
        (norm, loss_scale): (f64, f64),
        learning_rate: f64,
    ) -> Result<(), Error> {
        // PyTorch's clip_grad_norm_ adds 1e-6 to the norm.
        let clip = match self.settings.clip_norm {
            Some(limit) => (limit / (norm + 1e-6)).min(1.0),
            None => 1.0,
        };
        let clip = clip / loss_scale;
        self.steps += 1;
        let corrections = [FIRST_DECAY, SECOND_DECAY].map(|decay| 1.0 - decay.powi(self.steps));
        let moments = parameters.iter().zip(&mut self.moments).enumerate();
        for (index, (parameter, moments)) in moments {
            let learning_rate = learning_rate * self.scales[index];
            let weight_decay = if parameter.decays() {
                self.settings.weight_decay
            } else {
                0.0
            };
            let update = Update {
                clip,
                shrink: 1.0 - learning_rate * weight_decay,
                step: learning_rate / corrections[0],
                second_correction: corrections[1],
            };
            let missing = || Error::NoGradient {
                name: parameter.name.clone(),
            };
            match moments {
                Moments::Host { first, second } => {
                    let gradient = gradients.numbers(index).ok_or_else(missing)?;
                    let update = HostUpdate {
                        update,
                        gradient,
                        moments: RefCell::new([first, second]),
                    };
                    parameter.variable.as_tensor().inplace_op1(&update)?;
                }
                Moments::Device { first, second } => {
                    let gradient = (gradients.tensor(index).ok_or_else(missing)? * clip)?;
                    *first = running_mean(first, &gradient, FIRST_DECAY)?;
                    *second = running_mean(second, &gradient.sqr()?, SECOND_DECAY)?;
                    let variable = &parameter.variable;
                    variable.set(&update.composed(variable.as_tensor(), first, second)?)?;
                }
            }
        }
        Ok(())
    }
}

/// √(Σ g²) over all gradients.
fn global_norm(parameters: &Parameters, gradients: &Gradients) -> Result<f64, Error> {
    let mut sum = 0.0;
    for (index, parameter) in parameters.iter().enumerate() {
        sum += match (gradients.numbers(index), gradients.tensor(index)) {
            (Some(numbers), _) => sum_of_squares(numbers),
            (None, Some(tensor)) => f64::from(tensor.sqr()?.sum_all()?.to_scalar::<f32>()?),
            (None, None) => {
                return Err(Error::NoGradient {
                    name: parameter.name.clone(),
                });
            }
        };
    }
    Ok(sum.sqrt())
}

/// Over parts of a fixed size in their order, so that it does not depend on the threads.
fn sum_of_squares(numbers: &[f32]) -> f64 {
    let parts: Vec<f64> = numbers
        .par_chunks(CHUNK)
        .map(|numbers| {
            let sum = simd::dispatch(
                #[inline(always)]
                || dot(numbers, numbers),
            );
            f64::from(sum)
        })
        .collect();
    parts.iter().sum()
}

fn running_mean(mean: &Tensor, number: &Tensor, decay: f64) -> CandleResult<Tensor> {
    (mean * decay)? + (number * (1.0 - decay))?
}

/// `m ← β₁ m + (1 - β₁) g`, `v ← β₂ v + (1 - β₂) g²` with the clipped gradient `g`, then
/// `w ← shrink · w - step · m / (√(v / correction) + ε)`.
#[derive(Clone, Copy)]
struct Update {
    clip: f64,
    shrink: f64,
    step: f64,
    second_correction: f64,
}

impl Update {
    /// The weights after the update, from means that are updated already.
    fn composed(&self, variable: &Tensor, first: &Tensor, second: &Tensor) -> CandleResult<Tensor> {
        let deviation = ((second / self.second_correction)?.sqrt()? + EPSILON)?;
        (variable * self.shrink)? - ((first * self.step)? / deviation)?
    }

    /// All of it in one pass.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)]
    fn apply(self, weight: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let (clip, shrink, step) = (self.clip as f32, self.shrink as f32, self.step as f32);
        let root = 1.0 / self.second_correction.sqrt() as f32;
        let (first_decay, second_decay) = (FIRST_DECAY as f32, SECOND_DECAY as f32);
        let moments = first.iter_mut().zip(second);
        for ((weight, gradient), (first, second)) in weight.iter_mut().zip(gradient).zip(moments) {
            let gradient = gradient * clip;
            *first = first_decay * *first + (1.0 - first_decay) * gradient;
            *second = second_decay * *second + (1.0 - second_decay) * gradient * gradient;
            let deviation = second.sqrt() * root + EPSILON as f32;
            *weight = *weight * shrink - step * *first / deviation;
        }
    }
}

/// An update in place.
struct HostUpdate<'a> {
    update: Update,
    gradient: &'a [f32],
    /// candle calls an operation by shared reference, once.
    moments: RefCell<[&'a mut Vec<f32>; 2]>,
}

impl InplaceOp1 for HostUpdate<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> CandleResult<()> {
        let (CpuStorage::F32(weight), Some((start, end))) = (storage, layout.contiguous_offsets())
        else {
            candle_core::bail!("parameters are f32 and contiguous, found {layout:?}")
        };
        let update = self.update;
        let [first, second] = &mut *self.moments.borrow_mut();
        let moments = first
            .par_chunks_mut(CHUNK)
            .zip(second.par_chunks_mut(CHUNK));
        weight[start..end]
            .par_chunks_mut(CHUNK)
            .zip(self.gradient.par_chunks(CHUNK))
            .zip(moments)
            .for_each(|((weight, gradient), (first, second))| {
                simd::dispatch(
                    #[inline(always)]
                    || update.apply(weight, gradient, first, second),
                );
            });
        Ok(())
    }
}
