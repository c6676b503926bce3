//! Ctrl-C: asked for once, work stops at the next safe point; asked for twice, at once.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Names the process that runs this one as a part of its work, by its number.
pub const RUN_BY: &str = "TELLY_RUN_BY";

/// Ends this process with the one that [`RUN_BY`] names, if there is such a one: the next to take up the
/// work is not to find another at it. On Linux.
pub fn end_with_parent() {
    #[cfg(target_os = "linux")]
    if let Ok(parent) = std::env::var(RUN_BY) {
        // Fails for no signal that there is.
        let _ =
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        // It may have ended before.
        if std::os::unix::process::parent_id().to_string() != parent {
            std::process::exit(EXIT_STATUS.into());
        }
    }
}

/// Starts to listen for Ctrl-C.
pub fn listen() {
    // Fails only when a handler is set already, which then does the same.
    let _ = ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(EXIT_STATUS.into());
        }
    });
}

/// Whether to stop at the next safe point.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// What a shell reports for a program ended by Ctrl-C.
pub const EXIT_STATUS: u8 = 130;
