//! What is learnt: how records become token sequences, the head, the loss and the metrics.
//! One file a head.

mod classify;
mod clone;
mod concat;
mod contrast;
mod cosine;
mod encoding;
mod error;
mod head;
mod labels;
mod metrics;
mod model;
mod pair_metrics;
mod retrieval;
mod search;
mod search_encoding;
mod stream;
mod texts;

pub use clone::{CloneEncoding, CloneForm};
pub use encoding::{EncodedSplit, Encoding, Known, Role, TaskKind};
pub use error::Error;
pub use head::{Candidates, EmbeddedSplit, Head, HeadSettings, Predictions};
pub use labels::Labels;
pub use metrics::{ClassificationMetrics, Metrics, RankingMetrics, rank_of};
pub use model::{Batch, Model};
pub use pair_metrics::{PairMetrics, best_threshold};
pub use retrieval::{RetrievalMetrics, average_precision_at_r};
pub use search::{CODE_COLUMN, QUERY_COLUMN, SCORE_SCALE, similarity};
pub use search_encoding::{CodeBase, SearchEncoding};
