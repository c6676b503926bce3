//! Holds Telly's own page-locked buffers, the files as they are, against `driver.c`: run by
//! scripts/page-locked-check.sh. A check that fails ends it with a panic.
#![allow(dead_code)]

extern crate self as candle_core;

#[path = "../../src/trainable/double_buffer.rs"]
mod double_buffer;
#[path = "../../src/mapping.rs"]
mod mapping;
#[path = "../../src/trainable/page_locked.rs"]
mod page_locked;

use std::fmt::Debug;
use std::sync::Arc;

use cudarc::driver::sys::CUstream;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};

use double_buffer::DoubleBuffer;
use mapping::PageLocked;
use page_locked::Card;

/// What of candle the files use.
mod cuda_backend {
    pub(crate) use cudarc;

    pub(crate) trait WrapErr<T> {
        fn w(self) -> Result<T, crate::Error>;
    }

    impl<T, E: std::fmt::Debug> WrapErr<T> for Result<T, E> {
        fn w(self) -> Result<T, crate::Error> {
            self.map_err(|error| crate::Error(format!("{error:?}")))
        }
    }
}

/// What of Telly they use.
mod progress {
    use std::sync::Mutex;

    pub(crate) static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

    pub(crate) fn say(line: &str) {
        println!("said: {line}");
        SAID.lock().expect("one thread").push(line.into());
    }
}

#[derive(Debug)]
struct Error(String);

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

#[link(name = "cuda")]
unsafe extern "C" {
    safe fn driver_fail(what: i32);
    safe fn driver_lock_at_most(bytes: usize);
    safe fn driver_locked() -> usize;
    safe fn driver_waits() -> i32;
    safe fn driver_copies_to_come() -> i32;
    fn driver_launch(number: u64, stream: CUstream);
    safe fn driver_seen() -> f32;
}

const EVENT_RECORD: i32 = 1;
const EVENT_SYNCHRONIZE: i32 = 2;
const COPY_TO_CARD: i32 = 3;

fn main() {
    for (check, name) in [
        (zeros as fn(&Setup), "new memory holds zeros"),
        (
            late,
            "copies that come late are whole, and only reuse waits",
        ),
        (
            ordered,
            "what computes comes after the copy, and before memory is used again",
        ),
        (dropped, "memory that is being read is not given back"),
        (
            failed,
            "memory that cannot be waited for is never given back",
        ),
        (refused, "without page-locked memory ordinary memory does"),
    ] {
        let locked = driver_locked();
        let setup = Setup::new();
        check(&setup);
        println!("{name}: {} bytes are left locked", driver_locked() - locked);
    }
}

struct Setup {
    context: Arc<CudaContext>,
    computing: Arc<CudaStream>,
    copying: Arc<CudaStream>,
}

impl Setup {
    fn new() -> Self {
        let context = ok(CudaContext::new(0));
        Self {
            computing: ok(context.new_stream()),
            copying: ok(context.new_stream()),
            context,
        }
    }

    fn buffers(&self) -> DoubleBuffer<Card> {
        DoubleBuffer::new(Card::new(Arc::clone(&self.copying)))
    }

    /// What the stream that computes finds in `slice`.
    fn found(&self, slice: &CudaSlice<f32>) -> Vec<f32> {
        let values = self.computing.clone_dtoh(slice);
        ok(self.computing.synchronize());
        ok(values)
    }
}

fn ok<T, E: Debug>(result: Result<T, E>) -> T {
    result.expect("the stand-in does what it is asked for")
}

fn zeros(setup: &Setup) {
    let mut buffer = ok(PageLocked::new(&setup.context, 1000));
    let numbers = ok(buffer.numbers());
    assert!(numbers.len() == 1000 && numbers.iter().all(|number| number.to_bits() == 0));
    let mut buffer = ok(PageLocked::new(&setup.context, 0));
    assert_eq!(ok(buffer.numbers()).len(), 1);
}

