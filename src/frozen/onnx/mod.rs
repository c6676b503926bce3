//! Writing the frozen half as an ONNX model: opset 20, standard operators only, weights as
//! external data, dynamic batch and length.

mod builder;
mod check;
mod decoder;
mod encoder;
mod layer;
mod linear;
mod positions;
mod proto;
mod relative_position;
mod scores;
mod whole;

pub(super) use builder::ExternalWeight;
pub use builder::OnnxModel;
pub(crate) use check::{CHECK_INPUT, CHECK_OUTPUT, write_check};
pub use decoder::{
    Decoding, LAST_TOKEN, LOGITS, POSITION_IDS, past_names, present_names, write_decoder,
};
pub(crate) use decoder::{GATHERED, ROWS, STATES, write_gather};
pub use encoder::{
    ATTENTION_MASK, DATA_FILE, INPUT_IDS, PREFIX_LENGTHS, Start, hidden_state, write,
};
pub(super) use proto::DataType;
pub use whole::{Dense, Pool, Readout, WholeModel, write_whole};
