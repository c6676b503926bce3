//! A graph's weights in memory, one copy for all sessions that run it.

use std::sync::Arc;

use half::f16;
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
    /// Those of a model, which lie in its external `data`.
    pub(super) fn new(weights: Vec<ExternalWeight>, data: &[u8]) -> ort::Result<Self> {
        let values = weights.into_iter().map(|weight| {
            let value = value(&weight, &data[weight.range.clone()])?;
            Ok((weight.name, Arc::new(value)))
        });
        Ok(Self {
            values: values.collect::<ort::Result<_>>()?,
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

/// `weight` out of `bytes`, f32 unless it is f16 or 8-bit.
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
    let (numbers, _) = bytes.as_chunks();
    let numbers: Vec<f32> = numbers
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect();
    Ok(Tensor::from_array((shape, numbers))?.into_dyn())
}
