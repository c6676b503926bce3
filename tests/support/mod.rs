//! What several test files need: the goldens, the real binary, a Python for outside checks.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "each test file uses its own part, on numbers and files that it made"
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{Device, Tensor};
use serde_json::Value;
use telly::ragged::Ragged;

/// The project's folder.
pub fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn goldens() -> PathBuf {
    project().join("tests/goldens")
}

/// all-MiniLM-L6-v2, as `scripts/setup.sh` brings it.
pub fn minilm() -> PathBuf {
    let folder = project().join("models/all-MiniLM-L6-v2");
    assert!(
        folder.is_dir(),
        "no {}: run scripts/setup.sh",
        folder.display()
    );
    folder
}

/// A golden file: its tensors, and its metadata.
pub struct Golden {
    pub tensors: HashMap<String, Tensor>,
    pub metadata: HashMap<String, String>,
}

impl Golden {
    pub fn read(name: &str) -> Self {
        let bytes = std::fs::read(goldens().join(name)).expect("a golden file");
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("safetensors");
        Self {
            tensors: candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).expect("tensors"),
            metadata: header.metadata().clone().unwrap_or_default(),
        }
    }

    pub fn floats(&self, name: &str) -> Vec<f64> {
        let tensor = self.tensors[name].flatten_all().expect("flat");
        let tensor = tensor.to_dtype(candle_core::DType::F64).expect("numbers");
        tensor.to_vec1().expect("numbers")
    }

    pub fn integers(&self, name: &str) -> Vec<i64> {
        let tensor = self.tensors[name].flatten_all().expect("flat");
        tensor.to_vec1().expect("integers")
    }

    /// `ids` and `offsets` as sequences.
    pub fn sequences(&self) -> Ragged<u32> {
        let ids = self
            .integers("ids")
            .into_iter()
            .map(|id| id as u32)
            .collect();
        let offsets = self
            .integers("offsets")
            .into_iter()
            .map(|offset| offset as usize);
        Ragged::from_parts(ids, offsets.collect(), 1)
    }
}

/// The binary under test.
pub fn telly(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_telly"));
    command.args(arguments).current_dir(project());
    command.env_remove("ORT_DYLIB_PATH");
    command
}

/// Runs the binary, which must succeed; the JSON object at the end of its stdout.
pub fn telly_json(arguments: &[&str]) -> Value {
    let output = telly(arguments).arg("--json").output().expect("telly runs");
    assert!(
        output.status.success(),
        "telly {arguments:?}: {}",
        stderr(&output)
    );
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    serde_json::from_str(stdout.lines().last().expect("a line")).expect("JSON")
}

/// Runs the binary, which must succeed.
pub fn telly_ok(arguments: &[&str]) -> Output {
    let output = telly(arguments).output().expect("telly runs");
    assert!(
        output.status.success(),
        "telly {arguments:?}: {}",
        stderr(&output)
    );
    output
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The Python that `scripts/test.sh` sets up, with NumPy, onnx and safetensors. Without it the
/// caller says so and leaves its check out, unless `CI` is set: there it must be.
pub fn python() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("TELLY_TEST_PYTHON") {
        return Some(project().join(path));
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "TELLY_TEST_PYTHON is not set: run scripts/test.sh"
    );
    eprintln!("TELLY_TEST_PYTHON is not set, so no check from outside: run scripts/test.sh");
    None
}

/// Runs a script of `scripts/goldens/`, which must succeed; its stdout.
pub fn run_python(python: &Path, script: &str, arguments: &[&Path]) -> String {
    let script = project().join("scripts/goldens").join(script);
    let output = Command::new(python)
        .arg(script)
        .args(arguments)
        .output()
        .expect("Python runs");
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Forty short texts of two classes that a tiny model can tell apart, as JSON Lines.
pub fn write_classification(path: &Path, rows: usize) {
    let lines: Vec<String> = (0..rows)
        .map(|row| {
            let (word, label) = if row % 2 == 0 {
                ("return", "code")
            } else {
                ("the", "prose")
            };
            let count = 1 + row % 7;
            format!(
                "{{\"text\": \"{} x{row}\", \"label\": \"{label}\"}}\n",
                vec![word; count].join(" ")
            )
        })
        .collect();
    std::fs::write(path, lines.concat()).expect("written");
}

/// Pairs of a description and a function, as JSON Lines.
pub fn write_search(path: &Path, rows: usize) {
    let words = [
        "sort", "count", "read", "write", "list", "number", "file", "word", "line", "print",
    ];
    let lines: Vec<String> = (0..rows)
        .map(|row| {
            let (verb, noun) = (words[row % words.len()], words[(row * 3 + 1) % words.len()]);
            format!("{{\"docstring\": \"{verb} the {noun}\", \"code\": \"def {verb}_{noun}(x{row}): return x{row}\"}}\n")
        })
        .collect();
    std::fs::write(path, lines.concat()).expect("written");
}
