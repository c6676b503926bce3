//! What training takes, from shapes alone.

use crate::checkpoint::{EncoderConfig, Freeze, Layer, Linear, Norm, NormPlacement};

/// The sizes of what is trained.
#[derive(Debug, Clone)]
pub struct Footprint {
    hidden: usize,
    heads: usize,
    layers: Vec<LayerSizes>,
    /// Numbers of the parameters, embeddings among them if they are trained; without the head.
    pub parameters: usize,
    /// Numbers of the largest parameter.
    pub largest: usize,
    embeddings: bool,
    relative_positions: bool,
}

#[derive(Debug, Clone, Copy)]
struct LayerSizes {
    before_block: bool,
    first_norm: bool,
    wide: usize,
    inner: usize,
    gated: bool,
}

/// The part of a batch that is worked on at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartShape {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each.
    pub length: usize,
    /// Whether the last layer computes first tokens only.
    pub pruned: bool,
}

impl PartShape {
    fn tokens(&self) -> usize {
        self.sequences * self.length
    }
}

fn numbers(linear: &Linear) -> usize {
    linear.outputs * linear.inputs + if linear.bias { linear.outputs } else { 0 }
}

fn of_norm(norm: &Norm, hidden: usize) -> usize {
    hidden * (1 + usize::from(norm.bias))
}

/// Numbers of a layer's parameters.
fn of_layer(layer: &Layer, hidden: usize) -> usize {
    let linears = layer.attention.projections.linears().iter();
    let linears = linears.chain([
        &layer.attention.output,
        &layer.feed_forward.wide,
        &layer.feed_forward.narrow,
    ]);
    let norms = layer
        .attention
        .norm
        .iter()
        .chain([&layer.feed_forward.norm]);
    linears.map(numbers).sum::<usize>() + norms.map(|norm| of_norm(norm, hidden)).sum::<usize>()
}

impl Footprint {
    /// What `freeze` leaves to train of an encoder.
    pub fn new(config: &EncoderConfig, freeze: Freeze) -> Self {
        let hidden = config.hidden_size;
        let (mut parameters, mut largest) = (0, 0);
        let embeddings = freeze == Freeze::Nothing;
        if embeddings {
            let tables = config.embeddings();
            let positions = tables.positions.map_or(0, |(table, _)| table.rows);
            let types = tables.token_types.map_or(0, |table| table.rows);
            parameters += (tables.words.rows + positions + types) * hidden;
            parameters += of_norm(&tables.norm, hidden);
            largest = tables.words.rows * hidden;
        }
        let mut layers = Vec::new();
        for index in freeze.layers()..config.layers {
            let layer = config.layer(index);
            parameters += of_layer(&layer, hidden);
            let wide = layer.feed_forward.wide.outputs;
            largest = largest.max(wide * hidden);
            layers.push(LayerSizes {
                before_block: layer.norms == NormPlacement::BeforeBlock,
                first_norm: layer.attention.norm.is_some(),
                wide,
                inner: layer.feed_forward.narrow.inputs,
                gated: layer.feed_forward.gated,
            });
        }
        let final_norm = config.final_norm();
        parameters += final_norm.map_or(0, |norm| of_norm(&norm, hidden));
        let relative = config.relative_positions();
        if let Some((_, shape)) = relative.filter(|_| embeddings) {
            parameters += shape[0] * shape[1];
        }
        Self {
            hidden,
            heads: config.attention_heads,
            layers,
            parameters,
            largest,
            embeddings,
            relative_positions: relative.is_some(),
        }
    }

