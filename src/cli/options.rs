//! Flags that several commands share.

use std::path::PathBuf;

use bytesize::ByteSize;
use candle_core::Device;
use clap::Args;
use serde::{Deserialize, Serialize, Serializer};

use super::card_list::CardList;
use super::console;
use crate::cache::{Cache, Medium};
use crate::cuda;
use crate::error::Error;
use crate::frozen::{self, FrozenPrecision, ProviderChoice, Runtime, SessionOptions};
use crate::train::{Shuffle, memory_limit};
use crate::trainable::{self, OpsChoice};

/// How the frozen half runs.
#[derive(Args, Debug, Clone, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Running")]
pub(super) struct RuntimeOptions {
    /// Where the frozen half runs; auto takes CUDA if it can be used [default: auto].
    #[arg(long, value_enum)]
    pub provider: Option<ProviderChoice>,
    /// NVIDIA cards that run it side by side, as 0,1: CUDA's numbers, among `CUDA_VISIBLE_DEVICES` if
    /// that is set [default: 0].
    #[arg(long, value_name = "N,N")]
    pub cuda_devices: Option<CardList>,
    /// Tokens of a batch of the frozen half, padding included; halved where memory runs out [default:
    /// 512 on the CPU, 8192 on CUDA].
    #[arg(long, value_name = "N")]
    pub batch_tokens: Option<usize>,
    /// CPU threads [default: one a core].
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// The ONNX Runtime shared library [default: `ORT_DYLIB_PATH`, then `.onnxruntime/` here or
    /// beside the executable, then the system's].
    #[arg(long, value_name = "FILE")]
    pub onnxruntime: Option<PathBuf>,
}

impl RuntimeOptions {
    /// The first flag that was passed of those that say how a model runs; `--threads` has others work, too.
    pub(super) fn passed(&self) -> Option<&'static str> {
        let passed = [
            ("--provider", self.provider.is_some()),
            ("--cuda-devices", self.cuda_devices.is_some()),
            ("--batch-tokens", self.batch_tokens.is_some()),
            ("--onnxruntime", self.onnxruntime.is_some()),
        ];
        first_passed(&passed)
    }

    pub(super) fn runtime(&self) -> Result<Runtime, Error> {
        Ok(Runtime::load(self.onnxruntime.as_deref())?)
    }

    /// How a frozen half in `precision` is to be run, over sequences of at most `longest` tokens.
    pub(super) fn session(
        &self,
        precision: FrozenPrecision,
        longest: Option<usize>,
    ) -> Result<SessionOptions, Error> {
        let mut provider = self.provider.unwrap_or_default();
        if self.cuda_devices.is_some() {
            provider = match provider {
                // Who names cards wants them.
                ProviderChoice::Auto => ProviderChoice::Cuda,
                ProviderChoice::Cpu => {
                    return Err(Error::Usage {
                        problem: "`--cuda-devices` has nothing to act on with `--provider cpu`"
                            .into(),
                        hint: "leave one of the two out".into(),
                    });
                }
                other => other,
            };
        }
        if self.batch_tokens == Some(0) {
            return Err(Error::Usage {
                problem: "`--batch-tokens 0` leaves no room for a token".into(),
                hint: "pass at least 1, or leave the flag out".into(),
            });
        }
        let cards = self.cuda_devices.as_ref().map(CardList::cards);
        Ok(SessionOptions {
            provider,
            threads: self.threads,
            precision,
            cards: cards.unwrap_or_default().to_vec(),
            batch_tokens: self.batch_tokens,
            longest,
        })
    }
}

/// The first of `flags` that was passed, as each says of itself.
pub(super) fn first_passed(flags: &[(&'static str, bool)]) -> Option<&'static str> {
    let mut passed = flags.iter().filter(|(_, passed)| *passed);
    passed.next().map(|(flag, _)| *flag)
}

/// Writes a size as its bytes: in words it is rounded, and a recipe is to say what was typed.
#[allow(clippy::ref_option, reason = "as serde calls it")]
pub(super) fn exact_bytes<S: Serializer>(
    size: &Option<ByteSize>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    size.map(|size| size.as_u64()).serialize(serializer)
}

/// Limits candle and the fused operations to `threads`. Called once, before any tensor work.
pub(super) fn limit_threads(threads: Option<usize>) -> Result<(), Error> {
    let Some(threads) = threads else {
        return Ok(());
    };
    if threads == 0 {
        return Err(Error::Usage {
            problem: "`--threads 0` leaves nobody to work".into(),
            hint: "pass at least 1, or leave the flag out for one a core".into(),
        });
    }
    // Fails only if the pool has been built already, which the caller excludes.
    let _ = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global();
    Ok(())
}

/// `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum DeviceChoice {
    /// CUDA if this build has it and a card is there, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA, or an error.
    Cuda,
}

impl DeviceChoice {
    /// The device, if `ops` can run there.
    pub(super) fn device_for(self, ops: OpsChoice) -> Result<Device, Error> {
        self.numbered(0, ops)
    }

    /// As [`device_for`](Self::device_for): on CUDA the card of this number.
    pub(super) fn numbered(self, number: usize, ops: OpsChoice) -> Result<Device, Error> {
        // Whether there is a card or not.
        match (self, ops) {
            (Self::Cuda, OpsChoice::Fused) => return Err(trainable::Error::FusedElsewhere.into()),
            (Self::Auto, OpsChoice::Fused) => return Ok(Device::Cpu),
            _ => {}
        }
        let device = self.device(number)?;
        ops.resolve(device.is_cpu())?;
        Ok(device)
    }

    fn device(self, number: usize) -> Result<Device, Error> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            // Nobody expects CUDA of a telly that is built without it.
            Self::Auto if cfg!(not(feature = "cuda")) => Ok(Device::Cpu),
            Self::Auto => Ok(open_card(number).unwrap_or_else(|error| {
                console::say(&format!(
                    "CUDA cannot be used for the trainable half, which runs on the CPU: {error}"
                ));
                Device::Cpu
            })),
            Self::Cuda => open_card(number).map_err(Error::NoCudaDevice),
        }
    }
}

/// The card of this number, for candle.
fn open_card(number: usize) -> Result<Device, cuda::Error> {
    cuda::open_device(number, frozen::cuda_folder(None).as_deref())
}

/// `--shuffle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum ShuffleChoice {
    /// In blocks where that is read much faster, else exact.
    #[default]
    Auto,
    /// Every order is as likely as any other.
    Exact,
    /// Blocks of rows that lie side by side in the cache, eight of them mixed at a time.
    Block,
}

impl ShuffleChoice {
    /// The order that is meant for `cache` on this machine; says so when it chooses blocks.
    pub(super) fn shuffle(self, cache: &Cache) -> Shuffle {
        match self {
            Self::Exact => Shuffle::Exact,
            Self::Block => Shuffle::Block,
            Self::Auto => {
                let (bytes, medium) = (cache.manifest().bytes, Medium::of(cache.folder()));
                let Some(reason) = Shuffle::reason_for_blocks(bytes, memory_limit(), medium) else {
                    return Shuffle::Exact;
                };
                console::say(&format!(
                    "shuffle: in blocks, as {reason}; `--shuffle exact` shuffles row by row"
                ));
                Shuffle::Block
            }
        }
    }
}

/// A flag that is needed and was given neither on the command line nor in a recipe.
pub(super) fn missing(flag: &str) -> Error {
    Error::Usage {
        problem: format!("`{flag}` is missing"),
        hint: "give it on the command line or in a `--recipe`; `--help` has an example".into(),
    }
}
