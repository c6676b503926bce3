//! The study: how many layers to freeze, and what they are worth.

mod paired;
mod sweep;

pub use paired::{PairedTest, mean_and_deviation};
pub use sweep::{CacheCost, Row, Spread, SweptRun, Table};
