//! What a pickle is made into: plain values, and descriptions of storages and tensors.

use super::global::Global;
use crate::checkpoint::stored::ElementType;

/// A value's number: values refer to each other by these, so that none is ever copied and none
/// is freed by a recursion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle(pub(super) u32);

/// Numbers in the file that tensors are views of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) element: ElementType,
    /// What the storage is called in the file.
    pub(super) key: &'a str,
    /// How many numbers.
    pub(super) elements: usize,
}

/// A tensor as the pickle describes it; nothing of it has been checked.
#[derive(Debug)]
pub(super) struct Tensor<'a> {
    pub(super) storage: Storage<'a>,
    pub(super) first: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// A value of a pickle. Text borrows from the pickle.
#[derive(Debug)]
pub(super) enum Value<'a> {
    /// None, and what no tensor is rebuilt from.
    Other,
    Bool(bool),
    Integer(i64),
    /// An integer of more than eight bytes, little-endian.
    LongInteger(&'a [u8]),
    Text(&'a str),
    Global(Global),
    Tuple(Vec<Handle>),
    List(Vec<Handle>),
    Dict(Vec<(Handle, Handle)>),
    Storage(Box<Storage<'a>>),
    Tensor(Box<Tensor<'a>>),
}
