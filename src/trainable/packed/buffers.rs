//! Memory that is used again.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is lent: a vector of numbers, or its length alone, which tells what a pass takes without
/// running it.
pub(in crate::trainable) trait Lent: Default {
    /// Of `length` numbers.
    fn new(length: usize) -> Self;

    /// How many numbers it has.
    fn length(&self) -> usize;
}

impl Lent for Vec<f32> {
    fn new(length: usize) -> Self {
        vec![0.0; length]
    }

    fn length(&self) -> usize {
        self.len()
    }
}

impl Lent for usize {
    fn new(length: usize) -> Self {
        length
    }

    fn length(&self) -> usize {
        *self
    }
}

/// Vectors that are used again: together no more than were asked for at any one time, but for what a
/// vector is longer than what it is used for.
#[derive(Default)]
pub(in crate::trainable) struct Buffers<V = Vec<f32>>(Mutex<Pool<V>>);

#[derive(Default)]
struct Pool<V> {
    free: Vec<V>,
    /// Numbers of all vectors, free or not.
    held: usize,
    /// Numbers that are in use.
    used: usize,
    /// The most that ever were.
    most: usize,
}

/// A vector is used for no less than this share of it: one that is taken for little is missing where
/// much is needed, and in the end all are as long as the longest.
const LEAST_SHARE: usize = 2;

/// Some numbers, given back when dropped.
pub(in crate::trainable) struct Buffer<'a, V: Lent = Vec<f32>> {
    numbers: V,
    length: usize,
    home: &'a Buffers<V>,
}

impl<V: Lent> Buffers<V> {
    /// `length` numbers of no particular value.
    pub(in crate::trainable) fn take(&self, length: usize) -> Buffer<'_, V> {
        let mut pool = self.pool();
        pool.used += length;
        pool.most = pool.most.max(pool.used);
        let fitting = length..=LEAST_SHARE * length;
        let found = pool.free.iter().enumerate();
        let found = found.filter(|(_, numbers)| fitting.contains(&numbers.length()));
        let found = found.min_by_key(|(_, numbers)| numbers.length());
        let found = found.map(|(index, _)| index);
        let found = found.map(|index| pool.free.swap_remove(index));
        let numbers = found.unwrap_or_else(|| {
            pool.make_room(length);
            pool.held += length;
            V::new(length)
        });
        Buffer {
            numbers,
            length,
            home: self,
        }
    }

    /// Numbers of all vectors, used or not.
    pub(in crate::trainable) fn held(&self) -> usize {
        self.pool().held
    }

    /// A vector is whole between any two instructions here, so a panic elsewhere spoils none.
    fn pool(&self) -> MutexGuard<'_, Pool<V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Lent> Pool<V> {
    /// Lets go of free vectors, the shortest first, until `length` more numbers may be held.
    fn make_room(&mut self, length: usize) {
        while self.held + length > self.most {
            let shortest = self.free.iter().enumerate();
            let shortest = shortest.min_by_key(|(_, numbers)| numbers.length());
            let Some(index) = shortest.map(|(index, _)| index) else {
                break;
            };
            self.held -= self.free.swap_remove(index).length();
        }
    }
}

impl<V: Lent> Buffer<'_, V> {
    /// How many numbers were asked for.
    pub(in crate::trainable) fn length(&self) -> usize {
        self.length
    }
}

impl<V: Lent> Drop for Buffer<'_, V> {
    fn drop(&mut self) {
        let mut pool = self.home.pool();
        pool.used -= self.length;
        pool.free.push(std::mem::take(&mut self.numbers));
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
        let buffers = <Buffers>::default();
        let long = buffers.take(100);
        let short = buffers.take(10);
        let (of_long, of_short) = (long.as_ptr(), short.as_ptr());
        drop((long, short));
        assert_eq!(buffers.take(8).as_ptr(), of_short);
        let again = buffers.take(50);
        assert_eq!((again.as_ptr(), again.len()), (of_long, 50));
    }

    /// What is short does not take what is long, and little more is held than was needed at once.
    #[test]
    fn little_more_is_held_than_was_used() {
        let buffers = <Buffers>::default();
        for tokens in [10, 8, 3, 10, 6, 1, 10] {
            let mut kept = Vec::new();
            for _ in 0..6 {
                let wide = buffers.take(4 * tokens);
                kept.extend([(); 3].map(|()| buffers.take(tokens)));
                drop(wide);
            }
        }
        let pool = buffers.pool();
        assert_eq!((pool.used, pool.most), (0, 6 * 3 * 10 + 4 * 10));
        // A vector may be somewhat longer than what it is used for.
        assert!(
            2 * pool.held <= 3 * pool.most,
            "{} of {}",
            pool.held,
            pool.most
        );
    }
}
