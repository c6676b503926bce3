//! Sessions on NVIDIA's cards: by ONNX Runtime's own CUDA kernels, or by engines that TensorRT
//! builds. Nothing here has run on a card yet.

use std::sync::Arc;

use ort::ep::{ArenaExtendStrategy, CUDA, ExecutionProvider, TensorRT};
use ort::session::Session;

use super::onnx::{self, OnnxModel};
use super::session::{self, SessionOptions};
use super::{BatchSize, FrozenPrecision, Provider, Runtime};
use crate::cuda;

/// Fusions of ONNX Runtime that are held off, as results were far off with them on CUDA
/// (onnxruntime #18945). In 1.31 neither finds its pattern in Telly's graphs on the CPU, where the
/// same ones are looked for: this is for the versions to come. Fusions that only change the order of
/// sums, as that of a bias and Gelu, are left on; SkipLayerNormalization is on in its strict mode.
const HELD_OFF: &str = "AttentionFusion;EmbedLayerNormFusion";
/// By how much a batch of short sequences may be wider than one of the longest: TensorRT plans
/// memory for the widest of the longest, which there never is.
const TENSORRT_STRETCH: usize = 4;
/// The longest sequence, where it is not known.
const USUAL_LENGTH: usize = 512;
/// NVIDIA's libraries leave TF32 alone when this is 0.
pub(super) const TF32_OVERRIDE: &str = "NVIDIA_TF32_OVERRIDE";

/// What a graph on a card is fed.
pub(super) struct Fed<'a> {
    /// The name of its input beside the mask.
    pub(super) input: &'a str,
    /// Numbers a token of that; absent for ids.
    pub(super) width: Option<usize>,
}

/// A session over `model` on each card that `options` names, by `provider`, with the card's number;
/// or which piece is missing.
pub(super) fn sessions(
    runtime: &Runtime,
    model: &OnnxModel,
    fed: &Fed,
    provider: Provider,
    options: &SessionOptions,
) -> Result<Vec<(Session, i32)>, cuda::Error> {
    runtime.prepare_cuda()?;
    if !runtime.offers(provider) {
        let library = runtime.library.display();
        let reason = format!("ONNX Runtime's library `{library}` was built without TensorRT");
        return Err(cuda::Error::Refused { reason });
    }
    let data: Arc<[u8]> = model.data.as_slice().into();
    let cards = options.cards();
    let sessions = cards.iter().map(|&card| {
        let open = || -> ort::Result<Session> {
            let mut builder = session::builder(runtime)?.with_disabled_optimizers(HELD_OFF)?;
            if let Some(threads) = options.threads {
                builder = builder.with_intra_threads(threads)?;
            }
            if provider == Provider::Tensorrt {
                tensorrt(card, fed, options).register(&mut builder)?;
            }
            // Takes what TensorRT leaves.
            cuda(card, options.precision).register(&mut builder)?;
            builder
                .with_external_initializer_file_in_memory(onnx::DATA_FILE, Arc::clone(&data))?
                .commit_from_memory(&model.graph)
        };
        let session = open().map_err(|error| {
            cuda::explain(&match cards.len() {
                1 => error.to_string(),
                _ => format!("card {card}: {error}"),
            })
        })?;
        Ok((session, card))
    });
    sessions.collect()
}

fn cuda(card: i32, precision: FrozenPrecision) -> CUDA {
    // Strict mode keeps SkipLayerNormalization's sums in fp32: without it results drift
    // (onnxruntime #17689). TF32 would leave fp32's name on numbers with ten bits of fraction.
    // An arena that grows to powers of two would take up to twice what is needed.
    CUDA::default()
        .with_device_id(card)
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
        .with_skip_layer_norm_strict_mode(true)
        .with_tf32(precision == FrozenPrecision::Tf32)
}

fn tensorrt(card: i32, fed: &Fed, options: &SessionOptions) -> TensorRT {
    // One engine for all shapes there will be: without this, each shape that is longer or wider than
    // those before has a new one built, which takes minutes.
    let (size, longest) = (options.batch_size(Provider::Tensorrt), options.longest());
    let usual = (size.tokens / longest).clamp(1, size.rows);
    TensorRT::default()
        .with_device_id(card)
        .with_fp16(options.precision == FrozenPrecision::Fp16)
        .with_layer_norm_fp32_fallback(true)
        .with_profile_min_shapes(fed.shapes(1, 1))
        .with_profile_opt_shapes(fed.shapes(usual, longest))
        .with_profile_max_shapes(fed.shapes(size.rows, longest))
}

impl Fed<'_> {
    /// A batch of so many rows and tokens, as TensorRT is told of it.
    fn shapes(&self, rows: usize, length: usize) -> String {
        let (input, mask) = (self.input, onnx::ATTENTION_MASK);
        let width = self.width.map(|width| format!("x{width}"));
        let width = width.unwrap_or_default();
        format!("{input}:{rows}x{length}{width},{mask}:{rows}x{length}")
    }
}

impl SessionOptions {
    /// The cards' numbers.
    fn cards(&self) -> Vec<i32> {
        match self.cards.as_slice() {
            [] => vec![0],
            cards => cards.iter().map(|&card| i32::from(card)).collect(),
        }
    }

    fn longest(&self) -> usize {
        self.longest.unwrap_or(USUAL_LENGTH).max(1)
    }

    /// How much runs together on `provider`.
    pub(super) fn batch_size(&self, provider: Provider) -> BatchSize {
        let usual = match provider {
            Provider::Cpu => super::TOKEN_BUDGET,
            Provider::Cuda | Provider::Tensorrt => super::CUDA_TOKEN_BUDGET,
        };
        let tokens = self.batch_tokens.unwrap_or(usual);
        if provider == Provider::Tensorrt {
            let rows = (TENSORRT_STRETCH * tokens / self.longest()).max(1);
            return BatchSize { tokens, rows };
        }
        BatchSize::of_tokens(tokens)
    }
}
