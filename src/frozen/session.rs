//! An ONNX Runtime session over one of Telly's graphs.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use ndarray::Array2;
use ort::ep::{CPU, CUDA, ExecutionProvider};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session, SessionInputValue};

use super::onnx::{self, OnnxModel};
use super::{Error, FrozenPrecision, Provider, ProviderChoice, Runtime};

/// How the frozen half is to be run.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// CPU or CUDA.
    pub provider: ProviderChoice,
    /// CPU threads; ONNX Runtime's own choice (one a physical core) when absent.
    pub threads: Option<usize>,
    /// What the linear layers compute in.
    pub precision: FrozenPrecision,
}

/// A graph in ONNX Runtime that puts out hidden states at one or several depths.
pub(super) struct GraphSession {
    session: Session,
    /// The graph's outputs, one a depth.
    outputs: Vec<String>,
    pub(super) depths: Vec<usize>,
    pub(super) hidden_size: usize,
    pub(super) provider: Provider,
    pub(super) precision: FrozenPrecision,
    /// Why `auto` took the CPU, when the library offers CUDA.
    pub(super) fallback: Option<String>,
}

impl GraphSession {
    /// A session over `model`, which puts out `hidden_size` numbers a token at each of `depths`.
    pub(super) fn open(
        runtime: &Runtime,
        model: OnnxModel,
        depths: &[usize],
        hidden_size: usize,
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        let precision = options.precision;
        if precision == FrozenPrecision::Int8 && options.provider == ProviderChoice::Cuda {
            return Err(Error::Int8OnCuda);
        }
        let (session, provider, fallback) = open_session(runtime, model, options)?;
        if precision == FrozenPrecision::Int8 && provider == Provider::Cuda {
            return Err(Error::Int8OnCuda);
        }
        Ok(Self {
            session,
            outputs: depths.iter().copied().map(onnx::hidden_state).collect(),
            depths: depths.to_vec(),
            hidden_size,
            provider,
            precision,
            fallback,
        })
    }

    /// Runs `inputs`, whose rows are sequences of `lengths` tokens, padded to the longest; gives
    /// the place of each row and its hidden states at every depth, `[length, hidden]` flat, to
    /// `sink`. In an error the sequence is the row.
    pub(super) fn run(
        &mut self,
        inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)>,
        lengths: &[usize],
        mut sink: impl FnMut(usize, &[&[f32]]),
    ) -> Result<(), Error> {
        let outputs = self.session.run(inputs).map_err(failed)?;
        let hidden = self.outputs.iter().map(|output| {
            let (_, hidden) = outputs[output.as_str()].try_extract_tensor::<f32>()?;
            Ok(hidden)
        });
        let hidden: Vec<&[f32]> = hidden.collect::<ort::Result<_>>().map_err(failed)?;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        for (row, &length) in lengths.iter().enumerate() {
            let start = row * longest * self.hidden_size;
            let end = start + length * self.hidden_size;
            let states: Vec<&[f32]> = hidden.iter().map(|hidden| &hidden[start..end]).collect();
            let mut numbers = states.iter().copied().flatten();
            if !numbers.all(|number| number.is_finite()) {
                return Err(Error::NotFinite { sequence: row });
            }
            sink(row, &states);
        }
        Ok(())
    }
}

/// ONNX Runtime's `source` of a failure while running.
pub(super) fn failed(source: ort::Error) -> Error {
    Error::Runtime {
        action: "run the frozen half",
        source,
    }
}

/// The mask of sequences of `lengths` tokens, `[sequences, longest]`: 1 for a token, 0 for padding.
pub(super) fn mask(lengths: &[usize]) -> Array2<i64> {
    let longest = lengths.iter().copied().max().unwrap_or(0);
    Array2::from_shape_fn((lengths.len(), longest), |(row, column)| {
        i64::from(column < lengths[row])
    })
}

/// A session over `model`, the provider that it got, and why that is not CUDA.
pub(super) fn open_session(
    runtime: &Runtime,
    model: OnnxModel,
    options: &SessionOptions,
) -> Result<(Session, Provider, Option<String>), Error> {
    let data: Arc<[u8]> = model.data.into();
    let mut fallback = None;
    if options.provider != ProviderChoice::Cpu {
        match cuda_session(runtime, &model.graph, &data, options) {
            Ok(session) => return Ok((session, Provider::Cuda, None)),
            Err(reason) if options.provider == ProviderChoice::Cuda => {
                return Err(Error::NoCuda { reason });
            }
            Err(reason) => fallback = runtime.offers_cuda().then_some(reason),
        }
    }
    let session = builder(runtime, options)
        .and_then(|builder| Ok(builder.with_execution_providers([CPU::default().build()])?))
        .and_then(|builder| commit(builder, &model.graph, &data))
        .map_err(|source| Error::Runtime {
            action: "load the frozen half",
            source,
        })?;
    Ok((session, Provider::Cpu, fallback))
}

/// A session on the CPU over the model in the file `path`, weights in it or beside it.
pub(super) fn open_file(
    runtime: &Runtime,
    path: &Path,
    options: &SessionOptions,
) -> Result<Session, Error> {
    let session = builder(runtime, options)
        .and_then(|builder| Ok(builder.with_execution_providers([CPU::default().build()])?))
        .and_then(|mut builder| builder.commit_from_file(path));
    session.map_err(|source| Error::Runtime {
        action: "load the model",
        source,
    })
}

fn cuda_session(
    runtime: &Runtime,
    graph: &[u8],
    data: &Arc<[u8]>,
    options: &SessionOptions,
) -> Result<Session, String> {
    if !runtime.offers_cuda() {
        return Err(format!(
            "the library `{}` was built without it",
            runtime.library.display()
        ));
    }
    // Strict mode keeps SkipLayerNormalization's sums in fp32: without it results drift
    // (onnxruntime #17689).
    // TF32 would leave fp32's name on numbers with ten bits of fraction.
    let cuda = CUDA::default()
        .with_skip_layer_norm_strict_mode(true)
        .with_tf32(false);
    let mut builder = builder(runtime, options).map_err(|error| error.to_string())?;
    cuda.register(&mut builder)
        .map_err(|error| error.to_string())?;
    commit(builder, graph, data).map_err(|error| error.to_string())
}

fn builder(runtime: &Runtime, options: &SessionOptions) -> ort::Result<SessionBuilder> {
    let mut builder = Session::builder(runtime.environment())?
        .with_optimization_level(GraphOptimizationLevel::All)?;
    if let Some(threads) = options.threads {
        builder = builder.with_intra_threads(threads)?;
    }
    Ok(builder)
}

fn commit(builder: SessionBuilder, graph: &[u8], data: &Arc<[u8]>) -> ort::Result<Session> {
    builder
        .with_external_initializer_file_in_memory(onnx::DATA_FILE, Arc::clone(data))?
        .commit_from_memory(graph)
}
