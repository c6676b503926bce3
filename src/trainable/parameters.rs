//! The tensors that are trained, by their Hugging Face names.

use std::collections::HashMap;
use std::ops::Deref;

use candle_core::{Device, Tensor, Var};

use super::Error;
use crate::checkpoint::Weights;

/// One trained tensor.
pub struct Parameter {
    /// Its Hugging Face name, without the family's prefix.
    pub name: String,
    /// Its values.
    pub variable: Var,
}

impl Parameter {
    /// Whether weight decay applies: to matrices and embeddings, not to biases, MPNet's table of
    /// biases by relative position among them, and LayerNorms, whatever the family calls them.
    pub fn decays(&self) -> bool {
        let is_norm = |part: &str| {
            part == "norm" || part.ends_with("_norm") || part.to_lowercase().ends_with("layernorm")
        };
        !self.name.contains("bias") && !self.name.split('.').any(is_norm)
    }
}

/// A handle on a trained tensor: it sees every update of the values.
#[derive(Debug, Clone)]
pub struct Weight {
    tensor: Tensor,
    /// The parameter's place in the order.
    pub(super) slot: usize,
}

impl Deref for Weight {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.tensor
    }
}

/// All trained tensors of a model, in the order in which they were made.
pub struct Parameters {
    device: Device,
    list: Vec<Parameter>,
}

impl Parameters {
    /// None yet; they will live on `device`.
    pub fn new(device: &Device) -> Self {
        Self {
            device: device.clone(),
            list: Vec::new(),
        }
    }

    /// Where they live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Adds a tensor of the checkpoint.
    pub fn load(
        &mut self,
        weights: &Weights,
        name: &str,
        shape: &[usize],
    ) -> Result<Weight, Error> {
        let values = weights.tensor(name, shape)?;
        self.add(name, shape, values)
    }

    /// Adds a tensor of `values`, row-major.
    pub fn add(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> Result<Weight, Error> {
        let variable = Var::from_vec(values, shape, &self.device)?;
        let handle = Weight {
            tensor: variable.as_tensor().clone(),
            slot: self.list.len(),
        };
        self.list.push(Parameter {
            name: name.into(),
            variable,
        });
        Ok(handle)
    }

    /// The handle of the parameter `name`, if it is there.
    pub fn handle(&self, name: &str) -> Option<Weight> {
        let slot = self
            .list
            .iter()
            .position(|parameter| parameter.name == name)?;
        Some(Weight {
            tensor: self.list[slot].variable.as_tensor().clone(),
            slot,
        })
    }

    /// The parameters in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Parameter> {
        self.list.iter()
    }

    /// How many numbers are trained.
    pub fn count(&self) -> usize {
        self.iter()
            .map(|parameter| parameter.variable.elem_count())
            .sum()
    }

    /// A copy of every tensor.
    pub fn snapshot(&self) -> Result<Vec<Tensor>, Error> {
        let copies = self
            .iter()
            .map(|parameter| parameter.variable.as_detached_tensor().copy());
        Ok(copies.collect::<Result<_, _>>()?)
    }

    /// Puts a snapshot back.
    pub fn restore(&self, snapshot: &[Tensor]) -> Result<(), Error> {
        for (parameter, tensor) in self.iter().zip(snapshot) {
            parameter.variable.set(tensor)?;
        }
        Ok(())
    }

    /// Sets every parameter from `tensors`, which must hold exactly these, in these shapes.
    pub fn set_all(&self, tensors: &HashMap<String, Tensor>) -> Result<(), Error> {
        let mismatch = |name: &str, found: String, expected: String| Error::Mismatch {
            name: name.into(),
            found,
            expected,
        };
        for parameter in self.iter() {
            let name = &parameter.name;
            let shape = format!("{:?}", parameter.variable.dims());
            let tensor = tensors
                .get(name)
                .ok_or_else(|| mismatch(name, "nothing".into(), shape.clone()))?;
            if tensor.dims() != parameter.variable.dims() {
                return Err(mismatch(name, format!("{:?}", tensor.dims()), shape));
            }
            let [found, expected] = [tensor.dtype(), parameter.variable.dtype()];
            if found != expected {
                let [found, expected] = [found, expected].map(|stored| stored.as_str().to_owned());
                return Err(mismatch(name, found, expected));
            }
            parameter.variable.set(&tensor.to_device(&self.device)?)?;
        }
        match tensors
            .keys()
            .find(|name| self.iter().all(|parameter| parameter.name != **name))
        {
            Some(extra) => Err(mismatch(extra, "a tensor".into(), "none".into())),
            None => Ok(()),
        }
    }
}
