//! ONNX Runtime sessions over one of Telly's graphs.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::Array2;
use ort::ep::{CPU, CUDA, ExecutionProvider};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session, SessionInputValue};

use super::onnx::{self, OnnxModel};
use super::shared_weights::SharedWeights;
use super::side_by_side::{ComputedBatch, side_by_side};
use super::{Error, FrozenPrecision, Provider, ProviderChoice, Runtime};
use crate::cuda;

/// How the frozen half is to be run.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// CPU or CUDA.
    pub provider: ProviderChoice,
    /// CPU threads; one a physical core when absent.
    pub threads: Option<usize>,
    /// What the linear layers compute in.
    pub precision: FrozenPrecision,
}

/// A graph in ONNX Runtime that puts out hidden states at one or several depths.
///
/// On the CPU there is a session of one thread for each thread, each with a batch of its own: two
/// threads on one batch wait for each other at every operator.
pub(super) struct GraphSessions {
    sessions: Vec<Session>,
    /// The graph's outputs, one a depth.
    outputs: Vec<String>,
    pub(super) depths: Vec<usize>,
    pub(super) hidden_size: usize,
    pub(super) provider: Provider,
    pub(super) precision: FrozenPrecision,
    /// Why `auto` took the CPU, when the library offers CUDA.
    pub(super) fallback: Option<String>,
}

/// A batch as the graph takes it.
pub(super) struct BatchInputs {
    /// By the graph's names.
    pub(super) inputs: Vec<(Cow<'static, str>, SessionInputValue<'static>)>,
    /// Tokens of each sequence, at least one of them not 0.
    pub(super) lengths: Vec<usize>,
}

