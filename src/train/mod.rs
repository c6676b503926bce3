//! Training the trainable half from a cache: batches, schedule, evaluation, the run folder.

mod activations;
mod batches;
mod checkpoint;
mod error;
mod evaluation;
mod memory;
mod order;
mod partners;
mod profile;
mod run_folder;
mod schedule;
mod settings;
mod shuffle;
mod summary;
mod tensorboard;
mod trainer;
mod training;

pub use activations::{Activations, CachedActivations, FreshActivations};
pub use batches::read_batch;
pub use checkpoint::{BestEpoch, Position, TrainingState};
pub use error::Error;
pub use evaluation::{embed, embed_with, evaluate};
pub use memory::{memory_limit, peak_rss_bytes};
pub use order::{EpochOrder, ReadAhead};
pub use partners::{draw_partners, with_partners};
pub use profile::ProfileReport;
pub use run_folder::{RunFolder, RunIdentity, SavedRun};
pub use schedule::learning_rate;
pub use settings::TrainSettings;
pub use shuffle::Shuffle;
pub use summary::Summary;
pub use trainer::{StepReport, Trainer};
pub use training::{Outcome, train};
