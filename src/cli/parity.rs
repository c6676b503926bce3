//! The parity probe of the commands that fill caches.

use std::path::{Path, PathBuf};

use super::console;
use crate::cache::{Manifest, Parity};
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::precompute::{self, Plan, Records, States, probe};

/// The figures for each manifest of `plan`: those of the cache in its folder of `folders`, if it is
/// gone on with, or else measured now. What does not pass `check` is refused. Nothing that is
/// there counts with `force`.
pub(super) fn measure(
    plan: &Plan,
    states: &mut dyn States,
    checkpoint: &Checkpoint,
    check: impl Fn(&Parity) -> Result<(), precompute::Error>,
    folders: &[PathBuf],
    force: bool,
) -> Result<Vec<Option<Parity>>, Error> {
    let planned = folders.iter().zip(&plan.manifests);
    let known = planned.map(|(folder, manifest)| known(folder, manifest).filter(|_| !force));
    let known: Vec<Option<Parity>> = known.collect();
    let measured = if known.iter().all(Option::is_some) {
        None
    } else {
        let records = Records(&plan.splits);
        probe(states, checkpoint, &plan.sequences, records)?
    };
    let places = known.into_iter().enumerate();
    let parities = places.map(|(place, known)| {
        let parity = known.or_else(|| Some(measured.as_ref()?[place]));
        if let Some(parity) = &parity {
            say(parity, states.depths()[place]);
            check(parity)?;
        }
        Ok(parity)
    });
    parities.collect()
}

/// What was measured when the cache in `folder` was begun, if `planned` goes on with it: the
/// manifest must end the same however often it was stopped.
fn known(folder: &Path, planned: &Manifest) -> Option<Parity> {
    // A manifest that cannot be read is the writer's to complain about.
    let begun = Manifest::read(folder).ok()?;
    begun
        .parity
        .filter(|_| begun.fingerprint == planned.fingerprint)
}

fn say(parity: &Parity, layers: usize) {
    console::say(&format!(
        "frozen half against fp32: max error {:.1e}, mean {:.1e}, cosine mean {:.6}, lowest {:.6} (after {layers} layers, {} tokens of {} sequences)",
        parity.max_absolute_error,
        parity.mean_absolute_error,
        parity.mean_cosine,
        parity.min_cosine,
        parity.tokens,
        parity.sequences,
    ));
}
