//! What candle keeps of a pass in its own operations, on any device: every result is kept until the
//! way back is done with all of them.

use super::{FULL, Footprint, PartShape, bytes, is_fused, linears};
use crate::checkpoint::{Layer, Linear, Norm, NormKind, TokenTypes};
use crate::trainable::{MixedPrecision, Pooling};

/// Bytes of a pass in candle's own operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Composed {
    /// Results that grow with tokens.
    pub states: u64,
    /// Attention's scores, which grow with the square of a sequence's length.
    pub scores: u64,
    /// Masks and other constants that results were made with.
    pub constants: u64,
    /// What the way back makes on top of them at one time, gradients of parameters apart.
    pub passing: u64,
}

impl Composed {
    /// All of it.
    pub fn all(&self) -> u64 {
        self.states + self.scores + self.constants + self.passing
    }

    fn plus(self, other: Self) -> Self {
        Self {
            states: self.states + other.states,
            scores: self.scores + other.scores,
            constants: self.constants + other.constants,
            passing: self.passing + other.passing,
        }
    }
}

/// Bytes as they are added up, for each token and for each pair of a head's scores.
#[derive(Default)]
struct Sum {
    token: usize,
    pair: usize,
    constant: usize,
    constant_pair: usize,
    /// Whatever the part.
    once: usize,
}

/// What numbers are computed in.
#[derive(Clone, Copy)]
struct Numbers {
    /// Bytes of one in a matrix product.
    size: usize,
    half: bool,
}

impl Numbers {
    fn of(part: PartShape) -> Self {
        let half = part.mixed_precision != MixedPrecision::None;
        Self {
            size: if half { FULL / 2 } else { FULL },
            half,
        }
    }

    /// Bytes of `count` numbers turned from fp32 to what products compute in.
    fn rounded(self, count: usize) -> usize {
        if self.half { self.size * count } else { 0 }
    }

    /// Bytes of `count` numbers turned back to fp32.
    fn widened(self, count: usize) -> usize {
        if self.half { FULL * count } else { 0 }
    }
}

impl Footprint {
    /// What candle keeps of a pass over `part` that has a way back, and takes on that way.
    pub fn composed(&self, part: PartShape) -> Composed {
        let numbers = Numbers::of(part);
        let passing = Composed {
            passing: self.passing(part, numbers),
            ..Composed::default()
        };
        let kept = if part.recompute && self.layers.len() > 1 {
            let inputs = (self.layers.len() - 1) * part.tokens * self.hidden;
            let inputs = Composed {
                states: bytes(inputs),
                ..Composed::default()
            };
            self.fullest_layer(part, numbers).plus(inputs)
        } else {
            let layers = self.layers.iter();
            let layers = layers.map(|layer| self.of_layer(layer, part, numbers));
            layers.fold(Composed::default(), Composed::plus)
        };
        kept.plus(self.around_layers(part)).plus(passing)
    }

    /// What candle holds of a pass without a way back: of one layer at a time.
    pub fn composed_forward(&self, part: PartShape) -> Composed {
        let states = Composed {
            states: bytes(part.tokens * self.hidden),
            ..Composed::default()
        };
        let layer = self.fullest_layer(part, Numbers::of(part));
        layer.plus(self.around_layers(part)).plus(states)
    }

    fn fullest_layer(&self, part: PartShape, numbers: Numbers) -> Composed {
        let layers = self.layers.iter();
        let layers = layers.map(|layer| self.of_layer(layer, part, numbers));
        layers.max_by_key(Composed::all).unwrap_or_default()
    }

    fn of_layer(&self, layer: &Layer, part: PartShape, numbers: Numbers) -> Composed {
        let mut sum = Sum::default();
        self.add_layer(&mut sum, layer, part, numbers);
        let pairs = part.tokens * part.longest;
        Composed {
            states: (sum.token * part.tokens + sum.once) as u64,
            scores: (sum.pair * pairs * self.heads) as u64,
            constants: (sum.constant * part.tokens + sum.constant_pair * pairs) as u64,
            passing: 0,
        }
    }

