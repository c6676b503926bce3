//! MPNet's bias by relative position, in the graph.

use super::builder::{Attribute, GraphBuilder, Value};
use super::positions::count_up;
use crate::checkpoint::{self, Weights, relative_position_bucket};

/// What each head's scores get by how far apart two tokens are, `[1, heads, length, length]`,
/// for the length of `mask`, at most `longest`; `name` and `shape` are those of the table.
///
/// The buckets are looked up by distance instead of computed: logarithms of different runtimes
/// need not agree on where a bucket starts.
pub(super) fn bias(
    graph: &mut GraphBuilder,
    weights: &Weights,
    (name, shape): (&str, [usize; 2]),
    longest: usize,
    mask: &Value,
) -> Result<Value, checkpoint::Error> {
    let scope = "relative_position";
    let table = weights.tensor(name, &shape)?;
    let table = graph.weight(name, &shape, &table);
    let furthest = longest as i64 - 1;
    let buckets: Vec<i64> = (-furthest..=furthest)
        .map(|distance| relative_position_bucket(distance) as i64)
        .collect();
    let buckets = graph.int("relative_buckets", &[buckets.len() as i64], &buckets);
    let furthest = graph.int("furthest_distance", &[], &[furthest]);

    let positions = count_up(graph, scope, mask);
    let row_axis = graph.int("row_axis", &[1], &[0]);
    let column_axis = graph.int("column_axis", &[1], &[1]);
    let keys = graph.node(scope, "Unsqueeze", &[&positions, &row_axis], &[]);
    let queries = graph.node(scope, "Unsqueeze", &[&positions, &column_axis], &[]);
    let distances = graph.node(scope, "Sub", &[&keys, &queries], &[]);
    let places = graph.node(scope, "Add", &[&distances, &furthest], &[]);
    let rows = [Attribute::Int("axis", 0)];
    let buckets = graph.node(scope, "Gather", &[&buckets, &places], &rows);
    let bias = graph.node(scope, "Gather", &[&table, &buckets], &rows);
    let heads_first = [Attribute::Ints("perm", &[2, 0, 1])];
    let bias = graph.node(scope, "Transpose", &[&bias], &heads_first);
    Ok(graph.node(scope, "Unsqueeze", &[&bias, &row_axis], &[]))
}
