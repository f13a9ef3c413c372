//! Lines out of a stream that is cut anywhere.

use bytes::{Bytes, BytesMut};

/// Collects the pieces of a stream and hands out its lines.
#[derive(Debug)]
pub(crate) struct Lines {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    searched: usize,
    longest: usize,
}

/// A line is longer than allowed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of more than {longest} bytes")]
pub(crate) struct TooLong {
    longest: usize,
}

impl Lines {
    /// No line may have more than `longest` bytes.
    pub(crate) fn new(longest: usize) -> Self {
        Lines { buffer: BytesMut::new(), searched: 0, longest }
    }

    /// Takes the next piece of the stream. Call [`next`](Self::next) until it has no more before the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole line, without its end.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        let end = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n').map(|at| at + self.searched);
        if end.unwrap_or(self.buffer.len()) > self.longest {
            return Err(TooLong { longest: self.longest });
        }
        let Some(end) = end else {
            self.searched = self.buffer.len();
            return Ok(None);
        };
        self.searched = 0;
        let mut line = self.buffer.split_to(end + 1);
        line.truncate(end);
        Ok(Some(line.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<String> {
        std::iter::from_fn(|| lines.next().unwrap()).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
    }

    #[test]
    fn lines_are_the_same_wherever_the_stream_is_cut() {
        let text = b"one\n\nthree 3\nfour\nrest";
        for first in 0..text.len() {
            for second in first..text.len() {
                let mut lines = Lines::new(16);
                let mut found = Vec::new();
                for piece in [&text[..first], &text[first..second], &text[second..]] {
                    lines.push(piece);
                    found.extend(all(&mut lines));
                }
                assert_eq!(found, ["one", "", "three 3", "four"], "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn an_over_long_line_is_refused_whether_it_ends_or_not() {
        for text in ["12345", "12345\n"] {
            let mut lines = Lines::new(4);
            lines.push(text.as_bytes());
            assert_eq!(lines.next(), Err(TooLong { longest: 4 }));
        }
        let mut lines = Lines::new(4);
        lines.push(b"1234\n");
        assert_eq!(all(&mut lines), ["1234"]);
    }
}