    /// The embeddings, the bias of the scores, the norm after the last layer and what is pooled.
    fn around_layers(&self, part: PartShape) -> Composed {
        let mut sum = Sum::default();
        if let Some(norm) = &self.final_norm {
            add_norm(&mut sum, norm, self.hidden);
        }
        let bias = bytes(part.longest * part.longest * self.heads);
        // In the order of the scores; where its table is trained, as its rows too.
        let [trained, frozen] = match self.relative_positions {
            Some(true) => [2 * bias, 0],
            Some(false) => [0, bias],
            None => [0, 0],
        };
        let averaging = match part.pooling {
            Pooling::Mean => bytes(part.sequences * part.tokens),
            Pooling::Cls | Pooling::Scored => 0,
        };
        // All layers share what hides tokens beyond the window, or behind a token.
        let mut windows = self.layers.iter().map(|layer| layer.attention.window);
        let far = if self.is_ordered() || windows.any(|window| is_windowed(window, part)) {
            bytes(part.tokens * part.longest)
        } else {
            0
        };
        let [embeddings, masks] = self.composed_embeddings(part);
        let pooled = match part.rows_read() {
            None if part.pooling == Pooling::Scored => 0,
            _ => bytes(part.vectors() * self.hidden),
        };
        Composed {
            states: (sum.token * part.tokens) as u64 + pooled + embeddings,
            scores: trained,
            constants: masks + averaging + frozen + far,
            passing: 0,
        }
    }

    /// What candle keeps of the embeddings, and masks apart; nothing if they are not trained.
    pub(super) fn composed_embeddings(&self, part: PartShape) -> [u64; 2] {
        let Some(tables) = &self.embeddings else {
            return [0, 0];
        };
        let mut sum = Sum::default();
        let types = match &tables.token_types {
            Some((_, TokenTypes::Zero)) => 1,
            Some((_, TokenTypes::OneAfter(_))) => 2,
            None => 0,
        };
        let positions = if tables.positions.is_some() { 2 } else { 0 };
        // The words; rows of the other tables, and the sums with them.
        sum.token += FULL * (1 + positions + types) * self.hidden;
        if let Some(norm) = &tables.norm {
            add_norm(&mut sum, norm, self.hidden);
        }
        add_dropout(&mut sum, self.dropout.embeddings, self.hidden);
        [sum.token, sum.constant].map(|token| (token * part.tokens) as u64)
    }

    fn add_layer(&self, sum: &mut Sum, layer: &Layer, part: PartShape, numbers: Numbers) {
        let hidden = self.hidden;
        for linear in linears(layer) {
            add_linear(sum, linear, numbers);
        }
        self.add_attention(sum, layer, part, numbers);
        let attention_dropout = self.dropout.attention.unwrap_or(0.0);
        add_dropout(sum, attention_dropout, hidden);
        let feed_forward = &layer.feed_forward;
        // What goes into the projections, all at once, and into the wide layer.
        sum.token += 2 * numbers.rounded(hidden);
        // What comes out of attention and of the feed-forward block, in fp32 as what it is added to.
        sum.token += 2 * (numbers.widened(hidden) + FULL * hidden);
        let inner = feed_forward.narrow.inputs;
        sum.token += numbers.size * inner;
        if feed_forward.gated {
            // The product of both halves; dropout of it in fp32.
            sum.token += numbers.size * inner + numbers.widened(inner) + numbers.rounded(inner);
            add_dropout(sum, self.dropout.feed_forward, inner);
        } else {
            add_dropout(sum, self.dropout.feed_forward, hidden);
        }
        for norm in layer.attention.norm.iter().chain([&feed_forward.norm]) {
            add_norm(sum, norm, hidden);
        }
    }

