//! The gradients of all parameters.

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::packed::{Target, values};
use super::{Error, Parameters, Weight};

/// One gradient a parameter, in the parameters' order. On the CPU the memory is used again from
/// step to step.
pub struct Gradients {
    device: Device,
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
            device: parameters.device().clone(),
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
            slot.add(gradient)?;
        }
        Ok(())
    }

    /// Adds that of `weight`, computed without candle's way back.
    pub(super) fn add_to(&mut self, weight: &Weight, gradient: &Tensor) -> Result<(), Error> {
        self.slots[weight.slot].add(gradient)
    }

    /// Adds those of a replica of the same parameters, on whatever device.
    pub(super) fn add_all(&mut self, other: &Self) -> Result<(), Error> {
        for (slot, other) in self.slots.iter_mut().zip(&other.slots) {
            match (slot, other) {
                (_, Slot::Host(_, false) | Slot::Device(None)) => {}
                (Slot::Host(sum, fresh), Slot::Host(numbers, true)) => {
                    if *fresh {
                        sum.par_iter_mut()
                            .zip(numbers)
                            .for_each(|(sum, number)| *sum += number);
                    } else {
                        sum.copy_from_slice(numbers);
                    }
                    *fresh = true;
                }
                (Slot::Device(sum), Slot::Device(Some(gradient))) => {
                    let gradient = gradient.to_device(&self.device)?;
                    *sum = Some(match sum.take() {
                        Some(sum) => (sum + gradient)?,
                        None => gradient,
                    });
                }
                (Slot::Host(..), Slot::Device(_)) | (Slot::Device(_), Slot::Host(..)) => {
                    panic!("replicas are all on the CPU or all on cards")
                }
            }
        }
        Ok(())
    }

    /// For the parameters that one of `others` has a gradient of, their places, and what this one
    /// and each of `others` have: contiguous, 0 where they have none.
    #[cfg(feature = "nccl")]
    pub(super) fn beside(&self, others: &[&Self]) -> Result<(Vec<usize>, Vec<Vec<Tensor>>), Error> {
        let find = |place: usize| others.iter().find_map(|other| other.tensor(place));
        let shared = (0..self.slots.len()).filter_map(|place| Some((place, find(place)?)));
        let shared: Vec<(usize, &Tensor)> = shared.collect();
        let all = std::iter::once(&self).chain(others);
        let tensors = all.map(|gradients| {
            let own = shared.iter().map(|&(place, like)| {
                gradients.tensor(place).map_or_else(
                    || Tensor::zeros(like.shape(), like.dtype(), &gradients.device),
                    Tensor::contiguous,
                )
            });
            own.collect::<Result<_, _>>()
        });
        let tensors = tensors.collect::<Result<_, candle_core::Error>>()?;
        let places = shared.iter().map(|(place, _)| *place).collect();
        Ok((places, tensors))
    }

    /// Replaces those of `places`.
    #[cfg(feature = "nccl")]
    pub(super) fn set(&mut self, places: &[usize], gradients: Vec<Tensor>) {
        for (&place, gradient) in places.iter().zip(gradients) {
            self.slots[place] = Slot::Device(Some(gradient));
        }
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

impl Slot {
    fn add(&mut self, gradient: &Tensor) -> Result<(), Error> {
        match self {
            Self::Host(numbers, fresh) => {
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
            Self::Device(sum) => {
                *sum = Some(match sum.take() {
                    Some(sum) => (sum + gradient)?,
                    None => gradient.clone(),
                });
            }
        }
        Ok(())
    }
}
