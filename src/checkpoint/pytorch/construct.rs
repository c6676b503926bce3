//! The instructions that name functions and classes and, in Python, call them.

use super::error::PytorchError;
use super::global::Global;
use super::pickle::{Machine, OTHER};
use super::value::{Handle, Storage, Value};

impl<'a> Machine<'a> {
    pub(super) fn construct(&mut self, opcode: u8) -> Result<bool, PytorchError> {
        match opcode {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push_global(module, name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.value(module), self.value(name)) {
                    (&Value::Text(module), &Value::Text(name)) => self.push_global(module, name),
                    _ => Err(self.malformed("a name that is no text")),
                }
            }
            // Instances of a class: the class is looked at first.
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push_global(module, name)?;
                let class = self.pop()?;
                let arguments = self.pop_to_mark()?;
                self.instance(class, &arguments)
            }
            b'o' => {
                let mut arguments = self.pop_to_mark()?;
                if arguments.is_empty() {
                    return Err(self.malformed("an instance of nothing"));
                }
                let class = arguments.remove(0);
                self.instance(class, &arguments)
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let Value::Global(global) = *self.value(callable) else {
                    return Err(self.malformed("a call of something that is no function"));
                };
                let value = self.rebuild(global, arguments)?;
                self.push(value)
            }
            // State: a state dict's own is notes on versions, a tensor's is hooks.
            b'b' => {
                self.pop()?;
                match self.top()? {
                    Value::Dict(_) | Value::Tensor(_) => Ok(true),
                    _ => Err(self.malformed("state for something that has none")),
                }
            }
            b'Q' => {
                let identity = self.pop()?;
                let storage = self.storage(identity)?;
                self.push(Value::Storage(Box::new(storage)))
            }
            0x82..=0x84 => {
                let mut code = [0; 4];
                let length = 1 << (opcode - 0x82);
                code[..length].copy_from_slice(self.take(length)?);
                Err(PytorchError::Forbidden {
                    global: format!("copyreg extension {}", u32::from_le_bytes(code)),
                    position: self.instruction,
                })
            }
            _ => Ok(false),
        }
    }

    fn push_global(&mut self, module: &str, name: &str) -> Result<bool, PytorchError> {
        let Some(global) = Global::find(module, name) else {
            let shown = |text: &str| text.escape_debug().take(100).collect::<String>();
            return Err(PytorchError::Forbidden {
                global: format!("{}.{}", shown(module), shown(name)),
                position: self.instruction,
            });
        };
        self.push(Value::Global(global))
    }

    fn instance(&mut self, class: Handle, arguments: &[Handle]) -> Result<bool, PytorchError> {
        match self.value(class) {
            Value::Global(Global::OrderedDict) if arguments.is_empty() => {
                self.push(Value::Dict(Vec::new()))
            }
            _ => Err(self.malformed("an instance of something that is no plain dictionary")),
        }
    }

    /// `("storage", class, key, place, elements)`; older files add a view, which is None.
    fn storage(&self, identity: Handle) -> Result<Storage<'a>, PytorchError> {
        let Value::Tuple(parts) = self.value(identity) else {
            return Err(self.malformed("a storage that is no tuple"));
        };
        let (parts, view) = match parts.as_slice() {
            [parts @ .., view] if parts.len() == 5 => (parts, *view),
            parts => (parts, OTHER),
        };
        if view != OTHER {
            return Err(self.malformed("a storage within a storage, as PyTorch before 0.4 wrote"));
        }
        let [kind, class, key, _, elements] = *parts else {
            return Err(self.malformed("a storage of other than five parts"));
        };
        let values = [kind, class, key, elements].map(|handle| self.value(handle));
        let [
            Value::Text("storage"),
            Value::Global(Global::Storage(element)),
            Value::Text(key),
            Value::Integer(elements),
        ] = values
        else {
            return Err(self.malformed("a storage whose parts are of other types"));
        };
        let count = usize::try_from(*elements);
        Ok(Storage {
            element: *element,
            key,
            elements: count.map_err(|_| self.malformed("a storage of less than no numbers"))?,
        })
    }
}
