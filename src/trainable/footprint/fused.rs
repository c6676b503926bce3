//! What the written-out layers take: each buffer that a pass takes is taken here too, in the same
//! order, from buffers that are lengths alone.

use super::{Footprint, PartShape, bytes};
use crate::checkpoint::{AttentionPattern, Layer, NormPlacement};
use crate::trainable::packed::{Buffer, Buffers, Reach};

type Length<'a> = Buffer<'a, usize>;

/// One layer in one pass.
#[derive(Clone, Copy)]
struct LayerPass<'p> {
    layer: &'p Layer,
    buffers: &'p Buffers<usize>,
    hidden: usize,
    /// Rows whose state is read from this layer.
    rows: usize,
    /// Whether they are not all.
    pruned: bool,
    /// Numbers of all tokens' states.
    all: usize,
    /// Of all tokens' keys.
    keys: usize,
    /// Whether what a feed-forward block without a gate puts out is dropped from.
    drops_output: bool,
}

/// A normalisation's rows and scales.
type NormTape<'p> = [Length<'p>; 2];

/// What a layer keeps for the way back.
struct Tape<'p> {
    /// Of a norm in front of attention.
    input: Option<NormTape<'p>>,
    /// Queries, keys, values and context.
    attention: [Length<'p>; 4],
    attended: NormTape<'p>,
    wide: Length<'p>,
    /// Of a norm behind the feed-forward block.
    output: Option<NormTape<'p>>,
}

/// What is kept of a layer.
struct Kept<'p> {
    /// None where the layer is computed again.
    tape: Option<Tape<'p>>,
    /// What went into it, where that is kept.
    input: Option<Length<'p>>,
    /// Whether a norm behind the layer tells what it put out.
    tells: bool,
}

impl Footprint {
    /// Bytes that the written-out layers hold once `part` has gone forward and back, and its
    /// embeddings with it, where they are trained.
    pub fn fused(&self, part: PartShape) -> u64 {
        self.fused_buffers(part) + self.embedded(part)
    }

    /// The same where there is no way back.
    pub fn fused_forward(&self, part: PartShape) -> u64 {
        let buffers = Buffers::default();
        self.forward(&buffers, part, false);
        bytes(buffers.held()) + self.embedded(part)
    }

    /// Of those, what the layers' own buffers come to.
    pub(super) fn fused_buffers(&self, part: PartShape) -> u64 {
        let buffers = Buffers::default();
        self.forward_and_back(&buffers, part);
        bytes(buffers.held())
    }

    /// Bytes of the attention scores that `threads` threads of the written-out layers hold, a head
    /// of a sequence each.
    pub fn fused_scores(&self, longest: usize, threads: usize) -> u64 {
        let size = self.hidden / self.heads;
        let all = 2 * longest * longest + longest * size;
        let most = self.layers.iter().map(|layer| {
            let window = layer.attention.window;
            let reach = Reach {
                window: window.filter(|window| longest > window + 1),
                prefix: (!self.pattern.is_bidirectional()).then_some(0),
            };
            let by_blocks = reach.room(longest, size);
            match self.pattern {
                // A sequence may be all prefix.
                AttentionPattern::Prefix(_) => all.max(by_blocks),
                _ if self.key_value_heads == self.heads && reach.is_all() => all,
                _ => by_blocks,
            }
        });
        bytes(threads * most.max().unwrap_or(0))
    }

