//! A whole model as one ONNX file: every layer, pooling, and what stands on top.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::builder::{Attribute, Axis, ExternalWeight, GraphBuilder, OnnxModel, Value};
use super::encoder::{OpenGraph, write_all_layers, write_norm};
use super::linear;
use super::proto::{DataLocation, GraphProto, ModelProto, StringStringEntry, TensorProto};
use crate::checkpoint::{self, Checkpoint, Linear, Norm};
use crate::frozen::FrozenPrecision;

/// Protobuf's readers take no message of 2 GiB; this leaves room for the graph itself.
const MOST_BYTES_INSIDE: usize = (2 << 30) - (64 << 20);
/// Field numbers of `onnx.proto` under which weights are written one by one.
const GRAPH_OF_MODEL: u32 = 7;
const INITIALIZER_OF_GRAPH: u32 = 5;
const RAW_DATA_OF_TENSOR: u32 = 9;

/// How a sequence's states become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// The first token's.
    First,
    /// The mean over all tokens.
    Mean,
}

/// A linear layer on top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dense {
    /// The layer.
    pub linear: Linear,
    /// The ONNX operator that is applied to what it puts out.
    pub activation: Option<&'static str>,
    /// The norm over that, of hidden states' width.
    pub norm: Option<Norm>,
}

/// What is read out of the states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readout {
    /// One vector a sequence.
    pub pool: Pool,
    /// Sequences whose vectors are put side by side: so many of the batch, one after the other,
    /// make a row of the output.
    pub columns: usize,
    /// Layers on top of it, one after the other.
    pub layers: Vec<Dense>,
    /// Whether the result is scaled to unit length.
    pub unit_length: bool,
    /// The name of the graph's output, f32 `[batch, numbers]`.
    pub output: &'static str,
}

/// A whole model, to be written to a file.
pub struct WholeModel {
    model: ModelProto,
    data: Vec<u8>,
    weights: Vec<ExternalWeight>,
}

/// Writes all of `checkpoint` and `readout` on top as one graph of the two inputs
/// [`INPUT_IDS`](super::INPUT_IDS) and [`ATTENTION_MASK`](super::ATTENTION_MASK), with `metadata`.
/// In int8, `readout` stays fp32.
pub fn write_whole(
    checkpoint: &Checkpoint,
    readout: &Readout,
    precision: FrozenPrecision,
    metadata: &[(&str, String)],
    file_name: &str,
) -> Result<WholeModel, checkpoint::Error> {
    let OpenGraph {
        mut graph,
        mask,
        hidden,
    } = write_all_layers(checkpoint, "model", precision, &data_name(file_name))?;
    let mut vector = match readout.pool {
        Pool::First => {
            let first = graph.int("first_token", &[], &[0]);
            let along = [Attribute::Int("axis", 1)];
            graph.node("pooling", "Gather", &[&hidden, &first], &along)
        }
        Pool::Mean => mean(&mut graph, &hidden, &mask),
    };
    let mut width = checkpoint.config.hidden_size * readout.columns;
    if readout.columns > 1 {
        let shape = graph.int("row_shape", &[2], &[-1, width as i64]);
        vector = graph.node("pooling", "Reshape", &[&vector, &shape], &[]);
    }
    for layer in &readout.layers {
        let (weights, fp32) = (&checkpoint.weights, FrozenPrecision::Fp32);
        vector = linear::write(&mut graph, weights, fp32, &layer.linear, &vector)?;
        if let Some(activation) = layer.activation {
            vector = graph.node(&layer.linear.name, activation, &[&vector], &[]);
        }
        if let Some(norm) = &layer.norm {
            vector = write_norm(&mut graph, &checkpoint.config, weights, norm, &vector)?;
        }
        width = layer.linear.outputs;
    }
    if readout.unit_length {
        vector = normalised(&mut graph, &vector);
    }
    let rows = if readout.columns > 1 { "rows" } else { "batch" };
    let axes = [Axis::Dynamic(rows), Axis::Fixed(width)];
    graph.output(readout.output, &vector, &axes);
    Ok(WholeModel::of(graph, metadata))
}

/// The mean of `hidden` `[batch, length, hidden]` over the tokens of `mask`, `[batch, hidden]`.
fn mean(graph: &mut GraphBuilder, hidden: &Value, mask: &Value) -> Value {
    let scope = "pooling";
    let tokens = graph.int("token_axis", &[1], &[1]);
    let width = graph.int("last_axis", &[1], &[2]);
    let mask = graph.node(scope, "Cast", &[mask], &[Attribute::Int("to", 1)]);
    let mask = graph.node(scope, "Unsqueeze", &[&mask, &width], &[]);
    let kept = graph.node(scope, "Mul", &[hidden, &mask], &[]);
    let gone = || [Attribute::Int("keepdims", 0)];
    let sum = graph.node(scope, "ReduceSum", &[&kept, &tokens], &gone());
    let count = graph.node(scope, "ReduceSum", &[&mask, &tokens], &gone());
    // A row of padding alone gives zeros, not the quotient of two.
    let least = graph.float("least_count", 1e-9);
    let count = graph.node(scope, "Max", &[&count, &least], &[]);
    graph.node(scope, "Div", &[&sum, &count], &[])
}

/// `vectors` `[batch, width]` scaled to unit length; PyTorch's `normalize` takes at least 1e-12
/// for the length.
fn normalised(graph: &mut GraphBuilder, vectors: &Value) -> Value {
    let scope = "normalisation";
    let axis = graph.int("width_axis", &[1], &[1]);
    let kept = [Attribute::Int("keepdims", 1)];
    let length = graph.node(scope, "ReduceL2", &[vectors, &axis], &kept);
    let least = graph.float("least_length", 1e-12);
    let length = graph.node(scope, "Max", &[&length, &least], &[]);
    graph.node(scope, "Div", &[vectors, &length], &[])
}

