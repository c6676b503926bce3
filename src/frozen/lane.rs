//! One worker of the frozen pass: a session, alone or with others.

use std::sync::{Arc, Mutex, PoisonError};

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{Session, SessionOutputs};
use ort::value::DynValue;

use super::session::Inputs;

/// Workers that share a session on a card: one has its batch computed while what the other's put out
/// is checked, encoded and handed on. Two sessions would need the weights twice.
const LANES_A_CARD: usize = 2;

/// Runs one batch at a time.
pub(super) struct Lane {
    /// ONNX Runtime runs one batch of a session at a time here; what comes out belongs to the lane.
    session: Arc<Mutex<Session>>,
    /// Memory of the CPU that the card writes to by itself, while other things go on; absent on the
    /// CPU, and where the library has none.
    pinned: Option<Arc<MemoryInfo<'static>>>,
}

impl Lane {
    /// The one worker of a session on the CPU.
    pub(super) fn on_cpu(session: Session) -> Self {
        Self {
            session: Arc::new(Mutex::new(session)),
            pinned: None,
        }
    }

    /// Those of a session on the card number `device`.
    pub(super) fn on_card(session: Session, device: i32) -> impl Iterator<Item = Self> {
        let pinned = pinned(&session, device).map(Arc::new);
        let session = Arc::new(Mutex::new(session));
        std::iter::repeat_with(move || Self {
            session: Arc::clone(&session),
            pinned: pinned.clone(),
        })
        .take(LANES_A_CARD)
    }

    /// Tells whether the session is at work.
    #[cfg(test)]
    pub(super) fn watch(&self) -> impl Fn() -> bool + Send + use<> {
        let session = Arc::clone(&self.session);
        move || session.try_lock().is_err()
    }

    /// The outputs `names` for `inputs`, in memory of the CPU.
    pub(super) fn run(&self, inputs: Inputs, names: &[String]) -> ort::Result<Vec<DynValue>> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pinned) = &self.pinned else {
            return taken(session.run(inputs)?, names);
        };
        // Made anew each time: an output that is bound keeps the shape of its first batch.
        let mut binding = session.create_binding()?;
        for (name, input) in &inputs {
            binding.bind_input(name.as_ref(), &**input)?;
        }
        for name in names {
            binding.bind_output_to_device(name, pinned)?;
        }
        let outputs = session.run_binding(&binding)?;
        binding.synchronize_outputs()?;
        taken(outputs, names)
    }
}

/// `names` out of `outputs`, no longer tied to the session.
fn taken(mut outputs: SessionOutputs, names: &[String]) -> ort::Result<Vec<DynValue>> {
    let values = names.iter().map(|name| {
        let value = outputs.remove(name);
        value.ok_or_else(|| ort::Error::new(format!("there is no output `{name}`")))
    });
    values.collect()
}

/// The pinned memory that `session` has for the card `device`. Some versions number it as the card,
/// some by 0.
fn pinned(session: &Session, device: i32) -> Option<MemoryInfo<'static>> {
    [device, 0].into_iter().find_map(|device| {
        let info = pinned_memory(device).ok()?;
        Allocator::new(session, info.clone()).ok()?;
        Some(info)
    })
}

fn pinned_memory(device: i32) -> ort::Result<MemoryInfo<'static>> {
    MemoryInfo::new(
        AllocationDevice::CUDA_PINNED,
        device,
        AllocatorType::Device,
        MemoryType::CPUOutput,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `ort` does not take for memory of the CPU cannot be read.
    #[test]
    fn pinned_memory_can_be_read_by_the_cpu() {
        crate::frozen::Runtime::load(None).expect("ONNX Runtime");
        let pinned = pinned_memory(1).expect("known by name");
        assert!(pinned.is_cpu_accessible());
        assert_eq!(pinned.device_id(), 1);
    }
}
