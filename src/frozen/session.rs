//! ONNX Runtime sessions over one of Telly's graphs.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ndarray::{Array1, Array2};
use ort::ep::CPU;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session, SessionInputValue};
use ort::value::Tensor;

use super::cards::{self, Fed, TF32_OVERRIDE};
use super::lane::Lane;
use super::onnx::{self, OnnxModel};
use super::room::Room;
use super::shared_weights::SharedWeights;
use super::side_by_side::{ComputedBatch, side_by_side};
use super::{BatchSize, Error, FrozenPrecision, Provider, ProviderChoice, Runtime};
use crate::checkpoint::AttentionPattern;
use crate::ragged::Ragged;

/// How the frozen half is to be run.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// CPU, CUDA or TensorRT.
    pub provider: ProviderChoice,
    /// CPU threads; one a physical core when absent.
    pub threads: Option<usize>,
    /// What the linear layers compute in.
    pub precision: FrozenPrecision,
    /// The NVIDIA cards to run on, by CUDA's numbers; the first one when empty.
    pub cards: Vec<u16>,
    /// Tokens of a batch, padding included; what suits the provider when absent.
    pub batch_tokens: Option<usize>,
    /// Tokens of the longest sequence there will be, if that is known. TensorRT plans by it.
    pub longest: Option<usize>,
}

/// A graph in ONNX Runtime that puts out hidden states at one or several depths.
///
/// On the CPU there is a session of one thread for each thread, each with a batch of its own: two
/// threads on one batch wait for each other at every operator. On cards there is a session for each,
/// with batches of two workers: while one is computed, the other's is handed on.
pub(super) struct GraphSessions {
    lanes: Vec<Lane>,
    /// The graph's outputs, one a depth.
    outputs: Vec<String>,
    room: Room,
    pub(super) depths: Vec<usize>,
    pub(super) hidden_size: usize,
    pub(super) provider: Provider,
    pub(super) precision: FrozenPrecision,
    pub(super) batch_size: BatchSize,
    /// Why `auto` took the CPU, when the library offers CUDA.
    pub(super) fallback: Option<String>,
}

/// What a graph is fed, by its own names.
pub(super) type Inputs = Vec<(Cow<'static, str>, SessionInputValue<'static>)>;

/// A batch as the graph takes it.
pub(super) struct BatchInputs {
    pub(super) inputs: Inputs,
    /// Tokens of each sequence, at least one of them not 0.
    pub(super) lengths: Vec<usize>,
}

impl GraphSessions {
    /// Sessions over `model`, which takes `input` beside the mask and puts out `hidden_size` numbers
    /// a token at each of `depths`.
    pub(super) fn open(
        runtime: &Runtime,
        model: OnnxModel,
        input: &str,
        depths: &[usize],
        hidden_size: usize,
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        let fed = Fed {
            input,
            width: (input != onnx::INPUT_IDS).then_some(hidden_size),
        };
        let Opened {
            lanes,
            provider,
            fallback,
        } = open_lanes(runtime, model, &fed, options)?;
        Ok(Self {
            lanes,
            outputs: depths.iter().copied().map(onnx::hidden_state).collect(),
            room: Room::new(),
            depths: depths.to_vec(),
            hidden_size,
            provider,
            precision: options.precision,
            batch_size: options.batch_size(provider),
            fallback,
        })
    }

    /// How many batches run at a time.
    pub(super) fn count(&self) -> usize {
        self.lanes.len()
    }

