//! Loops compiled for the widest vectors of the machine they run on.

use pulp::Arch;

/// Runs `work` compiled for each instruction set that `pulp` knows, the best one here.
///
/// `work` is to be a closure that is written `#[inline(always)] || …` where it is passed, and all
/// it calls must be inlined too: what is not is compiled for the oldest machines. The bound is
/// what makes it so: from `FnOnce` the compiler learns that the closure is called once, and calls
/// it itself. Passed to [`Arch::dispatch`], whose bound says nothing of closures, it would be
/// called through another function, which is not inlined once it is large.
#[inline(always)]
pub(crate) fn dispatch<T>(work: impl FnOnce() -> T) -> T {
    Arch::new().dispatch(work)
}
