//! Flags that say where replicas of the model train.

use candle_core::Device;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cli::card_list::CardList;
use crate::cli::console;
use crate::cli::options::DeviceChoice;
use crate::error::Error;
use crate::trainable::OpsChoice;

/// Replicas that share the rows of each batch.
#[derive(Args, Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::cli) struct WorkerOptions {
    /// The CUDA cards that share the rows of each batch, by number, as 0,1; the optimizer works on
    /// the first [default: 0].
    #[arg(long, value_name = "N,N", help_heading = "Running")]
    pub cuda_devices: Option<CardList>,
    /// Replicas of the model that share the rows of each batch: on CUDA the first so many cards; on
    /// the CPU nothing gets faster, it is for proving on one machine what several cards will do
    /// [default: 1].
    #[arg(
        long,
        value_name = "N",
        help_heading = "Running",
        conflicts_with = "cuda_devices"
    )]
    pub workers: Option<usize>,
}

impl WorkerOptions {
    /// The device of each replica, if `ops` can run there: the first one's first.
    pub(super) fn devices(
        &self,
        device: DeviceChoice,
        ops: OpsChoice,
    ) -> Result<Vec<Device>, Error> {
        let numbers = match (&self.cuda_devices, self.workers) {
            (Some(_), Some(workers)) => {
                return Err(Error::Usage {
                    problem: format!("`--cuda-devices` and `--workers {workers}` cannot both be"),
                    hint: "leave one of them out, on the command line or in the recipe".into(),
                });
            }
            (None, Some(0)) => {
                return Err(Error::Usage {
                    problem: "`--workers 0` leaves nobody to train".into(),
                    hint: "expected 1 or more".into(),
                });
            }
            (Some(cards), None) => cards.cards().iter().map(|&card| card.into()).collect(),
            (None, workers) => (0..workers.unwrap_or(1)).collect::<Vec<usize>>(),
        };
        let chosen = match (&self.cuda_devices, device) {
            (Some(_), DeviceChoice::Cpu) => {
                return Err(Error::Usage {
                    problem: "`--cuda-devices` names cards, and `--device cpu` takes none".into(),
                    hint: "use `--device cuda`, or `--workers` for replicas on the CPU".into(),
                });
            }
            // Cards that are named are meant.
            (Some(_), _) => DeviceChoice::Cuda,
            (None, device) => device,
        };
        let first = chosen.numbered(numbers[0], ops)?;
        let others = numbers[1..].iter().map(|&number| {
            if first.is_cpu() {
                Ok(Device::Cpu)
            } else {
                DeviceChoice::Cuda.numbered(number, ops)
            }
        });
        let devices = std::iter::once(Ok(first.clone())).chain(others);
        let devices: Vec<Device> = devices.collect::<Result<_, Error>>()?;
        if devices.len() > 1 && first.is_cuda() && cfg!(not(feature = "nccl")) {
            console::say(
                "this telly is built without NCCL: gradients are copied from card to card",
            );
        }
        Ok(devices)
    }
}
