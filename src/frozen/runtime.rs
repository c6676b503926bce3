//! ONNX Runtime: finding its shared library, and choosing an execution provider.

use std::fmt;
use std::path::{Path, PathBuf};

use ort::environment::Environment;
use ort::ep::ExecutionProvider;
use serde::{Deserialize, Serialize};

use super::Error;

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
}

/// The execution provider that runs the frozen half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// ONNX Runtime's own CPU kernels.
    Cpu,
    /// NVIDIA cards.
    Cuda,
}

impl fmt::Display for Provider {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        })
    }
}

/// The loaded library. One a process: the first one loaded stays.
pub struct Runtime {
    environment: Environment,
    /// The file it was loaded from.
    pub library: PathBuf,
    /// Its version, as in `1.31.1`.
    pub version: String,
}

impl Runtime {
    /// Finds and loads the library; `explicit` is the user's `--onnxruntime`.
    ///
    /// Search order: `explicit`, `ORT_DYLIB_PATH`, `.onnxruntime/` in the current folder or
    /// beside the executable (or in a folder above it), the system's loader.
    pub fn load(explicit: Option<&Path>) -> Result<Self, Error> {
        let mut looked_at = Vec::new();
        let library = find_library(explicit, &mut looked_at);
        let environment = match &library {
            Some(path) => ort::init_from(path).map_err(|source| Error::Load {
                path: path.clone(),
                source,
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
            library: library.unwrap_or_else(|| library_name().into()),
            version: version(),
        })
    }

    /// Whether the library was built with CUDA; a card and a driver are still needed.
    pub fn offers_cuda(&self) -> bool {
        <ort::ep::CUDA as ExecutionProvider>::is_available().unwrap_or(false)
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }
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

/// ONNX Runtime's build information starts with `ORT Build Info: git-branch=rel-1.31.1, …`.
fn version() -> String {
    let info = ort::info();
    let branch = info.split("git-branch=").nth(1).unwrap_or(info);
    let branch = branch.split([',', ' ']).next().unwrap_or(branch);
    branch.trim_start_matches("rel-").into()
}
