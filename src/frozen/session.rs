//! The frozen half, ready to run: an ONNX Runtime session over the graph.

use std::sync::Arc;

use ndarray::Array2;
use ort::ep::{CPU, CUDA, ExecutionProvider};
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::TensorRef;

use super::onnx::{self, OnnxModel};
use super::{Error, FrozenPrecision, Provider, ProviderChoice, Runtime};
use crate::checkpoint::Checkpoint;
use crate::ragged::Ragged;

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

/// The embeddings and bottom layers of a checkpoint in ONNX Runtime. It puts out the hidden states
/// after one or several numbers of layers, its depths.
pub struct FrozenEncoder {
    session: Session,
    depths: Vec<usize>,
    /// The graph's outputs, one a depth.
    outputs: Vec<String>,
    hidden_size: usize,
    padding_id: u32,
    provider: Provider,
    precision: FrozenPrecision,
    graph_hashes: Vec<String>,
    fallback: Option<String>,
}

impl FrozenEncoder {
    /// Builds the graph of `checkpoint`'s embeddings and bottom layers, as many as the deepest of
    /// `depths` asks for, and a session to run it.
    pub fn new(
        runtime: &Runtime,
        checkpoint: &Checkpoint,
        depths: &[usize],
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        let precision = options.precision;
        if precision == FrozenPrecision::Int8 && options.provider == ProviderChoice::Cuda {
            return Err(Error::Int8OnCuda);
        }
        let model = onnx::write(checkpoint, depths, precision, onnx::DATA_FILE)?;
        let graph_hashes = match depths {
            [_] => vec![hash(&model)],
            _ => depths
                .iter()
                .map(|&depth| graph_hash(checkpoint, depth, precision))
                .collect::<Result<_, _>>()?,
        };
        let (session, provider, fallback) = open_session(runtime, model, options)?;
        if precision == FrozenPrecision::Int8 && provider == Provider::Cuda {
            return Err(Error::Int8OnCuda);
        }
        Ok(Self {
            session,
            depths: depths.to_vec(),
            outputs: depths.iter().copied().map(onnx::hidden_state).collect(),
            hidden_size: checkpoint.config.hidden_size,
            padding_id: checkpoint.config.padding_id,
            provider,
            precision,
            graph_hashes,
            fallback,
        })
    }

    /// After how many layers it puts out hidden states, in the order asked for.
    pub fn depths(&self) -> &[usize] {
        &self.depths
    }

    /// Width of the hidden states.
    pub fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// The provider that runs it.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// What its linear layers compute in.
    pub fn precision(&self) -> FrozenPrecision {
        self.precision
    }

    /// For each depth, the [`graph_hash`] of the graph that ends there: that graph defines the
    /// numbers, whatever else is put out beside them.
    pub fn graph_hashes(&self) -> &[String] {
        &self.graph_hashes
    }

    /// Why `auto` took the CPU, when the library offers CUDA.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Runs the sequences `batch` of `sequences` together, padded to the longest; gives each
    /// one's hidden states at every depth, `[length, hidden]` flat, to `sink`.
    pub fn run(
        &mut self,
        sequences: &Ragged<u32>,
        batch: &[usize],
        mut sink: impl FnMut(usize, &[&[f32]]),
    ) -> Result<(), Error> {
        let length = batch.iter().map(|&index| sequences.length(index)).max();
        let length = length.unwrap_or(0);
        if length == 0 {
            return Ok(());
        }
        let shape = (batch.len(), length);
        let mut ids = Array2::from_elem(shape, i64::from(self.padding_id));
        let mut mask = Array2::from_elem(shape, 0i64);
        for (row, &index) in batch.iter().enumerate() {
            for (column, &id) in sequences.sequence(index).iter().enumerate() {
                ids[[row, column]] = i64::from(id);
                mask[[row, column]] = 1;
            }
        }
        let failed = |source| Error::Runtime {
            action: "run the frozen half",
            source,
        };
        let outputs = self
            .session
            .run(ort::inputs![
                onnx::INPUT_IDS => TensorRef::from_array_view(&ids).map_err(failed)?,
                onnx::ATTENTION_MASK => TensorRef::from_array_view(&mask).map_err(failed)?,
            ])
            .map_err(failed)?;
        let hidden = self.outputs.iter().map(|output| {
            let (_, hidden) = outputs[output.as_str()].try_extract_tensor::<f32>()?;
            Ok(hidden)
        });
        let hidden: Vec<&[f32]> = hidden.collect::<ort::Result<_>>().map_err(failed)?;
        for (row, &index) in batch.iter().enumerate() {
            let start = row * length * self.hidden_size;
            let end = start + sequences.length(index) * self.hidden_size;
            let states: Vec<&[f32]> = hidden.iter().map(|hidden| &hidden[start..end]).collect();
            let mut numbers = states.iter().copied().flatten();
            if !numbers.all(|number| number.is_finite()) {
                return Err(Error::NotFinite { sequence: index });
            }
            sink(index, &states);
        }
        Ok(())
    }
}

/// BLAKE3, hexadecimal, of the graph of `checkpoint`'s embeddings and bottom `depth` layers, without
/// its weights.
pub fn graph_hash(
    checkpoint: &Checkpoint,
    depth: usize,
    precision: FrozenPrecision,
) -> Result<String, Error> {
    let model = onnx::write(checkpoint, &[depth], precision, onnx::DATA_FILE)?;
    Ok(hash(&model))
}

fn hash(model: &OnnxModel) -> String {
    blake3::hash(&model.graph).to_hex().to_string()
}

/// A session over `model`, the provider that it got, and why that is not CUDA.
fn open_session(
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
