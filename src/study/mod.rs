//! The study: how many layers to freeze, and what they are worth.

pub mod report;
