//! Sums over CUDA cards by NCCL.
//!
//! cudarc's communicators stay in the thread that made them, so that one takes orders. What it queues
//! goes to the streams that the cards compute on: after what is queued there already, before the rest.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::{Comm, ReduceOp, group_end, group_start};
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, Device, InplaceOp1, Layout, Result as CandleResult,
    Storage, Tensor,
};

use super::reduce::Reduce;
use super::{Error, Gradients, Parameters};

/// The card that sums are made on, and that parameters come from.
const ROOT: i32 = 0;

/// Orders for the thread of the communicators.
pub(super) struct Nccl {
    orders: Sender<Order>,
}

/// Tensors of each card, the same ones in the same order.
struct Order {
    tensors: Vec<Vec<Tensor>>,
    kind: Kind,
    reply: Sender<CandleResult<Vec<Tensor>>>,
}

#[derive(Clone, Copy)]
enum Kind {
    /// The sums, on the first card.
    Sum,
    /// The others' are overwritten by the first card's; nothing comes back.
    Spread,
}

/// The cards of `devices`, if they are cards and more than one.
pub(super) fn cards(devices: &[&Device]) -> Option<Vec<CudaDevice>> {
    let cards = devices.iter().map(|device| match device {
        Device::Cuda(card) => Some(card.clone()),
        _ => None,
    });
    let cards: Vec<CudaDevice> = cards.collect::<Option<_>>()?;
    (cards.len() > 1).then_some(cards)
}

impl Nccl {
    /// Connects `cards`, each of another number.
    pub(super) fn new(cards: &[CudaDevice]) -> Result<Self, Error> {
        let (orders, receiver) = channel();
        let (ready, connected) = channel();
        let cards = cards.to_vec();
        thread::spawn(move || {
            let streams = cards.iter().map(CudaDevice::cuda_stream).collect();
            match Comm::from_devices(streams) {
                Ok(communicators) => {
                    let _ = ready.send(Ok(()));
                    serve(&communicators, &cards, &receiver);
                }
                Err(error) => {
                    let _ = ready.send(Err(failed(&error)));
                }
            }
        });
        connected.recv().unwrap_or_else(|_| Err(gone()))?;
        Ok(Self { orders })
    }

    fn order(&self, kind: Kind, tensors: Vec<Vec<Tensor>>) -> CandleResult<Vec<Tensor>> {
        let (reply, result) = channel();
        let order = Order {
            tensors,
            kind,
            reply,
        };
        self.orders.send(order).map_err(|_| gone())?;
        result.recv().unwrap_or_else(|_| Err(gone()))
    }
}

impl Reduce for Nccl {
    fn sum(&self, first: &mut Gradients, others: &[&Gradients]) -> Result<(), Error> {
        let (places, tensors) = first.beside(others)?;
        first.set(&places, self.order(Kind::Sum, tensors)?);
        Ok(())
    }

    fn spread(&self, first: &Parameters, others: &[&Parameters]) -> Result<(), Error> {
        let all = std::iter::once(&first).chain(others);
        let values = |parameters: &&Parameters| {
            let list = parameters.iter();
            list.map(|parameter| parameter.variable.as_tensor().clone())
                .collect()
        };
        self.order(Kind::Spread, all.map(values).collect())?;
        Ok(())
    }
}

/// Carries out orders until nobody can give one.
fn serve(communicators: &[Comm], cards: &[CudaDevice], orders: &Receiver<Order>) {
    for Order {
        tensors,
        kind,
        reply,
    } in orders
    {
        let result = match kind {
            Kind::Sum => sum(communicators, &cards[0], &tensors),
            Kind::Spread => spread(communicators, &tensors).map(|()| Vec::new()),
        };
        // Whoever asked may have failed meanwhile.
        let _ = reply.send(result);
    }
}

/// Queues all of `calls` at once: between its calls no card waits for another.
fn together(calls: impl FnOnce() -> CandleResult<()>) -> CandleResult<()> {
    group_start().map_err(|error| failed(&error))?;
    let called = calls();
    // The group is closed whatever became of them.
    let ended = group_end().map_err(|error| failed(&error));
    called?;
    ended.map(drop)
}

fn sum(
    communicators: &[Comm],
    card: &CudaDevice,
    tensors: &[Vec<Tensor>],
) -> CandleResult<Vec<Tensor>> {
    let stream = card.cuda_stream();
    let sums = tensors[0].iter();
    let sums = sums.map(|tensor| stream.alloc_zeros::<f32>(tensor.elem_count()).w());
    let mut sums: Vec<CudaSlice<f32>> = sums.collect::<CandleResult<_>>()?;
    together(|| {
        for (place, sum) in sums.iter_mut().enumerate() {
            for (rank, (communicator, tensors)) in communicators.iter().zip(tensors).enumerate() {
                let target = (rank == 0).then_some(&mut *sum);
                with_values(&tensors[place], |values| {
                    let call = communicator.reduce(values, target, &ReduceOp::Sum, ROOT);
                    call.map(drop).map_err(|error| failed(&error))
                })?;
            }
        }
        Ok(())
    })?;
    let sums = sums.into_iter().zip(&tensors[0]).map(|(sum, tensor)| {
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(sum, card.clone()));
        Tensor::from_storage(storage, tensor.shape(), BackpropOp::none(), false)
    });
    Ok(sums.collect())
}

/// Calls `work` with the values of a contiguous tensor.
fn with_values(
    tensor: &Tensor,
    work: impl FnOnce(&CudaView<'_, f32>) -> CandleResult<()>,
) -> CandleResult<()> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cuda(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets())
    else {
        candle_core::bail!("gradients lie contiguous on a card, found {layout:?}")
    };
    work(&storage.as_cuda_slice::<f32>()?.slice(start..end))
}

fn spread(communicators: &[Comm], tensors: &[Vec<Tensor>]) -> CandleResult<()> {
    together(|| {
        for place in 0..tensors[0].len() {
            for (communicator, tensors) in communicators.iter().zip(tensors) {
                tensors[place].inplace_op1(&Broadcast(communicator))?;
            }
        }
        Ok(())
    })
}

/// Overwrites a parameter by the first card's.
struct Broadcast<'a>(&'a Comm);

impl InplaceOp1 for Broadcast<'_> {
    fn name(&self) -> &'static str {
        "broadcast"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> CandleResult<()> {
        candle_core::bail!("NCCL is for CUDA cards")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> CandleResult<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("parameters are contiguous, found {layout:?}")
        };
        let mut values = storage.as_cuda_slice_mut::<f32>()?.slice_mut(start..end);
        let call = self.0.broadcast_in_place(&mut values, ROOT);
        call.map(drop).map_err(|error| failed(&error))
    }
}

fn failed(error: &NcclError) -> candle_core::Error {
    candle_core::Error::Msg(format!("NCCL failed: {:?}", error.0))
}

fn gone() -> candle_core::Error {
    candle_core::Error::Msg("the thread of NCCL is gone".into())
}