    fn layer<'p>(
        &'p self,
        index: usize,
        buffers: &'p Buffers<usize>,
        part: PartShape,
    ) -> LayerPass<'p> {
        let top = index + 1 == self.layers.len();
        let read = part.rows_read().filter(|_| top);
        LayerPass {
            layer: &self.layers[index],
            buffers,
            hidden: self.hidden,
            rows: read.unwrap_or(part.tokens),
            pruned: read.is_some(),
            all: part.tokens * self.hidden,
            keys: part.tokens * self.key_value_size(),
            drops_output: self.dropout.feed_forward > 0.0,
        }
    }

    /// What the layers and the norm after the last of them keep, if there is a `way_back`.
    fn forward<'p>(
        &'p self,
        buffers: &'p Buffers<usize>,
        part: PartShape,
        way_back: bool,
    ) -> (Vec<Kept<'p>>, Option<NormTape<'p>>) {
        let mut tapes = Vec::new();
        let mut states: Option<Length<'p>> = None;
        for index in 0..self.layers.len() {
            let (output, tape) = self.layer(index, buffers, part).forward();
            let input = states.replace(output);
            let top = index + 1 == self.layers.len();
            if way_back {
                tapes.push(Kept {
                    tells: tape.output.is_some(),
                    tape: (top || !part.recompute).then_some(tape),
                    input: input.filter(|_| part.recompute),
                });
            }
        }
        if let Some(read) = part.rows_read().filter(|_| self.layers.is_empty()) {
            states = Some(buffers.take(read * self.hidden));
        }
        let mut final_norm = None;
        if self.final_norm.is_some() {
            let all = part.tokens * self.hidden;
            let unpooled = states.as_ref().map_or(all, Buffer::length);
            let (normalised, tape) = in_front(buffers, unpooled, self.hidden);
            (states, final_norm) = (Some(normalised), Some(tape));
        }
        drop(states);
        (tapes, final_norm)
    }

    fn forward_and_back(&self, buffers: &Buffers<usize>, part: PartShape) {
        let all = part.tokens * self.hidden;
        let (mut tapes, final_norm) = self.forward(buffers, part, true);
        let rows = part.rows_read().unwrap_or(part.tokens);
        let mut gradient = buffers.take(rows * self.hidden);
        if final_norm.is_some() {
            gradient = buffers.take(gradient.length());
        }
        drop(final_norm);
        let spread = part.rows_read().is_some() && self.layers.is_empty();
        let _spread = spread.then(|| buffers.take(all));
        let mut gradient = Some(gradient);
        while let Some(kept) = tapes.pop() {
            let index = tapes.len();
            let layer = self.layer(index, buffers, part);
            let told = tapes
                .last()
                .is_some_and(|below| below.tape.is_some() && below.tells);
            let told = told && kept.input.is_none();
            let _below = kept.input.or_else(|| told.then(|| buffers.take(all)));
            let tape = match kept.tape {
                Some(tape) => tape,
                None => layer.forward().1,
            };
            let of_input = self.embeddings.is_some() || index > 0;
            let of_output = gradient.take();
            gradient = of_output.and_then(|gradient| layer.backward(tape, gradient, of_input));
        }
    }

    /// The embeddings are candle's even there: what it keeps of them, copies of what they put out and
    /// of its gradient, and what the way back makes on top.
    fn embedded(&self, part: PartShape) -> u64 {
        if self.embeddings.is_none() {
            return 0;
        }
        let copies = 6 * part.tokens * self.hidden;
        let [kept, masks] = self.composed_embeddings(part);
        kept + masks + bytes(copies)
    }
}

impl<'p> LayerPass<'p> {
    fn some(&self) -> usize {
        self.rows * self.hidden
    }

