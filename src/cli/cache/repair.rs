//! `telly cache verify --repair`: what is damaged or unwritten, computed again from what the
//! manifest says the cache was made from.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cache::{self, MANIFEST, Manifest, Precision, Share, Writer};
use crate::checkpoint::{Checkpoint, Freeze};
use crate::cli::console;
use crate::cli::options::limit_threads;
use crate::dataset::Source;
use crate::error::Error;
use crate::frozen::{FrozenEncoder, FrozenPrecision, ProviderChoice, Runtime, SessionOptions};
use crate::interrupt;
use crate::precompute::{EncodedSplits, FromTokens, Plan, States, fill, is_inexact};
use crate::task::Encoding;

/// How a repair runs.
pub(super) struct Repair<'a> {
    pub folder: &'a Path,
    pub threads: Option<usize>,
    pub onnxruntime: Option<&'a Path>,
}

impl Repair<'_> {
    /// Mends the cache; the tokens that were computed.
    pub(super) fn run(&self) -> Result<usize, Error> {
        interrupt::listen();
        self.refuse_share()?;
        limit_threads(self.threads)?;
        let manifest = Manifest::read(self.folder)?;
        self.refuse_derived(&manifest)?;
        let (data, shard_bytes) = self.made_from(&manifest)?;
        let freeze: Freeze = self.field(manifest.fingerprint.get("freeze"), "freeze")?;
        let encoding: Encoding = self.field(&manifest.encoding, "encoding")?;
        let mut checkpoint = Checkpoint::open(Path::new(&manifest.model))?;
        encoding.prepare(&mut checkpoint)?;
        let splits = EncodedSplits::new(&checkpoint, &encoding, &data)?;
        let mut frozen = self.open_frozen(&manifest, &checkpoint, freeze)?;
        let mut plan = Plan::new(
            &checkpoint,
            &[freeze],
            &encoding,
            manifest.precision.unwrap_or(Precision::Fp16),
            shard_bytes,
            splits,
            frozen.as_ref().map(|(runtime, encoder)| (runtime, encoder)),
        )?;
        let planned = &mut plan.manifests[0];
        self.require_the_same(&manifest, planned)?;
        // A repaired cache says what it said before, byte for byte.
        planned.model.clone_from(&manifest.model);
        planned.data.clone_from(&manifest.data);
        planned.parity = manifest.parity;
        let planned = planned.clone();
        let (sequences, splits) = (&plan.sequences, &plan.splits);
        let writer = Writer::open(self.folder, planned, sequences, splits, false)?;
        let mut states = frozen
            .as_mut()
            .map(|(_, frozen)| FromTokens { frozen, sequences });
        let states = states.as_mut().map(|states| states as &mut dyn States);
        let mut writers = [writer];
        let computed = fill(&mut writers, &plan, states, "repair")?;
        let [writer] = writers;
        let repaired = writer.finish()?;
        if manifest.complete && repaired.shards != manifest.shards {
            console::say("the shards that were computed again are not those of before to the bit");
        }
        Ok(computed)
    }

    /// A share is not a cache of its own: others write the rest.
    fn refuse_share(&self) -> Result<(), Error> {
        let name = self.folder.file_name().unwrap_or_default();
        let Some(share) = Share::of_folder(&name.to_string_lossy()) else {
            return Ok(());
        };
        Err(Error::Usage {
            problem: format!("`{}` is a share of a cache", self.folder.display()),
            hint: format!(
                "run the same `telly precompute` with `--shard {share}` again: damaged files are made anew, the others kept"
            ),
        })
    }

    /// A cache that was derived, and not to the bit, comes from another cache.
    fn refuse_derived(&self, manifest: &Manifest) -> Result<(), Error> {
        if !is_inexact(manifest) {
            return Ok(());
        }
        Err(Error::Usage {
            problem: format!(
                "`{}` was derived from another cache",
                self.folder.display()
            ),
            hint: "run the same `telly cache derive` again: damaged files are made anew, the others kept".into(),
        })
    }

    /// The data files by split, in order, and the most bytes of a shard.
    fn made_from(&self, manifest: &Manifest) -> Result<(Vec<(String, Source)>, usize), Error> {
        let shard_bytes = manifest.shard_bytes;
        let shard_bytes = shard_bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let (Value::Object(data), Some(shard_bytes)) = (&manifest.data, shard_bytes) else {
            return Err(cache::Error::Unrepairable {
                folder: self.folder.to_owned(),
            }
            .into());
        };
        let data = data
            .iter()
            .map(|(name, paths)| {
                // One of them is not put into a list.
                let paths = match paths {
                    Value::Array(list) if !list.is_empty() => self.field(paths, "data")?,
                    path => vec![self.field(path, "data")?],
                };
                Ok((name.clone(), Source::of_all(&paths, name)?))
            })
            .collect::<Result<_, Error>>()?;
        Ok((data, shard_bytes))
    }

    fn open_frozen(
        &self,
        manifest: &Manifest,
        checkpoint: &Checkpoint,
        freeze: Freeze,
    ) -> Result<Option<(Runtime, FrozenEncoder)>, Error> {
        let Freeze::Layers(layers) = freeze else {
            return Ok(None);
        };
        let fingerprint = &manifest.fingerprint;
        let provider: ProviderChoice = self.field(fingerprint.get("provider"), "provider")?;
        // Null in caches of before there was a choice.
        let precision: Option<FrozenPrecision> =
            self.field(fingerprint.get("frozen_precision"), "frozen_precision")?;
        let session = SessionOptions {
            provider,
            threads: self.threads,
            precision: precision.unwrap_or_default(),
            ..SessionOptions::default()
        };
        let runtime = Runtime::load(self.onnxruntime)?;
        let frozen = FrozenEncoder::new(&runtime, checkpoint, &[layers], &session)?;
        Ok(Some((runtime, frozen)))
    }

    fn require_the_same(&self, cached: &Manifest, planned: &Manifest) -> Result<(), Error> {
        let differences = cached.fingerprint.all_differences(&planned.fingerprint);
        if differences.is_empty() {
            return Ok(());
        }
        Err(cache::Error::Stale {
            folder: self.folder.to_owned(),
            differences,
            hint: "bring back what the cache was made from, or make it of what there is now with `telly precompute`".into(),
        }
        .into())
    }

    fn field<T: DeserializeOwned>(&self, value: &Value, name: &str) -> Result<T, Error> {
        serde_json::from_value(value.clone()).map_err(|_| {
            cache::Error::Damaged {
                path: self.folder.join(MANIFEST),
                problem: format!("`{name}` is {value}"),
            }
            .into()
        })
    }
}