    /// Width of a hidden state.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Bytes that the written-out layers' buffers come to when `part` has gone forward and back:
    /// each buffer that a pass takes is taken here too, from a pool that works as theirs does.
    pub fn fused(&self, part: PartShape) -> u64 {
        let mut pool = Pool::default();
        let all = part.tokens() * self.hidden;
        let mut tapes = Vec::new();
        let mut states = None;
        for (index, layer) in self.layers.iter().enumerate() {
            let rows = self.rows(index, part);
            let (output, tape) = self.forward(&mut pool, *layer, rows, part);
            if let Some(below) = states.replace(output) {
                pool.give(below);
            }
            tapes.push((tape, rows));
        }
        let top = self.layers.len().saturating_sub(1);
        let mut gradient = pool.take(self.rows(top, part) * self.hidden);
        if let Some(states) = states {
            pool.give(states);
        }
        while let Some((tape, rows)) = tapes.pop() {
            let layer = self.layers[tapes.len()];
            let below = (!tapes.is_empty() && !layer.before_block).then(|| pool.take(all));
            let of_input = self.embeddings || !tapes.is_empty();
            gradient = self.backward(&mut pool, layer, tape, rows, part, gradient, of_input);
            if let Some(below) = below {
                pool.give(below);
            }
        }
        bytes(pool.total)
    }

    /// Bytes that candle keeps of a pass over `part` in its own operations, whatever the device:
    /// every intermediate result is kept until the way back has used it. First what grows with
    /// tokens, then what grows with their squares: attention's scores.
    pub fn composed(&self, part: PartShape, dropout: bool) -> [u64; 2] {
        let drops = if dropout { 2 } else { 0 };
        let mut per_token = 0;
        for layer in &self.layers {
            // Projections with their biases, heads apart, contexts put together, the output's
            // projection; two norms of five results each; the residual sums.
            let narrow = 6 + 3 + 3 + 2 + 10 + 2 + 2 + 2 * drops;
            per_token += narrow * self.hidden + 2 * layer.wide + layer.inner;
            if layer.gated {
                per_token += 2 * layer.inner;
            }
        }
        if self.embeddings {
            per_token += (8 + drops) * self.hidden;
        }
        // On the way back: gradients of the widest states, and of a few narrow ones.
        let widest = self.layers.iter().map(|layer| layer.wide).max();
        per_token += 2 * widest.unwrap_or(0) + 6 * self.hidden;
        // Products, scaled, less the largest, exponentials, probabilities.
        let kept = 5 + usize::from(self.relative_positions) + drops;
        let squares = part.tokens() * part.length * self.heads;
        let one = part.length * part.length * self.heads;
        [
            bytes(per_token * part.tokens()),
            bytes(kept * self.layers.len() * squares + 4 * one),
        ]
    }

    /// Bytes of the attention scores that `threads` threads of the written-out layers hold, a head
    /// of a sequence each.
    pub fn fused_scores(&self, length: usize, threads: usize) -> u64 {
        bytes(threads * (2 * length * length + length * self.hidden / self.heads))
    }

    fn rows(&self, index: usize, part: PartShape) -> usize {
        if part.pruned && index + 1 == self.layers.len() {
            part.sequences
        } else {
            part.tokens()
        }
    }

    fn forward(
        &self,
        pool: &mut Pool,
        layer: LayerSizes,
        rows: usize,
        part: PartShape,
    ) -> (usize, Tape) {
        let (all, some) = (part.tokens() * self.hidden, rows * self.hidden);
        let pruned = some < all;
        let mut passing = Vec::new();
        let mut tape = Tape::default();
        if layer.before_block && layer.first_norm {
            tape.input = pool.take_all(&[part.tokens(), all]);
            passing.push(pool.take(all));
        }
        if pruned {
            passing.push(pool.take(some));
        }
        tape.projected = pool.take_all(&[some, all, all]);
        tape.context = vec![pool.take(some)];
        let projected = pool.take(some);
        if layer.before_block {
            passing.push(projected);
            if pruned {
                passing.push(pool.take(some));
            }
            tape.attended = pool.take_all(&[rows, some]);
        } else {
            tape.attended = vec![projected, pool.take(rows)];
        }
        passing.push(pool.take(some));
        tape.wide = pool.take(rows * layer.wide);
        let active = pool.take(rows * layer.inner);
        let mut output = pool.take(some);
        pool.give(active);
        if !layer.before_block {
            tape.output = vec![output, pool.take(rows)];
            output = pool.take(some);
        }
        pool.give_all(passing);
        (output, tape)
    }

