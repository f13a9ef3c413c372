//! Bytes of a trace, decompressed, with their offsets.

use flate2::read::MultiGzDecoder;
use std::io::{self, BufRead, BufReader, Cursor, Read};

/// Longest line that is read, in bytes. A longer one is a broken record, not a way to fill the memory.
const MAX_LINE: usize = 64 * 1024;

/// How much of the beginning is looked at to detect the format, in bytes.
const HEAD: usize = 64 * 1024;

pub(crate) struct Source {
    input: Box<dyn BufRead + Send>,
    head: Vec<u8>,
    offset: u64,
}

/// What [`Source::line`] found.
pub(crate) enum Line {
    /// A line, now in the buffer without its end; `ended` tells whether it had one.
    Whole { ended: bool },
    /// A line that is longer than is read; it was skipped.
    TooLong,
    /// No more lines.
    End,
}

impl Source {
    /// From plain or gzipped bytes.
    pub(crate) fn new(input: impl Read + Send + 'static) -> io::Result<Source> {
        let (magic, input) = take_head(input, 2)?;
        let gzipped = magic == [0x1f, 0x8b];
        let input = Cursor::new(magic).chain(input);
        if gzipped { Self::plain(MultiGzDecoder::new(BufReader::new(input))) } else { Self::plain(input) }
    }

    fn plain(input: impl Read + Send + 'static) -> io::Result<Source> {
        let (head, input) = take_head(input, HEAD)?;
        let input = Box::new(BufReader::with_capacity(HEAD, Cursor::new(head.clone()).chain(input)));
        Ok(Source { input, head, offset: 0 })
    }

    /// The first bytes of the trace.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Frees the copy of the first bytes.
    pub(crate) fn forget_head(&mut self) {
        self.head = Vec::new();
    }

    /// Bytes read so far.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads a line into `line`, without its line break.
    pub(crate) fn line(&mut self, line: &mut Vec<u8>) -> io::Result<Line> {
        line.clear();
        let read = (&mut self.input).take(MAX_LINE as u64 + 1).read_until(b'\n', line)?;
        self.offset += read as u64;
        if read == 0 {
            return Ok(Line::End);
        }
        let ended = line.last() == Some(&b'\n');
        if !ended && read > MAX_LINE {
            self.offset += self.input.skip_until(b'\n')? as u64;
            return Ok(Line::TooLong);
        }
        while matches!(line.last(), Some(b'\n' | b'\r')) {
            line.pop();
        }
        Ok(Line::Whole { ended })
    }

    /// Fills `block` as far as the trace goes, and tells how far.
    pub(crate) fn fill(&mut self, block: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < block.len() {
            match self.input.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }
}

/// Up to `size` bytes of the beginning of `input`, and the rest. If the input fails within them, the rest fails so.
fn take_head<R: Read>(input: R, size: usize) -> io::Result<(Vec<u8>, impl Read + use<R>)> {
    let mut head = Vec::new();
    let mut limited = input.take(size as u64);
    let failure = loop {
        let mut part = [0; 4096];
        match limited.read(&mut part) {
            Ok(0) => break None,
            Ok(read) => head.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Some(error),
        }
    };
    Ok((head, Rest { input: limited.into_inner(), failure }))
}

struct Rest<R> {
    input: R,
    failure: Option<io::Error>,
}

impl<R: Read> Read for Rest<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.failure.take() {
            Some(error) => Err(error),
            None => self.input.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn lines(source: &mut Source) -> Vec<String> {
        let mut line = Vec::new();
        let mut all = Vec::new();
        loop {
            match source.line(&mut line).unwrap() {
                Line::Whole { ended } => {
                    all.push(format!("{}{}", String::from_utf8_lossy(&line), ["!", ""][usize::from(ended)]))
                }
                Line::TooLong => all.push("too long".into()),
                Line::End => return all,
            }
        }
    }

    #[test]
    fn lines_are_bounded_and_counted() {
        let text = format!("a\r\n\n{}\nlast", "x".repeat(MAX_LINE * 3));
        let mut source = Source::new(Cursor::new(text.clone())).unwrap();
        assert_eq!(lines(&mut source), ["a", "", "too long", "last!"]);
        assert_eq!(source.offset(), text.len() as u64);
    }

    #[test]
    fn gzip_is_seen_through_even_in_several_members() {
        let mut bytes = Vec::new();
        for text in ["one\ntw", "o\n"] {
            let mut gzip = GzEncoder::new(&mut bytes, Compression::fast());
            gzip.write_all(text.as_bytes()).unwrap();
            gzip.finish().unwrap();
        }
        let mut source = Source::new(Cursor::new(bytes)).unwrap();
        assert_eq!(source.head(), b"one\ntwo\n");
        assert_eq!(lines(&mut source), ["one", "two"]);
    }

    #[test]
    fn a_cut_gzip_fails_after_what_can_be_read() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
        gzip.write_all("line\n".repeat(100_000).as_bytes()).unwrap();
        let mut bytes = gzip.finish().unwrap();
        bytes.truncate(bytes.len() - 1000);
        let mut source = Source::new(Cursor::new(bytes)).unwrap();
        let mut line = Vec::new();
        let mut whole = 0;
        let error = loop {
            match source.line(&mut line) {
                Ok(Line::Whole { .. }) => whole += 1,
                Ok(_) => panic!("the cut was not noticed"),
                Err(error) => break error,
            }
        };
        assert!(whole > 50_000, "{whole}");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
