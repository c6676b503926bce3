//! The numbers of a trained tensor, read in place.

use std::ops::Deref;

use candle_core::{CpuStorage, Result, Storage, Tensor, bail};

/// The numbers of a contiguous f32 tensor of the CPU, row-major. Nothing can write to the tensor
/// as long as they are held.
pub(in crate::trainable) fn values(tensor: &Tensor) -> Result<impl Deref<Target = [f32]> + '_> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(_)), Some(bounds)) => Ok(Values { storage, bounds }),
        _ => bail!("expected a contiguous f32 tensor of the CPU, found {tensor:?}"),
    }
}

struct Values<Guard> {
    storage: Guard,
    bounds: (usize, usize),
}

impl<Guard: Deref<Target = Storage>> Deref for Values<Guard> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(numbers)) => &numbers[self.bounds.0..self.bounds.1],
            _ => unreachable!("checked when it was opened"),
        }
    }
}
