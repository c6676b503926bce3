//! How much memory there is, how much training takes, and how much of a batch fits.

use std::path::Path;

use super::{Error, TrainSettings, TrainingShape};
use crate::estimate::Place;
use crate::trainable::PartLimit;

/// The kernel's high-water mark of resident memory (`VmHWM`), in bytes; nothing where the system
/// does not tell.
pub fn peak_rss_bytes() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM:")
}

/// Bytes of memory that this process can have: the machine's, or the limit of its control group
/// if that is less; nothing where the system does not tell.
pub fn memory_limit() -> Option<u64> {
    let groups = fs_err::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = group_limit(&groups, Path::new("/sys/fs/cgroup"));
    let machine = kibibytes("/proc/meminfo", "MemTotal:");
    [machine, limit].into_iter().flatten().min()
}

/// The smallest memory limit of the control groups that `groups` (as `/proc/self/cgroup`) names,
/// and of those above them, below `root`. In a container the paths may be those outside it; the
/// groups above then end in the container's own.
fn group_limit(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (folder, file) = if controllers.is_empty() {
            (root.to_owned(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            return None;
        };
        let above = Path::new(path.trim_start_matches('/')).ancestors();
        let limit = |group: &Path| {
            let text = fs_err::read_to_string(folder.join(group).join(file)).ok()?;
            // Version 2 says `max` where there is none.
            text.trim().parse::<u64>().ok()
        };
        above.filter_map(limit).min()
    });
    limits.min()
}

/// The number of kibibytes after `name` in one of the kernel's files, as bytes.
fn kibibytes(file: &str, name: &str) -> Option<u64> {
    let text = fs_err::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}

/// How much of a batch of a run of `shape` is kept for the backward pass at a time: the rows that
/// were asked for, or what is within the budget: unless told, half of the machine's memory, or on a
/// card of which `free_on_card` bytes are free nine tenths of those and what the run holds already.
pub(super) fn part_limit(
    shape: &TrainingShape,
    settings: &TrainSettings,
    free_on_card: Option<u64>,
) -> Result<PartLimit, Error> {
    if let Some(rows) = settings.micro_batch {
        return Ok(PartLimit {
            sequences: rows * shape.columns,
            ..PartLimit::NONE
        });
    }
    if let Some(budget) = settings.memory_budget {
        let needed = shape.without_a_part().peak();
        if budget <= needed {
            return Err(Error::MemoryBudget { budget, needed });
        }
        return Ok(shape.within(budget).limit);
    }
    let budget = match shape.place {
        Place::Cpu => kibibytes("/proc/meminfo", "MemTotal:").map(|total| total / 2),
        Place::Cuda => free_on_card.map(|free| (free + shape.loaded_on_card()) / 10 * 9),
    };
    Ok(budget.map_or(PartLimit::NONE, |budget| shape.within(budget).limit))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{group_limit, part_limit};
    use crate::checkpoint::{EncoderConfig, Freeze};
    use crate::estimate::Place;
    use crate::train::{Lengths, TrainSettings, TrainingShape};
    use crate::trainable::{Footprint, MixedPrecision, Ops, PartLimit, Pooling};

    /// Without a budget a run on a card takes what is free there, whatever the machine has.
    #[test]
    fn a_card_without_a_budget() {
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
        let config = EncoderConfig::read(&goldens.join("bert-tiny/config.json")).expect("read");
        let shape = TrainingShape {
            footprint: Footprint::new(&config, Freeze::Layers(1)),
            frozen_head: 0,
            head: 0,
            lengths: Lengths::all(64),
            batch_size: 1024,
            columns: 1,
            rows: None,
            pooling: Pooling::Cls,
            mixed_precision: MixedPrecision::None,
            recompute: false,
            keeps_best: true,
            replicas: 0,
            ops: Ops::Composed,
            place: Place::Cuda,
            threads: 1,
        };
        let settings = TrainSettings::default();
        let whole = shape.estimate(PartLimit::NONE).peak();
        let limit = |free| part_limit(&shape, &settings, free).expect("a limit");
        assert_eq!(limit(Some(2 * whole)), PartLimit::NONE);
        assert_eq!(limit(None), PartLimit::NONE);
        let free = whole / 4;
        let part = limit(Some(free));
        assert!(part.tokens > 0 && part.tokens < 1024 * 64, "{part:?}");
        let taken = shape.estimate(part).peak() - shape.loaded_on_card();
        assert!(taken <= free, "{taken} of {free}");
    }

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs_err::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs_err::write(path, text).expect("written");
    }

    #[test]
    fn the_smallest_limit_of_a_group_and_those_above() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        let two = "0::/jobs/one\n";
        assert_eq!(group_limit(two, root), None);
        write(root, "jobs/one/memory.max", "max\n");
        assert_eq!(group_limit(two, root), None);
        write(root, "jobs/memory.max", "5000\n");
        assert_eq!(group_limit(two, root), Some(5000));
        write(root, "jobs/one/memory.max", "4000\n");
        assert_eq!(group_limit(two, root), Some(4000));

        let one = "8:pids:/\n4:cpu,memory:/outside/container\n0::/\n";
        assert_eq!(group_limit(one, root), None);
        write(root, "memory/memory.limit_in_bytes", "3000\n");
        assert_eq!(group_limit(one, root), Some(3000));
    }
}
