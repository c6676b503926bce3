//! AdamW (Loshchilov and Hutter, 2019) with gradients clipped by their global norm.

use candle_core::backprop::GradStore;
use candle_core::{
    CpuStorage, DType, InplaceOp2, InplaceOp3, Layout, Result as CandleResult, Tensor,
};
use rayon::prelude::*;

use super::{Error, Parameters};

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
}

/// Running means of a parameter's gradient and of its square.
struct Moments {
    first: Tensor,
    second: Tensor,
}

impl AdamW {
    /// For `parameters`, before the first step.
    pub fn new(parameters: &Parameters, settings: AdamWSettings) -> Result<Self, Error> {
        let moments = parameters.iter().map(|parameter| {
            let zeros = || parameter.variable.as_tensor().zeros_like();
            Ok(Moments {
                first: zeros()?,
                second: zeros()?,
            })
        });
        Ok(Self {
            settings,
            steps: 0,
            moments: moments.collect::<Result<_, Error>>()?,
        })
    }

    /// The running means of each parameter's gradient and of its square, in the parameters'
    /// order.
    pub fn moments(&self) -> impl Iterator<Item = [&Tensor; 2]> {
        self.moments
            .iter()
            .map(|moments| [&moments.first, &moments.second])
    }

    /// Goes on after `steps` steps that left these `moments`, in the parameters' order and
    /// shapes.
    pub fn restore(&mut self, steps: usize, moments: Vec<[Tensor; 2]>) {
        self.steps = i32::try_from(steps).unwrap_or(i32::MAX);
        self.moments = moments
            .into_iter()
            .map(|[first, second]| Moments { first, second })
            .collect();
    }

    /// Updates `parameters` by `gradients` with `learning_rate`; returns the gradients' global
    /// norm before clipping.
    ///
    /// Fails when a parameter has no gradient: some operation has cut it off.
    pub fn step(
        &mut self,
        parameters: &Parameters,
        gradients: &GradStore,
        learning_rate: f64,
    ) -> Result<f64, Error> {
        let gradients = parameters
            .iter()
            .map(|parameter| {
                gradients
                    .get(parameter.variable.as_tensor())
                    .ok_or_else(|| Error::NoGradient {
                        name: parameter.name.clone(),
                    })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let norm = global_norm(&gradients)?;
        // PyTorch's clip_grad_norm_ adds 1e-6 to the norm.
        let clip = match self.settings.clip_norm {
            Some(limit) => (limit / (norm + 1e-6)).min(1.0),
            None => 1.0,
        };
        self.steps += 1;
        let corrections = [FIRST_DECAY, SECOND_DECAY].map(|decay| 1.0 - decay.powi(self.steps));
        for ((parameter, gradient), moments) in
            parameters.iter().zip(gradients).zip(&mut self.moments)
        {
            let weight_decay = if parameter.decays() {
                self.settings.weight_decay
            } else {
                0.0
            };
            let update = Update {
                shrink: 1.0 - learning_rate * weight_decay,
                step: learning_rate / corrections[0],
                second_correction: corrections[1],
            };
            let variable = parameter.variable.as_tensor();
            if variable.device().is_cpu() {
                let gradient = gradient.contiguous()?;
                moments.first.inplace_op2(
                    &gradient,
                    &RunningMean {
                        decay: FIRST_DECAY,
                        clip,
                        squared: false,
                    },
                )?;
                moments.second.inplace_op2(
                    &gradient,
                    &RunningMean {
                        decay: SECOND_DECAY,
                        clip,
                        squared: true,
                    },
                )?;
                variable.inplace_op3(&moments.first, &moments.second, &update)?;
            } else {
                let gradient = (gradient * clip)?;
                moments.first = running_mean(&moments.first, &gradient, FIRST_DECAY)?;
                moments.second = running_mean(&moments.second, &gradient.sqr()?, SECOND_DECAY)?;
                parameter
                    .variable
                    .set(&update.composed(variable, moments)?)?;
            }
        }
        Ok(norm)
    }
}

/// √(Σ g²) over all gradients.
fn global_norm(gradients: &[&Tensor]) -> Result<f64, Error> {
    let mut sum = 0.0;
    for gradient in gradients {
        sum += f64::from(
            gradient
                .sqr()?
                .sum_all()?
                .to_dtype(DType::F32)?
                .to_scalar::<f32>()?,
        );
    }
    Ok(sum.sqrt())
}

fn running_mean(mean: &Tensor, number: &Tensor, decay: f64) -> CandleResult<Tensor> {
    (mean * decay)? + (number * (1.0 - decay))?
}

/// `mean ← decay · mean + (1 - decay) · clipped gradient`, or its square.
struct RunningMean {
    decay: f64,
    clip: f64,
    squared: bool,
}

#[allow(clippy::cast_possible_truncation)]
impl InplaceOp2 for RunningMean {
    fn name(&self) -> &'static str {
        "running-mean"
    }

    fn cpu_fwd(
        &self,
        mean: &mut CpuStorage,
        mean_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> CandleResult<()> {
        let (decay, clip, squared) = (self.decay as f32, self.clip as f32, self.squared);
        let gradient = numbers(gradient, gradient_layout)?;
        numbers_mut(mean, mean_layout)?
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .for_each(|(mean, gradient)| {
                for (mean, gradient) in mean.iter_mut().zip(gradient) {
                    let gradient = gradient * clip;
                    let number = if squared {
                        gradient * gradient
                    } else {
                        gradient
                    };
                    *mean = decay * *mean + (1.0 - decay) * number;
                }
            });
        Ok(())
    }
}

/// `w ← shrink · w - step · m / (√(v / correction) + ε)`.
struct Update {
    shrink: f64,
    step: f64,
    second_correction: f64,
}

impl Update {
    fn composed(&self, variable: &Tensor, moments: &Moments) -> CandleResult<Tensor> {
        let deviation = ((&moments.second / self.second_correction)?.sqrt()? + EPSILON)?;
        (variable * self.shrink)? - ((&moments.first * self.step)? / deviation)?
    }
}

#[allow(clippy::cast_possible_truncation)]
impl InplaceOp3 for Update {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        weight: &mut CpuStorage,
        weight_layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> CandleResult<()> {
        let (shrink, step) = (self.shrink as f32, self.step as f32);
        let root = 1.0 / self.second_correction.sqrt() as f32;
        let first = numbers(first, first_layout)?.par_chunks(CHUNK);
        let second = numbers(second, second_layout)?.par_chunks(CHUNK);
        numbers_mut(weight, weight_layout)?
            .par_chunks_mut(CHUNK)
            .zip(first.zip(second))
            .for_each(|(weight, (first, second))| {
                for ((weight, first), second) in weight.iter_mut().zip(first).zip(second) {
                    let deviation = second.sqrt() * root + EPSILON as f32;
                    *weight = *weight * shrink - step * first / deviation;
                }
            });
        Ok(())
    }
}

fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> CandleResult<&'a [f32]> {
    let (start, end) = bounds(layout)?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}

fn numbers_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> CandleResult<&'a mut [f32]> {
    let (start, end) = bounds(layout)?;
    match storage {
        CpuStorage::F32(numbers) => Ok(&mut numbers[start..end]),
        _ => candle_core::bail!("parameters are f32"),
    }
}

fn bounds(layout: &Layout) -> CandleResult<(usize, usize)> {
    match layout.contiguous_offsets() {
        Some(bounds) => Ok(bounds),
        None => candle_core::bail!("parameters are contiguous, found {layout:?}"),
    }
}