    #[allow(clippy::too_many_arguments, reason = "as the pass itself")]
    fn backward(
        &self,
        pool: &mut Pool,
        layer: LayerSizes,
        tape: Tape,
        rows: usize,
        part: PartShape,
        gradient: usize,
        of_input: bool,
    ) -> usize {
        let (all, some) = (part.tokens() * self.hidden, rows * self.hidden);
        let pruned = some < all;
        let branch = pool.take(some);
        pool.give_all(tape.output);
        let of_active = pool.take(rows * layer.inner);
        let (active, of_wide) = if layer.gated {
            (of_active, tape.wide)
        } else {
            (tape.wide, of_active)
        };
        pool.give(active);
        let again = pool.take(some);
        pool.give(again);
        pool.give(of_wide);
        pool.give_all(tape.attended);
        pool.give(branch);
        pool.give_all(tape.context);
        let normalised = (layer.before_block && layer.first_norm).then(|| pool.take(all));
        let asking = pruned.then(|| pool.take(some));
        let normed = normalised.is_some();
        pool.give_all(normalised);
        let mut gradient = gradient;
        if of_input || normed {
            let room = layer.before_block.then(|| pool.take(some));
            if pruned {
                let spread = pool.take(all);
                match room {
                    Some(room) => pool.give(room),
                    None => pool.give(gradient),
                }
                if layer.before_block {
                    let of_x = pool.take(all);
                    pool.give(gradient);
                    pool.give(spread);
                    gradient = of_x;
                } else {
                    gradient = spread;
                }
            } else {
                pool.give_all(room);
            }
        }
        pool.give_all(asking);
        pool.give_all(tape.input);
        pool.give_all(tape.projected);
        gradient
    }
}

/// Sizes of the buffers that a layer keeps for the way back.
#[derive(Default)]
struct Tape {
    input: Vec<usize>,
    projected: Vec<usize>,
    context: Vec<usize>,
    attended: Vec<usize>,
    wide: usize,
    output: Vec<usize>,
}

/// Lengths of free buffers, handed out as the passes' own are.
#[derive(Default)]
struct Pool {
    free: Vec<usize>,
    total: usize,
}

impl Pool {
    /// The length of the buffer that is given for `length` numbers.
    fn take(&mut self, length: usize) -> usize {
        let fitting = |(_, found): &(usize, &usize)| match **found {
            found if found >= length => (0, found),
            found => (1, usize::MAX - found),
        };
        let best = self.free.iter().enumerate().min_by_key(fitting);
        let best = best.map(|(index, _)| index);
        let found = best.map_or(0, |index| self.free.swap_remove(index));
        self.total += length.saturating_sub(found);
        found.max(length)
    }

    fn take_all(&mut self, lengths: &[usize]) -> Vec<usize> {
        lengths.iter().map(|&length| self.take(length)).collect()
    }

    fn give(&mut self, length: usize) {
        self.free.push(length);
    }

    fn give_all(&mut self, lengths: impl IntoIterator<Item = usize>) {
        self.free.extend(lengths);
    }
}

fn bytes(numbers: usize) -> u64 {
    (numbers * size_of::<f32>()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again() {
        let mut pool = Pool::default();
        let long = pool.take(100);
        let short = pool.take(10);
        pool.give_all([long, short]);
        assert_eq!(pool.take(8), 10);
        assert_eq!(pool.take(50), 100);
        assert_eq!(pool.total, 110);
        pool.give(100);
        assert_eq!((pool.take(150), pool.total), (150, 160));
    }
}
