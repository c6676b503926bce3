/// What is wrong with a file of PyTorch's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PytorchError {
    /// The pickle names a function or a class that no state dict needs.
    #[error(
        "its pickle wants `{global}` (byte {position}), which no state dict needs; nothing was run"
    )]
    Forbidden {
        /// Module and name, or the extension's number.
        global: String,
        /// In the pickle.
        position: usize,
    },
    /// The pickle has an instruction that no state dict needs.
    #[error(
        "its pickle has the instruction {opcode:#04x} (byte {position}), which no state dict needs; nothing was run"
    )]
    Opcode {
        /// The instruction.
        opcode: u8,
        /// In the pickle.
        position: usize,
    },
    /// The pickle breaks off.
    #[error("its pickle breaks off at byte {position}")]
    Truncated {
        /// In the pickle.
        position: usize,
    },
    /// The pickle is not put together as a state dict is.
    #[error("{problem} (byte {position} of its pickle)")]
    Malformed {
        /// What is wrong.
        problem: &'static str,
        /// In the pickle.
        position: usize,
    },
    /// The zip archive is damaged.
    #[error("its zip archive is damaged: {problem}")]
    Archive {
        /// What the zip library said.
        problem: String,
    },
    /// The file is none that is known.
    #[error("{problem}")]
    Format {
        /// What was found, or is missing.
        problem: String,
    },
    /// A tensor lies outside of its numbers.
    #[error("tensor `{name}`: {problem}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong.
        problem: String,
    },
}
