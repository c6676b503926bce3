//! candle's CUDA device.

use std::path::Path;

use candle_core::Device;

use super::{Error, explain, load_driver, preload};
use crate::caught::caught;

/// The card `index` for candle; `folder` holds the CUDA libraries, the system's loader finds them
/// where it is absent.
pub fn open_device(index: usize, folder: Option<&Path>) -> Result<Device, Error> {
    if cfg!(not(feature = "cuda")) {
        return Err(Error::BuiltWithout);
    }
    load_driver()?;
    if let Some(folder) = folder {
        preload(folder)?;
    }
    // One stream for whatever thread computes there: on candle's usual one, a stream a thread, what
    // one thread queues need not wait for what another has. cudarc panics where a library is missing
    // or lacks a function: one is that which words errors.
    let opened = caught(|| Device::new_cuda_with_stream(index).map_err(|error| error.to_string()));
    opened.flatten().map_err(|reason| explain(&reason))
}

/// Memory of the card `device` that nobody uses now, bytes; nothing of a CPU, or where the driver does
/// not tell.
pub fn free_bytes(device: &Device) -> Option<u64> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            let (free, _) = device.cuda_stream().context().mem_get_info().ok()?;
            Some(free as u64)
        }
        _ => None,
    }
}
