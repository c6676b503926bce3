//! The activation cache: its files, and the commands that fill, derive, check and mend it.

mod commands;
mod depths;
mod derive;
mod format;
mod killed;
mod repair;
mod shares;
#[path = "../support/mod.rs"]
mod support;