    /// Runs `batches` of sequences as long as `length` says, as `prepare` gives their inputs, several
    /// at a time, and hands each to `sink` when it is done, one after the other in no particular
    /// order; until `sink` breaks off. A batch without any token is left out; one that memory has no
    /// room for comes in several parts, in order. Of several failures, that of the first batch is
    /// returned.
    pub(super) fn run(
        &mut self,
        batches: &[Vec<usize>],
        length: impl Fn(usize) -> usize + Sync,
        prepare: impl Fn(&[usize]) -> ort::Result<Option<BatchInputs>> + Sync,
        sink: &mut (dyn FnMut(&ComputedBatch) -> ControlFlow<()> + Send),
    ) -> Result<(), Error> {
        let (names, hidden_size, room) = (&self.outputs, self.hidden_size, &self.room);
        // Taken away when it breaks off: what other threads are at then is dropped.
        let sink = Mutex::new(Some(sink));
        let compute = |lane: &Lane, place: usize, part: &[usize]| {
            let Some(BatchInputs { inputs, lengths }) = prepare(part).map_err(failed)? else {
                return Ok(ControlFlow::Continue(()));
            };
            let outputs = lane.run(inputs, names).map_err(failed)?;
            let states = outputs.iter().map(|output| {
                let (_, states) = output.try_extract_tensor::<f32>()?;
                Ok(states)
            });
            let computed = ComputedBatch {
                place,
                indices: part,
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
        };
        side_by_side(&mut self.lanes, batches.len(), |lane, place| {
            room.run(&batches[place], &length, |part| compute(lane, place, part))
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
    padded_mask(lengths, lengths.iter().copied().max().unwrap_or(0))
}

/// As [`mask`], `[sequences, columns]`.
pub(super) fn padded_mask(lengths: &[usize], columns: usize) -> Array2<i64> {
    Array2::from_shape_fn((lengths.len(), columns), |(row, column)| {
        i64::from(column < lengths[row])
    })
}

/// `inputs` with the prefix lengths of the sequences, where the graph of `pattern` takes them.
pub(super) fn with_prefixes(
    mut inputs: Inputs,
    pattern: AttentionPattern,
    sequences: usize,
    ids: impl FnOnce() -> Ragged<u32>,
) -> ort::Result<Inputs> {
    if let Some(lengths) = pattern.prefixes(sequences, ids) {
        let lengths: Array1<i64> = lengths.into_iter().map(|length| length as i64).collect();
        let lengths = Tensor::from_array(lengths)?;
        inputs.push((onnx::PREFIX_LENGTHS.into(), lengths.into()));
    }
    Ok(inputs)
}

/// Workers over a graph, the provider that they got, and why that is not CUDA.
struct Opened {
    lanes: Vec<Lane>,
    provider: Provider,
    fallback: Option<String>,
}

fn open_lanes(
    runtime: &Runtime,
    model: OnnxModel,
    fed: &Fed,
    options: &SessionOptions,
) -> Result<Opened, Error> {
    let fallback = match on_cards(runtime, &model, fed, options)? {
        Ok((sessions, provider)) => {
            let lanes = sessions.into_iter();
            return Ok(Opened {
                lanes: lanes
                    .flat_map(|(session, card)| Lane::on_card(session, card))
                    .collect(),
                provider,
                fallback: None,
            });
        }
        Err(fallback) => fallback,
    };
    let threads = options.threads.unwrap_or_else(num_cpus::get_physical);
    let open = || -> ort::Result<Vec<Lane>> {
        let weights = SharedWeights::new(model.weights, model.data)?;
        let sessions = (0..threads.max(1)).map(|_| cpu_session(runtime, &model.graph, &weights));
        sessions.map(|session| session.map(Lane::on_cpu)).collect()
    };
    let lanes = open().map_err(|source| Error::Runtime {
        action: "load the frozen half",
        source,
    })?;
    Ok(Opened {
        lanes,
        provider: Provider::Cpu,
        fallback,
    })
}

/// One session over `model`, all threads on one batch.
pub(super) fn open_session(
    runtime: &Runtime,
    model: &OnnxModel,
    options: &SessionOptions,
) -> Result<Session, Error> {
    let fed = Fed {
        input: onnx::INPUT_IDS,
        width: None,
    };
    if let Ok((sessions, _)) = on_cards(runtime, model, &fed, options)?
        && let Some((session, _)) = sessions.into_iter().next()
    {
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

/// Sessions with the numbers of their cards, and the provider that they got.
type OnCards = (Vec<(Session, i32)>, Provider);

/// Sessions over `model` on cards or, where the CPU will do, why not, when the library offers CUDA.
/// What the provider cannot compute in the precision asked for is refused before it is loaded.
fn on_cards(
    runtime: &Runtime,
    model: &OnnxModel,
    fed: &Fed,
    options: &SessionOptions,
) -> Result<Result<OnCards, Option<String>>, Error> {
    let precision = options.precision;
    let provider = match options.provider {
        ProviderChoice::Cpu => {
            precision.check(Provider::Cpu, None)?;
            return Ok(Err(None));
        }
        ProviderChoice::Auto | ProviderChoice::Cuda => Provider::Cuda,
        ProviderChoice::Tensorrt => Provider::Tensorrt,
    };
    if options.provider != ProviderChoice::Auto {
        precision.check(provider, None)?;
    }
    let without_tf32 = std::env::var(TF32_OVERRIDE).is_ok_and(|value| value == "0");
    if provider == Provider::Tensorrt && precision == FrozenPrecision::Fp32 && !without_tf32 {
        return Err(Error::TensorrtInTf32);
    }
    match cards::sessions(runtime, model, fed, provider, options) {
        Ok(sessions) => {
            precision.check(provider, None)?;
            Ok(Ok((sessions, provider)))
        }
        Err(error) => match options.provider {
            ProviderChoice::Cuda => Err(Error::NoCuda(error)),
            ProviderChoice::Tensorrt => Err(Error::NoTensorrt(error)),
            ProviderChoice::Auto | ProviderChoice::Cpu => {
                let fallback = runtime.offers_cuda().then(|| error.to_string());
                precision.check(Provider::Cpu, fallback.as_deref())?;
                Ok(Err(fallback))
            }
        },
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
    // The arena keeps a batch's memory for the next one. Without it each result is asked of the system's
    // allocator, which keeps holes that a result does not fit in again. A pattern of a batch's memory
    // would have a second place for the whole of it, for each shape of a batch.
    let cpu = CPU::default().with_arena_allocator(true);
    let builder = builder.with_memory_pattern(false)?;
    Ok(builder.with_execution_providers([cpu.build()])?)
}

pub(super) fn builder(runtime: &Runtime) -> ort::Result<SessionBuilder> {
    Ok(Session::builder(runtime.environment())?
        .with_optimization_level(GraphOptimizationLevel::All)?)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::checkpoint::Checkpoint;

    /// Looks for the session at work, for as long as a batch may take.
    const PATIENCE: Duration = Duration::from_millis(500);

    /// What one worker of a card puts out is handed on while the other has its batch computed.
    #[test]
    fn the_next_batch_is_computed_while_one_is_handed_on() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/bert-tiny");
        let checkpoint = Checkpoint::open(&folder).expect("a checkpoint");
        let runtime = Runtime::load(None).expect("ONNX Runtime");
        let (start, precision) = (onnx::Start::TokenIds, FrozenPrecision::Fp32);
        let model = onnx::write(&checkpoint, start, &[3], precision, onnx::DATA_FILE);
        let options = SessionOptions {
            provider: ProviderChoice::Cpu,
            threads: Some(1),
            ..SessionOptions::default()
        };
        let model = model.expect("a graph");
        let session = open_session(&runtime, &model, &options).expect("a session");
        let lanes: Vec<Lane> = Lane::on_card(session, 0).collect();
        let busy = lanes[0].watch();
        let mut sessions = GraphSessions {
            lanes,
            outputs: vec![onnx::hidden_state(3)],
            room: Room::new(),
            depths: vec![3],
            hidden_size: checkpoint.config.hidden_size,
            provider: Provider::Cuda,
            precision,
            batch_size: options.batch_size(Provider::Cuda),
            fallback: None,
        };
        let (rows, length) = (64, 32);
        let batches: Vec<Vec<usize>> = (0..10).map(|_| (0..rows).collect()).collect();
        let prepare = |part: &[usize]| {
            let shape = (part.len(), length);
            let inputs = ort::inputs![
                onnx::INPUT_IDS => Tensor::from_array(Array2::<i64>::ones(shape))?,
                onnx::ATTENTION_MASK => Tensor::from_array(Array2::<i64>::ones(shape))?,
            ];
            Ok(Some(BatchInputs {
                inputs,
                lengths: vec![length; part.len()],
            }))
        };
        let (mut handed, mut beside) = (0, 0);
        sessions
            .run(&batches, |_| length, prepare, &mut |batch| {
                handed += batch.indices.len();
                let started = Instant::now();
                while started.elapsed() < PATIENCE {
                    if busy() {
                        beside += 1;
                        break;
                    }
                    std::thread::yield_now();
                }
                ControlFlow::Continue(())
            })
            .expect("no failure");
        assert_eq!(handed, 10 * rows);
        assert!(beside > 0, "the session was never at work meanwhile");
    }
}
