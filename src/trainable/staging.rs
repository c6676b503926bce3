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

/// Staged states that the device computes on. What it is told to compute while this lives is done after
/// the copy, and before their memory is used for anything else.
///
/// candle sees to both for most operations, but not for all: a cast to another type looks at the stream
/// that the memory came from, not at the one that computes.
pub struct InUse(Option<Tensor>);

impl InUse {
    /// States of `input`, if it is staged.
    pub fn of(input: &EncoderInput) -> Self {
        let staged = match input {
            EncoderInput::Staged(staged) => Some(staged.states.clone()),
            EncoderInput::Selected(input, _) => return Self::of(input),
            EncoderInput::HiddenStates(_) | EncoderInput::TokenIds(_) => None,
        };
        if let Some(states) = &staged {
            note_use(states);
        }
        Self(staged)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Some(states) = &self.0 {
            note_use(states);
        }
    }
}

/// Between what is being done on the device and what is to come.
fn note_use(states: &Tensor) {
    #[cfg(feature = "cuda")]
    super::copy_ahead::note_use(states);
    #[cfg(not(feature = "cuda"))]
    let _ = states;
}

/// What brings a batch to where it is computed, in the thread that reads batches ahead.
pub trait Stage: Send + Sync {
    /// Hidden states f32 `[tokens, width]` on the device, of sequences that start at `offsets`, the
    /// last of which is the end. `read` writes all of them, once, to memory that a copy begins in.
    fn stage(
        &self,
        offsets: Vec<usize>,
        width: usize,
        read: &dyn Fn(&mut [f32]),
    ) -> Result<EncoderInput, Error>;

    /// Batches that are to lie ready while a step is computed.
    fn ahead(&self) -> usize;
}

/// What suits `devices`, of which each computes a share of every batch.
pub fn stage_for(devices: &[&Device]) -> Result<Box<dyn Stage>, Error> {
    match devices {
        #[cfg(feature = "cuda")]
        [Device::Cuda(device)] => Ok(Box::new(super::copy_ahead::CopyAhead::new(device)?)),
        // Of several devices each takes its share of a batch itself.
        _ => Ok(Box::new(InPlace)),
    }
}

/// On the CPU a batch is where it is computed as soon as it is read.
struct InPlace;

impl Stage for InPlace {
    fn stage(
        &self,
        offsets: Vec<usize>,
        width: usize,
        read: &dyn Fn(&mut [f32]),
    ) -> Result<EncoderInput, Error> {
        let mut values = vec![0.0; offsets[offsets.len() - 1] * width];
        read(&mut values);
        Ok(EncoderInput::HiddenStates(Ragged::from_parts(
            values, offsets, width,
        )))
    }

    fn ahead(&self) -> usize {
        BATCHES_AHEAD
    }
}
