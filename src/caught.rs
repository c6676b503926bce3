//! Calls of libraries that panic at some broken files.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// What `call` returns, or the message it panicked with, which goes nowhere else. What `call` was
/// changing when it panicked must not be used again.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !SILENT.get() {
                before(panic);
            }
        }));
    });
    let outer = SILENT.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(call));
    SILENT.set(outer);
    outcome.map_err(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or(panic.downcast_ref::<&str>().copied());
        message.unwrap_or("a library panicked").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(caught(|| 1), Ok(1));
        let place = 3;
        let found: Result<(), String> = caught(|| panic!("at {place}"));
        assert_eq!(found, Err("at 3".to_owned()));
        let found = caught(|| caught(|| panic!("inner")).map(|()| 2));
        assert_eq!(found, Ok(Err("inner".to_owned())));
        assert!(!SILENT.get());
    }
}
