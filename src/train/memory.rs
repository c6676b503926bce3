//! How much memory there is, how much training takes, and how much of a batch fits.

use super::{Error, TrainSettings};
use crate::task::Model;
use crate::trainable::PartLimit;

/// The kernel's high-water mark of resident memory (`VmHWM`), in bytes; nothing where the system
/// does not tell.
pub fn peak_rss_bytes() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM:")
}

/// The number of kibibytes after `name` in one of the kernel's files, as bytes.
fn kibibytes(file: &str, name: &str) -> Option<u64> {
    let text = fs_err::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}

/// How much of a batch, of `columns` sequences a row, is kept for the backward pass at a time.
/// `copies` of the parameters are kept besides the trained ones.
pub(super) fn micro_batch(
    model: &Model,
    settings: &TrainSettings,
    columns: usize,
    copies: usize,
) -> Result<PartLimit, Error> {
    if let Some(rows) = settings.micro_batch {
        return Ok(PartLimit {
            sequences: rows * columns,
            ..PartLimit::NONE
        });
    }
    let (fixed, per_token) = (model.fixed_bytes(copies), model.bytes_per_token());
    let budget = match settings.memory_budget {
        Some(budget) if budget <= fixed => {
            return Err(Error::MemoryBudget {
                budget,
                needed: fixed,
            });
        }
        Some(budget) => Some(budget),
        None => kibibytes("/proc/meminfo", "MemTotal:").map(|total| total / 2),
    };
    let tokens = budget.map(|budget| budget.saturating_sub(fixed) / per_token.max(1));
    Ok(PartLimit {
        tokens: tokens
            .and_then(|tokens| usize::try_from(tokens).ok())
            .unwrap_or(usize::MAX),
        ..PartLimit::NONE
    })
}
