//! A library that telly takes for ONNX Runtime with cards: `fake_library.c` over the real one. Cards
//! and failures are injected there, so that the program itself knows nothing of either.

use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

use ort::sys::OrtApi;
use telly::frozen::Runtime;

/// The library in a folder of its own, and what it writes down.
pub struct FakeLibrary {
    folder: tempfile::TempDir,
    library: PathBuf,
}

/// `-DSLOT_name=place` for each name.
macro_rules! slots {
    ($($name:ident),*) => {
        [$((concat!("SLOT_", stringify!($name)), offset_of!(OrtApi, $name))),*]
    };
}

impl FakeLibrary {
    /// Compiles it by the C compiler that Rust links with.
    pub fn new() -> Self {
        let runtime = Runtime::load(None).expect("ONNX Runtime");
        let real = runtime.library.canonicalize().expect("a file");
        let folder = tempfile::tempdir().expect("a folder");
        // The version in a fingerprint is that of the file's name.
        let library = folder.path().join(real.file_name().expect("a name"));
        let word = size_of::<fn()>();
        let slots = slots![
            CreateStatus,
            GetAvailableProviders,
            ReleaseAvailableProviders,
            Run,
            RunWithBinding,
            BindInput,
            BindOutputToDevice,
            CreateAllocator,
            CreateSessionFromArray,
            MemoryInfoGetName,
            CreateMemoryInfo,
            GetTensorTypeAndShape,
            GetDimensionsCount,
            GetDimensions,
            ReleaseTensorTypeAndShapeInfo,
            CreateCUDAProviderOptions,
            UpdateCUDAProviderOptions,
            ReleaseCUDAProviderOptions,
            SessionOptionsAppendExecutionProvider_CUDA_V2,
            CreateTensorRTProviderOptions,
            UpdateTensorRTProviderOptions,
            ReleaseTensorRTProviderOptions,
            SessionOptionsAppendExecutionProvider_TensorRT_V2
        ];
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-O1", "-w", "-o"])
            .arg(&library)
            .arg(super::project().join("tests/support/fake_library.c"))
            .arg(format!("-DREAL=\"{}\"", real.display()))
            .arg(format!("-DSLOTS={}", size_of::<OrtApi>() / word))
            .args(slots.map(|(name, offset)| format!("-D{name}={}", offset / word)))
            .args(["-ldl", "-lpthread"]);
        compile(&mut compiler);
        // A card comes with a driver, which is looked for first.
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-x", "c", "/dev/null", "-o"])
            .arg(folder.path().join("libcuda.so.1"));
        compile(&mut compiler);
        Self { folder, library }
    }

    /// `arguments` for telly, which will take this for ONNX Runtime and behave by `variables`:
    ///
    /// - `FAKE_CARDS`, `FAKE_TENSORRT`: how many cards there are, and whether TensorRT is;
    /// - `FAKE_NO_PINNED`: cards without pinned memory;
    /// - `FAKE_ROOM`: the most tokens, padding included, that there is memory for;
    /// - `FAKE_FAIL_AT`: the run that fails, from 1.
    pub fn telly(&self, arguments: &[String], variables: &[(&str, &str)]) -> Command {
        // Of the last command only.
        let _ = std::fs::remove_file(self.log_path());
        let mut command = super::telly(arguments);
        command
            .env("ORT_DYLIB_PATH", &self.library)
            .env("LD_LIBRARY_PATH", self.folder.path())
            .env("FAKE_LOG", self.log_path())
            .envs(variables.iter().copied());
        command
    }

    /// What the last command asked the library for, line by line.
    pub fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        text.lines().map(String::from).collect()
    }

    fn log_path(&self) -> PathBuf {
        Path::join(self.folder.path(), "log")
    }
}

fn compile(compiler: &mut Command) {
    let output = compiler.output().expect("a C compiler");
    assert!(output.status.success(), "{}", super::stderr(&output));
}
