//! Gradients of a batch whose sequences are shared out among replicas of a model.

use std::ops::Range;
use std::sync::mpsc::sync_channel;

use candle_core::Tensor;

use super::model::Rows;
use super::{Batch, Error, Model};
use crate::trainable::{EncoderInput, Gradients, Packing, PartLimit, Pass};

/// Another replica of a model that is trained, on a device of its own.
pub struct Replica {
    /// The same layers and parameters.
    pub model: Model,
    /// Of its shares, until they are added to the first replica's.
    pub gradients: Gradients,
}

/// What one replica works on.
struct Share<'a> {
    /// These sequences alone.
    input: EncoderInput,
    /// Of the whole batch.
    packing: &'a Packing,
    /// Which of the batch's they are.
    sequences: Range<usize>,
}

impl Model {
    /// The mean loss over the rows of a batch, a scalar that is not waited for; `share` times its
    /// gradients are added to `gradients`, and to those of `replicas`: their sum is meant.
    ///
    /// Each replica computes the vectors of some of the sequences, about as many tokens as the
    /// others; the head and the loss, which look at all of them, are this one's; then each goes back
    /// through its own. Of a share no more than `limit` is kept for the backward pass at a time: the
    /// vectors of all its parts are computed first, and each part once more with its way back
    /// (gradient caching: Gao et al., 2021, arXiv 2101.06983). Either way the gradients are those of
    /// the whole batch.
    pub fn add_gradients(
        &self,
        replicas: &mut [Replica],
        (batch, share): (Batch, f64),
        pass: &Pass,
        limit: PartLimit,
        gradients: &mut Gradients,
    ) -> Result<Tensor, Error> {
        let Batch {
            input,
            places,
            columns,
            targets,
        } = batch;
        let rows = Rows {
            places: &places,
            columns,
            targets: &targets,
            share,
        };
        let packing = input.packing();
        let mut shares = packing.shares(1 + replicas.len()).into_iter();
        let own = shares.next().unwrap_or(0..0);
        let all = 0..packing.sequences();
        std::thread::scope(|scope| {
            let (mut helpers, mut channels) = (Vec::new(), Vec::new());
            for (replica, sequences) in replicas.iter_mut().zip(shares) {
                let share = Share {
                    input: input.part(sequences.clone())?,
                    packing: &packing,
                    sequences,
                };
                let (send_vectors, vectors) = sync_channel(1);
                let (send_gradient, gradient) = sync_channel(1);
                channels.push((vectors, send_gradient));
                helpers.push(scope.spawn(move || {
                    let Replica { model, gradients } = replica;
                    model.there_and_back(share, pass, limit, gradients, |vectors, _| {
                        // The first is gone if it or another failed.
                        let sent = send_vectors.send(vectors);
                        Ok(sent.ok().and_then(|()| gradient.recv().ok()))
                    })
                }));
            }
            let share = Share {
                input: if own == all {
                    input
                } else {
                    input.part(own.clone())?
                },
                packing: &packing,
                sequences: own.clone(),
            };
            let mut loss = None;
            let done = self.there_and_back(share, pass, limit, gradients, |vectors, gradients| {
                let device = vectors.device().clone();
                let mut vectors = vec![vectors];
                for (others, _) in &channels {
                    let Ok(others) = others.recv() else {
                        return Ok(None);
                    };
                    vectors.push(others.to_device(&device)?);
                }
                let counts = vectors.iter().map(|vectors| vectors.dim(0));
                let counts = counts.collect::<Result<Vec<_>, _>>()?;
                let vectors = Tensor::cat(&vectors, 0)?;
                let (of_batch, gradient) = self.head(&vectors, rows, pass, gradients)?;
                loss = Some(of_batch);
                let mut first = counts[0];
                for ((_, sender), count) in channels.iter().zip(&counts[1..]) {
                    // A helper that is gone tells why when it is joined.
                    let _ = sender.send(gradient.narrow(0, first, *count)?);
                    first += count;
                }
                Ok(Some(gradient.narrow(0, 0, counts[0])?))
            });
            // Nobody waits any longer.
            drop(channels);
            let helpers = helpers.into_iter().map(|helper| {
                let joined = helper.join();
                joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            let helped = helpers.collect::<Result<Vec<()>, Error>>();
            done?;
            helped?;
            Ok(loss.unwrap_or_else(|| unreachable!("without an error all vectors have come")))
        })
    }

    /// Lets `turn` make of the vectors of `share`, `[vectors, hidden]`, the gradient with respect
    /// to them, and adds those of the encoder's parameters to `gradients`; stops if it makes none.
    fn there_and_back(
        &self,
        share: Share,
        pass: &Pass,
        limit: PartLimit,
        gradients: &mut Gradients,
        turn: impl FnOnce(Tensor, &mut Gradients) -> Result<Option<Tensor>, Error>,
    ) -> Result<(), Error> {
        let Share {
            input,
            packing,
            sequences,
        } = share;
        let own = packing.part(sequences.clone());
        let parts = own.parts(limit);
        if parts.len() <= 1 {
            let pooled = self.encoder.pool(input, own, self.pooling, pass)?;
            if let Some(gradient) = turn(pooled.vectors.clone(), gradients)? {
                let gradient = gradient.to_device(self.parameters.device())?;
                pooled.backward(&gradient, &self.parameters, gradients)?;
            }
            return Ok(());
        }
        let pool = |part: &Range<usize>, pass: &Pass| {
            let packing = packing.part(sequences.start + part.start..sequences.start + part.end);
            let input = input.part(part.clone())?;
            self.encoder.pool(input, packing, self.pooling, pass)
        };
        let once = pass.without_way_back();
        let vectors = parts.iter().map(|part| Ok(pool(part, &once)?.vectors));
        let vectors = Tensor::cat(&vectors.collect::<Result<Vec<_>, Error>>()?, 0)?;
        let Some(gradient) = turn(vectors, gradients)? else {
            return Ok(());
        };
        let gradient = gradient.to_device(self.parameters.device())?;
        for part in parts {
            let vectors = own.vectors(self.pooling, part.clone());
            let gradient = gradient.narrow(0, vectors.start, vectors.len())?;
            pool(&part, pass)?.backward(&gradient, &self.parameters, gradients)?;
        }
        Ok(())
    }
}