impl GraphSessions {
    /// Sessions over `model`, which puts out `hidden_size` numbers a token at each of `depths`.
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
        let (sessions, provider, fallback) = open_sessions(runtime, model, options)?;
        if precision == FrozenPrecision::Int8 && provider == Provider::Cuda {
            return Err(Error::Int8OnCuda);
        }
        Ok(Self {
            sessions,
            outputs: depths.iter().copied().map(onnx::hidden_state).collect(),
            depths: depths.to_vec(),
            hidden_size,
            provider,
            precision,
            fallback,
        })
    }

    /// How many batches run at a time.
    pub(super) fn count(&self) -> usize {
        self.sessions.len()
    }

    /// Runs `batches` of sequences, as `prepare` gives their inputs, several at a time, and hands
    /// each to `sink` when it is done, one after the other in no particular order; until `sink`
    /// breaks off. A batch without any token is left out. Of several failures, that of the first
    /// batch is returned.
    pub(super) fn run(
        &mut self,
        batches: &[Vec<usize>],
        prepare: impl Fn(&[usize]) -> ort::Result<Option<BatchInputs>> + Sync,
        sink: &mut (dyn FnMut(&ComputedBatch) -> ControlFlow<()> + Send),
    ) -> Result<(), Error> {
        let (names, hidden_size) = (&self.outputs, self.hidden_size);
        // Taken away when it breaks off: what other threads are at then is dropped.
        let sink = Mutex::new(Some(sink));
        side_by_side(&mut self.sessions, batches.len(), |session, place| {
            let batch = &batches[place];
            let Some(BatchInputs { inputs, lengths }) = prepare(batch).map_err(failed)? else {
                return Ok(ControlFlow::Continue(()));
            };
            let outputs = session.run(inputs).map_err(failed)?;
            let states = names.iter().map(|name| {
                let (_, states) = outputs[name.as_str()].try_extract_tensor::<f32>()?;
                Ok(states)
            });
            let computed = ComputedBatch {
                place,
                indices: batch,
                lengths: &lengths,
                hidden_size,
                states: states.collect::<ort::Result<_>>().map_err(failed)?,
            };
            computed.check_finite()?;
            let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
            let flow = match &mut *sink {
                Some(sink) => sink(&computed),
                None => ControlFlow::Break(()),
            };
            if flow.is_break() {
                *sink = None;
            }
            Ok(flow)
        })
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

/// Sessions over `model`, the provider that they got, and why that is not CUDA.
fn open_sessions(
    runtime: &Runtime,
    model: OnnxModel,
    options: &SessionOptions,
) -> Result<(Vec<Session>, Provider, Option<String>), Error> {
    let fallback = match on_cuda(runtime, &model, options)? {
        Ok(session) => return Ok((vec![session], Provider::Cuda, None)),
        Err(fallback) => fallback,
    };
    let threads = options.threads.unwrap_or_else(num_cpus::get_physical);
    let open = || -> ort::Result<Vec<Session>> {
        let weights = SharedWeights::new(model.weights, &model.data)?;
        drop(model.data);
        let sessions = (0..threads.max(1)).map(|_| cpu_session(runtime, &model.graph, &weights));
        sessions.collect()
    };
    let sessions = open().map_err(|source| Error::Runtime {
        action: "load the frozen half",
        source,
    })?;
    Ok((sessions, Provider::Cpu, fallback))
}

/// One session over `model`, all threads on one batch.
pub(super) fn open_session(
    runtime: &Runtime,
    model: &OnnxModel,
    options: &SessionOptions,
) -> Result<Session, Error> {
    if let Ok(session) = on_cuda(runtime, model, options)? {
        return Ok(session);
    }
    let open = || {
        let data = model.data.as_slice().into();
        cpu_builder(runtime, options.threads)?
            .with_external_initializer_file_in_memory(onnx::DATA_FILE, data)?
            .commit_from_memory(&model.graph)
    };
    open().map_err(|source| Error::Runtime {
        action: "load the model",
        source,
    })
}

/// A session on the CPU over the model in the file `path`, weights in it or beside it.
pub(super) fn open_file(
    runtime: &Runtime,
    path: &Path,
    options: &SessionOptions,
) -> Result<Session, Error> {
    let session = cpu_builder(runtime, options.threads)
        .and_then(|mut builder| builder.commit_from_file(path));
    session.map_err(|source| Error::Runtime {
        action: "load the model",
        source,
    })
}

/// A session over `model` on CUDA or, where the CPU will do, why not, when the library offers CUDA.
fn on_cuda(
    runtime: &Runtime,
    model: &OnnxModel,
    options: &SessionOptions,
) -> Result<Result<Session, Option<String>>, Error> {
    if options.provider == ProviderChoice::Cpu {
        return Ok(Err(None));
    }
    match cuda_session(runtime, model, options) {
        Err(error) if options.provider == ProviderChoice::Cuda => Err(Error::NoCuda(error)),
        Err(error) => Ok(Err(runtime.offers_cuda().then(|| error.to_string()))),
        Ok(session) => Ok(Ok(session)),
    }
}

/// A session of one thread, that of the caller.
fn cpu_session(runtime: &Runtime, graph: &[u8], weights: &SharedWeights) -> ort::Result<Session> {
    let builder = cpu_builder(runtime, Some(1))?;
    weights.give(builder)?.commit_from_memory(graph)
}

fn cpu_builder(runtime: &Runtime, threads: Option<usize>) -> ort::Result<SessionBuilder> {
    let mut builder = builder(runtime)?;
    if let Some(threads) = threads {
        builder = builder.with_intra_threads(threads)?;
    }
    Ok(builder.with_execution_providers([CPU::default().build()])?)
}

fn cuda_session(
    runtime: &Runtime,
    model: &OnnxModel,
    options: &SessionOptions,
) -> Result<Session, cuda::Error> {
    runtime.prepare_cuda()?;
    // Strict mode keeps SkipLayerNormalization's sums in fp32: without it results drift
    // (onnxruntime #17689).
    // TF32 would leave fp32's name on numbers with ten bits of fraction.
    let cuda = CUDA::default()
        .with_skip_layer_norm_strict_mode(true)
        .with_tf32(false);
    let open = || -> ort::Result<Session> {
        let mut builder = builder(runtime)?;
        if let Some(threads) = options.threads {
            builder = builder.with_intra_threads(threads)?;
        }
        cuda.register(&mut builder)?;
        let data: Arc<[u8]> = model.data.as_slice().into();
        builder
            .with_external_initializer_file_in_memory(onnx::DATA_FILE, data)?
            .commit_from_memory(&model.graph)
    };
    open().map_err(|error| cuda::explain(&error.to_string()))
}

fn builder(runtime: &Runtime) -> ort::Result<SessionBuilder> {
    Ok(Session::builder(runtime.environment())?
        .with_optimization_level(GraphOptimizationLevel::All)?)
}
