//! The smallest graph that makes a provider work: one product of matrices.

use super::builder::{Axis, GraphBuilder, OnnxModel};
use super::encoder::DATA_FILE;

/// Its input, `[1, 2]`.
pub(crate) const CHECK_INPUT: &str = "input";
/// Its output, `[1, 2]`: the input times `[[1, 2], [3, 4]]`.
pub(crate) const CHECK_OUTPUT: &str = "output";

/// The graph.
pub(crate) fn write_check() -> OnnxModel {
    let axes = || [Axis::Fixed(1), Axis::Fixed(2)];
    let mut graph = GraphBuilder::new("check", DATA_FILE);
    let input = graph.float_input(CHECK_INPUT, &axes());
    let weight = graph.weight("weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let product = graph.node("check", "MatMul", &[&input, &weight], &[]);
    graph.output(CHECK_OUTPUT, &product, &axes());
    graph.finish()
}
