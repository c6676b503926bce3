//! Batches brought to where they are computed, ahead of the step that takes them.

use std::ops::Range;

use candle_core::{Device, Tensor};

use super::{EncoderInput, Error};
use crate::ragged::Ragged;

/// Batches that lie ready on the CPU while a step is computed.
pub const BATCHES_AHEAD: usize = 2;
/// As [`BATCHES_AHEAD`], on a card: it has less memory than the machine.
pub const BATCHES_AHEAD_ON_CARD: usize = 1;

/// Hidden states that lie on the device already.
pub struct Staged {
    /// f32 `[tokens, hidden]`.
    pub(super) states: Tensor,
    /// Where each sequence starts, and the end: `[sequences + 1]`.
    pub(super) offsets: Vec<usize>,
}

impl Staged {
    /// A copy of `states` on `device`.
    pub fn copied(states: Ragged<f32>, device: &Device) -> Result<Self, Error> {
        let shape = (states.tokens(), states.width());
        let (values, offsets) = states.into_parts();
        Ok(Self {
            states: Tensor::from_vec(values, shape, device)?,
            offsets,
        })
    }

    /// Some sequences, where they lie.
    pub(super) fn part(&self, sequences: Range<usize>) -> Result<Self, Error> {
        let offsets = &self.offsets[sequences.start..=sequences.end];
        let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
        Ok(Self {
            states: self.states.narrow(0, first, last - first)?,
            offsets: offsets.iter().map(|offset| offset - first).collect(),
        })
    }
}

/// What brings a batch to where it is computed, in the thread that reads batches ahead.
pub trait Stage: Send + Sync {
    /// The same sequences, on the device.
    fn stage(&self, input: EncoderInput) -> Result<EncoderInput, Error>;

    /// Batches that are to lie ready while a step is computed.
    fn ahead(&self) -> usize;
}

/// What suits `devices`, of which each computes a share of every batch.
pub fn stage_for(devices: &[&Device]) -> Result<Box<dyn Stage>, Error> {
    match devices {
        #[cfg(feature = "cuda")]
        [Device::Cuda(device)] => Ok(Box::new(cuda::CopyAhead::new(device)?)),
        // Of several devices each takes its share of a batch itself.
        _ => Ok(Box::new(InPlace)),
    }
}

/// On the CPU a batch is where it is computed as soon as it is read.
struct InPlace;

impl Stage for InPlace {
    fn stage(&self, input: EncoderInput) -> Result<EncoderInput, Error> {
        Ok(input)
    }

    fn ahead(&self) -> usize {
        BATCHES_AHEAD
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::sync::Arc;

    use candle_core::cuda_backend::WrapErr;
    use candle_core::cuda_backend::cudarc::driver::CudaStream;
    use candle_core::op::BackpropOp;
    use candle_core::{CudaDevice, CudaStorage, Storage, Tensor};

    use super::{EncoderInput, Error, Stage, Staged};

    /// Copies on a stream of its own, while the device computes on another.
    ///
    /// cudarc notes in an event when the copy of a tensor is done, and lets the other stream wait
    /// for that event before its first kernel that reads the tensor: see `CudaSlice`.
    pub(super) struct CopyAhead {
        device: CudaDevice,
        stream: Arc<CudaStream>,
    }

    impl CopyAhead {
        pub(super) fn new(device: &CudaDevice) -> Result<Self, Error> {
            let context = device.cuda_stream().context().clone();
            Ok(Self {
                device: device.clone(),
                stream: context.new_stream().w()?,
            })
        }
    }

    impl Stage for CopyAhead {
        fn stage(&self, input: EncoderInput) -> Result<EncoderInput, Error> {
            // Token ids are a few kilobytes, which the embeddings look at on the host.
            let EncoderInput::HiddenStates(states) = input else {
                return Ok(input);
            };
            let shape = (states.tokens(), states.width());
            let (values, offsets) = states.into_parts();
            let slice = self.stream.clone_htod(&values).w()?;
            // The values go when this returns. Only this thread waits: the step is in another.
            self.stream.synchronize().w()?;
            let storage = CudaStorage::wrap_cuda_slice(slice, self.device.clone());
            let (storage, no_op) = (Storage::Cuda(storage), BackpropOp::none());
            Ok(EncoderInput::Staged(Staged {
                states: Tensor::from_storage(storage, shape, no_op, false),
                offsets,
            }))
        }

        fn ahead(&self) -> usize {
            super::BATCHES_AHEAD_ON_CARD
        }
    }
}
