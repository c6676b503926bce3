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
    // cudarc panics where a library is missing. One stream for whatever thread computes there: on
    // candle's usual one, a stream a thread, what one thread queues need not wait for what another has.
    match caught(|| Device::new_cuda_with_stream(index)) {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(error)) => Err(explain(&error.to_string())),
        Err(panic) => Err(explain(&panic)),
    }
}
