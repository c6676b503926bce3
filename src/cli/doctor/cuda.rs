//! What `telly doctor` finds of CUDA: driver, cards, libraries, and whether either half can use
//! them.

use serde_json::{Map, Value, json};

use crate::cuda::{self, Driver, NEEDED};
use crate::error::Explain;
use crate::frozen::{self, ProviderChoice, Runtime, cuda_folder};

/// What was found, and which pieces are missing.
pub(super) struct CudaFindings {
    pub(super) object: Map<String, Value>,
    /// Each with what to do, in the order in which to do it.
    missing: Vec<(String, Option<String>)>,
    /// Whether anything here was meant for CUDA.
    wanted: bool,
    /// Whether candle has a card.
    pub(super) trains: bool,
}

impl CudaFindings {
    /// Looks at this machine, at the library of `runtime`, and at this telly.
    pub(super) fn find(runtime: Option<&Runtime>) -> Self {
        let offered = runtime.is_some_and(Runtime::offers_cuda);
        let mut findings = Self {
            object: Map::new(),
            missing: Vec::new(),
            wanted: offered || cfg!(feature = "cuda"),
            trains: false,
        };
        let usable = findings.driver();
        let folder = runtime.map_or_else(|| cuda_folder(None), Runtime::cuda_folder);
        let libraries = match &folder {
            Some(folder) => folder.display().to_string(),
            None => "the system's, if it has any".into(),
        };
        findings.insert("libraries", json!(libraries));
        let provider = runtime.map(|runtime| frozen_half(runtime, usable));
        if let Some(provider) = provider {
            findings.half("frozen_half", provider);
        }
        let card = match usable {
            true => cuda::open_device(0, folder.as_deref()).map(drop),
            false if cfg!(feature = "cuda") => Err(cuda::Error::NotTried),
            false => Err(cuda::Error::BuiltWithout),
        };
        findings.trains = card.is_ok();
        findings.half("trainable_half", card);
        let ready = findings.missing.is_empty();
        findings.insert("ready", json!(ready));
        findings
    }

    /// Whether the driver can be used; what it says goes into the object.
    fn driver(&mut self) -> bool {
        let found = Driver::find();
        let (version, runs, cards) = match &found {
            Ok(driver) => (
                json!(driver.version),
                json!(driver.cuda.to_string()),
                cards(driver),
            ),
            // What is missing is said beside it.
            Err(cuda::Error::NoDriver { .. }) => (json!("missing"), Value::Null, json!([])),
            Err(error) => (json!(error.to_string()), Value::Null, json!([])),
        };
        self.insert("driver", version);
        self.insert("driver_runs", runs);
        self.insert("needed", json!(NEEDED.to_string()));
        self.insert("cards", cards);
        self.wanted |= found.is_ok();
        match found.and_then(|driver| driver.check()) {
            // A container may have the driver and not the library that tells of it.
            Ok(()) | Err(cuda::Error::NoManagement { .. }) => true,
            Err(error) => {
                self.lack(&error);
                false
            }
        }
    }

    /// Whether one half can use CUDA.
    fn half(&mut self, name: &str, outcome: Result<(), cuda::Error>) {
        let found = match &outcome {
            Ok(()) => "a session was opened and run".into(),
            Err(error) => error.to_string(),
        };
        self.insert(name, json!(found));
        match outcome {
            Ok(()) | Err(cuda::Error::NotTried) => {}
            Err(error) => self.lack(&error),
        }
    }

    fn insert(&mut self, name: &str, value: Value) {
        self.object.insert(name.into(), value);
    }

    fn lack(&mut self, error: &cuda::Error) {
        self.missing.push((error.to_string(), error.hint()));
    }

    /// The pieces that are missing, for JSON.
    pub(super) fn missing(&self) -> Value {
        let pieces = self.missing.iter();
        pieces
            .map(|(piece, hint)| json!({"piece": piece, "hint": hint}))
            .collect()
    }

    /// What to say about it, in lines: nothing where CUDA is not missed.
    pub(super) fn verdict(&self) -> Vec<String> {
        if !self.wanted {
            return Vec::new();
        }
        if self.missing.is_empty() {
            return vec!["CUDA: both halves can use it".into()];
        }
        let mut lines = Vec::new();
        for (piece, hint) in &self.missing {
            lines.push(format!("CUDA: missing: {piece}"));
            lines.extend(hint.iter().map(|hint| format!("hint: {hint}")));
        }
        lines
    }
}

/// Whether ONNX Runtime's CUDA provider can be used, where the driver is `usable`.
fn frozen_half(runtime: &Runtime, usable: bool) -> Result<(), cuda::Error> {
    if usable || !runtime.offers_cuda() {
        let tried = runtime.try_provider(ProviderChoice::Cuda);
        return tried.map_err(|error| match error {
            frozen::Error::NoCuda(error) => error,
            other => cuda::Error::Refused {
                reason: other.to_string(),
            },
        });
    }
    Err(cuda::Error::NotTried)
}

fn cards(driver: &Driver) -> Value {
    let cards = driver.cards.iter();
    cards
        .map(|card| {
            json!({
                "name": card.name,
                "compute_capability": card.compute_capability.to_string(),
                "free_bytes": card.free_bytes,
                "total_bytes": card.total_bytes,
            })
        })
        .collect()
}
