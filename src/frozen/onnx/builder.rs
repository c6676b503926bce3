//! Puts nodes and weights together into an ONNX model: the graph as bytes, the weights as
//! external data beside it.

use std::collections::HashSet;
use std::ops::Range;

use half::{bf16, f16};
use prost::Message;

use super::proto::{
    AttributeProto, AttributeType, DataLocation, DataType, Dimension, DimensionValue, GraphProto,
    IR_VERSION, ModelProto, NodeProto, OPSET, OperatorSetId, RUNTIME_DOMAIN, RUNTIME_OPSET,
    StringStringEntry, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// Weights start at multiples of this many bytes, so that a runtime may map them.
const DATA_ALIGNMENT: usize = 64;

/// The name of a value in the graph.
pub(super) type Value = String;

/// A dimension of a graph input or output.
pub(super) enum Axis {
    /// Any size, by name.
    Dynamic(&'static str),
    /// Any size, not said to be that of another dimension.
    Unnamed,
    /// This size.
    Fixed(usize),
}

/// A node's attribute.
pub(super) enum Attribute {
    Float(&'static str, f32),
    Int(&'static str, i64),
    Ints(&'static str, &'static [i64]),
    Text(&'static str, &'static str),
}

/// An ONNX model: the graph, and the weights it points to.
pub struct OnnxModel {
    /// The protobuf bytes.
    pub graph: Vec<u8>,
    /// The external data, one file.
    pub data: Vec<u8>,
    /// What lies where in it.
    pub(crate) weights: Vec<ExternalWeight>,
}

/// A weight in the external data.
pub(crate) struct ExternalWeight {
    /// The graph's name for it.
    pub(crate) name: String,
    pub(crate) data_type: DataType,
    pub(crate) shape: Vec<usize>,
    /// Its bytes, little-endian.
    pub(crate) range: Range<usize>,
}

/// A graph under construction.
pub(super) struct GraphBuilder {
    graph: GraphProto,
    names: HashSet<String>,
    data: Vec<u8>,
    weights: Vec<ExternalWeight>,
    data_location: String,
}

impl GraphBuilder {
    /// An empty graph called `name`, whose weights will lie in the file `data_location` beside it.
    pub(super) fn new(name: &str, data_location: &str) -> Self {
        Self {
            graph: GraphProto {
                name: name.into(),
                ..GraphProto::default()
            },
            names: HashSet::new(),
            data: Vec::new(),
            weights: Vec::new(),
            data_location: data_location.into(),
        }
    }

    /// Declares an i64 input.
    pub(super) fn input(&mut self, name: &str, axes: &[Axis]) -> Value {
        self.typed_input(name, DataType::Int64, axes)
    }

    /// Declares an f32 input.
    pub(super) fn float_input(&mut self, name: &str, axes: &[Axis]) -> Value {
        self.typed_input(name, DataType::Float, axes)
    }

    fn typed_input(&mut self, name: &str, data_type: DataType, axes: &[Axis]) -> Value {
        self.graph.input.push(value_info(name, data_type, axes));
        name.into()
    }

    /// Gives `value` to the outside as the f32 output `name`.
    pub(super) fn output(&mut self, name: &str, value: &Value, axes: &[Axis]) {
        self.graph.node.push(NodeProto {
            input: vec![value.clone()],
            output: vec![name.into()],
            name: format!("{name}/Identity"),
            op_type: "Identity".into(),
            ..NodeProto::default()
        });
        self.graph
            .output
            .push(value_info(name, DataType::Float, axes));
    }

    /// Adds an f32 weight to the external data.
    pub(super) fn weight(&mut self, name: &str, shape: &[usize], numbers: &[f32]) -> Value {
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
        self.external(name, DataType::Float, shape, bytes)
    }

    /// Adds an f32 weight whose numbers come in parts, none of which is kept.
    pub(super) fn weight_of_parts<E>(
        &mut self,
        name: &str,
        shape: &[usize],
        parts: impl Iterator<Item = Result<Vec<f32>, E>>,
    ) -> Result<Value, E> {
        let mut failed = None;
        let parts = parts.map_while(|part| part.map_err(|error| failed = Some(error)).ok());
        let bytes = parts.flatten().flat_map(f32::to_le_bytes);
        let value = self.external(name, DataType::Float, shape, bytes);
        failed.map_or(Ok(value), Err)
    }

    /// Adds an f16 weight, `numbers` rounded to it, to the external data.
    pub(super) fn weight_float16(&mut self, name: &str, shape: &[usize], numbers: &[f32]) -> Value {
        let numbers = numbers.iter().map(|&number| f16::from_f32(number));
        let bytes = numbers.flat_map(f16::to_le_bytes);
        self.external(name, DataType::Float16, shape, bytes)
    }

    /// Adds a bfloat16 weight, `numbers` rounded to it, to the external data.
    pub(super) fn weight_bfloat16(
        &mut self,
        name: &str,
        shape: &[usize],
        numbers: &[f32],
    ) -> Value {
        let numbers = numbers.iter().map(|&number| bf16::from_f32(number));
        let bytes = numbers.flat_map(bf16::to_le_bytes);
        self.external(name, DataType::BFloat16, shape, bytes)
    }

    /// Adds an 8-bit weight to the external data.
    pub(super) fn weight_uint8(&mut self, name: &str, shape: &[usize], numbers: &[u8]) -> Value {
        self.external(name, DataType::UInt8, shape, numbers.iter().copied())
    }

    fn external(
        &mut self,
        name: &str,
        data_type: DataType,
        shape: &[usize],
        bytes: impl Iterator<Item = u8>,
    ) -> Value {
        self.data
            .resize(self.data.len().next_multiple_of(DATA_ALIGNMENT), 0);
        let offset = self.data.len();
        self.data.extend(bytes);
        self.weights.push(ExternalWeight {
            name: name.into(),
            data_type,
            shape: shape.to_vec(),
            range: offset..self.data.len(),
        });
        let entry = |key: &str, value: String| StringStringEntry {
            key: key.into(),
            value,
        };
        self.graph.initializer.push(TensorProto {
            dims: shape.iter().map(|&size| size as i64).collect(),
            data_type: data_type.into(),
            name: name.into(),
            raw_data: None,
            external_data: vec![
                entry("location", self.data_location.clone()),
                entry("offset", offset.to_string()),
                entry("length", (self.data.len() - offset).to_string()),
            ],
            data_location: Some(DataLocation::External.into()),
        });
        name.into()
    }

    /// A small f32 constant, kept in the graph itself.
    pub(super) fn float(&mut self, name: &str, number: f32) -> Value {
        self.constant(name, DataType::Float, &[], number.to_le_bytes().to_vec())
    }

    /// A few f32 constants, kept in the graph itself, `[numbers]`.
    pub(super) fn floats(&mut self, name: &str, numbers: &[f32]) -> Value {
        let bytes = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.constant(name, DataType::Float, &[numbers.len() as i64], bytes)
    }

    /// A small i64 constant: a scalar for an empty `shape`.
    pub(super) fn int(&mut self, name: &str, shape: &[i64], numbers: &[i64]) -> Value {
        let bytes = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.constant(name, DataType::Int64, shape, bytes)
    }

    /// Adds a node of type `operator` and returns its one output, named after `scope`.
    pub(super) fn node(
        &mut self,
        scope: &str,
        operator: &str,
        inputs: &[&Value],
        attributes: &[Attribute],
    ) -> Value {
        self.node_in("", scope, operator, inputs, attributes)
    }

    /// Cuts `input` along its last axis into `N` parts of the same size.
    pub(super) fn split<const N: usize>(&mut self, scope: &str, input: &Value) -> [Value; N] {
        let attributes = [
            Attribute::Int("axis", -1),
            Attribute::Int("num_outputs", N as i64),
        ];
        let first = self.node(scope, "Split", &[input], &attributes);
        let parts = std::array::from_fn(|part| match part {
            0 => first.clone(),
            _ => format!("{first}.{part}"),
        });
        if let Some(node) = self.graph.node.last_mut() {
            node.output = parts.to_vec();
        }
        parts
    }

    /// Adds a node that only ONNX Runtime knows; as [`node`](Self::node).
    pub(super) fn runtime_node(
        &mut self,
        scope: &str,
        operator: &str,
        inputs: &[&Value],
        attributes: &[Attribute],
    ) -> Value {
        self.node_in(RUNTIME_DOMAIN, scope, operator, inputs, attributes)
    }

    fn node_in(
        &mut self,
        domain: &str,
        scope: &str,
        operator: &str,
        inputs: &[&Value],
        attributes: &[Attribute],
    ) -> Value {
        let mut name = format!("{scope}/{operator}");
        let mut repeat = 2;
        while !self.names.insert(name.clone()) {
            name = format!("{scope}/{operator}_{repeat}");
            repeat += 1;
        }
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|&input| input.clone()).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: operator.into(),
            attribute: attributes.iter().map(attribute).collect(),
            domain: domain.into(),
        });
        name
    }

    /// The model.
    pub(super) fn finish(self) -> OnnxModel {
        let (model, data, weights) = self.into_parts();
        OnnxModel {
            graph: model.encode_to_vec(),
            data,
            weights,
        }
    }

    /// The model as a message, the external data, and what lies where in it.
    pub(super) fn into_parts(self) -> (ModelProto, Vec<u8>, Vec<ExternalWeight>) {
        let mut opset_import = vec![OperatorSetId {
            domain: String::new(),
            version: OPSET,
        }];
        let nodes = &self.graph.node;
        if nodes.iter().any(|node| node.domain == RUNTIME_DOMAIN) {
            opset_import.push(OperatorSetId {
                domain: RUNTIME_DOMAIN.into(),
                version: RUNTIME_OPSET,
            });
        }
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: env!("CARGO_PKG_NAME").into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.graph),
            opset_import,
            metadata_props: Vec::new(),
        };
        (model, self.data, self.weights)
    }

    fn constant(
        &mut self,
        name: &str,
        data_type: DataType,
        shape: &[i64],
        bytes: Vec<u8>,
    ) -> Value {
        if self.names.insert(name.into()) {
            self.graph.initializer.push(TensorProto {
                dims: shape.to_vec(),
                data_type: data_type.into(),
                name: name.into(),
                raw_data: Some(bytes),
                external_data: Vec::new(),
                data_location: None,
            });
        }
        name.into()
    }
}

