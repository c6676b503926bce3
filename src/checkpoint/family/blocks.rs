//! The blocks that an encoder is made of, with the names and sizes of their tensors.

use super::{Description, ProjectionNames, WideNames};
use crate::checkpoint::relative_position::RELATIVE_BUCKETS;
use crate::checkpoint::{EncoderConfig, RotaryPositions};

/// An embedding table, `[rows, hidden]`, stored as `name.weight`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The tensor's whole name.
    pub name: String,
    /// How many rows.
    pub rows: usize,
}

/// A linear layer: `name.weight` `[outputs, inputs]` and, perhaps, `name.bias` `[outputs]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linear {
    /// What both names start with.
    pub name: String,
    /// Width of what goes in.
    pub inputs: usize,
    /// Width of what comes out.
    pub outputs: usize,
    /// Whether there is a bias.
    pub bias: bool,
}

/// How a norm makes numbers comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// `(x - mean) / √(variance + ε)`: LayerNorm (Ba, Kiros, Hinton, 2016).
    Layer,
    /// `x / √(mean of x² + ε)`: RMSNorm (Zhang, Sennrich, 2019).
    RootMeanSquare,
}

/// A norm: `name.weight` and, perhaps, `name.bias`, both `[hidden]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Norm {
    /// What both names start with.
    pub name: String,
    /// Which one.
    pub kind: NormKind,
    /// Whether there is a bias.
    pub bias: bool,
}

/// How a family numbers the positions of a sequence's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// 0, 1, 2, …
    FromZero,
    /// `padding_idx + 1`, `padding_idx + 2`, …, counting only tokens that are not the padding id.
    AfterPadding,
}

/// Which type each token of a sequence is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenTypes {
    /// All of type 0.
    Zero,
    /// Type 0 up to the first token of this id, type 1 behind it: of two texts, the second.
    OneAfter(u32),
}

impl TokenTypes {
    /// Of each of `ids`, those of a sequence.
    pub fn of(self, ids: &[u32]) -> impl Iterator<Item = u32> {
        ids.iter().scan(0, move |kind, &id| {
            let own = *kind;
            *kind |= u32::from(self == Self::OneAfter(id));
            Some(own)
        })
    }
}

/// Where a layer's norms stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// Behind each residual connection: `x ← norm(block(x) + x)`, as in BERT (Devlin et al., 2019).
    AfterResidual,
    /// In front of each block: `x ← block(norm(x)) + x`.
    BeforeBlock,
}

/// The embeddings: the sum of rows of the tables, normalised in a family that does so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embeddings {
    /// By token id.
    pub words: Table,
    /// By position, in a family that has them.
    pub positions: Option<(Table, Positions)>,
    /// By token type, in a family that has them.
    pub token_types: Option<(Table, TokenTypes)>,
    /// Over the sum, in a family that has one.
    pub norm: Option<Norm>,
}

/// What projects hidden states to queries, keys and values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Projections {
    /// One linear layer each.
    Separate([Linear; 3]),
    /// One linear layer that puts out all three, side by side in that order.
    Fused(Linear),
}

/// Multi-head self-attention.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// None where the first layer takes the embeddings as they are.
    pub norm: Option<Norm>,
    /// To queries, keys and values.
    pub projections: Projections,
    /// Of the heads joined again.
    pub output: Linear,
    /// Queries and keys are turned by their position.
    pub rotary: Option<RotaryPositions>,
    /// A token attends to tokens at most this far away; to all of its sequence when absent.
    pub window: Option<usize>,
}

/// What stands between the two linear layers of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockActivation {
    /// The exact one, by erf.
    Gelu,
    /// By the hyperbolic tangent (Hendrycks, Gimpel, 2016).
    GeluTanh,
    /// `x · sigmoid(x)`.
    Silu,
}

/// What widens hidden states in a feed-forward block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wide {
    /// One linear layer; of a gated block twice as wide as it is narrowed from, what goes through
    /// the activation in front.
    One(Linear),
    /// Of a gated block: one that goes through the activation, and one that multiplies it.
    GateAndUp([Linear; 2]),
}

impl Wide {
    /// The linear layers, in the order of what they put out.
    pub fn linears(&self) -> &[Linear] {
        match self {
            Self::One(linear) => std::slice::from_ref(linear),
            Self::GateAndUp(linears) => linears,
        }
    }

    /// Numbers a row that they put out in all.
    pub fn outputs(&self) -> usize {
        self.linears().iter().map(|linear| linear.outputs).sum()
    }
}

