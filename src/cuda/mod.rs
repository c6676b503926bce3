//! NVIDIA's driver, its cards, and the CUDA libraries: whether they are there, and how they are
//! loaded. None of it is linked: the telly that `scripts/cuda-build.sh` builds starts without any.

mod device;
mod driver;
mod error;
mod libraries;

pub use device::{free_bytes, open_device};
pub use driver::{Card, Driver, OLDEST_CAPABILITY, Version};
pub use error::Error;
pub(crate) use error::missing_library;
pub(crate) use libraries::preload;
pub use libraries::{FOLDER, NEEDED, load_driver};

/// What stands behind a failure of which the library that failed says `reason`.
pub(crate) fn explain(reason: &str) -> Error {
    // ONNX Runtime's words are of several lines.
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    match Driver::find().and_then(|driver| driver.check()) {
        // No words on the driver: the library's own are the better ones.
        Ok(()) | Err(Error::NoManagement { .. }) => Error::Refused { reason },
        Err(error) => error,
    }
}
