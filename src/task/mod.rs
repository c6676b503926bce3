//! What is learnt: how records become token sequences, the head, the loss and the metrics.
//! One file a task.

mod classify;
mod encoding;
mod error;
mod labels;
mod metrics;
mod model;
mod search;
mod stream;

pub use encoding::{EncodedSplit, Encoding, TaskKind};
pub use error::Error;
pub use labels::Labels;
pub use metrics::{ClassificationMetrics, Metrics, RankingMetrics, rank_of};
pub use model::{Batch, Model};
pub use search::{CODE_COLUMN, QUERY_COLUMN, SCORE_SCALE, similarity};
