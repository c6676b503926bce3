//! The frozen half: what it puts out, in every precision, on every kind of device, however little memory there is.

mod cards;
mod cuda;
mod onnx_parity;
mod out_of_memory;
mod parity_probe;
mod rounded;
#[path = "../support/mod.rs"]
mod support;
mod threads;
