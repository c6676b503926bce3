//! Telly fine-tunes a pre-trained code model with its bottom layers frozen, and pays for the
//! frozen half only once.
//!
//! The way of the data:
//!
//! ```text
//! checkpoint folder ──frozen::onnx──▶ ONNX graph ──ONNX Runtime──┐
//! records ──task::Encoding──▶ token sequences ───────────────────┴─▶ cache ──mmap──▶ trainable ──▶ run folder
//! ```
//!
//! - [`checkpoint`]: a pre-trained model on disk.
//! - [`dataset`]: records out of files.
//! - [`task`]: records to token sequences; head, loss and metrics.
//! - [`frozen`]: the frozen half as an ONNX graph, run by ONNX Runtime.
//! - [`generation`]: text that a whole model writes.
//! - [`cache`]: what it put out, on disk.
//! - [`precompute`]: the first command: from records to a cache.
//! - [`trainable`]: the top layers as differentiable functions, and the optimizer.
//! - [`train`]: the second command: from a cache to a run.
//! - [`estimate`]: the peak memory of both commands, told from shapes.
//! - [`index`]: a code base as vectors on disk, searched exactly.
//! - [`cuda`]: NVIDIA's driver and libraries, found and loaded.
//! - [`study`]: how alike checkpoints are layer by layer, what sweeps came to, and reports of both.
//! - [`export`]: from a run to a Hugging Face folder or an ONNX model.
//!
//! The seam between the halves is [`ragged::Ragged`]: values and offsets, never padding.

pub mod cache;
mod caught;
pub mod checkpoint;
pub mod cli;
pub mod cuda;
pub mod dataset;
mod disk;
mod distinct;
pub mod error;
pub mod estimate;
pub mod export;
pub mod frozen;
pub mod generation;
pub mod index;
pub mod interrupt;
mod lock;
mod mapping;
pub mod precompute;
mod progress;
mod publish;
mod publish_folder;
pub mod ragged;
mod simd;
pub mod study;
pub mod targets;
pub mod task;
pub mod train;
pub mod trainable;
