//! A graph's weights in memory, one copy for all sessions that run it.

use std::sync::Arc;

use half::{bf16, f16};
use ort::session::builder::{PrepackedWeights, SessionBuilder};
use ort::value::{DynValue, Tensor};

use super::onnx::{DataType, ExternalWeight};

/// The weights as they are, and in the order that ONNX Runtime's kernels read them in, once the
/// first session has put them so.
pub(super) struct SharedWeights {
    values: Vec<(String, Arc<DynValue>)>,
    packed: PrepackedWeights,
}

impl SharedWeights {
    /// Those of a model, which lie in its external `data`. What has been copied is given back as it
    /// goes, from the end, where large memory shrinks in place: both are never there whole.
    pub(super) fn new(weights: Vec<ExternalWeight>, mut data: Vec<u8>) -> ort::Result<Self> {
        let mut values = Vec::with_capacity(weights.len());
        for weight in weights.into_iter().rev() {
            let value = value(&weight, &data[weight.range.clone()])?;
            values.push((weight.name, Arc::new(value)));
            data.truncate(weight.range.start);
            data.shrink_to_fit();
        }
        Ok(Self {
            values,
            packed: PrepackedWeights::new(),
        })
    }

    /// Lets the session that `builder` makes use them in place of external data.
    pub(super) fn give(&self, builder: SessionBuilder) -> ort::Result<SessionBuilder> {
        let mut builder = builder.with_prepacked_weights(&self.packed)?;
        for (name, value) in &self.values {
            builder = builder
                .with_external_initializer(name, Arc::clone(value))?
                .with_initializer(name, Arc::clone(value))?;
        }
        Ok(builder)
    }
}

/// `weight` out of `bytes`, f32 unless it is of 16 or 8 bits.
fn value(weight: &ExternalWeight, bytes: &[u8]) -> ort::Result<DynValue> {
    let shape = weight.shape.clone();
    if weight.data_type == DataType::UInt8 {
        return Ok(Tensor::from_array((shape, bytes.to_vec()))?.into_dyn());
    }
    if weight.data_type == DataType::Float16 {
        let (numbers, _) = bytes.as_chunks();
        let numbers = numbers.iter().map(|&bytes| f16::from_le_bytes(bytes));
        let numbers: Vec<f16> = numbers.collect();
        return Ok(Tensor::from_array((shape, numbers))?.into_dyn());
    }
    if weight.data_type == DataType::BFloat16 {
        let (numbers, _) = bytes.as_chunks();
        let numbers = numbers.iter().map(|&bytes| bf16::from_le_bytes(bytes));
        let numbers: Vec<bf16> = numbers.collect();
        return Ok(Tensor::from_array((shape, numbers))?.into_dyn());
    }
    let (numbers, _) = bytes.as_chunks();
    let numbers: Vec<f32> = numbers
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect();
    Ok(Tensor::from_array((shape, numbers))?.into_dyn())
}