    fn add_attention(&self, sum: &mut Sum, layer: &Layer, part: PartShape, numbers: Numbers) {
        let (hidden, heads, shared) = (self.hidden, self.heads, self.key_value_size());
        let attention = &layer.attention;
        let side_by_side = is_fused(&attention.projections);
        if attention.rotary.is_some() {
            // Of queries and keys: in fp32, four products, a sum and a difference, and both halves
            // put together.
            let turned = hidden + shared;
            let copied = if side_by_side { FULL * turned } else { 0 };
            let copied = if numbers.half {
                numbers.widened(turned)
            } else {
                copied
            };
            sum.token += copied + 4 * FULL * turned + numbers.rounded(turned);
            // Sines and cosines.
            sum.constant += 2 * FULL * hidden / heads;
        }
        // Queries, keys and values in buckets, and heads apart; contexts, in the order of tokens, and out
        // of the buckets. Of different lengths there are several buckets, whose contexts are put one
        // behind the other, and an eighth is padding at most.
        let several = part.tokens < part.sequences * part.longest;
        // Of a single head of keys nothing is to be taken apart.
        let apart = if self.key_value_heads == 1 { 2 } else { 4 };
        let in_buckets = numbers.size * ((5 + usize::from(several)) * hidden + apart * shared);
        sum.token += if several {
            in_buckets * 9 / 8
        } else {
            in_buckets
        };
        if side_by_side {
            let copied = if attention.rotary.is_some() { 1 } else { 3 };
            sum.token += numbers.size * copied * hidden;
        }
        // Products; scaled, less the largest, exponentials, probabilities; the largest and the sums.
        sum.pair += numbers.size + numbers.widened(1) + 4 * FULL + numbers.rounded(1);
        sum.token += 2 * FULL * heads;
        if self.relative_positions.is_some() {
            sum.pair += FULL;
        }
        // Padding is hidden as what is too far, and what is behind a token.
        if several || self.is_ordered() || is_windowed(attention.window, part) {
            sum.pair += FULL;
        }
        if self.dropout.probabilities > 0.0 {
            sum.pair += FULL;
            sum.constant_pair += FULL * heads;
        }
    }

    /// Whether tokens do not attend to those behind them.
    fn is_ordered(&self) -> bool {
        !self.pattern.is_bidirectional()
    }

    /// On the way back through GELU its slope is put together from fifteen matrices, of which candle
    /// lets go when the next operation's turn comes; through the softmax of a bucket from twelve. With
    /// them go the gradients of a few states.
    fn passing(&self, part: PartShape, numbers: Numbers) -> u64 {
        let layers = self.layers.iter();
        let inner = layers.map(|layer| layer.feed_forward.narrow.inputs);
        let slope = 15 * numbers.size * part.tokens * inner.max().unwrap_or(0);
        let softmax = 12 * FULL * part.tokens * part.longest * self.heads;
        slope.max(softmax) as u64 + bytes(4 * part.tokens * self.hidden)
    }
}

/// Whether some tokens of `part` are farther apart than `window`.
fn is_windowed(window: Option<usize>, part: PartShape) -> bool {
    window.is_some_and(|window| part.longest > window + 1)
}

/// The product and its sum with the bias; rounded, both of them and the weight.
fn add_linear(sum: &mut Sum, linear: &Linear, numbers: Numbers) {
    let of_bias = match (linear.bias, numbers.half) {
        (false, _) => 0,
        (true, false) => 1,
        // In a half type the bias is spread out as a product.
        (true, true) => 2,
    };
    sum.token += numbers.size * (1 + of_bias) * linear.outputs;
    sum.once += numbers.rounded(linear.outputs * linear.inputs);
    if linear.bias {
        sum.once += numbers.rounded(linear.outputs);
        sum.constant += numbers.rounded(1);
    }
}

/// Centred, its square, divided, weighted, with the bias; and six numbers a token. A root mean square
/// takes nothing off, and two numbers less.
fn add_norm(sum: &mut Sum, norm: &Norm, hidden: usize) {
    let (matrices, more) = match norm.kind {
        NormKind::Layer => (4, 6),
        NormKind::RootMeanSquare => (3, 4),
    };
    sum.token += FULL * ((matrices + usize::from(norm.bias)) * hidden + more);
}

/// Dropout of `width` numbers a token: what comes out, and its mask.
fn add_dropout(sum: &mut Sum, probability: f64, width: usize) {
    if probability > 0.0 {
        sum.token += FULL * width;
        sum.constant += FULL * width;
    }
}
