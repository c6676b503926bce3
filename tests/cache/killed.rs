//! `telly precompute` killed at random moments goes on, and ends with the bytes of an undisturbed
//! run.

#![allow(clippy::print_stdout, reason = "the figures are shown")]

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Workspace, content, goldens, precompute, telly, telly_json, write_search};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use telly::cache::{Cache, Error, verify};

/// Kills, unless `TELLY_TEST_KILLS` says how many.
const KILLS: usize = 20;

/// Never a cache that looks whole and is not, whatever a kill has left.
fn check_left(cache: &Path) {
    match Cache::open(cache) {
        Ok(_) => {
            let found = verify(cache, |_| ()).expect("read");
            assert!(
                found.problems.is_empty() && found.unwritten == 0,
                "{found:?}"
            );
        }
        Err(error) => assert!(
            matches!(error, Error::Missing { .. } | Error::Incomplete { .. }),
            "{error}"
        ),
    }
}

#[test]
fn killed_at_random_moments() {
    let kills =
        std::env::var("TELLY_TEST_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let space = Workspace::new();
    let data = space.path("train.jsonl");
    let command = |cache: &Path| {
        let mut command = precompute("search", &goldens().join("roberta-tiny"), &data, "2", cache);
        command.extend(["--shard-size", "8KiB", "--threads", "1"].map(String::from));
        command
    };
    write_search(&data, 600);
    let (whole, killed) = (space.path("whole"), space.path("killed"));
    let started = Instant::now();
    telly_json(&command(&whole));
    let undisturbed = started.elapsed();
    let expected = content(&whole);

    let mut random = ChaCha8Rng::seed_from_u64(200);
    let (mut done, mut finished, mut begun) = (0, 0, 0);
    while done < kills {
        let mut child = telly(&command(&killed))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("telly runs");
        let longest = u64::try_from(undisturbed.as_micros()).expect("short");
        std::thread::sleep(Duration::from_micros(random.random_range(0..longest)));
        if child.try_wait().expect("a child").is_none() {
            child.kill().expect("killed");
            done += 1;
        }
        let status = child.wait().expect("ended");
        check_left(&killed);
        if status.success() {
            assert_eq!(content(&killed), expected);
            fs_err::remove_dir_all(&killed).expect("removed");
            finished += 1;
        } else if killed.join("manifest.json").exists() {
            begun += 1;
        }
    }
    telly_json(&command(&killed));
    assert_eq!(content(&killed), expected);
    println!(
        "{kills} kills, {begun} of them with a cache begun, {} files; {} runs ended in between",
        expected.len(),
        finished + 1
    );
}
