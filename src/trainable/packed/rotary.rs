//! Turning queries and keys by their positions, and their gradients back.

use rayon::prelude::*;

use super::CHUNK;
use crate::checkpoint::Rotation;
use crate::simd;
use crate::trainable::layers::EncoderLayer;

/// Which way to turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// By a token's position.
    Forward,
    /// The same angle back: the transpose of turning, which is what gradients need.
    Back,
}

/// The angles of a rotation at the positions of sequences up to a length.
pub(super) struct Turn {
    /// `[longest, half a head]`, as the sines.
    cosines: Vec<f32>,
    sines: Vec<f32>,
    half: usize,
}

/// The turns of an encoder's layers, each once.
pub(super) struct Turns<'a>(Vec<(&'a Rotation, Turn)>);

impl<'a> Turns<'a> {
    /// For `layers`, and sequences of up to `longest` tokens.
    pub(super) fn new(layers: &'a [EncoderLayer], longest: usize) -> Self {
        let mut turns: Vec<(&Rotation, Turn)> = Vec::new();
        for rotation in layers.iter().filter_map(|layer| layer.rotation.as_ref()) {
            if turns.iter().all(|(made, _)| *made != rotation) {
                turns.push((rotation, Turn::new(rotation, longest)));
            }
        }
        Self(turns)
    }

    /// That of `layer`, if it has one.
    pub(super) fn of(&self, layer: &EncoderLayer) -> Option<&Turn> {
        let wanted = layer.rotation.as_ref()?;
        let found = self.0.iter().find(|(rotation, _)| *rotation == wanted);
        found.map(|(_, turn)| turn)
    }
}

impl Turn {
    pub(super) fn new(rotation: &Rotation, longest: usize) -> Self {
        let [cosines, sines] = rotation.tables(longest);
        Self {
            cosines,
            sines,
            half: rotation.steps.len(),
        }
    }

    /// Turns every head of each row of `matrix` by the row's place in its sequence, which
    /// `positions` lists.
    pub(super) fn apply(&self, matrix: &mut [f32], positions: &[usize], direction: Direction) {
        let (width, half) = (matrix.len() / positions.len().max(1), self.half);
        if width == 0 {
            return;
        }
        let rows = (CHUNK / width).max(1);
        let sign = match direction {
            Direction::Forward => 1.0,
            Direction::Back => -1.0,
        };
        let chunks = matrix.par_chunks_mut(rows * width);
        chunks
            .zip(positions.par_chunks(rows))
            .for_each(|(matrix, positions)| {
                simd::dispatch(
                    #[inline(always)]
                    || {
                        for (row, position) in matrix.chunks_exact_mut(width).zip(positions) {
                            let angles = position * half..(position + 1) * half;
                            let cosines = &self.cosines[angles.clone()];
                            let sines = &self.sines[angles];
                            for head in row.chunks_exact_mut(2 * half) {
                                turn(head, cosines, sines, sign);
                            }
                        }
                    },
                );
            });
    }
}

/// Of each pair: `(a cos - b sin, b cos + a sin)`.
#[inline(always)]
fn turn(head: &mut [f32], cosines: &[f32], sines: &[f32], sign: f32) {
    let (first, second) = head.split_at_mut(cosines.len());
    let pairs = first.iter_mut().zip(second);
    for ((a, b), (cosine, sine)) in pairs.zip(cosines.iter().zip(sines)) {
        let sine = sign * sine;
        (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
    }
}
