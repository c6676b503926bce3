//! The encoder's top layers, and its embeddings when nothing is frozen: their parameters, and one
//! vector a sequence as a differentiable function of packed sequences.

use std::ops::Range;

use candle_core::{Device, Tensor};

use super::composed::{self, start_from};
use super::embeddings::Embeddings;
use super::layers::{EncoderLayer, Norm};
use super::packed::{self, Profile, Workspace};
use super::packing::Selection;
use super::relative_position::RelativePositions;
use super::{Error, Gradients, Ops, Packing, Parameters, Pass, Pooling, Staged};
use crate::checkpoint::{Checkpoint, Freeze};
use crate::ragged::Ragged;

/// What goes into the trainable half: one batch of packed sequences.
pub enum EncoderInput {
    /// Hidden states after the frozen layers, f32 `[tokens, hidden]`.
    HiddenStates(Ragged<f32>),
    /// The same, on the device already.
    Staged(Staged),
    /// Token ids, when the embeddings are trained too.
    TokenIds(Ragged<u32>),
    /// One of these, of whose tokens not all attend to all others or not all are read.
    Selected(Box<Self>, Selection),
}

impl EncoderInput {
    /// The same, in which each token attends to its sequence's prefix and to the tokens up to itself:
    /// as [`Packing::with_prefixes`].
    #[must_use]
    pub fn with_prefixes(self, prefixes: Vec<usize>) -> Self {
        let (input, mut selection) = self.without_selection();
        selection.prefixes = Some(prefixes);
        Self::Selected(Box::new(input), selection)
    }

    /// The same, of which [`Pooling::Scored`] reads some tokens: as [`Packing::with_scored`].
    #[must_use]
    pub fn with_scored(self, scored: Vec<Range<usize>>) -> Self {
        let (input, mut selection) = self.without_selection();
        selection.scored = Some(scored);
        Self::Selected(Box::new(input), selection)
    }

    /// The tokens, and apart from them what is made of them.
    pub(super) fn without_selection(self) -> (Self, Selection) {
        match self {
            Self::Selected(input, selection) => (*input, selection),
            whole => (whole, Selection::default()),
        }
    }

    /// Where each sequence lies, and which of its tokens attend to which.
    pub fn packing(&self) -> Packing {
        let packing = Packing::new(self.offsets());
        let Self::Selected(_, selection) = self else {
            return packing;
        };
        let packing = match &selection.prefixes {
            Some(prefixes) => packing.with_prefixes(prefixes.clone()),
            None => packing,
        };
        match &selection.scored {
            Some(scored) => packing.with_scored(scored.clone()),
            None => packing,
        }
    }

    /// How many tokens.
    pub fn tokens(&self) -> usize {
        self.offsets()[self.sequences()]
    }

    /// How many sequences.
    pub fn sequences(&self) -> usize {
        self.offsets().len() - 1
    }

    fn offsets(&self) -> &[usize] {
        match self {
            Self::HiddenStates(states) => states.offsets(),
            Self::Staged(staged) => &staged.offsets,
            Self::TokenIds(ids) => ids.offsets(),
            Self::Selected(input, _) => input.offsets(),
        }
    }

    /// Some sequences: a copy, or the same memory where they are staged.
    pub fn part(&self, sequences: Range<usize>) -> Result<Self, Error> {
        let indices = || -> Vec<usize> { sequences.clone().collect() };
        Ok(match self {
            Self::HiddenStates(states) => Self::HiddenStates(states.gather(&indices())),
            Self::Staged(staged) => Self::Staged(staged.part(sequences)?),
            Self::TokenIds(ids) => Self::TokenIds(ids.gather(&indices())),
            Self::Selected(input, selection) => Self::Selected(
                Box::new(input.part(sequences.clone())?),
                selection.part(sequences),
            ),
        })
    }
}

/// Layers K..L-1, after the embeddings when nothing is frozen, and the norm after the last of them
/// in a family that has one.
pub struct TrainableEncoder {
    embeddings: Option<Embeddings>,
    pub(super) relative_positions: Option<RelativePositions>,
    pub(super) layers: Vec<EncoderLayer>,
    pub(super) final_norm: Option<Norm>,
    pub(super) hidden_size: usize,
    pub(super) workspace: Workspace,
    device: Device,
}

/// One vector a sequence or scored token, and the way back from them.
pub struct Pooled<'a> {
    /// `[vectors, hidden]`, cut off from what it was computed from.
    pub vectors: Tensor,
    encoder: &'a TrainableEncoder,
    tape: Tape<'a>,
}

enum Tape<'a> {
    /// The written-out layers' own; the embeddings, if they are trained, as candle has them.
    Packed(packed::Tape<'a>, Option<Tensor>),
    Composed(composed::Tape),
    /// The pass asked for none.
    None,
}

