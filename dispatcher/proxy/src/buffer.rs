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
    fn is_full(&self) -> bool {
        self.end - self.start == self.space.len()
    }

    /// Moves the bytes to the front of `space`, which has room for them; returns what they were in.
    fn move_to(&mut self, mut space: Box<[u8]>) -> Box<[u8]> {
        let waiting = self.bytes().len();
        space[..waiting].copy_from_slice(self.bytes());
        (self.start, self.end) = (0, waiting);
        mem::replace(&mut self.space, space)
    }

    /// How much space there is, taken or not.
    pub(crate) fn size(&self) -> usize {
        self.space.len()
    }

    /// Whether there is space at all.
    fn has_space(&self) -> bool {
        !self.space.is_empty()
    }
}

/// The spare buffers of a thread. A connection that nothing has come from has none.
#[derive(Debug)]
pub(crate) struct Buffers {
    size: usize,
    spare: RefCell<Vec<Box<[u8]>>>,
    /// For what goes out.
    staging: RefCell<Vec<Vec<u8>>>,
}

/// So many spare buffers are kept.
const KEPT: usize = 64;

/// No spare space for what goes out is larger.
const STAGING: usize = 8192;

/// No more space than this is left to a few bytes for which the next are waited for: they may take their time. It is enough
/// for most heads.
const SMALL: usize = 4096;

impl Buffers {
    /// Buffers of `size` bytes.
    pub(crate) fn new(size: usize) -> Self {
        Buffers { size, spare: RefCell::default(), staging: RefCell::default() }
    }

    /// Whether `buffer` can take no more bytes, however much space it is given.
    pub(crate) fn is_full(&self, buffer: &Buffer) -> bool {
        buffer.bytes().len() == self.size
    }

    /// Gives `buffer` space, if it has none left.
    pub(crate) fn lend(&self, buffer: &mut Buffer) {
        if buffer.is_full() && buffer.size() < self.size {
            let spare = self.spare.borrow_mut().pop().unwrap_or_else(|| space(self.size));
            if buffer.has_space() {
                buffer.move_to(spare);
            } else {
                buffer.space = spare;
            }
        }
    }

    /// Leaves `buffer`, for which bytes are waited for, no more space than it needs if that is little.
    pub(crate) fn shrink(&self, buffer: &mut Buffer) {
        if !buffer.is_empty() && buffer.bytes().len() < SMALL && buffer.size() > SMALL {
            self.put_aside(buffer.move_to(space(SMALL)));
        }
    }

    /// Takes the space of `buffer` back, if nothing waits in it.
    pub(crate) fn reclaim(&self, buffer: &mut Buffer) {
        if buffer.is_empty() && buffer.has_space() {
            self.put_aside(mem::take(&mut buffer.space));
        }
    }

    /// Gives `staged` space, if it has none and some is spare.
    pub(crate) fn lend_staging(&self, staged: &mut Vec<u8>) {
        if staged.capacity() == 0
            && let Some(spare) = self.staging.borrow_mut().pop()
        {
            *staged = spare;
        }
    }

    /// Empties `staged`, and takes its space back.
    pub(crate) fn reclaim_staging(&self, staged: &mut Vec<u8>) {
        let mut space = mem::take(staged);
        let mut staging = self.staging.borrow_mut();
        if space.capacity() > 0 && staging.len() < KEPT {
            space.clear();
            space.shrink_to(STAGING);
            staging.push(space);
        }
    }

    /// Keeps space for the next buffer.
    fn put_aside(&self, space: Box<[u8]>) {
        let mut spare = self.spare.borrow_mut();
        if space.len() == self.size && spare.len() < KEPT {
            spare.push(space);
        }
    }
}

fn space(size: usize) -> Box<[u8]> {
    vec![0; size].into_boxed_slice()
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

    fn fill(buffer: &mut Buffer, bytes: usize) {
        buffer.room()[..bytes].fill(b'x');
        buffer.filled(bytes);
    }

    #[test]
    fn a_few_bytes_that_wait_for_more_hold_little_space_until_they_need_it() {
        let buffers = Buffers::new(2 * SMALL);
        let mut buffer = Buffer::default();
        buffers.lend(&mut buffer);
        assert_eq!(buffer.size(), 2 * SMALL, "what comes is read into a large one");
        fill(&mut buffer, 3);
        buffer.take(1);
        buffers.shrink(&mut buffer);
        assert_eq!((buffer.size(), buffer.bytes()), (SMALL, &b"xx"[..]));
        assert_eq!(buffers.spare.borrow().len(), 1);
        buffers.lend(&mut buffer);
        assert_eq!(buffer.size(), SMALL, "it has room");
        fill(&mut buffer, SMALL - 2);
        assert!(!buffers.is_full(&buffer));
        buffers.lend(&mut buffer);
        assert_eq!((buffer.size(), buffer.bytes().len(), buffers.spare.borrow().len()), (2 * SMALL, SMALL, 0));
        buffers.shrink(&mut buffer);
        assert_eq!(buffer.size(), 2 * SMALL, "it is in use");
        fill(&mut buffer, SMALL);
        assert!(buffers.is_full(&buffer));
        assert_eq!(buffer.bytes(), [b'x'; 2 * SMALL]);
    }

    #[test]
    fn space_for_what_goes_out_is_used_again_but_not_kept_if_it_is_large() {
        let buffers = Buffers::new(4);
        let mut staged = Vec::new();
        buffers.lend_staging(&mut staged);
        assert_eq!(staged.capacity(), 0, "none is spare");
        buffers.reclaim_staging(&mut staged);
        assert!(buffers.staging.borrow().is_empty(), "there was none");
        staged.resize(2 * STAGING, b'x');
        buffers.reclaim_staging(&mut staged);
        assert_eq!(staged.capacity(), 0);
        buffers.lend_staging(&mut staged);
        assert!(staged.is_empty() && (1..2 * STAGING).contains(&staged.capacity()), "{}", staged.capacity());
        staged.push(b'y');
        buffers.lend_staging(&mut staged);
        assert_eq!(staged, b"y", "what is staged stays");
    }

    #[test]
    fn small_space_is_not_kept_and_a_small_buffer_stays_as_it_is() {
        let buffers = Buffers::new(2 * SMALL);
        let mut buffer = Buffer::default();
        buffers.lend(&mut buffer);
        fill(&mut buffer, 1);
        buffers.shrink(&mut buffer);
        buffer.take(1);
        buffers.reclaim(&mut buffer);
        assert_eq!(buffers.spare.borrow().iter().map(|space| space.len()).collect::<Vec<_>>(), [2 * SMALL]);
        let buffers = Buffers::new(4);
        buffers.lend(&mut buffer);
        fill(&mut buffer, 1);
        buffers.shrink(&mut buffer);
        assert_eq!(buffer.size(), 4);
    }
}
