//! Memory that is used again.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Vectors that are free to be used again.
#[derive(Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<f32>>>);

/// Some numbers, given back when dropped.
pub(crate) struct Buffer<'a> {
    numbers: Vec<f32>,
    length: usize,
    home: &'a Buffers,
}

impl Buffers {
    /// `length` numbers of no particular value.
    pub(crate) fn take(&self, length: usize) -> Buffer<'_> {
        let mut free = self.free();
        // The smallest that is long enough, else the longest, to be made longer.
        let fitting = |(_, numbers): &(usize, &Vec<f32>)| match numbers.len() {
            found if found >= length => (0, found),
            found => (1, usize::MAX - found),
        };
        let found = free.iter().enumerate().min_by_key(fitting);
        let mut numbers = match found.map(|(index, _)| index) {
            Some(index) => free.swap_remove(index),
            None => Vec::new(),
        };
        drop(free);
        if numbers.len() < length {
            numbers.clear();
            numbers.reserve_exact(length);
            numbers.resize(length, 0.0);
        }
        Buffer {
            numbers,
            length,
            home: self,
        }
    }

    /// A vector is whole between any two instructions here, so a panic elsewhere spoils none.
    fn free(&self) -> MutexGuard<'_, Vec<Vec<f32>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        self.home.free().push(std::mem::take(&mut self.numbers));
    }
}

impl Deref for Buffer<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.numbers[..self.length]
    }
}

impl DerefMut for Buffer<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::Buffers;

    #[test]
    fn memory_comes_back() {
        let buffers = Buffers::default();
        let long = buffers.take(100);
        let short = buffers.take(10);
        let (of_long, of_short) = (long.as_ptr(), short.as_ptr());
        drop((long, short));
        assert_eq!(buffers.take(8).as_ptr(), of_short);
        let again = buffers.take(50);
        assert_eq!((again.as_ptr(), again.len()), (of_long, 50));
    }
}
