//! Ctrl-C: asked for once, work stops at the next safe point; asked for twice, at once.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Starts to listen for Ctrl-C and for a termination request.
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
