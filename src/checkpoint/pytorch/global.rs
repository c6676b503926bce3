//! The functions and classes that a state dict's pickle may name. None of them is ever called:
//! each stands for a description that this reader makes itself.

use crate::checkpoint::stored::ElementType;

/// What a pickle may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`, and the older one without its last arguments.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`, with and without state.
    RebuildParameter,
    /// `torch._tensor._rebuild_from_type_v2`: a tensor of a class of its own.
    RebuildFromType,
    /// A class of storages.
    Storage(ElementType),
    /// `torch.Size`: a tuple.
    Size,
    /// Known, and of no matter to a tensor's numbers.
    Inert,
}

impl Global {
    /// What `module.name` stands for, if it is one of the few.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Self::RebuildParameter
            }
            ("torch._tensor", "_rebuild_from_type_v2") => Self::RebuildFromType,
            ("torch", "Size") => Self::Size,
            ("torch.nn.parameter", "Parameter") | ("torch", "Tensor" | "device") => Self::Inert,
            ("torch" | "torch.cuda", _) => Self::Storage(storage(name)?),
            _ => return None,
        })
    }
}

fn storage(class: &str) -> Option<ElementType> {
    let unread = |name, bytes| Some(ElementType::Unread { name, bytes });
    match class {
        "FloatStorage" => Some(ElementType::F32),
        "HalfStorage" => Some(ElementType::F16),
        "BFloat16Storage" => Some(ElementType::Bf16),
        "DoubleStorage" => Some(ElementType::F64),
        "LongStorage" => unread("I64", 8),
        "IntStorage" => unread("I32", 4),
        "ShortStorage" => unread("I16", 2),
        "CharStorage" => unread("I8", 1),
        "ByteStorage" => unread("U8", 1),
        "BoolStorage" => unread("BOOL", 1),
        "ComplexFloatStorage" => unread("C64", 8),
        "ComplexDoubleStorage" => unread("C128", 16),
        _ => None,
    }
}