impl TrainableEncoder {
    /// Loads what `freeze` leaves to train from `checkpoint` into `parameters`.
    pub fn load(
        checkpoint: &Checkpoint,
        freeze: Freeze,
        parameters: &mut Parameters,
    ) -> Result<Self, Error> {
        let embeddings = match freeze {
            Freeze::Nothing => Some(Embeddings::load(checkpoint, parameters)?),
            Freeze::Layers(_) => None,
        };
        let relative_positions = RelativePositions::load(checkpoint, freeze, parameters)?;
        let layers = (freeze.layers()..checkpoint.config.layers)
            .map(|layer| EncoderLayer::load(checkpoint, layer, parameters))
            .collect::<Result<_, _>>()?;
        let final_norm = checkpoint.config.final_norm();
        let final_norm = final_norm.map(|norm| Norm::load(checkpoint, &norm, parameters));
        Ok(Self {
            embeddings,
            relative_positions,
            layers,
            final_norm: final_norm.transpose()?,
            hidden_size: checkpoint.config.hidden_size,
            workspace: Workspace::default(),
            device: parameters.device().clone(),
        })
    }

    /// Where it computes.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Where the time of all passes so far went.
    pub fn profile(&self) -> &Profile {
        &self.workspace.profile
    }

    /// One vector for each sequence of `input`, which `packing` describes, or for each token that is
    /// scored.
    ///
    /// # Panics
    /// If `input` is of the kind that this encoder does not take.
    pub fn pool(
        &self,
        input: EncoderInput,
        packing: Packing,
        pooling: Pooling,
        pass: &Pass,
    ) -> Result<Pooled<'_>, Error> {
        match pass.ops {
            Ops::Fused => self.pool_packed(input, packing, pooling, pass),
            Ops::Composed => {
                let input = self.states(input, &packing, pass)?;
                let (vectors, tape) = composed::forward(self, input, packing, pooling, pass)?;
                Ok(Pooled {
                    vectors,
                    encoder: self,
                    tape: tape.map_or(Tape::None, Tape::Composed),
                })
            }
        }
    }

    fn pool_packed(
        &self,
        input: EncoderInput,
        packing: Packing,
        pooling: Pooling,
        pass: &Pass,
    ) -> Result<Pooled<'_>, Error> {
        let vectors = packing.vectors(pooling, 0..packing.sequences()).len();
        let (states, embeddings) = match (input.without_selection().0, &self.embeddings) {
            (EncoderInput::HiddenStates(states), None) => (states.into_parts().0, None),
            (EncoderInput::Staged(staged), None) => (staged.states.flatten_all()?.to_vec1()?, None),
            (EncoderInput::TokenIds(ids), Some(embeddings)) => {
                let embedded = embeddings.forward(&ids, &packing, pass)?;
                (embedded.flatten_all()?.to_vec1()?, Some(embedded))
            }
            _ => panic!("{WRONG_INPUT}"),
        };
        let (pooled, tape) = packed::forward(self, states, packing, pooling, pass)?;
        Ok(Pooled {
            vectors: Tensor::from_vec(pooled, (vectors, self.hidden_size), &self.device)?,
            encoder: self,
            tape: match tape {
                Some(tape) => Tape::Packed(tape, embeddings),
                None => Tape::None,
            },
        })
    }

    /// What goes into the lowest layer, `[tokens, hidden]`: `input`, or its embeddings with candle's
    /// way back.
    fn states(&self, input: EncoderInput, packing: &Packing, pass: &Pass) -> Result<Tensor, Error> {
        match (input.without_selection().0, &self.embeddings) {
            (EncoderInput::HiddenStates(states), None) => {
                let shape = (packing.tokens(), self.hidden_size);
                Ok(Tensor::from_vec(
                    states.into_parts().0,
                    shape,
                    &self.device,
                )?)
            }
            (EncoderInput::Staged(staged), None) => Ok(staged.states),
            (EncoderInput::TokenIds(ids), Some(embeddings)) => {
                embeddings.forward(&ids, packing, pass)
            }
            _ => panic!("{WRONG_INPUT}"),
        }
    }
}

const WRONG_INPUT: &str = "an encoder takes token ids exactly when its embeddings are trained";

impl Pooled<'_> {
    /// The vectors with all that candle keeps for the way back, if it does.
    #[cfg(test)]
    pub(super) fn composed(&self) -> Option<&Tensor> {
        match &self.tape {
            Tape::Composed(tape) => Some(tape.vectors()),
            Tape::Packed(..) | Tape::None => None,
        }
    }

    /// Adds to `gradients` those of the encoder's parameters, from the `gradient` of the
    /// vectors, `[vectors, hidden]`.
    ///
    /// # Panics
    /// If the pass did not ask for a way back.
    pub fn backward(
        self,
        gradient: &Tensor,
        parameters: &Parameters,
        gradients: &mut Gradients,
    ) -> Result<(), Error> {
        match self.tape {
            Tape::Packed(tape, embedded) => {
                let numbers = gradient.flatten_all()?.to_vec1::<f32>()?;
                let of_input = embedded.is_some();
                let of_states =
                    packed::backward(self.encoder, tape, &numbers, gradients, of_input)?;
                if let (Some(embedded), Some(of_states)) = (embedded, of_states) {
                    let of_states =
                        Tensor::from_vec(of_states, embedded.shape(), gradient.device())?;
                    gradients.add(parameters, &start_from(&embedded, &of_states)?)?;
                }
            }
            Tape::Composed(tape) => {
                composed::backward(self.encoder, tape, gradient, parameters, gradients)?;
            }
            Tape::None => panic!("the pass asked for no way back"),
        }
        Ok(())
    }
}
