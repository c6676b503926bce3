//! Several batches at a time, one a worker.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Error;

/// A batch that the frozen half has run.
pub struct ComputedBatch<'a> {
    /// Which of the batches it is.
    pub place: usize,
    /// Its sequences.
    pub indices: &'a [usize],
    /// Tokens of each.
    pub(super) lengths: &'a [usize],
    pub(super) hidden_size: usize,
    /// For each depth, `[sequences, longest, hidden]` flat.
    pub(super) states: Vec<&'a [f32]>,
}

impl ComputedBatch<'_> {
    /// How many tokens, without padding.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Each sequence with its hidden states at every depth, `[length, hidden]` flat.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Vec<&[f32]>)> {
        let rows = self.padded().zip(self.lengths);
        rows.map(move |((index, mut states), &length)| {
            for states in &mut states {
                *states = &states[..length * self.hidden_size];
            }
            (index, states)
        })
    }

    /// As [`iter`](Self::iter), with the states of the padding behind each sequence,
    /// `[padded length, hidden]` flat.
    pub fn padded(&self) -> impl Iterator<Item = (usize, Vec<&[f32]>)> {
        let numbers = self.states.first().map_or(0, |states| states.len());
        let row_numbers = numbers / self.indices.len().max(1);
        let rows = self.indices.iter().enumerate();
        rows.map(move |(row, &index)| {
            let range = row * row_numbers..(row + 1) * row_numbers;
            let states = self.states.iter().map(|states| &states[range.clone()]);
            (index, states.collect())
        })
    }

    /// Names the first sequence with a number that is not finite.
    pub(super) fn check_finite(&self) -> Result<(), Error> {
        let finite = |states: &[&[f32]]| {
            let mut numbers = states.iter().copied().flatten();
            numbers.all(|number| number.is_finite())
        };
        match self.iter().find(|(_, states)| !finite(states)) {
            Some((sequence, _)) => Err(Error::NotFinite { sequence }),
            None => Ok(()),
        }
    }
}

/// Does the jobs `0..jobs`, each by the next of `workers` that is free, until one breaks off or
/// fails. Of several failures that of the first job is returned: jobs are begun in order, and those
/// that were begun are ended.
pub(super) fn side_by_side<W: Send>(
    workers: &mut [W],
    jobs: usize,
    work: impl Fn(&mut W, usize) -> Result<ControlFlow<()>, Error> + Sync,
) -> Result<(), Error> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failure: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    let run = |worker: &mut W| {
        while !stop.load(Ordering::Relaxed) {
            let job = next.fetch_add(1, Ordering::Relaxed);
            if job >= jobs {
                break;
            }
            match work(worker, job) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => stop.store(true, Ordering::Relaxed),
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    if failure.as_ref().is_none_or(|(first, _)| job < *first) {
                        *failure = Some((job, error));
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for worker in workers.iter_mut().take(jobs) {
            scope.spawn(|| run(worker));
        }
    });
    let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    failure.map_or(Ok(()), |(_, error)| Err(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_done_once() {
        let mut workers = [Vec::new(), Vec::new(), Vec::new()];
        side_by_side(&mut workers, 100, |done, job| {
            done.push(job);
            Ok(ControlFlow::Continue(()))
        })
        .expect("no job fails");
        let mut done = workers.concat();
        done.sort_unstable();
        assert_eq!(done, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_failure_is_returned() {
        for _ in 0..50 {
            let failing = side_by_side(&mut [(), (), ()], 100, |(), job| match job {
                7 | 8 | 60 => Err(Error::NotFinite { sequence: job }),
                _ => Ok(ControlFlow::Continue(())),
            });
            let first = matches!(failing, Err(Error::NotFinite { sequence: 7 }));
            assert!(first, "{failing:?}");
        }
    }

    #[test]
    fn nothing_begins_after_a_break() {
        let mut workers = [0];
        let work = |done: &mut usize, job| {
            *done += 1;
            Ok(if job == 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        };
        side_by_side(&mut workers, 100, work).expect("no job fails");
        assert_eq!(workers, [4]);
    }
}
