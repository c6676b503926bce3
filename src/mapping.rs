//! Memory that the process does not own through Rust's allocator: the one file that holds `unsafe`.
//!
//! # Files, mapped read-only
//!
//! Mapping a file is unsafe because another process may truncate or rewrite it while the map
//! lives: reads past a truncated end raise `SIGBUS`, and rewritten bytes change under a `&[u8]`.
//! Telly accepts that for three kinds of file only, and never writes to any in place:
//!
//! - checkpoints (`*.safetensors`), of models and of runs, which their owners publish once and replace
//!   as a whole;
//! - cache shards, which Telly writes under a temporary name and renames. A rename gives the
//!   name a new inode, so a map of the old file stays whole;
//! - the vectors of an index and of the study, which are published in the same way.
//!
//! What a changed file could do is bounded: the bytes are only ever read as numbers, through
//! slices whose bounds were checked against the length at open.
//!
//! # Page-locked memory, which a card copies from by itself
//!
//! CUDA's driver hands it out with whatever lies in it, and a card goes on reading from it after the
//! call that began the copy has returned, which no borrow tells. So `PageLocked` is filled with zeros
//! before there is a reference to it, and is given away for as long as a card reads from it: see
//! `Copying`.
//!
//! # Large buffers, which glibc maps
//!
//! A setting of its allocator is a call into C, see [`give_large_buffers_back`].
#![allow(unsafe_code)]

use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::{Advice, UncheckedAdvice};

#[cfg(feature = "cuda")]
pub(crate) use page_locked::{Copying, PageLocked};

/// Linux reads no more ahead at a time than the disk's `read_ahead_kb`, which is 128 where nobody
/// has changed it, and forgets the rest of what it was asked for.
#[cfg(unix)]
const AHEAD_BYTES: usize = 128 << 10;

/// From how many bytes on a buffer is a map of its own, after [`give_large_buffers_back`].
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BUFFER_BYTES: i32 = 1 << 20;

/// Has glibc give every buffer of a MiB and more back to the system as soon as it is freed, in the whole
/// process and from now on. By itself it raises that size as larger buffers are freed, to 32 MiB at most,
/// and keeps what is smaller, with holes that differ from run to run. Where buffers live long this costs
/// no time; where they come and go with every operation, each of them is cleared by the kernel anew.
///
/// Nothing happens under another C library, nor where the environment says what glibc is to do
/// (`MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES`).
pub(crate) fn give_large_buffers_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let told = ["MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"];
        if told.iter().any(|name| std::env::var_os(name).is_some()) {
            return;
        }
        // SAFETY: it takes two numbers and the allocator's own lock. What it answers is whether it knows
        // the setting; that it does not is no loss but of memory.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BUFFER_BYTES) };
    }
}

/// A file mapped read-only.
pub(crate) struct MappedFile(Mmap);

impl MappedFile {
    /// Maps `path`. An empty file gives an empty map.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = fs_err::File::open(path)?;
        // SAFETY: see the page's reasons; nothing in this process writes to a mapped file.
        unsafe { Mmap::map(file.file()) }.map(Self)
    }

    /// Tells the kernel that parts of the file will be read in no order, so that reading ahead
    /// is left to [`will_need`](Self::will_need).
    pub(crate) fn in_no_order(&self) {
        // Advice that is not taken costs time alone.
        #[cfg(unix)]
        let _ = self.0.advise(Advice::Random);
    }

    /// Has the kernel read `bytes` ahead.
    pub(crate) fn will_need(&self, bytes: &Range<usize>) {
        #[cfg(unix)]
        for start in bytes.clone().step_by(AHEAD_BYTES) {
            let length = AHEAD_BYTES.min(bytes.end - start);
            let _ = self.0.advise_range(Advice::WillNeed, start, length);
        }
        #[cfg(not(unix))]
        let _ = bytes;
    }

    /// Gives the pages that have been read back to the kernel, which may keep them in its own
    /// cache: the process holds no more of the file than it has read since.
    pub(crate) fn release(&self) {
        // SAFETY: the map is of a file, shared and read-only: what is read again after this
        // comes from the file, as the first time.
        #[cfg(unix)]
        let _ = unsafe { self.0.unchecked_advise(UncheckedAdvice::DontNeed) };
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(feature = "cuda")]
mod page_locked {
    use std::mem::{self, ManuallyDrop};
    use std::sync::Arc;

