//! The chunked transfer coding (RFC 9112, section 7.1), read as it comes.

/// The longest line of a chunk's size with its extensions, in bytes. Extensions are read over; nobody needs long ones.
const LONGEST_LINE: usize = 256;

/// What a chunked body goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// So many bytes of content, at the front of what was given.
    Data(usize),
    /// More bytes are needed.
    More,
    /// The content has ended. What was given now begins with the trailer section.
    Trailers,
}

/// What is no chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadChunk;

/// Where in a chunked body the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunked {
    /// At the beginning of a chunk.
    Size,
    /// In a chunk with so many bytes to come, at least one.
    Data(u64),
    /// After a chunk's content.
    DataEnd,
    /// After the last chunk.
    Trailers,
}

impl Chunked {
    /// What comes next, with the number of bytes of framing to take away before it.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Result<(usize, Piece), BadChunk> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            match self {
                Chunked::Size => match size_line(rest)? {
                    None => return Ok((at, Piece::More)),
                    Some((line, size)) => {
                        at += line;
                        *self = if size == 0 { Chunked::Trailers } else { Chunked::Data(size) };
                    }
                },
                Chunked::Data(_) if rest.is_empty() => return Ok((at, Piece::More)),
                Chunked::Data(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    return Ok((at, Piece::Data(here)));
                }
                Chunked::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        *self = Chunked::Size;
                    }
                    [] | [b'\r'] => return Ok((at, Piece::More)),
                    _ => return Err(BadChunk),
                },
                Chunked::Trailers => return Ok((at, Piece::Trailers)),
            }
        }
    }

    /// So many bytes of content were taken away.
    pub(crate) fn took(&mut self, bytes: usize) {
        if let Chunked::Data(left) = self {
            *left -= bytes as u64;
            if *left == 0 {
                *self = Chunked::DataEnd;
            }
        }
    }
}

/// A line with a chunk's size: its length, its line end included, and the size.
fn size_line(bytes: &[u8]) -> Result<Option<(usize, u64)>, BadChunk> {
    let shown = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(feed) = memchr::memchr(b'\n', shown) else {
        let (digits, _) = split_digits(shown);
        let hopeless = bytes.len() >= LONGEST_LINE || digits.len() > 16 || (digits.is_empty() && !shown.is_empty());
        return if hopeless { Err(BadChunk) } else { Ok(None) };
    };
    let line = shown[..feed].strip_suffix(b"\r").ok_or(BadChunk)?;
    let (digits, extension) = split_digits(line);
    if digits.is_empty() || digits.len() > 16 {
        return Err(BadChunk);
    }
    let clean = |&b: &u8| b == b'\t' || (b >= b' ' && b != 0x7f);
    // Blanks before the semicolon are bad whitespace, which must be read over.
    let begins = extension.trim_ascii_start();
    if !(begins.is_empty() && extension.is_empty() || begins.first() == Some(&b';') && extension.iter().all(clean)) {
        return Err(BadChunk);
    }
    let size = digits.iter().fold(0_u64, |size, &digit| size << 4 | u64::from(value(digit)));
    Ok(Some((feed + 1, size)))
}

fn split_digits(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    line.split_at(end)
}

fn value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content of a body that comes in pieces of `step` bytes, and what is left after it.
    fn read(body: &[u8], step: usize) -> Result<(Vec<u8>, Vec<u8>), BadChunk> {
        let (mut state, mut buffer, mut content) = (Chunked::Size, Vec::new(), Vec::new());
        let mut pieces = body.chunks(step);
        loop {
            let (framing, piece) = state.next(&buffer)?;
            buffer.drain(..framing);
            match piece {
                Piece::Data(n) => {
                    content.extend(buffer.drain(..n));
                    state.took(n);
                }
                Piece::More => buffer.extend_from_slice(pieces.next().ok_or(BadChunk)?),
                Piece::Trailers => {
                    buffer.extend(pieces.flatten());
                    return Ok((content, buffer));
                }
            }
        }
    }

    #[test]
    fn content_is_the_same_however_it_comes() {
        let body = b"5\r\nhello\r\n00A ;x=\"y\"\r\n0123456789\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n";
        for step in 1..body.len() {
            let (content, rest) = read(body, step).unwrap();
            assert_eq!(content, b"hello0123456789!", "in steps of {step}");
            assert_eq!(rest, b"X: y\r\n\r\n");
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for bad in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1\n",
            "1 \r\nx",
            "1\r\nxy",
            "1\r\nx\n",
            "1\r\nx\rz",
            "1;\x00\r\nx",
            "1;a\rb\r\nx",
            "1 x\r\nx",
            "10000000000000000\r\n",
        ] {
            assert_eq!(read(bad.as_bytes(), 1), Err(BadChunk), "{bad:?}");
            assert_eq!(read(bad.as_bytes(), 64), Err(BadChunk), "{bad:?}");
        }
    }

    #[test]
    fn a_line_that_does_not_end_is_refused_before_it_fills_anything() {
        let mut state = Chunked::Size;
        let line = format!("1;{}", "x".repeat(LONGEST_LINE));
        assert_eq!(state.next(line.as_bytes()), Err(BadChunk));
        assert_eq!(state.next(b"1;xxx"), Ok((0, Piece::More)));
    }
}
