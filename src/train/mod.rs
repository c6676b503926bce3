//! Training the trainable half from a cache: batches, schedule, evaluation, the run folder.

mod activations;
mod batches;
mod checkpoint;
mod error;
mod evaluation;
mod group;
mod history;
mod memory;
mod order;
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
pub use evaluation::{embed, evaluate};
pub use group::RunGroup;
pub use history::{FoundRuns, History, RecordedRun, find_runs};
pub use memory::{memory_limit, peak_rss_bytes};
pub use order::{EpochOrder, ReadAhead};
pub use profile::ProfileReport;
pub use run_folder::{RunFolder, RunIdentity, SavedRun};
pub use schedule::Schedule;
pub use settings::TrainSettings;
pub use shuffle::Shuffle;
pub use summary::Summary;
pub use trainer::{StepReport, Trainer};
pub use training::{Outcome, train};
