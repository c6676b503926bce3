//! The gradients of all parameters.

use candle_core::Tensor;
use candle_core::backprop::GradStore;

use super::packed::{Target, values};
use super::{Error, Parameters, Weight};

/// One gradient a parameter, in the parameters' order. On the CPU the memory is used again from
/// step to step.
pub struct Gradients {
    slots: Vec<Slot>,
}

enum Slot {
    /// On the CPU: the numbers, and whether they are of this step.
    Host(Vec<f32>, bool),
    /// Elsewhere.
    Device(Option<Tensor>),
}

impl Gradients {
    /// For `parameters`, with none yet.
    pub fn new(parameters: &Parameters) -> Self {
        let slots = parameters.iter().map(|parameter| {
            if parameters.device().is_cpu() {
                Slot::Host(vec![0.0; parameter.variable.elem_count()], false)
            } else {
                Slot::Device(None)
            }
        });
        Self {
            slots: slots.collect(),
        }
    }

    /// Forgets the last step's.
    pub fn clear(&mut self) {
        for slot in &mut self.slots {
            match slot {
                Slot::Host(_, fresh) => *fresh = false,
                Slot::Device(gradient) => *gradient = None,
            }
        }
    }

    /// Where `weight`'s is to be written, or added when there is one of this step already.
    ///
    /// # Panics
    /// If the parameters are not on the CPU.
    pub(super) fn host(&mut self, weight: &Weight) -> (&mut [f32], Target) {
        match &mut self.slots[weight.slot] {
            Slot::Host(numbers, fresh) => {
                let target = if *fresh { Target::Add } else { Target::Replace };
                *fresh = true;
                (numbers, target)
            }
            Slot::Device(_) => panic!("the written-out layers run on the CPU"),
        }
    }

    /// Adds those of `parameters` that candle has computed.
    pub fn add(&mut self, parameters: &Parameters, store: &GradStore) -> Result<(), Error> {
        for (parameter, slot) in parameters.iter().zip(&mut self.slots) {
            let Some(gradient) = store.get(parameter.variable.as_tensor()) else {
                continue;
            };
            match slot {
                Slot::Host(numbers, fresh) => {
                    let gradient = gradient.contiguous()?;
                    let gradient = values(&gradient)?;
                    for (number, gradient) in numbers.iter_mut().zip(&*gradient) {
                        *number = if *fresh {
                            *number + gradient
                        } else {
                            *gradient
                        };
                    }
                    *fresh = true;
                }
                Slot::Device(sum) => {
                    *sum = Some(match sum.take() {
                        Some(sum) => (sum + gradient)?,
                        None => gradient.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// The gradient of parameter `index`, on the CPU; none if this step has given it none.
    pub fn numbers(&self, index: usize) -> Option<&[f32]> {
        match &self.slots[index] {
            Slot::Host(numbers, true) => Some(numbers),
            _ => None,
        }
    }

    /// The gradient of parameter `index` on another device.
    pub fn tensor(&self, index: usize) -> Option<&Tensor> {
        match &self.slots[index] {
            Slot::Device(gradient) => gradient.as_ref(),
            Slot::Host(..) => None,
        }
    }
}
