//! Two buffers that take turns: one is filled while a card copies from the other.

use std::collections::VecDeque;

use super::Error;

/// How many.
const BUFFERS: usize = 2;

/// Memory that a card copies from by itself. A buffer is given away for that, so that it cannot be
/// filled meanwhile.
pub(super) trait Memory {
    /// Numbers that nobody reads.
    type Buffer;
    /// A buffer that may be being copied from. Where it is dropped, that is waited for.
    type Copying;
    /// What is copied to the card.
    type Copy;

    /// A buffer of at least so many numbers.
    fn allocate(&self, numbers: usize) -> Result<Self::Buffer, Error>;

    /// All numbers of `buffer`.
    fn numbers<'a>(&self, buffer: &'a mut Self::Buffer) -> Result<&'a mut [f32], Error>;

    /// Begins to copy the first `numbers` of `buffer`, and does not wait for the end.
    fn copy(
        &self,
        buffer: Self::Buffer,
        numbers: usize,
    ) -> Result<(Self::Copy, Self::Copying), Error>;

    /// Waits until everything has been copied.
    fn wait(&self, copying: Self::Copying) -> Result<Self::Buffer, Error>;

    /// Copies out of ordinary memory, and waits for the end.
    fn copy_and_wait(&self, numbers: &[f32]) -> Result<Self::Copy, Error>;

    /// Tells that [`allocate`](Self::allocate) failed, and that ordinary memory is used from now on.
    fn tell(&self, numbers: usize, reason: &Error);
}

/// See the page.
pub(super) struct DoubleBuffer<M: Memory> {
    memory: M,
    /// The first was begun first.
    copying: VecDeque<M::Copying>,
    /// A buffer was refused.
    ordinary: bool,
}

impl<M: Memory> DoubleBuffer<M> {
    /// Buffers of `memory`, which are made as they are needed.
    pub(super) fn new(memory: M) -> Self {
        Self {
            memory,
            copying: VecDeque::with_capacity(BUFFERS),
            ordinary: false,
        }
    }

    /// Has `read` write so many `numbers`, and begins to copy them.
    pub(super) fn stage(
        &mut self,
        numbers: usize,
        read: &dyn Fn(&mut [f32]),
    ) -> Result<M::Copy, Error> {
        let Some(mut buffer) = self.free(numbers)? else {
            let mut values = vec![0.0; numbers];
            read(&mut values);
            return self.memory.copy_and_wait(&values);
        };
        read(&mut self.memory.numbers(&mut buffer)?[..numbers]);
        let (copy, copying) = self.memory.copy(buffer, numbers)?;
        self.copying.push_back(copying);
        Ok(copy)
    }

