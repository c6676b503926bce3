//! A machine for the pickles that `torch.save` writes. It builds plain values and describes
//! tensors, and can do nothing else: it has no way to call anything.
//!
//! What a pickle says is never believed: it borrows text where it lies, takes no memory for a
//! length before the bytes are there, and stops at [`MOST_VALUES`].

use std::collections::HashMap;

use super::error::PytorchError;
use super::value::{Handle, Storage, Value};

/// A state dict takes about forty values a tensor.
const MOST_VALUES: usize = 1 << 20;
/// The values that every pickle has many of, made once.
pub(super) const OTHER: Handle = Handle(0);
const TRUE: Handle = Handle(1);
const FALSE: Handle = Handle(2);

/// A pickle that was read.
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Handle,
    /// How many bytes it took.
    pub(super) bytes: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle that `bytes` begin with.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, PytorchError> {
        let mut machine = Machine {
            bytes,
            position: 0,
            instruction: 0,
            values: vec![Value::Other, Value::Bool(true), Value::Bool(false)],
            stack: Vec::new(),
            marks: Vec::new(),
            memory: HashMap::new(),
            spent: 0,
        };
        let root = machine.run()?;
        Ok(Self {
            values: machine.values,
            root,
            bytes: machine.position,
        })
    }

    /// The value that the pickle stands for.
    pub(super) fn root(&self) -> &Value<'a> {
        self.value(self.root)
    }

    /// A value that another refers to.
    pub(super) fn value(&self, handle: Handle) -> &Value<'a> {
        &self.values[handle.0 as usize]
    }

    /// Every storage that the pickle names.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage<'a>> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(&**storage),
            _ => None,
        })
    }
}

pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Where the instruction at work begins.
    pub(super) instruction: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Handle>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memory: HashMap<u32, Handle>,
    /// Values made, and parts of values copied.
    spent: usize,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Handle, PytorchError> {
        loop {
            self.instruction = self.position;
            let [opcode] = self.array()?;
            if opcode == b'.' {
                return self.pop();
            }
            let known = self.constant(opcode)?
                || self.text(opcode)?
                || self.container(opcode)?
                || self.remember(opcode)?
                || self.construct(opcode)?;
            if !known {
                return Err(PytorchError::Opcode {
                    opcode,
                    position: self.instruction,
                });
            }
        }
    }

    pub(super) fn malformed(&self, problem: &'static str) -> PytorchError {
        PytorchError::Malformed {
            problem,
            position: self.instruction,
        }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], PytorchError> {
        let end = self.position.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.position..end));
        let taken = taken.ok_or(PytorchError::Truncated {
            position: self.bytes.len(),
        })?;
        self.position += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PytorchError> {
        let taken = self.take(N)?;
        let mut array = [0; N];
        array.copy_from_slice(taken);
        Ok(array)
    }

    /// A length of `N` bytes, and so many bytes.
    fn counted<const N: usize>(&mut self) -> Result<&'a [u8], PytorchError> {
        let mut word = [0; 8];
        word[..N].copy_from_slice(&self.array::<N>()?);
        // What does not fit is more than the file has.
        let count = usize::try_from(u64::from_le_bytes(word)).unwrap_or(usize::MAX);
        self.take(count)
    }

    pub(super) fn line(&mut self) -> Result<&'a str, PytorchError> {
        let rest = &self.bytes[self.position..];
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or(PytorchError::Truncated {
            position: self.bytes.len(),
        })?;
        self.position += length + 1;
        let line = str::from_utf8(&rest[..length]);
        line.map_err(|_| self.malformed("text that is not UTF-8"))
    }

    /// Counts `count` towards what a pickle may make.
    pub(super) fn spend(&mut self, count: usize) -> Result<(), PytorchError> {
        self.spent = self.spent.saturating_add(count);
        if self.spent > MOST_VALUES {
            return Err(self.malformed("more values than any state dict has"));
        }
        Ok(())
    }

    pub(super) fn push(&mut self, value: Value<'a>) -> Result<bool, PytorchError> {
        self.spend(1)?;
        let number = u32::try_from(self.values.len());
        let number = number.map_err(|_| self.malformed("more values than any state dict has"))?;
        self.values.push(value);
        self.stack.push(Handle(number));
        Ok(true)
    }

    fn push_again(&mut self, handle: Handle) -> bool {
        self.stack.push(handle);
        true
    }

    pub(super) fn value(&self, handle: Handle) -> &Value<'a> {
        &self.values[handle.0 as usize]
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn pop(&mut self) -> Result<Handle, PytorchError> {
        if self.stack.len() <= self.floor() {
            return Err(self.malformed("an instruction that finds nothing on the stack"));
        }
        let popped = self.stack.pop();
        popped.ok_or_else(|| self.malformed("an instruction that finds nothing on the stack"))
    }

    pub(super) fn top(&mut self) -> Result<&mut Value<'a>, PytorchError> {
        let top = self
            .stack
            .get(self.floor()..)
            .and_then(<[_]>::last)
            .copied();
        let top =
            top.ok_or_else(|| self.malformed("an instruction that finds nothing on the stack"))?;
        Ok(&mut self.values[top.0 as usize])
    }

    pub(super) fn pop_to_mark(&mut self) -> Result<Vec<Handle>, PytorchError> {
        let mark = self.marks.pop();
        let mark = mark.ok_or_else(|| self.malformed("an instruction that finds no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn constant(&mut self, opcode: u8) -> Result<bool, PytorchError> {
        match opcode {
            // The version, and the length of a frame: neither says anything that is needed.
            0x80 => self.take(1).map(|_| true),
            0x95 => self.take(8).map(|_| true),
            b'N' => Ok(self.push_again(OTHER)),
            0x88 => Ok(self.push_again(TRUE)),
            0x89 => Ok(self.push_again(FALSE)),
            b'K' => {
                let [byte] = self.array()?;
                self.push(Value::Integer(byte.into()))
            }
            b'M' => {
                let integer = u16::from_le_bytes(self.array()?);
                self.push(Value::Integer(integer.into()))
            }
            b'J' => {
                let integer = i32::from_le_bytes(self.array()?);
                self.push(Value::Integer(integer.into()))
            }
            b'I' => match self.line()? {
                "00" => Ok(self.push_again(FALSE)),
                "01" => Ok(self.push_again(TRUE)),
                digits => self.push_digits(digits),
            },
            b'L' => {
                let line = self.line()?;
                self.push_digits(line.strip_suffix('L').unwrap_or(line))
            }
            0x8a => {
                let bytes = self.counted::<1>()?;
                self.push_long(bytes)
            }
            0x8b => {
                let bytes = self.counted::<4>()?;
                self.push_long(bytes)
            }
            b'G' => {
                self.take(8)?;
                Ok(self.push_again(OTHER))
            }
            b'F' => {
                self.line()?;
                Ok(self.push_again(OTHER))
            }
            _ => Ok(false),
        }
    }

    fn push_digits(&mut self, digits: &str) -> Result<bool, PytorchError> {
        let integer = digits.parse();
        let integer = integer.map_err(|_| self.malformed("an integer that is none"))?;
        self.push(Value::Integer(integer))
    }

    /// An integer in two's complement, little-endian, of as many bytes as it takes.
    fn push_long(&mut self, bytes: &'a [u8]) -> Result<bool, PytorchError> {
        if bytes.len() > 8 {
            return self.push(Value::LongInteger(bytes));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut word = [if negative { 0xff } else { 0 }; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Integer(i64::from_le_bytes(word)))
    }

    fn text(&mut self, opcode: u8) -> Result<bool, PytorchError> {
        let bytes = match opcode {
            b'X' | b'T' => self.counted::<4>()?,
            0x8c | b'U' => self.counted::<1>()?,
            0x8d => self.counted::<8>()?,
            b'C' | b'B' | 0x8e => {
                match opcode {
                    b'C' => self.counted::<1>()?,
                    b'B' => self.counted::<4>()?,
                    _ => self.counted::<8>()?,
                };
                return Ok(self.push_again(OTHER));
            }
            _ => return Ok(false),
        };
        match str::from_utf8(bytes) {
            Ok(text) => self.push(Value::Text(text)),
            // Python's own may have halves of surrogate pairs; no tensor's name has.
            Err(_) => Ok(self.push_again(OTHER)),
        }
    }

    fn container(&mut self, opcode: u8) -> Result<bool, PytorchError> {
        match opcode {
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(true);
            }
            b')' => return self.push(Value::Tuple(Vec::new())),
            b']' => return self.push(Value::List(Vec::new())),
            b'}' => return self.push(Value::Dict(Vec::new())),
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(count);
                let start = start.filter(|&start| start >= self.floor());
                let start = start.ok_or_else(|| {
                    self.malformed("an instruction that finds nothing on the stack")
                })?;
                let items = self.stack.split_off(start);
                return self.push(Value::Tuple(items));
            }
            b't' => {
                let items = self.pop_to_mark()?;
                return self.push(Value::Tuple(items));
            }
            b'l' => {
                let items = self.pop_to_mark()?;
                return self.push(Value::List(items));
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                let pairs = self.pairs(&items)?;
                return self.push(Value::Dict(pairs));
            }
            _ => {}
        }
        let items = match opcode {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            b'e' | b'u' => self.pop_to_mark()?,
            _ => return Ok(false),
        };
        let pairs = match opcode {
            b's' | b'u' => self.pairs(&items)?,
            _ => Vec::new(),
        };
        match (self.top()?, opcode) {
            (Value::List(list), b'a' | b'e') => list.extend(items),
            (Value::Dict(dict), b's' | b'u') => dict.extend(pairs),
            _ => return Err(self.malformed("items for something that holds none")),
        }
        Ok(true)
    }

    fn pairs(&self, items: &[Handle]) -> Result<Vec<(Handle, Handle)>, PytorchError> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.malformed("a key without a value"));
        }
        Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
    }

    /// The stack's own affairs, and the memory of what was made before.
    fn remember(&mut self, opcode: u8) -> Result<bool, PytorchError> {
        let number = match opcode {
            b'0' => return self.pop().map(|_| true),
            b'1' => return self.pop_to_mark().map(|_| true),
            b'2' => {
                let top = self.pop()?;
                self.push_again(top);
                return Ok(self.push_again(top));
            }
            b'q' | b'h' => {
                let [number] = self.array()?;
                u32::from(number)
            }
            b'r' | b'j' => u32::from_le_bytes(self.array()?),
            b'p' | b'g' => {
                let number = self.line()?.parse();
                number.map_err(|_| self.malformed("an integer that is none"))?
            }
            // No pickle has 2^32 instructions: more values than that are refused.
            0x94 => u32::try_from(self.memory.len()).unwrap_or(u32::MAX),
            _ => return Ok(false),
        };
        if matches!(opcode, b'h' | b'j' | b'g') {
            let known = self.memory.get(&number).copied();
            let known = known.ok_or_else(|| self.malformed("a value that was not made before"))?;
            return Ok(self.push_again(known));
        }
        let top = self.pop()?;
        self.memory.insert(number, top);
        Ok(self.push_again(top))
    }
}
