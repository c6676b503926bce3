//! `telly doctor`.

mod cuda;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use crate::cli::console;
use crate::error::{Error, Explain};
use crate::frozen::Runtime;
use cuda::CudaFindings;

/// Say what was found on this machine and what is missing, with the remedy.
#[derive(Args)]
pub(super) struct DoctorArguments {
    /// The ONNX Runtime shared library to look at.
    #[arg(long, value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &DoctorArguments) -> Result<(), Error> {
    let runtime = Runtime::load(arguments.onnxruntime.as_deref());
    let cuda = CudaFindings::find(runtime.as_ref().ok());
    let mut object = Map::new();
    object.insert("telly".into(), json!(env!("CARGO_PKG_VERSION")));
    match &runtime {
        Ok(runtime) => {
            let providers = if runtime.offers_cuda() {
                json!("cpu, cuda")
            } else {
                json!("cpu")
            };
            object.insert("onnxruntime".into(), json!(runtime.version));
            object.insert(
                "library".into(),
                json!(runtime.library.display().to_string()),
            );
            object.insert("providers".into(), providers);
        }
        Err(_) => {
            object.insert("onnxruntime".into(), json!("missing"));
        }
    }
    object.insert("candle_devices".into(), json!(devices(&cuda)));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    object.insert("threads".into(), json!(threads));
    object.insert("free_disk_bytes".into(), free_disk(Path::new(".")));
    object.insert("cuda".into(), json!(cuda.object));
    // Said in sentences below where a person reads it.
    if arguments.json {
        object.insert("cuda_missing".into(), cuda.missing());
    }
    console::result(arguments.json, &object)?;
    match runtime {
        Ok(_) => {
            let verdict = cuda.verdict();
            if verdict.is_empty() {
                console::say("everything that is needed is here");
            } else {
                console::say("CPU: everything that is needed is here");
            }
            for line in verdict {
                console::say(&line);
            }
            Ok(())
        }
        Err(error) => {
            debug_assert!(error.hint().is_some());
            Err(error.into())
        }
    }
}

/// What candle can train on.
fn devices(cuda: &CudaFindings) -> &'static str {
    match cuda.trains {
        true => "cpu, cuda",
        false if cfg!(feature = "cuda") => "cpu (built with CUDA, which cannot be used)",
        false => "cpu (built without CUDA)",
    }
}

fn free_disk(folder: &Path) -> Value {
    match rustix::fs::statvfs(folder) {
        Ok(space) => json!(space.f_bavail * space.f_frsize),
        Err(_) => Value::Null,
    }
}