/// The name of an output matrix that is not that of the embeddings, in every family that has one and
/// in a model whose matrix was trained apart from them.
pub const OUTPUT_MATRIX: &str = "lm_head.weight";

/// The matrix that turns the last states into logits, one for each word; without a bias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanguageHead {
    /// The name of its tensor, `[vocabulary, hidden]`.
    pub name: String,
    /// Whether that is the table of the embeddings.
    pub tied: bool,
}

/// The feed-forward block: `narrow(activation(wide(x)))`, or, when it is gated,
/// `narrow(activation(first half of wide(x)) · second half)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedForward {
    /// Before or after, as the layer's norms stand.
    pub norm: Norm,
    /// From a hidden state; twice as wide when gated.
    pub wide: Wide,
    /// Of what is wide.
    pub activation: BlockActivation,
    /// Back to a hidden state.
    pub narrow: Linear,
    /// Whether one half of the wide states is multiplied by the other; dropout then comes before
    /// `narrow`, otherwise after it.
    pub gated: bool,
}

/// One encoder layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// What the names of its tensors start with.
    pub prefix: String,
    /// Where its norms stand.
    pub norms: NormPlacement,
    /// The first block.
    pub attention: Attention,
    /// The second.
    pub feed_forward: FeedForward,
}

type Shape = (String, Vec<usize>);

impl Table {
    /// Name and shape of its tensor, rows of `width` numbers.
    fn tensor(&self, width: usize) -> Shape {
        (format!("{}.weight", self.name), vec![self.rows, width])
    }
}

impl Linear {
    /// Names and shapes of its tensors, the weight first.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = Shape> + use<> {
        let weight = format!("{}.weight", self.name);
        let bias = format!("{}.bias", self.name);
        let bias = self.bias.then(|| (bias, vec![self.outputs]));
        [(weight, vec![self.outputs, self.inputs])]
            .into_iter()
            .chain(bias)
    }
}

impl Norm {
    /// Names and shapes of its tensors, the weight first; it is `width` wide.
    pub(crate) fn tensors(&self, width: usize) -> impl Iterator<Item = Shape> + use<> {
        let bias = format!("{}.bias", self.name);
        let bias = self.bias.then(|| (bias, vec![width]));
        [(format!("{}.weight", self.name), vec![width])]
            .into_iter()
            .chain(bias)
    }
}

impl Projections {
    /// The linear layers, in the order of what they put out.
    pub fn linears(&self) -> &[Linear] {
        match self {
            Self::Separate(linears) => linears,
            Self::Fused(linear) => std::slice::from_ref(linear),
        }
    }
}

impl Layer {
    /// Names and shapes of its tensors; norms are `width` wide.
    fn tensors(&self, width: usize) -> Vec<Shape> {
        let feed_forward = &self.feed_forward;
        let linears = self.attention.projections.linears().iter();
        let linears = linears.chain([&self.attention.output]);
        let linears = linears.chain(feed_forward.wide.linears());
        let linears = linears.chain([&feed_forward.narrow]);
        let norms = self.attention.norm.iter().chain([&feed_forward.norm]);
        let norms = norms.flat_map(|norm| norm.tensors(width));
        linears.flat_map(Linear::tensors).chain(norms).collect()
    }
}

