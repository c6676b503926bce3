//! What is learnt: how records become token sequences, the head, the loss and the metrics.
//! One file a head.

mod class_weights;
mod classify;
mod clone;
mod concat;
mod contrast;
mod cosine;
mod cross_entropy;
mod encoding;
mod error;
mod head;
mod labels;
mod language_head;
mod metrics;
mod model;
mod multi_label;
mod objective;
mod pair_metrics;
mod regression;
mod retrieval;
mod search;
mod search_encoding;
mod shares;
mod stream;
mod text_encoding;
pub mod text_metrics;
mod texts;

pub use class_weights::ClassWeights;
pub use classify::label_field;
pub use clone::{CloneEncoding, CloneForm};
pub use cross_entropy::CrossEntropy;
pub use encoding::{EncodedSplit, Encoding, Known, Role, TaskKind};
pub use error::Error;
pub use head::{Candidates, EmbeddedSplit, Head, HeadSettings, Predictions};
pub use labels::Labels;
pub use metrics::{ClassificationMetrics, Metrics, RankingMetrics, less_is_better, rank_of};
pub use model::{Batch, Model};
pub use multi_label::MultiLabelMetrics;
pub use objective::Objective;
pub use pair_metrics::{PairMetrics, best_threshold};
pub use regression::RegressionMetrics;
pub use retrieval::{RetrievalMetrics, average_precision_at_r};
pub use search::{CODE_COLUMN, QUERY_COLUMN, SCORE_SCALE, normalise, similarity};
pub use search_encoding::{CodeBase, SearchEncoding};
pub use shares::Replica;
pub use text_encoding::{PositionOffset, SOURCE, TextEncoding, TextLayout};
