//! One encoder layer in the graph.

use super::builder::{Attribute, Value};
use super::encoder::EncoderWriter;
use super::positions::turn;
use super::scores::Shared;
use crate::checkpoint::{self, Attention, FeedForward, Layer, NormPlacement, Projections};

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
        let [queries, keys, values] = match &blocks.projections {
            Projections::Separate([query, key, value]) => {
                let queries = self.linear(query, hidden)?;
                let queries = self.heads(&query.name, &queries, angles, heads_first);
                let keys = self.linear(key, hidden)?;
                let keys = self.heads(&key.name, &keys, angles, transposed);
                let values = self.linear(value, hidden)?;
                [
                    queries,
                    keys,
                    self.heads(&value.name, &values, None, heads_first),
                ]
            }
            Projections::Fused(linear) => {
                let all = self.linear(linear, hidden)?;
                let [queries, keys, values] = self.graph.split(&scope, &all);
                [
                    self.heads(&format!("{scope}.query"), &queries, angles, heads_first),
                    self.heads(&format!("{scope}.key"), &keys, angles, transposed),
                    self.heads(&format!("{scope}.value"), &values, None, heads_first),
                ]
            }
        };
        let bias = shared.bias(&mut self.graph, blocks);
        let graph = &mut self.graph;
        let scores = graph.node(&scope, "MatMul", &[&queries, &keys], &[]);
        let root = graph.float("head_size_root", (head_size as f32).sqrt());
        let scores = graph.node(&scope, "Div", &[&scores, &root], &[]);
        let scores = graph.node(&scope, "Add", &[&scores, &bias], &[]);
        let last = [Attribute::Int("axis", -1)];
        let probabilities = graph.node(&scope, "Softmax", &[&scores], &last);
        let context = graph.node(&scope, "MatMul", &[&probabilities, &values], &[]);
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

    /// A projection split into heads, which are turned if there are `angles`; its axes
    /// `[batch, length, heads, head size]` put in `order`.
    fn heads(
        &mut self,
        scope: &str,
        projected: &Value,
        angles: Option<&[Value; 2]>,
        order: &'static [i64],
    ) -> Value {
        let graph = &mut self.graph;
        let split = [
            0,
            0,
            self.config.attention_heads as i64,
            self.config.head_size() as i64,
        ];
        let split = graph.int("heads_shape", &[4], &split);
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
        let wide = self.linear(&blocks.wide, hidden)?;
        let graph = &mut self.graph;
        let active = if blocks.gated {
            let [wide, gate] = graph.split(&scope, &wide);
            let active = graph.node(&scope, "Gelu", &[&wide], &[]);
            graph.node(&scope, "Mul", &[&active, &gate], &[])
        } else {
            graph.node(&scope, "Gelu", &[&wide], &[])
        };
        self.linear(&blocks.narrow, &active)
    }
}