    /// A buffer that nothing is copied from any more, if there is memory for one.
    fn free(&mut self, numbers: usize) -> Result<Option<M::Buffer>, Error> {
        if self.ordinary {
            return Ok(None);
        }
        if self.copying.len() == BUFFERS
            && let Some(oldest) = self.copying.pop_front()
        {
            let mut buffer = self.memory.wait(oldest)?;
            if self.memory.numbers(&mut buffer)?.len() >= numbers {
                return Ok(Some(buffer));
            }
            // One that is too small is given back before another takes its place. As batches come in an
            // order drawn at random, the largest so far comes ever more seldom.
        }
        match self.memory.allocate(numbers) {
            Ok(buffer) => Ok(Some(buffer)),
            Err(reason) => {
                self.memory.tell(numbers, &reason);
                self.ordinary = true;
                self.copying.clear();
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use super::*;

    /// A card whose copies are done no earlier than they are waited for: what is written to a buffer
    /// before that reaches the copy.
    #[derive(Default)]
    struct SlowCard {
        log: Rc<RefCell<Vec<String>>>,
        buffers: Cell<usize>,
        /// Numbers that can be locked in all.
        most: Option<usize>,
    }

    struct Buffer {
        number: usize,
        values: Vec<f32>,
    }

    /// What the card has of it once it is waited for.
    type Copy = Rc<RefCell<Option<Vec<f32>>>>;

    struct Copying {
        buffer: Option<Buffer>,
        numbers: usize,
        copy: Copy,
        log: Rc<RefCell<Vec<String>>>,
    }

    impl Copying {
        fn end(&mut self) -> Option<Buffer> {
            let buffer = self.buffer.take()?;
            *self.copy.borrow_mut() = Some(buffer.values[..self.numbers].to_vec());
            let line = format!("wait for {}", buffer.number);
            self.log.borrow_mut().push(line);
            Some(buffer)
        }
    }

    impl Drop for Copying {
        fn drop(&mut self) {
            self.end();
        }
    }

    impl SlowCard {
        fn note(&self, line: String) {
            self.log.borrow_mut().push(line);
        }
    }

    impl Memory for SlowCard {
        type Buffer = Buffer;
        type Copying = Copying;
        type Copy = Copy;

        fn allocate(&self, numbers: usize) -> Result<Buffer, Error> {
            if self.most.is_some_and(|most| numbers > most) {
                return Err(candle_core::Error::Msg("no more".into()).into());
            }
            let number = self.buffers.replace(self.buffers.get() + 1);
            self.note(format!("allocate {number} of {numbers}"));
            Ok(Buffer {
                number,
                values: vec![0.0; numbers],
            })
        }

        fn numbers<'a>(&self, buffer: &'a mut Buffer) -> Result<&'a mut [f32], Error> {
            Ok(&mut buffer.values)
        }

        fn copy(&self, buffer: Buffer, numbers: usize) -> Result<(Copy, Copying), Error> {
            self.note(format!("copy {numbers} of {}", buffer.number));
            let copy = Copy::default();
            let copying = Copying {
                buffer: Some(buffer),
                numbers,
                copy: Rc::clone(&copy),
                log: Rc::clone(&self.log),
            };
            Ok((copy, copying))
        }

        fn wait(&self, mut copying: Copying) -> Result<Buffer, Error> {
            Ok(copying.end().expect("waited for once"))
        }

        fn copy_and_wait(&self, numbers: &[f32]) -> Result<Copy, Error> {
            self.note(format!("copy {} and wait", numbers.len()));
            Ok(Rc::new(RefCell::new(Some(numbers.to_vec()))))
        }

        fn tell(&self, numbers: usize, reason: &Error) {
            let Error::Tensor(reason) = reason else {
                panic!("{reason} is not the card's");
            };
            self.note(format!("no buffer of {numbers}: {reason}"));
        }
    }

    /// Stages batches of so many numbers, each of its own value; what the card has of them in the end,
    /// and what was done in between.
    fn staged(most: Option<usize>, batches: &[usize]) -> (Vec<Vec<f32>>, Vec<String>) {
        let card = SlowCard {
            most,
            ..SlowCard::default()
        };
        let log = Rc::clone(&card.log);
        let mut buffers = DoubleBuffer::new(card);
        let stage = |(number, &numbers): (usize, &usize)| {
            let read = |values: &mut [f32]| {
                assert_eq!(values.len(), numbers);
                values.fill(number as f32);
            };
            buffers.stage(numbers, &read).expect("staged")
        };
        let copies: Vec<Copy> = batches.iter().enumerate().map(stage).collect();
        drop(buffers);
        let copies = copies.iter().map(|copy| copy.take().expect("copied"));
        let copies = copies.collect();
        (copies, log.take())
    }

    fn expected(batches: &[usize]) -> Vec<Vec<f32>> {
        let batches = batches.iter().enumerate();
        let batches = batches.map(|(number, &numbers)| vec![number as f32; numbers]);
        batches.collect()
    }

    #[test]
    fn a_buffer_is_filled_again_only_when_it_has_been_copied() {
        let batches = [4, 4, 3, 2, 4];
        let (copies, log) = staged(None, &batches);
        assert_eq!(copies, expected(&batches));
        assert_eq!(
            log,
            [
                "allocate 0 of 4",
                "copy 4 of 0",
                "allocate 1 of 4",
                "copy 4 of 1",
                "wait for 0",
                "copy 3 of 0",
                "wait for 1",
                "copy 2 of 1",
                "wait for 0",
                "copy 4 of 0",
                "wait for 1",
                "wait for 0",
            ]
        );
    }

    #[test]
    fn a_larger_batch_gets_a_larger_buffer_in_place_of_one() {
        let batches = [2, 2, 3, 2];
        let (copies, log) = staged(None, &batches);
        assert_eq!(copies, expected(&batches));
        assert_eq!(
            log[4..8],
            ["wait for 0", "allocate 2 of 3", "copy 3 of 2", "wait for 1"]
        );
    }

    #[test]
    fn without_memory_to_lock_batches_are_copied_from_ordinary_memory() {
        let batches = [4, 4, 4];
        let (copies, log) = staged(Some(3), &batches);
        assert_eq!(copies, expected(&batches));
        assert_eq!(
            log,
            [
                "no buffer of 4: no more",
                "copy 4 and wait",
                "copy 4 and wait",
                "copy 4 and wait",
            ]
        );
    }

    /// What was copied from buffers until then is whole, they are given back, and it is told once.
    #[test]
    fn memory_that_runs_out_later_is_done_without() {
        let batches = [3, 3, 4, 2];
        let (copies, log) = staged(Some(3), &batches);
        assert_eq!(copies, expected(&batches));
        assert_eq!(
            log[4..],
            [
                "wait for 0",
                "no buffer of 4: no more",
                "wait for 1",
                "copy 4 and wait",
                "copy 2 and wait",
            ]
        );
    }
}
