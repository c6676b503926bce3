//! Shared libraries, loaded by path in the order in which they need each other: the system's loader
//! then takes these wherever another library asks for one of them by name, and no search path has
//! to be set.

use std::path::Path;

use ort::ep::cuda::{CUDA_DYLIBS, CUDNN_DYLIBS};
use ort::util::preload_dylib;

use super::{Error, Version};

/// The folder beside ONNX Runtime's library into which `scripts/setup.sh --gpu` puts them.
pub const FOLDER: &str = "cuda";

/// The CUDA that ONNX Runtime's provider is linked against, and that the kernels are compiled by.
pub const NEEDED: Version = Version {
    major: 13,
    minor: 0,
};

/// The library of NVIDIA's driver: it comes with the driver alone.
const DRIVER: &str = if cfg!(windows) {
    "nvcuda.dll"
} else {
    "libcuda.so.1"
};

/// Loads the driver's library, for the life of the process.
pub fn load_driver() -> Result<(), Error> {
    preload_dylib(DRIVER).map_err(|error| Error::NoDriver {
        reason: loader_words(&error),
    })
}

/// Loads the libraries that lie in `folder`, for the life of the process. One that does not is left
/// to the system's loader.
pub(crate) fn preload(folder: &Path) -> Result<(), Error> {
    let names = CUDA_DYLIBS.iter().chain(CUDNN_DYLIBS);
    for path in names.map(|name| folder.join(name)) {
        if path.is_file() {
            preload_dylib(&path).map_err(|error| Error::Library {
                reason: loader_words(&error),
                path,
            })?;
        }
    }
    Ok(())
}

/// What the system's loader said: the cause of `error`, which itself says only that it failed.
fn loader_words(error: &(dyn std::error::Error + 'static)) -> String {
    let cause = error.source();
    cause.map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_broken_library_is_named_and_an_absent_one_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        preload(folder.path()).expect("nothing to load");
        let path = folder.path().join(CUDA_DYLIBS[1]);
        fs_err::write(&path, "no library").expect("written");
        let error = preload(folder.path()).expect_err("no library");
        let said = error.to_string();
        assert!(
            said.contains(CUDA_DYLIBS[1]) && said.contains("file too short"),
            "{said}"
        );
    }
}
