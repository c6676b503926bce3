//! What is learnt: how records become token sequences, the head, the loss and the metrics.
//! One file a task.

mod class_weights;
mod classify;
mod cross_entropy;
mod encoding;
mod error;
mod head;
mod labels;
mod metrics;
mod model;
mod multi_label;
mod objective;
mod regression;
mod search;

pub use class_weights::ClassWeights;
pub use cross_entropy::CrossEntropy;
pub use encoding::{EncodedSplit, Encoding, TaskKind};
pub use error::Error;
pub use head::{EmbeddedSplit, Head, HeadSettings, Predictions};
pub use labels::Labels;
pub use metrics::{ClassificationMetrics, Metrics, RankingMetrics, rank_of};
pub use model::{Batch, Model};
pub use multi_label::MultiLabelMetrics;
pub use objective::Objective;
pub use regression::RegressionMetrics;
pub use search::{CODE_COLUMN, QUERY_COLUMN, SCORE_SCALE, similarity};