    fn take(&self, length: usize) -> Length<'p> {
        self.buffers.take(length)
    }

    /// The rows that ask, where they are not all.
    fn asking(&self) -> Option<Length<'p>> {
        self.pruned.then(|| self.take(self.some()))
    }

    /// What is given for the rows that ask, among zeros for the others.
    fn spread(&self, part: Length<'p>) -> Length<'p> {
        if self.pruned {
            self.take(self.all)
        } else {
            part
        }
    }

    fn forward(&self) -> (Length<'p>, Tape<'p>) {
        match self.layer.norms {
            NormPlacement::AfterResidual => self.post_norm_forward(),
            NormPlacement::BeforeBlock => self.pre_norm_forward(),
        }
    }

    fn backward(&self, tape: Tape<'p>, gradient: Length<'p>, of_input: bool) -> Option<Length<'p>> {
        match self.layer.norms {
            NormPlacement::AfterResidual => self.post_norm_backward(tape, gradient, of_input),
            NormPlacement::BeforeBlock => self.pre_norm_backward(tape, gradient, of_input),
        }
    }

    fn post_norm_forward(&self) -> (Length<'p>, Tape<'p>) {
        let _asking = self.asking();
        let (projected, attention) = self.attend();
        let (_states, attended) = self.behind_residual(projected);
        let (narrow, wide) = self.feed_forward();
        let (y, output) = self.behind_residual(narrow);
        let tape = Tape {
            input: None,
            attention,
            attended,
            wide,
            output: Some(output),
        };
        (y, tape)
    }

    fn post_norm_backward(
        &self,
        tape: Tape<'p>,
        gradient: Length<'p>,
        of_input: bool,
    ) -> Option<Length<'p>> {
        let branch = self.take(gradient.length());
        drop(tape.output);
        self.feed_forward_backward(tape.wide);
        drop(tape.attended);
        let _projected = attend_backward(tape.attention, branch);
        let _asking = self.asking();
        of_input.then(|| self.spread(gradient))
    }

    fn pre_norm_forward(&self) -> (Length<'p>, Tape<'p>) {
        let norm = self.layer.attention.norm.as_ref();
        let (_normalised, input) = norm
            .map(|_| in_front(self.buffers, self.all, self.hidden))
            .unzip();
        let _asking = self.asking();
        let (states, attention) = self.attend();
        let _residual = self.asking();
        let (_behind, attended) = in_front(self.buffers, states.length(), self.hidden);
        let (y, wide) = self.feed_forward();
        let tape = Tape {
            input,
            attention,
            attended,
            wide,
            output: None,
        };
        (y, tape)
    }

    fn pre_norm_backward(
        &self,
        tape: Tape<'p>,
        gradient: Length<'p>,
        of_input: bool,
    ) -> Option<Length<'p>> {
        let branch = self.take(gradient.length());
        let drops = self.drops_output && !self.layer.feed_forward.gated;
        let dropped = drops.then(|| self.take(gradient.length()));
        self.feed_forward_backward(tape.wide);
        drop((dropped, tape.attended));
        let _projected = attend_backward(tape.attention, branch);
        let normalised = tape.input.is_some().then(|| self.take(self.all));
        let _asking = self.asking();
        drop(normalised);
        if tape.input.is_none() && !of_input {
            return None;
        }
        let room = self.take(gradient.length());
        let _of_normalised = self.spread(room);
        let of_x = self.spread(gradient);
        of_input.then_some(of_x)
    }

    fn attend(&self) -> (Length<'p>, [Length<'p>; 4]) {
        let queries = self.take(self.some());
        let (keys, values) = (self.take(self.keys), self.take(self.keys));
        let context = self.take(self.some());
        let projected = self.take(self.some());
        (projected, [queries, keys, values, context])
    }

    /// What comes out and the wide states, which are kept.
    fn feed_forward(&self) -> (Length<'p>, Length<'p>) {
        let feed_forward = &self.layer.feed_forward;
        let wide = self.take(self.rows * feed_forward.wide.outputs());
        let _active = self.take(self.rows * feed_forward.narrow.inputs);
        (self.take(self.some()), wide)
    }

    fn feed_forward_backward(&self, wide: Length<'p>) {
        let feed_forward = &self.layer.feed_forward;
        let of_active = self.take(self.rows * feed_forward.narrow.inputs);
        let (active, _of_wide) = if feed_forward.gated {
            (of_active, wide)
        } else {
            (wide, of_active)
        };
        drop(active);
        self.take(self.some());
    }

    fn behind_residual(&self, rows: Length<'p>) -> (Length<'p>, NormTape<'p>) {
        let scales = self.take(self.rows);
        (self.take(self.some()), [rows, scales])
    }
}

fn in_front(buffers: &Buffers<usize>, length: usize, hidden: usize) -> (Length<'_>, NormTape<'_>) {
    let scales = buffers.take(length / hidden);
    let (rows, y) = (buffers.take(length), buffers.take(length));
    (y, [rows, scales])
}

/// Leaves queries, keys and values.
fn attend_backward<'p>(attention: [Length<'p>; 4], gradient: Length<'p>) -> [Length<'p>; 3] {
    let [queries, keys, values, _context] = attention;
    drop(gradient);
    [queries, keys, values]
}
