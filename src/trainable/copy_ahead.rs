//! Batches copied to a card while it computes.

use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Storage, Tensor};

use super::double_buffer::DoubleBuffer;
use super::page_locked::Card;
use super::staging::{BATCHES_AHEAD_ON_CARD, Stage, Staged};
use super::{EncoderInput, Error};

/// Copies out of page-locked memory, on a stream of its own, while the device computes on another.
///
/// The one thread that waits is that which fills a buffer, and it for the copy before the last. cudarc
/// notes in an event when the copy of a tensor is done, and the stream that computes waits for that:
/// see [`note_use`]. It does so in every context of more than one stream, unless told not to, which is
/// unsafe.
pub(super) struct CopyAhead {
    device: CudaDevice,
    buffers: Mutex<DoubleBuffer<Card>>,
}

impl CopyAhead {
    pub(super) fn new(device: &CudaDevice) -> Result<Self, Error> {
        let stream = device.cuda_stream().context().new_stream().w()?;
        Ok(Self {
            device: device.clone(),
            buffers: Mutex::new(DoubleBuffer::new(Card::new(stream))),
        })
    }
}

impl Stage for CopyAhead {
    fn stage(
        &self,
        offsets: Vec<usize>,
        width: usize,
        read: &dyn Fn(&mut [f32]),
    ) -> Result<EncoderInput, Error> {
        let shape = (offsets[offsets.len() - 1], width);
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let slice = buffers.stage(shape.0 * shape.1, read)?;
        let storage = CudaStorage::wrap_cuda_slice(slice, self.device.clone());
        let (storage, no_op) = (Storage::Cuda(storage), BackpropOp::none());
        Ok(EncoderInput::Staged(Staged {
            states: Tensor::from_storage(storage, shape, no_op, false),
            offsets,
        }))
    }

    fn ahead(&self) -> usize {
        BATCHES_AHEAD_ON_CARD
    }
}

/// Has the stream that computes wait until `states` are there, and notes what it was told until now as
/// reading them, which their memory waits for before it is used again.
pub(super) fn note_use(states: &Tensor) {
    let (storage, _) = states.storage_and_layout();
    if let Storage::Cuda(storage) = &*storage
        && let Ok(slice) = storage.as_cuda_slice::<f32>()
    {
        let stream = storage.device().cuda_stream();
        let (_, read) = slice.device_ptr(&stream);
        drop(read);
    }
}
