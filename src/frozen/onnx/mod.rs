//! Writing the frozen half as an ONNX model: opset 20, standard operators only, weights as
//! external data, dynamic batch and length.

mod builder;
mod encoder;
mod linear;
mod proto;
mod relative_position;

pub(super) use builder::ExternalWeight;
pub use builder::OnnxModel;
pub use encoder::{ATTENTION_MASK, DATA_FILE, INPUT_IDS, Start, hidden_state, write};
pub(super) use proto::DataType;
