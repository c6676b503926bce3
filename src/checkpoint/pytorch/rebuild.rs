//! What a state dict's pickle would have called, done by description.

use super::error::PytorchError;
use super::global::Global;
use super::pickle::Machine;
use super::value::{Handle, Tensor, Value};

/// Weights have one or two; a model's other tensors a few more.
const MOST_DIMENSIONS: usize = 8;
/// No function that is known takes more.
const MOST_ARGUMENTS: usize = 8;

impl<'a> Machine<'a> {
    /// What `global(*arguments)` stands for.
    pub(super) fn rebuild(
        &mut self,
        global: Global,
        arguments: Handle,
    ) -> Result<Value<'a>, PytorchError> {
        let arguments = self.arguments(arguments)?;
        match global {
            Global::RebuildFromType => {
                let [function, _, arguments, ..] = *arguments else {
                    return Err(self.malformed("a tensor of a class that lacks arguments"));
                };
                match *self.value(function) {
                    // Not itself again: that would be a recursion without an end.
                    Value::Global(inner @ (Global::RebuildTensor | Global::RebuildParameter)) => {
                        let arguments = self.arguments(arguments)?;
                        self.rebuild_plain(inner, &arguments)
                    }
                    _ => Err(self.malformed("a tensor of a class, made by what makes none")),
                }
            }
            _ => self.rebuild_plain(global, &arguments),
        }
    }

    fn rebuild_plain(
        &mut self,
        global: Global,
        arguments: &[Handle],
    ) -> Result<Value<'a>, PytorchError> {
        match global {
            Global::OrderedDict => self.ordered_dict(arguments).map(Value::Dict),
            Global::RebuildTensor => self.tensor(arguments).map(Box::new).map(Value::Tensor),
            Global::RebuildParameter => {
                let tensor = arguments.first().map(|tensor| self.value(*tensor));
                let Some(Value::Tensor(tensor)) = tensor else {
                    return Err(self.malformed("a parameter that is no tensor"));
                };
                Ok(Value::Tensor(Box::new(Tensor {
                    storage: tensor.storage,
                    first: tensor.first,
                    shape: tensor.shape.clone(),
                    strides: tensor.strides.clone(),
                })))
            }
            Global::Size => {
                let sizes = arguments.first().map(|sizes| self.value(*sizes));
                match sizes {
                    None => Ok(Value::Tuple(Vec::new())),
                    Some(Value::Tuple(sizes) | Value::List(sizes))
                        if sizes.len() <= MOST_DIMENSIONS =>
                    {
                        Ok(Value::Tuple(sizes.clone()))
                    }
                    Some(_) => Err(self.malformed("a size that is none")),
                }
            }
            Global::Inert => Ok(Value::Other),
            Global::Storage(_) | Global::RebuildFromType => {
                Err(self.malformed("a call of something that is no function"))
            }
        }
    }

    fn arguments(&self, arguments: Handle) -> Result<Vec<Handle>, PytorchError> {
        match self.value(arguments) {
            Value::Tuple(arguments) if arguments.len() <= MOST_ARGUMENTS => Ok(arguments.clone()),
            _ => Err(self.malformed("a call with arguments that are none")),
        }
    }

    /// Empty, or, as Python 2 wrote them, of a list of pairs.
    fn ordered_dict(
        &mut self,
        arguments: &[Handle],
    ) -> Result<Vec<(Handle, Handle)>, PytorchError> {
        let list = match arguments {
            [] => return Ok(Vec::new()),
            [list, ..] => *list,
        };
        let Value::List(items) = self.value(list) else {
            return Err(self.malformed("a dictionary of something that is no list"));
        };
        self.spend(items.len())?;
        let Value::List(items) = self.value(list) else {
            return Ok(Vec::new());
        };
        let pair = |item: &Handle| match self.value(*item) {
            Value::Tuple(pair) | Value::List(pair) => match **pair {
                [key, value] => Some((key, value)),
                _ => None,
            },
            _ => None,
        };
        let pairs: Option<_> = items.iter().map(pair).collect();
        pairs.ok_or_else(|| self.malformed("a dictionary of something that is no pairs"))
    }

    /// `(storage, first, shape, strides, ...)`.
    fn tensor(&self, arguments: &[Handle]) -> Result<Tensor<'a>, PytorchError> {
        let [storage, first, shape, strides, ..] = *arguments else {
            return Err(self.malformed("a tensor that lacks arguments"));
        };
        let Value::Storage(storage) = self.value(storage) else {
            return Err(self.malformed("a tensor without a storage"));
        };
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        if shape.len() != strides.len() {
            return Err(self.malformed("a tensor with more sizes than strides, or fewer"));
        }
        Ok(Tensor {
            storage: **storage,
            first: self.size(first)?,
            shape,
            strides,
        })
    }

    fn sizes(&self, sizes: Handle) -> Result<Vec<usize>, PytorchError> {
        match self.value(sizes) {
            Value::Tuple(sizes) | Value::List(sizes) if sizes.len() <= MOST_DIMENSIONS => {
                sizes.iter().map(|size| self.size(*size)).collect()
            }
            _ => Err(self.malformed("sizes that are none")),
        }
    }

    fn size(&self, size: Handle) -> Result<usize, PytorchError> {
        let size = match self.value(size) {
            Value::Integer(size) => usize::try_from(*size).ok(),
            _ => None,
        };
        size.ok_or_else(|| self.malformed("a size that is none"))
    }
}
