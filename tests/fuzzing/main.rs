//! Files that are broken in every way: whatever they hold, reading them is an error or a result,
//! never a panic, and takes no more memory than a small multiple of their size.
//!
//! `TELLY_TEST_FUZZ_CASES` says how many inputs each kind of file gets. They are the same in every
//! run: more cases only go on from where fewer stop. A hang shows as a test that does not end.

#![allow(clippy::print_stdout, reason = "the figures are shown")]

mod caches;
mod checkpoints;
mod data;
mod harness;
mod mutation;
mod recipes;
#[path = "../support/mod.rs"]
mod support;
