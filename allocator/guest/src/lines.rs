//! Lines of bounded length from bytes that come in pieces.

use std::collections::VecDeque;

/// A line was longer than is allowed; it is left out, and the lines after it are whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// Cuts bytes into lines, and holds no more of a line than is allowed.
#[derive(Debug)]
pub struct Lines {
    most: usize,
    begun: Vec<u8>,
    /// The line that is coming is too long already.
    skipping: bool,
    whole: VecDeque<Result<Vec<u8>, TooLong>>,
}

impl Lines {
    /// Of lines of `most` bytes at most, without their end.
    pub fn new(most: usize) -> Self {
        Lines { most, begun: Vec::new(), skipping: false, whole: VecDeque::new() }
    }

    /// Takes the next bytes. All lines that they end should be taken with [`next_line`](Self::next_line) before more
    /// are fed: that bounds what is held to the length of a line and of one piece.
    pub fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ends) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            self.skipping |= self.begun.len() + text.len() > self.most;
            if self.skipping {
                self.begun = Vec::new();
            } else {
                self.begun.extend_from_slice(text);
            }
            if ends {
                let line = std::mem::take(&mut self.begun);
                self.whole.push_back(if std::mem::take(&mut self.skipping) { Err(TooLong) } else { Ok(line) });
            }
        }
    }

    /// The next whole line without its end, or that it was too long; `None`: more bytes are needed.
    pub fn next_line(&mut self) -> Option<Result<Vec<u8>, TooLong>> {
        self.whole.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(lines: &mut Lines) -> Vec<Result<Vec<u8>, TooLong>> {
        std::iter::from_fn(|| lines.next_line()).collect()
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out_and_nothing_else() {
        let mut lines = Lines::new(5);
        lines.feed(b"12345\n123456\nab");
        assert_eq!(all(&mut lines), [Ok(b"12345".to_vec()), Err(TooLong)]);
        lines.feed(b"cdefghijkl");
        assert!(lines.begun.capacity() == 0, "what is too long is not held");
        lines.feed(b"\n\nok\n");
        assert_eq!(all(&mut lines), [Err(TooLong), Ok(vec![]), Ok(b"ok".to_vec())]);
    }

    proptest! {
        #[test]
        fn how_bytes_are_cut_does_not_matter(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            cuts in prop::collection::vec(0..200usize, 0..10),
        ) {
            let mut at_once = Lines::new(8);
            at_once.feed(&bytes);
            let mut pieces = Lines::new(8);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            cuts.windows(2).for_each(|cut| pieces.feed(&bytes[cut[0]..cut[1]]));
            prop_assert!(pieces.begun.len() <= 8);
            let lines = all(&mut at_once);
            prop_assert_eq!(&lines, &all(&mut pieces));
            prop_assert_eq!(lines.len(), bytes.iter().filter(|&&byte| byte == b'\n').count());
        }
    }
}
