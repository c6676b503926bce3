//! ONNX Runtime: finding its shared library, and choosing an execution provider.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::ExecutionProvider;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::cuda;

/// What the user asked for with `--provider`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ProviderChoice {
    /// CUDA where it can be used, else the CPU, with a line that says so.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA, or an error.
    Cuda,
    /// Engines that TensorRT builds, and CUDA for what it leaves, or an error.
    Tensorrt,
}

/// The execution provider that runs the frozen half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// ONNX Runtime's own CPU kernels.
    Cpu,
    /// NVIDIA cards.
    Cuda,
    /// NVIDIA cards, by engines that TensorRT builds.
    Tensorrt,
}

impl fmt::Display for Provider {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Tensorrt => "tensorrt",
        })
    }
}

/// The loaded library.
#[derive(Clone)]
pub struct Runtime {
    environment: Environment,
    /// The file it was loaded from.
    pub library: PathBuf,
    /// Its version and commit, as in `1.31.1 (6af1a93)`.
    pub version: String,
}

/// ONNX Runtime allows one environment a process.
static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

impl Runtime {
    /// Finds and loads the library; `explicit` is the user's `--onnxruntime`. Once one is loaded,
    /// it stays for the life of the process, whatever is asked for later.
    ///
    /// Search order: `explicit`, `ORT_DYLIB_PATH`, `.onnxruntime/` in the current folder or
    /// beside the executable (or in a folder above it), the system's loader.
    pub fn load(explicit: Option<&Path>) -> Result<Self, Error> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*loaded {
            return Ok(runtime.clone());
        }
        let runtime = Self::start(explicit)?;
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    fn start(explicit: Option<&Path>) -> Result<Self, Error> {
        let mut looked_at = Vec::new();
        let library = find_library(explicit, &mut looked_at);
        let environment = match &library {
            Some(path) => ort::init_from(path).map_err(|error| Error::Load {
                path: path.clone(),
                reason: loader_reason(&error),
            })?,
            // The bare name makes the system's loader search its own folders.
            None => ort::init_from(library_name()).map_err(|_| {
                looked_at.push("the system's loader".into());
                Error::NoLibrary { looked_at }
            })?,
        };
        let environment = environment
            .with_name("telly")
            .with_telemetry(false)
            .build()
            .map_err(|source| Error::Runtime {
                action: "start",
                source,
            })?;
        Ok(Self {
            environment,
            version: version(library.as_deref()),
            library: library.unwrap_or_else(|| library_name().into()),
        })
    }

    /// Whether the library was built with CUDA; a card and a driver are still needed.
    pub fn offers_cuda(&self) -> bool {
        self.offers(Provider::Cuda)
    }

    /// Whether the library was built with `provider`.
    #[allow(
        clippy::unused_self,
        reason = "without a library there is nobody to ask"
    )]
    pub(super) fn offers(&self, provider: Provider) -> bool {
        let offered = match provider {
            Provider::Cpu => Ok(true),
            Provider::Cuda => ort::ep::CUDA::is_available(),
            Provider::Tensorrt => ort::ep::TensorRT::is_available(),
        };
        offered.unwrap_or(false)
    }

    /// The CUDA libraries that were brought with the library, if they were.
    pub fn cuda_folder(&self) -> Option<PathBuf> {
        cuda_folder_beside(&self.library)
    }

    /// Loads what ONNX Runtime's CUDA provider needs, driver first; says what is missing.
    pub(super) fn prepare_cuda(&self) -> Result<(), cuda::Error> {
        if !self.offers_cuda() {
            return Err(cuda::Error::LibraryWithout {
                library: self.library.clone(),
            });
        }
        cuda::load_driver()?;
        self.cuda_folder()
            .map_or(Ok(()), |folder| cuda::preload(&folder))
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }
}

/// The CUDA libraries that were brought with ONNX Runtime's, if they were; neither is loaded. As
/// for [`Runtime::load`], `explicit` is the user's `--onnxruntime`.
pub fn cuda_folder(explicit: Option<&Path>) -> Option<PathBuf> {
    cuda_folder_beside(&find_library(explicit, &mut Vec::new())?)
}

fn cuda_folder_beside(library: &Path) -> Option<PathBuf> {
    let folder = library.parent()?;
    // A bare name is one that the system's loader found, in a folder that it does not tell.
    if folder.as_os_str().is_empty() {
        return None;
    }
    let folder = folder.join(cuda::FOLDER);
    folder.is_dir().then_some(folder)
}

/// The library's file name on this system.
fn library_name() -> String {
    format!(
        "{}onnxruntime{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    )
}

fn find_library(explicit: Option<&Path>, looked_at: &mut Vec<String>) -> Option<PathBuf> {
    if let Some(path) = explicit {
        return Some(in_folder(path));
    }
    match std::env::var_os("ORT_DYLIB_PATH") {
        Some(path) if !path.is_empty() => return Some(in_folder(Path::new(&path))),
        _ => looked_at.push("ORT_DYLIB_PATH (not set)".into()),
    }
    let current = std::env::current_dir().ok();
    let executable = std::env::current_exe().ok();
    let beside = executable.iter().flat_map(|path| path.ancestors().skip(1));
    for folder in current.iter().map(PathBuf::as_path).chain(beside) {
        let path = folder.join(".onnxruntime").join(library_name());
        if path.is_file() {
            return Some(path);
        }
    }
    looked_at.push("`.onnxruntime/` in this folder and beside the executable".into());
    None
}

/// A folder given in place of the library means the library inside it.
fn in_folder(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join(library_name())
    } else {
        path.to_owned()
    }
}

/// The system loader's own words: `ort` keeps them one level down and does not pass them on.
fn loader_reason(error: &ort::LoadDynamicError) -> String {
    match error {
        ort::LoadDynamicError::Dlopen { error, .. } => {
            let cause = std::error::Error::source(error);
            cause.map_or_else(|| error.to_string(), ToString::to_string)
        }
        other => other.to_string(),
    }
}

/// The version out of the library's file name, as `libonnxruntime.so.1.31.1`, with the commit
/// it was built from: `1.31.1 (6af1a93)`; the commit alone where the name has none.
fn version(library: Option<&Path>) -> String {
    let commit = ort::info()
        .split("git-commit-id=")
        .nth(1)
        .unwrap_or("unknown commit");
    let commit = commit.split([',', ' ']).next().unwrap_or(commit);
    let name = library.and_then(|path| path.canonicalize().ok());
    let name = name.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    match name.as_deref().and_then(version_in_name) {
        Some(version) => format!("{version} ({commit})"),
        None => commit.into(),
    }
}

/// `1.31.1` in `libonnxruntime.so.1.31.1` or `libonnxruntime.1.31.1.dylib`.
fn version_in_name(name: &str) -> Option<&str> {
    let start = name.find(|character: char| character.is_ascii_digit())?;
    let digits = name[start..].trim_end_matches(".dylib");
    digits.contains('.').then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::version_in_name;

    #[test]
    fn versions_are_read_from_file_names() {
        assert_eq!(version_in_name("libonnxruntime.so.1.31.1"), Some("1.31.1"));
        assert_eq!(
            version_in_name("libonnxruntime.1.31.1.dylib"),
            Some("1.31.1")
        );
        assert_eq!(version_in_name("libonnxruntime.so"), None);
        assert_eq!(version_in_name("onnxruntime.dll"), None);
    }
}
