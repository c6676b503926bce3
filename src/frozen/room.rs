//! What to do when memory runs out: smaller batches, down to a single sequence.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Error;
use crate::progress;

/// How ONNX Runtime, CUDA and its libraries say that there is no memory left, in lower case: none
/// of them has a code of its own for it.
const OUT_OF_MEMORY: [&str; 6] = [
    // ONNX Runtime's arena, when the system or the driver gives nothing, and at its own limit.
    "failed to allocate memory for requested buffer",
    "is smaller than requested bytes",
    // CUDA's error 2, cuBLAS and cuDNN, TensorRT.
    "out of memory",
    "alloc_failed",
    "allocation_failed",
    // C++'s own.
    "bad_alloc",
];

/// Whether `error` says that memory ran out.
pub(super) fn is_out_of_memory(error: &ort::Error) -> bool {
    let message = error.message().to_lowercase();
    OUT_OF_MEMORY.iter().any(|words| message.contains(words))
}

/// What is known of the room for a batch. All workers share it, and what has been learnt stays.
pub(super) struct Room {
    /// Tokens, padding included, that a batch of several sequences may have.
    tokens: AtomicUsize,
}

impl Room {
    /// Nothing has failed yet.
    pub(super) fn new() -> Self {
        Self {
            tokens: AtomicUsize::new(usize::MAX),
        }
    }

    /// Has `compute` run `batch`, whose sequences are as long as `length` says: in one part, or
    /// where there is no memory for that, in halves of halves, in order, until one breaks off or
    /// fails. A single sequence that does not fit is an error that names it.
    pub(super) fn run(
        &self,
        batch: &[usize],
        length: impl Fn(usize) -> usize,
        mut compute: impl FnMut(&[usize]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<ControlFlow<()>, Error> {
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            let longest = part.iter().map(|&index| length(index)).max().unwrap_or(0);
            let tokens = longest * part.len();
            if part.len() < 2 || tokens <= self.tokens.load(Ordering::Relaxed) {
                match compute(part) {
                    Ok(ControlFlow::Continue(())) => continue,
                    Err(Error::Runtime { source, .. }) if is_out_of_memory(&source) => {
                        if let [sequence] = *part {
                            return Err(Error::OutOfMemory {
                                sequence,
                                tokens,
                                source,
                            });
                        }
                        self.shrink(tokens);
                    }
                    other => return other,
                }
            }
            let (first, second) = part.split_at(part.len().div_ceil(2));
            parts.extend([second, first]);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// So many `tokens` were too many. Says so the first time.
    fn shrink(&self, tokens: usize) {
        let half = tokens / 2;
        if self.tokens.fetch_min(half, Ordering::Relaxed) == usize::MAX {
            progress::say(&format!(
                "memory ran out over a batch of {tokens} tokens: going on with smaller ones, of {half} or less; `--batch-tokens {half}` begins there"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::frozen::side_by_side::side_by_side;

    const WORDS: &str = "Non-zero status code returned while running MatMul node. Status Message: bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 3221225472";

    fn failed(words: &str) -> Error {
        Error::Runtime {
            action: "run the frozen half",
            source: ort::Error::new(words),
        }
    }

    /// Errors of ONNX Runtime need its library.
    fn load() {
        crate::frozen::Runtime::load(None).expect("ONNX Runtime");
    }

    /// A worker with room for so many tokens.
    struct Worker {
        capacity: usize,
        failures: usize,
    }

    impl Worker {
        fn compute(
            &mut self,
            part: &[usize],
            done: &Mutex<Vec<usize>>,
        ) -> Result<ControlFlow<()>, Error> {
            // Every sequence has ten tokens.
            if 10 * part.len() > self.capacity {
                self.failures += 1;
                return Err(failed(WORDS));
            }
            done.lock().expect("no panic").extend(part);
            Ok(ControlFlow::Continue(()))
        }
    }

    fn run(workers: &mut [Worker], batches: &[Vec<usize>]) -> (Result<(), Error>, Vec<usize>) {
        let (room, done) = (Room::new(), Mutex::new(Vec::new()));
        let result = side_by_side(workers, batches.len(), |worker, place| {
            room.run(&batches[place], |_| 10, |part| worker.compute(part, &done))
        });
        (result, done.into_inner().expect("no panic"))
    }

    #[test]
    fn halves_are_run_until_they_fit_and_later_batches_begin_there() {
        load();
        let batches: Vec<Vec<usize>> = (0..20)
            .map(|batch| (16 * batch..16 * (batch + 1)).collect())
            .collect();
        let mut workers = [Worker {
            capacity: 50,
            failures: 0,
        }];
        let (result, done) = run(&mut workers, &batches);
        result.expect("it fits in the end");
        assert_eq!(done, (0..320).collect::<Vec<_>>(), "in order, each once");
        // 160 and 80 tokens did not fit, 40 did; no other batch has tried more.
        assert_eq!(workers[0].failures, 2);
    }

    #[test]
    fn several_workers_learn_together() {
        load();
        let batches: Vec<Vec<usize>> = (0..64)
            .map(|batch| (8 * batch..8 * (batch + 1)).collect())
            .collect();
        let mut workers = [30, 30, 30].map(|capacity| Worker {
            capacity,
            failures: 0,
        });
        let (result, mut done) = run(&mut workers, &batches);
        result.expect("it fits in the end");
        done.sort_unstable();
        assert_eq!(done, (0..512).collect::<Vec<_>>());
        // Each worker may be at a batch of its own when the first one fails.
        let failures: usize = workers.iter().map(|worker| worker.failures).sum();
        assert!((2..=9).contains(&failures), "{failures}");
    }

    #[test]
    fn a_sequence_that_does_not_fit_alone_is_named() {
        load();
        let mut workers = [Worker {
            capacity: 5,
            failures: 0,
        }];
        let (result, done) = run(&mut workers, &[vec![7, 8, 9]]);
        let named = matches!(
            result,
            Err(Error::OutOfMemory {
                sequence: 7,
                tokens: 10,
                ..
            })
        );
        assert!(named && done.is_empty(), "{result:?}");
    }

    #[test]
    fn other_failures_are_not_tried_again() {
        load();
        let mut tried = 0;
        let result = Room::new().run(
            &[1, 2],
            |_| 10,
            |_| {
                tried += 1;
                Err(failed(
                    "CUDA failure 700: an illegal memory access was encountered",
                ))
            },
        );
        assert!(matches!(result, Err(Error::Runtime { .. })), "{result:?}");
        assert_eq!(tried, 1);
    }

    #[test]
    fn a_break_leaves_the_other_half() {
        load();
        let mut parts = Vec::new();
        let flow = Room::new().run(
            &[1, 2],
            |_| 10,
            |part| {
                parts.push(part.to_vec());
                match part.len() {
                    1 => Ok(ControlFlow::Break(())),
                    _ => Err(failed(WORDS)),
                }
            },
        );
        assert!(flow.expect("no failure").is_break());
        assert_eq!(parts, [vec![1, 2], vec![1]]);
    }

    #[test]
    fn each_library_says_it_in_its_own_way() {
        load();
        for words in [
            "Available memory of 1048576 is smaller than requested bytes of 4194304",
            "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);",
            "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
            "CUDNN failure 4002: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0",
            "std::bad_alloc",
        ] {
            assert!(is_out_of_memory(&ort::Error::new(words)), "{words}");
        }
        assert!(!is_out_of_memory(&ort::Error::new(
            "CUDA failure 35: driver too old"
        )));
    }
}