impl EncoderConfig {
    fn description(&self) -> &'static Description {
        self.family.description()
    }

    pub(super) fn norm(&self, name: String) -> Norm {
        Norm {
            name,
            kind: self.description().norm_kind,
            bias: self.biases.norms,
        }
    }

    /// What hidden states start from.
    pub fn embeddings(&self) -> Embeddings {
        let description = self.description();
        let names = &description.names;
        let table = |name: &str, rows| Table {
            name: name.into(),
            rows,
        };
        Embeddings {
            words: table(names.words, self.vocabulary_size),
            positions: description.positions.map(|numbering| {
                let table = table(names.positions, self.position_embeddings);
                (table, numbering)
            }),
            token_types: self.token_types.map(|rows| {
                let types = self.text_separator;
                let types = types.map_or(TokenTypes::Zero, TokenTypes::OneAfter);
                (table(names.token_types, rows), types)
            }),
            norm: names.embeddings_norm.map(|name| self.norm(name.into())),
        }
    }

    /// What layer `layer` is made of.
    pub fn layer(&self, layer: usize) -> Layer {
        let description = self.description();
        let names = &description.names;
        let prefix = format!("{}{layer}.", names.layers);
        let (hidden, biases) = (self.hidden_size, self.biases);
        let linear = |name: &str, [outputs, inputs]: [usize; 2], bias| Linear {
            name: format!("{prefix}{name}"),
            inputs,
            outputs,
            bias,
        };
        let shared = self.key_value_size();
        let norm = |name: &str| self.norm(format!("{prefix}{name}"));
        let wide = if description.gated { 2 } else { 1 };
        // Saturating: a broken configuration may hold any number.
        let wide = self.intermediate_size.saturating_mul(wide);
        let widening = |name, outputs| linear(name, [outputs, hidden], biases.feed_forward);
        // With norms in front, the first layer's input may be normalised already.
        let first = layer == 0
            && description.norms == NormPlacement::BeforeBlock
            && names.embeddings_norm.is_some();
        let local = self
            .local
            .as_ref()
            .filter(|local| local.layers.are_local(layer));
        Layer {
            norms: description.norms,
            attention: Attention {
                norm: (!first).then(|| norm(names.attention_norm)),
                projections: match names.projections {
                    ProjectionNames::Separate([query, key, value]) => {
                        let project =
                            |name, outputs| linear(name, [outputs, hidden], biases.attention);
                        Projections::Separate([
                            project(query, hidden),
                            project(key, shared),
                            project(value, shared),
                        ])
                    }
                    ProjectionNames::Fused(name) => {
                        let shape = [hidden.saturating_mul(3), hidden];
                        Projections::Fused(linear(name, shape, biases.attention))
                    }
                },
                output: linear(
                    names.attention_output,
                    [hidden, hidden],
                    biases.attention_output,
                ),
                rotary: local.map_or(self.rotary, |local| local.rotary),
                window: local.map(|local| local.window),
            },
            feed_forward: FeedForward {
                norm: norm(names.feed_forward_norm),
                wide: match names.wide {
                    WideNames::One(name) => Wide::One(widening(name, wide)),
                    WideNames::GateAndUp(names) => {
                        Wide::GateAndUp(names.map(|name| widening(name, self.intermediate_size)))
                    }
                },
                activation: self.activation,
                narrow: linear(
                    names.narrow,
                    [hidden, self.intermediate_size],
                    biases.feed_forward,
                ),
                gated: description.gated,
            },
            prefix,
        }
    }

    /// The norm over what the last layer puts out, in a family that has one. It is of the
    /// trainable half, whatever is frozen.
    pub fn final_norm(&self) -> Option<Norm> {
        let name = self.description().names.final_norm;
        name.map(|name| self.norm(name.into()))
    }

    /// What turns the last states into logits. In a family that has no matrix of its own for that,
    /// as in `UniXcoder` (Guo et al., 2022), it is the table of the embeddings.
    pub fn language_head(&self) -> LanguageHead {
        let names = &self.description().names;
        let tied = !names.output_matrix || self.tied_language_head;
        let name = if tied {
            format!("{}.weight", names.words)
        } else {
            OUTPUT_MATRIX.into()
        };
        LanguageHead { name, tied }
    }

    /// Name and shape, `[buckets, heads]`, of the bias by relative position that all layers add to
    /// their attention scores, in a family that has one.
    pub fn relative_positions(&self) -> Option<(&'static str, [usize; 2])> {
        let name = self.description().names.relative_positions;
        name.map(|name| (name, [RELATIVE_BUCKETS, self.attention_heads]))
    }

    /// Names and shapes of every tensor of the encoder; the pooler is not part of it.
    ///
    /// One after the other: a broken configuration may ask for more layers than fit in memory.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = Shape> {
        let width = self.hidden_size;
        let embeddings = self.embeddings();
        let positions = embeddings.positions.map(|(table, _)| table);
        let token_types = embeddings.token_types.map(|(table, _)| table);
        let tables = [Some(embeddings.words), positions, token_types];
        let tables = tables.into_iter().flatten();
        let relative = self.relative_positions();
        tables
            .map(move |table| table.tensor(width))
            .chain(
                embeddings
                    .norm
                    .into_iter()
                    .flat_map(move |norm| norm.tensors(width)),
            )
            .chain((0..self.layers).flat_map(move |layer| self.layer(layer).tensors(width)))
            .chain(relative.map(|(name, shape)| (name.into(), shape.to_vec())))
            .chain(
                self.final_norm()
                    .into_iter()
                    .flat_map(move |norm| norm.tensors(width)),
            )
    }
}
