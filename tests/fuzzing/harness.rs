//! One kind of file, broken again and again, and what reading it took.

use std::cell::Cell;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use peak_alloc::PeakAlloc;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::mutation::{Input, input};
use crate::support::names;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Inputs of each kind of file, unless `TELLY_TEST_FUZZ_CASES` says how many.
const CASES: u32 = 5000;
/// Most bytes that reading may take, for each byte of the files, and in any case.
pub(crate) const BYTES_A_BYTE: usize = 64;
const BYTES_IN_ANY_CASE: usize = 256 << 10;

/// Reads inputs made from `valid` by `read`, which is given each as the content of the file
/// `place`, and says whether it was taken for a good one; `others` are the bytes of all other files
/// that it reads. `expansion` is how much larger than itself the file may rightly become when it is
/// unpacked.
pub(crate) fn fuzz(
    place: &Path,
    valid: Vec<Vec<u8>>,
    others: usize,
    expansion: usize,
    read: impl Fn(&[u8]) -> bool,
) {
    // The peak of memory is that of the whole process: one kind of file at a time.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for bytes in &valid {
        fs_err::write(place, bytes).expect("written");
        assert!(read(bytes), "a valid file");
    }
    let cases = std::env::var("TELLY_TEST_FUZZ_CASES");
    let cases = cases.map_or(CASES, |cases| cases.parse().expect("a number"));
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let (most, slowest, good) = (Cell::new(0.0f64), Cell::new(0.0f64), Cell::new(0));
    let started = Instant::now();
    let mut runner = TestRunner::new_with_rng(config, random);
    let outcome = runner.run(&input(valid), |Input(bytes)| {
        fs_err::write(place, &bytes).expect("written");
        let size = (others + bytes.len()) * expansion;
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let reading = Instant::now();
        good.set(good.get() + u32::from(read(&bytes)));
        slowest.set(slowest.get().max(reading.elapsed().as_secs_f64()));
        let taken = MEMORY.peak_usage().saturating_sub(before);
        let above = taken.saturating_sub(BYTES_IN_ANY_CASE);
        most.set(most.get().max(above as f64 / size.max(1) as f64));
        if above > BYTES_A_BYTE * size {
            let problem = format!("{taken} bytes of memory for files of {size}");
            return Err(TestCaseError::fail(problem));
        }
        Ok(())
    });
    let name = place.file_name().unwrap_or_default().display();
    if let Err(error) = outcome {
        panic!("{name}: {error}");
    }
    println!(
        "{name}: {cases} inputs in {:.1} s, {} of them taken for good, the slowest {:.3} s; at most 256 KiB and {:.1} bytes a byte",
        started.elapsed().as_secs_f64(),
        good.get(),
        slowest.get(),
        most.get()
    );
    assert!(
        (1..cases).contains(&good.get()),
        "broken files, and files that are still read"
    );
}

/// A folder in memory where there is such a disk: the files are many.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.or_else(|_| tempfile::tempdir()).expect("a folder")
}

pub(crate) fn bytes_in(folder: &Path) -> usize {
    let sizes = names(folder).into_iter().map(|name| {
        let size = fs_err::metadata(folder.join(name)).expect("there").len();
        usize::try_from(size).expect("small")
    });
    sizes.sum()
}

/// Else no limit on memory would mean anything.
#[test]
fn memory_is_counted() {
    let space = folder();
    let valid = vec![b"eight by".to_vec()];
    let fuzzing = std::panic::catch_unwind(|| {
        fuzz(&space.path().join("file"), valid, 0, 1, |bytes| {
            let reserved: Vec<u8> = Vec::with_capacity((300 << 10) + 64 * bytes.len());
            reserved.capacity() > 0
        });
    });
    let problem = fuzzing.expect_err("too much memory");
    let problem = problem.downcast_ref::<String>().expect("a message");
    assert!(
        problem.contains("bytes of memory for files of"),
        "{problem}"
    );
}
