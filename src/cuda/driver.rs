//! What NVIDIA's driver says of itself and of its cards, through its management library (NVML),
//! which comes with it.

use std::fmt;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{cuda_driver_version_major, cuda_driver_version_minor};

use super::Error;
use super::libraries::{NEEDED, load_driver};

/// The oldest compute capability that CUDA 13 has code for: Turing, 7.5.
pub const OLDEST_CAPABILITY: Version = Version { major: 7, minor: 5 };

/// A version of CUDA, or a compute capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Before the dot.
    pub major: i32,
    /// After it.
    pub minor: i32,
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// NVIDIA's driver.
#[derive(Debug, Clone)]
pub struct Driver {
    /// As `580.65.06`.
    pub version: String,
    /// The newest CUDA that it runs.
    pub cuda: Version,
    /// Its cards, in the order of the bus.
    pub cards: Vec<Card>,
}

/// A card.
#[derive(Debug, Clone)]
pub struct Card {
    /// As the driver calls it.
    pub name: String,
    /// What its processors can do; bf16 from 8.0.
    pub compute_capability: Version,
    /// Memory that nobody uses now, bytes.
    pub free_bytes: u64,
    /// All its memory, bytes.
    pub total_bytes: u64,
}

impl Driver {
    /// Asks the driver of this machine.
    pub fn find() -> Result<Self, Error> {
        load_driver()?;
        Self::ask().map_err(|error| Error::NoManagement {
            reason: error.to_string(),
        })
    }

    fn ask() -> Result<Self, NvmlError> {
        let nvml = Nvml::init()?;
        let cuda = nvml.sys_cuda_driver_version()?;
        let cards = (0..nvml.device_count()?).map(|index| {
            let card = nvml.device_by_index(index)?;
            let capability = card.cuda_compute_capability()?;
            let memory = card.memory_info()?;
            Ok(Card {
                name: card.name()?,
                compute_capability: Version {
                    major: capability.major,
                    minor: capability.minor,
                },
                free_bytes: memory.free,
                total_bytes: memory.total,
            })
        });
        Ok(Self {
            version: nvml.sys_driver_version()?,
            cuda: Version {
                major: cuda_driver_version_major(cuda),
                minor: cuda_driver_version_minor(cuda),
            },
            cards: cards.collect::<Result<_, NvmlError>>()?,
        })
    }

    /// Whether the driver is new enough and has a card that CUDA 13 has code for.
    pub fn check(&self) -> Result<(), Error> {
        if self.cuda < NEEDED {
            return Err(Error::OldDriver {
                version: self.version.clone(),
                cuda: self.cuda,
            });
        }
        let best = self.cards.iter().max_by_key(|card| card.compute_capability);
        let Some(best) = best else {
            return Err(Error::NoCard {
                version: self.version.clone(),
            });
        };
        if best.compute_capability < OLDEST_CAPABILITY {
            return Err(Error::OldCard {
                name: best.name.clone(),
                capability: best.compute_capability,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Explain;

    fn driver(cuda: (i32, i32), capabilities: &[(i32, i32)]) -> Driver {
        let version = |(major, minor)| Version { major, minor };
        let card = |&capability| Card {
            name: "a card".into(),
            compute_capability: version(capability),
            free_bytes: 1,
            total_bytes: 2,
        };
        Driver {
            version: "1.2".into(),
            cuda: version(cuda),
            cards: capabilities.iter().map(card).collect(),
        }
    }

    #[test]
    fn what_a_driver_lacks_is_named() {
        assert!(driver((13, 0), &[(7, 5)]).check().is_ok());
        assert!(driver((14, 2), &[(6, 1), (12, 0)]).check().is_ok());
        let problem = |cuda, capabilities: &[(i32, i32)]| {
            let error = driver(cuda, capabilities).check().expect_err("a problem");
            format!("{error}\n{}", error.hint().expect("a hint"))
        };
        let old = problem((12, 8), &[(9, 0)]);
        assert!(
            old.contains("CUDA 12.8") && old.contains("CUDA 13.0"),
            "{old}"
        );
        let none = problem((13, 1), &[]);
        assert!(none.contains("no card"), "{none}");
        let volta = problem((13, 1), &[(6, 1), (7, 0)]);
        assert!(volta.contains("7.0") && volta.contains("7.5"), "{volta}");
    }
}
