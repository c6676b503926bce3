//! Page-locked memory as a double buffer's.

use std::error::Error as _;
use std::sync::Arc;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream};

use super::Error;
use super::double_buffer::Memory;
use crate::mapping::{Copying, PageLocked};
use crate::progress;

/// A card that copies from page-locked memory.
pub(super) struct Card {
    stream: Arc<CudaStream>,
}

impl Card {
    /// Copies are queued in `stream`.
    pub(super) fn new(stream: Arc<CudaStream>) -> Self {
        Self { stream }
    }
}

impl Memory for Card {
    type Buffer = PageLocked;
    type Copying = Copying;
    type Copy = CudaSlice<f32>;

    fn allocate(&self, numbers: usize) -> Result<PageLocked, Error> {
        Ok(PageLocked::new(self.stream.context(), numbers).w()?)
    }

    fn numbers<'a>(&self, buffer: &'a mut PageLocked) -> Result<&'a mut [f32], Error> {
        Ok(buffer.numbers().w()?)
    }

    fn copy(&self, buffer: PageLocked, numbers: usize) -> Result<(Self::Copy, Copying), Error> {
        Ok(buffer.copy(numbers, &self.stream).w()?)
    }

    fn wait(&self, copying: Copying) -> Result<PageLocked, Error> {
        Ok(copying.wait().w()?)
    }

    fn copy_and_wait(&self, numbers: &[f32]) -> Result<Self::Copy, Error> {
        let slice = self.stream.clone_htod(numbers).w()?;
        self.stream.synchronize().w()?;
        Ok(slice)
    }

    fn tell(&self, numbers: usize, reason: &Error) {
        let bytes = size_of::<f32>() * numbers;
        let reason = reason
            .source()
            .map_or_else(|| reason.to_string(), ToString::to_string);
        progress::say(&format!(
            "no page-locked memory for a batch of {bytes} bytes ({reason}): batches go to the card from ordinary memory, which takes longer"
        ));
    }
}