    use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
    use candle_core::cuda_backend::cudarc::driver::{
        CudaContext, CudaEvent, CudaSlice, CudaStream, DriverError, PinnedHostSlice,
    };

    /// Numbers in page-locked memory that no card reads from.
    ///
    /// cudarc's own event of the memory is of no use: it is noted by copies of the whole memory alone,
    /// and not where a context notes no events. It is never recorded here, so that waiting for it is
    /// waiting for nothing, and the memory may be freed at any time that a `PageLocked` is owned.
    pub(crate) struct PageLocked {
        memory: PinnedHostSlice<f32>,
        /// The end of the latest copy.
        copied: CudaEvent,
    }

    impl PageLocked {
        /// As many zeros as `numbers`, or one, for a card of `context`. Fails where the driver or the
        /// system has no more memory to lock.
        pub(crate) fn new(context: &Arc<CudaContext>, numbers: usize) -> Result<Self, DriverError> {
            let numbers = numbers.max(1);
            // A thread that waits sleeps, and leaves its processor to others.
            let copied = context.new_event(Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC))?;
            // No flags: write-combined memory, cudarc's usual, goes past the CPU's caches, and reading
            // it is slow.
            //
            // SAFETY: the memory holds anything, and is given values before anything else is done
            // with it. If that fails it is freed, as nothing reads from it.
            let mut memory = unsafe { context.alloc_pinned_with_flags::<f32>(numbers, 0) }?;
            let first = memory.as_mut_ptr()?;
            // SAFETY: `first` is the start of `numbers` aligned numbers, which nobody else knows of
            // yet; it is written through as a pointer, since there may be no reference to numbers
            // without a value. Zero bits are the number 0.
            unsafe { first.write_bytes(0, numbers) };
            Ok(Self { memory, copied })
        }

        /// All of them.
        pub(crate) fn numbers(&mut self) -> Result<&mut [f32], DriverError> {
            self.memory.as_mut_slice()
        }

        /// Begins to copy the first `numbers` to memory of the card's own, which is `stream`'s next
        /// work, and does not wait for the end.
        ///
        /// # Panics
        /// If there are not so many.
        pub(crate) fn copy(
            self,
            numbers: usize,
            stream: &Arc<CudaStream>,
        ) -> Result<(CudaSlice<f32>, Copying), DriverError> {
            let Self { memory, copied } = self;
            // Whatever fails, nobody knows whether the card reads from the memory: it is never freed
            // then, nor written to.
            let memory = ManuallyDrop::new(memory);
            let copy = stream.clone_htod(&memory.as_slice()?[..numbers])?;
            copied.record(stream)?;
            let memory = ManuallyDrop::into_inner(memory);
            Ok((copy, Copying(Some(Self { memory, copied }))))
        }
    }

    /// Page-locked memory that a card may be reading from: out of reach until it has been waited for.
    ///
    /// Forgotten, it leaks; dropped, it waits, so that memory is not freed that is being read.
    pub(crate) struct Copying(Option<PageLocked>);

    impl Copying {
        /// Waits until the card has read everything. This thread alone waits, no stream does.
        ///
        /// # Panics
        /// Never: what it holds is taken out here and in `drop`, and both end it.
        pub(crate) fn wait(mut self) -> Result<PageLocked, DriverError> {
            let buffer = self.0.take().expect("held until now");
            if let Err(error) = buffer.copied.synchronize() {
                // Waits once more, or leaks.
                self.0 = Some(buffer);
                return Err(error);
            }
            Ok(buffer)
        }
    }

    impl Drop for Copying {
        fn drop(&mut self) {
            if let Some(buffer) = self.0.take()
                && let Err(error) = buffer.copied.synchronize()
            {
                // What failed may have been anything before: the card may still be reading.
                let context = Arc::clone(buffer.memory.context());
                mem::forget(buffer);
                context.record_err::<()>(Err(error));
            }
        }
    }
}
