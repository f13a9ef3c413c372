//! Space for bytes on their way.

use std::cell::RefCell;
use std::mem;

/// Bytes that came and were not yet taken.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    space: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// The bytes that wait.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.space[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes the first `n` bytes away.
    pub(crate) fn take(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.end);
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Space for more bytes; empty if there is none left.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.end == self.space.len() && self.start > 0 {
            self.space.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.space[self.end..]
    }

    /// So many bytes came into the room.
    pub(crate) fn filled(&mut self, n: usize) {
        self.end += n;
        debug_assert!(self.end <= self.space.len());
    }

    /// Whether no more bytes fit in.
    pub(crate) fn is_full(&self) -> bool {
        self.end - self.start == self.space.len()
    }

    /// How much space there is, taken or not.
    pub(crate) fn size(&self) -> usize {
        self.space.len()
    }

    /// Whether there is space at all.
    pub(crate) fn has_space(&self) -> bool {
        !self.space.is_empty()
    }
}

/// The spare buffers of a thread. A connection that nothing has come from has none.
#[derive(Debug)]
pub(crate) struct Buffers {
    size: usize,
    spare: RefCell<Vec<Box<[u8]>>>,
}

/// So many spare buffers are kept.
const KEPT: usize = 64;

impl Buffers {
    /// Buffers of `size` bytes.
    pub(crate) fn new(size: usize) -> Self {
        Buffers { size, spare: RefCell::default() }
    }

    /// Gives `buffer` space, if it has none.
    pub(crate) fn lend(&self, buffer: &mut Buffer) {
        if !buffer.has_space() {
            let spare = self.spare.borrow_mut().pop();
            buffer.space = spare.unwrap_or_else(|| vec![0; self.size].into_boxed_slice());
        }
    }

    /// Takes the space of `buffer` back, if nothing waits in it.
    pub(crate) fn reclaim(&self, buffer: &mut Buffer) {
        if buffer.is_empty() && buffer.has_space() {
            let space = mem::take(&mut buffer.space);
            let mut spare = self.spare.borrow_mut();
            if spare.len() < KEPT {
                spare.push(space);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_they_came() {
        let buffers = Buffers::new(4);
        let mut buffer = Buffer::default();
        assert!(buffer.is_empty() && buffer.room().is_empty());
        buffers.lend(&mut buffer);
        buffer.room().copy_from_slice(b"abcd");
        buffer.filled(4);
        assert!(buffer.is_full() && buffer.room().is_empty());
        buffer.take(3);
        assert_eq!(buffer.room().len(), 3, "what waits moves to the front");
        buffer.room()[..1].copy_from_slice(b"e");
        buffer.filled(1);
        assert_eq!(buffer.bytes(), b"de");
        buffers.reclaim(&mut buffer);
        assert!(buffer.has_space(), "something waits");
        buffer.take(2);
        buffers.reclaim(&mut buffer);
        assert!(!buffer.has_space());
        assert_eq!(buffers.spare.borrow().len(), 1);
    }
}
