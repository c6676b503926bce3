//! Hidden states as a probe's input.

use candle_core::{Device, Tensor};

use crate::study::Error;

/// Some examples' features at every layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    layers: usize,
    width: usize,
    /// `[examples, layers, width]`.
    values: Vec<f32>,
}

impl Features {
    /// From `values` `[examples, layers, width]`.
    ///
    /// # Panics
    /// If they are no whole number of examples.
    pub fn new(values: Vec<f32>, layers: usize, width: usize) -> Self {
        assert_eq!(values.len() % (layers * width), 0, "whole examples");
        Self {
            layers,
            width,
            values,
        }
    }

    /// Of `examples`, all 0.
    pub(super) fn zeros(examples: usize, layers: usize, width: usize) -> Self {
        Self::new(vec![0.0; examples * layers * width], layers, width)
    }

    /// How many examples.
    pub fn examples(&self) -> usize {
        self.values.len() / (self.layers * self.width)
    }

    /// How many layers, the embeddings among them.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Numbers a layer.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All numbers, `[examples, layers, width]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Those of one example and layer.
    pub(super) fn vector_mut(&mut self, example: usize, layer: usize) -> &mut [f32] {
        let start = (example * self.layers + layer) * self.width;
        &mut self.values[start..start + self.width]
    }

    /// The vectors of one layer, one example after the other.
    pub(super) fn layer(&self, layer: usize) -> impl Iterator<Item = &[f32]> {
        self.rows()
            .map(move |row| &row[layer * self.width..][..self.width])
    }

    /// The numbers of one example after the other, `layers · width` each.
    pub(super) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.layers * self.width)
    }

    /// As [`rows`](Self::rows).
    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.chunks_exact_mut(self.layers * self.width)
    }

    /// Those of some `examples`, in this order.
    #[must_use]
    pub fn select(&self, examples: impl IntoIterator<Item = usize>) -> Self {
        let size = self.layers * self.width;
        let rows = examples.into_iter();
        let values = rows.flat_map(|row| &self.values[row * size..][..size]);
        Self::new(values.copied().collect(), self.layers, self.width)
    }

    /// As a tensor `[examples, layers, width]`, whose memory they become.
    pub(super) fn into_tensor(self) -> Result<Tensor, Error> {
        let shape = (self.examples(), self.layers, self.width);
        Ok(Tensor::from_vec(self.values, shape, &Device::Cpu)?)
    }
}