pub(super) fn data_name(file_name: &str) -> String {
    format!("{file_name}.data")
}

impl WholeModel {
    /// That of `graph`, with `metadata`.
    pub(super) fn of(graph: GraphBuilder, metadata: &[(&str, String)]) -> Self {
        let (mut model, data, weights) = graph.into_parts();
        let entries = metadata.iter().map(|(key, value)| StringStringEntry {
            key: (*key).into(),
            value: value.clone(),
        });
        model.metadata_props = entries.collect();
        Self {
            model,
            data,
            weights,
        }
    }

    /// It in memory, its weights beside it.
    pub fn into_model(self) -> OnnxModel {
        OnnxModel {
            graph: self.model.encode_to_vec(),
            data: self.data,
            weights: self.weights,
        }
    }

    /// Writes `folder/file_name` with the weights inside; where they are too many for one file,
    /// beside it in `file_name.data`.
    pub fn write(self, folder: &Path, file_name: &str) -> io::Result<()> {
        if self.data.len() > MOST_BYTES_INSIDE {
            let data = folder.join(data_name(file_name));
            write_file(&data, |file| file.write_all(&self.data))?;
            let graph = self.model.encode_to_vec();
            return write_file(&folder.join(file_name), |file| file.write_all(&graph));
        }
        write_file(&folder.join(file_name), |file| self.write_inside(file))
    }

    /// The model with its weights, one after the other: no second copy of them all is made.
    fn write_inside(mut self, file: &mut dyn Write) -> io::Result<()> {
        let mut graph = self.model.graph.take().unwrap_or_default();
        let initializers = std::mem::take(&mut graph.initializer);
        let tensors: Vec<(TensorProto, &[u8])> = initializers
            .into_iter()
            .map(|tensor| inside(tensor, &self.data))
            .collect();
        let graph = GraphProto::encode_to_vec(&graph);
        let sizes = tensors.iter().map(|(tensor, data)| {
            let size = tensor_size(tensor, data);
            key_len(INITIALIZER_OF_GRAPH) + encoded_len_varint(size as u64) + size
        });
        let size = graph.len() + sizes.sum::<usize>();
        file.write_all(&self.model.encode_to_vec())?;
        file.write_all(&start_of(GRAPH_OF_MODEL, size))?;
        file.write_all(&graph)?;
        for (tensor, data) in tensors {
            let size = tensor_size(&tensor, data);
            file.write_all(&start_of(INITIALIZER_OF_GRAPH, size))?;
            file.write_all(&tensor.encode_to_vec())?;
            if !data.is_empty() {
                file.write_all(&start_of(RAW_DATA_OF_TENSOR, data.len()))?;
                file.write_all(data)?;
            }
        }
        Ok(())
    }
}

/// Makes `path`, which is there whole once it returns.
fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufWriter::new(fs_err::File::create(path)?);
    write(&mut file)?;
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()
}

/// `tensor` without its place outside, and the part of `data` that was there; nothing of one that
/// the graph itself holds.
fn inside(mut tensor: TensorProto, data: &[u8]) -> (TensorProto, &[u8]) {
    if tensor.data_location != Some(DataLocation::External.into()) {
        return (tensor, &[]);
    }
    let number = |key: &str| -> usize {
        let entries = tensor.external_data.iter();
        let mut found = entries.filter(|entry| entry.key == key);
        let value = found.next().and_then(|entry| entry.value.parse().ok());
        value.unwrap_or_else(|| unreachable!("the builder says where every weight is"))
    };
    let (start, length) = (number("offset"), number("length"));
    tensor.external_data.clear();
    tensor.data_location = None;
    (tensor, &data[start..start + length])
}

/// Bytes of `tensor` with `data` as its raw data.
fn tensor_size(tensor: &TensorProto, data: &[u8]) -> usize {
    let outside = match data.len() {
        0 => 0,
        length => key_len(RAW_DATA_OF_TENSOR) + encoded_len_varint(length as u64) + length,
    };
    tensor.encoded_len() + outside
}

/// What stands before the `length` bytes of field `number`.
fn start_of(number: u32, length: usize) -> Vec<u8> {
    let mut start = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut start);
    encode_varint(length as u64, &mut start);
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written in pieces, the file is the message with its weights inside.
    #[test]
    fn weights_are_inside() {
        let mut graph = GraphBuilder::new("model", "model.onnx.data");
        let weight = graph.weight("weight", &[2], &[1.5, -2.0]);
        let constant = graph.float("constant", 3.0);
        let sum = graph.node("sum", "Add", &[&weight, &constant], &[]);
        graph.output("result", &sum, &[Axis::Fixed(2)]);
        let (model, data, weights) = graph.into_parts();
        let mut expected = model.clone();
        let tensor = &mut expected.graph.as_mut().expect("a graph").initializer[0];
        tensor.raw_data = Some([1.5_f32.to_le_bytes(), (-2.0_f32).to_le_bytes()].concat());
        tensor.external_data.clear();
        tensor.data_location = None;
        let mut written = Vec::new();
        let whole = WholeModel {
            model,
            data,
            weights,
        };
        whole.write_inside(&mut written).expect("written");
        assert_eq!(ModelProto::decode(&*written).expect("a model"), expected);
    }
}
