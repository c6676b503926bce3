//! `--shard`: which share of a cache this process computes.

use std::env;

use crate::cache::Share;
use crate::error::Error;

/// What `--shard` says: `i/n` itself; `auto` as Slurm tells a job array's tasks; `auto/n` as
/// Kubernetes tells an indexed job's pods, which do not know how many they are.
pub(super) fn resolve(text: &str) -> Result<Share, Error> {
    resolve_with(text, |name| env::var(name).ok()).map_err(|problem| Error::Usage {
        problem: format!("`--shard {text}`: {problem}"),
        hint: "pass i/n with i from 1 to n; in a Slurm job array `auto`, in a Kubernetes indexed job `auto/n`".into(),
    })
}

fn resolve_with(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Share, String> {
    let number = |name: &str| -> Result<Option<usize>, String> {
        let Some(value) = variable(name) else {
            return Ok(None);
        };
        let number = value
            .parse()
            .map_err(|_| format!("{name} is {value:?}, no number"))?;
        Ok(Some(number))
    };
    let count = match text.strip_prefix("auto") {
        None => return text.parse(),
        Some("") => None,
        Some(count) => {
            let count = count.strip_prefix('/').and_then(|count| count.parse().ok());
            Some(count.ok_or("after auto/ a number is expected")?)
        }
    };
    let share = |place: usize, count| {
        Share::new(place + 1, count)
            .ok_or_else(|| format!("there is no share {} of {count}", place + 1))
    };
    if let Some(task) = number("SLURM_ARRAY_TASK_ID")? {
        let first = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
        let step = number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
        let count = match count {
            Some(count) => count,
            None => number("SLURM_ARRAY_TASK_COUNT")?.ok_or("SLURM_ARRAY_TASK_COUNT is not set")?,
        };
        return share(task.saturating_sub(first) / step, count);
    }
    if let Some(index) = number("JOB_COMPLETION_INDEX")? {
        return share(
            index,
            count.ok_or("Kubernetes does not tell how many pods there are")?,
        );
    }
    Err("neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set".into())
}

#[cfg(test)]
mod tests {
    use super::resolve_with;

    fn resolved(text: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        resolve_with(text, variable).map(|share| share.to_string())
    }

    #[test]
    fn job_arrays_and_indexed_jobs_tell_their_share() {
        let slurm = [
            ("SLURM_ARRAY_TASK_ID", "14"),
            ("SLURM_ARRAY_TASK_MIN", "10"),
            ("SLURM_ARRAY_TASK_STEP", "2"),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
        ];
        assert_eq!(resolved("auto", &slurm), Ok("3/4".into()));
        assert_eq!(resolved("1/2", &slurm), Ok("1/2".into()));
        let kubernetes = [("JOB_COMPLETION_INDEX", "0")];
        assert_eq!(resolved("auto/8", &kubernetes), Ok("1/8".into()));
        assert!(resolved("auto", &kubernetes).is_err());
        assert!(resolved("auto", &[]).is_err());
        assert!(resolved("auto/x", &slurm).is_err());
        assert!(resolved("auto/2", &slurm).is_err());
        assert!(resolved("auto", &[("SLURM_ARRAY_TASK_ID", "x")]).is_err());
    }
}
