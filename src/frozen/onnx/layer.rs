//! One encoder layer in the graph.

use super::builder::{Attribute, Value};
use super::encoder::EncoderWriter;
use super::positions::turn;
use super::scores::Shared;
use crate::checkpoint::{
    self, Attention, BlockActivation, FeedForward, Layer, NormPlacement, Projections, Wide,
};

impl EncoderWriter<'_> {
    /// Layer number `layer`, applied to `hidden` `[batch, length, hidden]`.
    pub(super) fn layer(
        &mut self,
        layer: usize,
        hidden: &Value,
        shared: &mut Shared,
    ) -> Result<Value, checkpoint::Error> {
        let blocks = self.config.layer(layer);
        let Layer {
            prefix,
            norms,
            attention,
            feed_forward,
        } = &blocks;
        let (after_attention, after_feed_forward) = (
            format!("{prefix}attention.output"),
            format!("{prefix}output"),
        );
        match norms {
            NormPlacement::AfterResidual => {
                let projected = self.attention(prefix, attention, hidden, shared)?;
                let sum = self.add(&after_attention, &projected, hidden);
                let attended = self.norm_if_any(attention.norm.as_ref(), &sum)?;
                let narrow = self.feed_forward(prefix, feed_forward, &attended)?;
                let sum = self.add(&after_feed_forward, &narrow, &attended);
                self.norm(&feed_forward.norm, &sum)
            }
            NormPlacement::BeforeBlock => {
                let normalised = self.norm_if_any(attention.norm.as_ref(), hidden)?;
                let projected = self.attention(prefix, attention, &normalised, shared)?;
                let attended = self.add(&after_attention, &projected, hidden);
                let normalised = self.norm(&feed_forward.norm, &attended)?;
                let narrow = self.feed_forward(prefix, feed_forward, &normalised)?;
                Ok(self.add(&after_feed_forward, &narrow, &attended))
            }
        }
    }

    fn add(&mut self, scope: &str, branch: &Value, residual: &Value) -> Value {
        self.graph.node(scope, "Add", &[branch, residual], &[])
    }

    /// Multi-head scaled dot-product attention, projected: `[batch, length, hidden]`.
    fn attention(
        &mut self,
        prefix: &str,
        blocks: &Attention,
        hidden: &Value,
        shared: &mut Shared,
    ) -> Result<Value, checkpoint::Error> {
        let scope = format!("{prefix}attention.self");
        let head_size = self.config.head_size();
        let angles = shared.angles(&mut self.graph, blocks, head_size);
        let angles = angles.as_ref();
        let (heads_first, transposed) = (&[0, 2, 1, 3], &[0, 2, 3, 1]);
        // Keys that earlier ones are put in front of are turned around behind that.
        let remembers = shared.past.is_some();
        let keys_order = if remembers { heads_first } else { transposed };
        let (heads, shared_heads) = (self.config.attention_heads, self.config.key_value_heads);
        let [queries, keys, values] = match &blocks.projections {
            Projections::Separate([query, key, value]) => {
                let queries = self.linear(query, hidden)?;
                let queries = self.heads(&query.name, (&queries, heads), angles, heads_first);
                let keys = self.linear(key, hidden)?;
                let keys = self.heads(&key.name, (&keys, shared_heads), angles, keys_order);
                let values = self.linear(value, hidden)?;
                let values = (&values, shared_heads);
                [
                    queries,
                    keys,
                    self.heads(&value.name, values, None, heads_first),
                ]
            }
            Projections::Fused(linear) => {
                let all = self.linear(linear, hidden)?;
                let [queries, keys, values] = self.graph.split(&scope, &all);
                let mut part = |name: &str, part: &Value, angles, order| {
                    self.heads(&format!("{scope}.{name}"), (part, heads), angles, order)
                };
                [
                    part("query", &queries, angles, heads_first),
                    part("key", &keys, angles, keys_order),
                    part("value", &values, None, heads_first),
                ]
            }
        };
        let [mut keys, values] = shared.behind_past(&mut self.graph, &scope, [keys, values]);
        if remembers {
            let around = [Attribute::Ints("perm", &[0, 1, 3, 2])];
            keys = self.graph.node(&scope, "Transpose", &[&keys], &around);
        }
        let bias = shared.bias(&mut self.graph, blocks);
        let queries = self.by_shared_heads(&scope, &queries);
        let graph = &mut self.graph;
        let scores = graph.node(&scope, "MatMul", &[&queries, &keys], &[]);
        let root = graph.float("head_size_root", (head_size as f32).sqrt());
        let scores = graph.node(&scope, "Div", &[&scores, &root], &[]);
        let scores = self.by_heads(&scope, &scores);
        let graph = &mut self.graph;
        let scores = graph.node(&scope, "Add", &[&scores, &bias], &[]);
        let last = [Attribute::Int("axis", -1)];
        let probabilities = graph.node(&scope, "Softmax", &[&scores], &last);
        let probabilities = self.by_shared_heads(&scope, &probabilities);
        let graph = &mut self.graph;
        let context = graph.node(&scope, "MatMul", &[&probabilities, &values], &[]);
        let context = self.by_heads(&scope, &context);
        let graph = &mut self.graph;
        let order = [Attribute::Ints("perm", &[0, 2, 1, 3])];
        let context = graph.node(&scope, "Transpose", &[&context], &order);
        let joined = graph.int(
            "joined_shape",
            &[3],
            &[0, 0, self.config.hidden_size as i64],
        );
        let context = graph.node(&scope, "Reshape", &[&context, &joined], &[]);
        self.linear(&blocks.output, &context)
    }

    /// `[batch, heads, length, numbers]` with the rows of the heads that share keys and values one
    /// after the other: `[batch, key and value heads, several · length, numbers]`.
    fn by_shared_heads(&mut self, scope: &str, rows: &Value) -> Value {
        self.regrouped(
            scope,
            rows,
            "shared_heads_shape",
            self.config.key_value_heads,
        )
    }

    /// The way back from [`by_shared_heads`](Self::by_shared_heads).
    fn by_heads(&mut self, scope: &str, rows: &Value) -> Value {
        self.regrouped(scope, rows, "all_heads_shape", self.config.attention_heads)
    }

    fn regrouped(&mut self, scope: &str, rows: &Value, name: &str, heads: usize) -> Value {
        if self.config.key_value_heads == self.config.attention_heads {
            return rows.clone();
        }
        let shape = self.graph.int(name, &[4], &[0, heads as i64, -1, 0]);
        self.graph.node(scope, "Reshape", &[rows, &shape], &[])
    }

    /// A projection split into so many heads, which are turned if there are `angles`; its axes
    /// `[batch, length, heads, head size]` put in `order`.
    fn heads(
        &mut self,
        scope: &str,
        (projected, heads): (&Value, usize),
        angles: Option<&[Value; 2]>,
        order: &'static [i64],
    ) -> Value {
        let graph = &mut self.graph;
        let split = [0, 0, heads as i64, self.config.head_size() as i64];
        let name = if heads == self.config.attention_heads {
            "heads_shape"
        } else {
            "key_value_heads_shape"
        };
        let split = graph.int(name, &[4], &split);
        let mut heads = graph.node(scope, "Reshape", &[projected, &split], &[]);
        if let Some(angles) = angles {
            heads = turn(graph, scope, &heads, angles);
        }
        let order = [Attribute::Ints("perm", order)];
        graph.node(scope, "Transpose", &[&heads], &order)
    }

    fn feed_forward(
        &mut self,
        prefix: &str,
        blocks: &FeedForward,
        hidden: &Value,
    ) -> Result<Value, checkpoint::Error> {
        let scope = format!("{prefix}intermediate");
        let (wide, factor) = match &blocks.wide {
            Wide::One(linear) => {
                let wide = self.linear(linear, hidden)?;
                if blocks.gated {
                    let [wide, factor] = self.graph.split(&scope, &wide);
                    (wide, Some(factor))
                } else {
                    (wide, None)
                }
            }
            Wide::GateAndUp([gate, up]) => {
                let gate = self.linear(gate, hidden)?;
                (gate, Some(self.linear(up, hidden)?))
            }
        };
        let graph = &mut self.graph;
        let mut active = match blocks.activation {
            BlockActivation::Gelu => graph.node(&scope, "Gelu", &[&wide], &[]),
            BlockActivation::GeluTanh => {
                let tanh = [Attribute::Text("approximate", "tanh")];
                graph.node(&scope, "Gelu", &[&wide], &tanh)
            }
            BlockActivation::Silu => {
                let sigmoid = graph.node(&scope, "Sigmoid", &[&wide], &[]);
                graph.node(&scope, "Mul", &[&wide, &sigmoid], &[])
            }
        };
        if let Some(factor) = factor {
            active = graph.node(&scope, "Mul", &[&active, &factor], &[]);
        }
        self.linear(&blocks.narrow, &active)
    }
}