fn attribute(attribute: &Attribute) -> AttributeProto {
    let mut proto = AttributeProto::default();
    let (name, kind) = match attribute {
        Attribute::Float(name, number) => {
            proto.f = Some(*number);
            (name, AttributeType::Float)
        }
        Attribute::Int(name, number) => {
            proto.i = Some(*number);
            (name, AttributeType::Int)
        }
        Attribute::Ints(name, numbers) => {
            proto.ints = numbers.to_vec();
            (name, AttributeType::Ints)
        }
        Attribute::Text(name, text) => {
            proto.s = Some(text.as_bytes().to_vec());
            (name, AttributeType::String)
        }
    };
    proto.name = (*name).into();
    proto.r#type = kind.into();
    proto
}

fn value_info(name: &str, data_type: DataType, axes: &[Axis]) -> ValueInfoProto {
    let dim = axes
        .iter()
        .map(|axis| Dimension {
            value: match axis {
                Axis::Dynamic(symbol) => Some(DimensionValue::Symbol((*symbol).into())),
                Axis::Unnamed => None,
                Axis::Fixed(size) => Some(DimensionValue::Size(*size as i64)),
            },
        })
        .collect();
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: data_type.into(),
                shape: Some(TensorShapeProto { dim }),
            }),
        }),
    }
}