fn late(setup: &Setup) {
    let locked = driver_locked();
    let sizes = [100, 80, 120, 120, 7, 120];
    let mut buffers = setup.buffers();
    let stage = |(number, &size): (usize, &usize)| {
        let waits = driver_waits();
        let slice = buffers.stage(size, &|values| values.fill(number as f32));
        // The first two have a buffer each.
        assert_eq!(driver_waits() - waits, i32::from(number >= 2));
        ok(slice)
    };
    let slices: Vec<_> = sizes.iter().enumerate().map(stage).collect();
    assert_eq!(driver_copies_to_come(), 2);
    assert_eq!(driver_locked() - locked, 2 * 4 * 120);
    for (number, (slice, size)) in slices.iter().zip(sizes).enumerate() {
        assert_eq!(setup.found(slice), vec![number as f32; size]);
    }
}

/// `note_use` of src/trainable/copy_ahead.rs, around what candle does in a cast: it notes the use in the
/// stream that the memory is of, and reads in the other.
fn ordered(setup: &Setup) {
    for is_noted in [true, false] {
        let mut buffers = setup.buffers();
        let slice = ok(buffers.stage(10, &|values| values.fill(3.0)));
        let note_use = || {
            if is_noted {
                let (_, read) = slice.device_ptr(&setup.computing);
                drop(read);
            }
        };
        note_use();
        let (number, read) = slice.device_ptr(slice.stream());
        // SAFETY: a number of `slice`, and a stream that lives.
        unsafe { driver_launch(number, setup.computing.cu_stream()) };
        drop(read);
        note_use();
        drop(slice);
        ok(setup.copying.synchronize());
        ok(setup.computing.synchronize());
        // Without, the number is what was in the memory afterwards: the check can fail.
        assert_eq!(driver_seen().to_bits() == 3.0_f32.to_bits(), is_noted);
    }
}

fn dropped(setup: &Setup) {
    let buffer = ok(PageLocked::new(&setup.context, 10));
    let (_slice, copying) = ok(buffer.copy(10, &setup.copying));
    assert_eq!(driver_copies_to_come(), 1);
    // The stand-in ends the process if it is given back before.
    drop(copying);
    assert_eq!(driver_copies_to_come(), 0);
}

fn failed(setup: &Setup) {
    let buffer = || ok(PageLocked::new(&setup.context, 10));
    let locked = driver_locked();
    let (_slice, copying) = ok(buffer().copy(10, &setup.copying));
    driver_fail(EVENT_SYNCHRONIZE);
    drop(copying);
    assert_eq!(driver_locked() - locked, 40);
    assert!(
        setup.context.check_err().is_err(),
        "it is told by the next call"
    );

    let locked = driver_locked();
    let (_slice, copying) = ok(buffer().copy(10, &setup.copying));
    driver_fail(EVENT_SYNCHRONIZE);
    assert!(copying.wait().is_err());
    assert_eq!((driver_copies_to_come(), driver_locked()), (0, locked));

    let locked = driver_locked();
    driver_fail(COPY_TO_CARD);
    assert!(buffer().copy(10, &setup.copying).is_err());
    assert_eq!(driver_locked() - locked, 40);

    // The end of the tensor's copy cannot be noted: cudarc tells it by the next call, here that which
    // notes the end for the buffer.
    let locked = driver_locked();
    driver_fail(EVENT_RECORD);
    assert!(buffer().copy(10, &setup.copying).is_err());
    assert_eq!(driver_locked() - locked, 40);
}

fn refused(setup: &Setup) {
    let locked = driver_locked();
    driver_lock_at_most(locked + 2 * 4 * 100);
    let mut buffers = setup.buffers();
    let sizes = [100, 100, 150, 20];
    let stage = |(number, &size): (usize, &usize)| {
        ok(buffers.stage(size, &|values| values.fill(number as f32)))
    };
    let slices: Vec<_> = sizes.iter().enumerate().map(stage).collect();
    assert_eq!(driver_locked(), locked);
    for (number, (slice, size)) in slices.iter().zip(sizes).enumerate() {
        assert_eq!(setup.found(slice), vec![number as f32; size]);
    }
    assert_eq!(progress::SAID.lock().expect("one thread").len(), 1);
}
