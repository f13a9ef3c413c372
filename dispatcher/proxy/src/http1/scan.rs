//! Where a head ends, found as its bytes come.

use memchr::memchr;

/// How far the search for a head's end has come. Every byte is looked at once, however slowly they come.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Before this there is no line end that was not looked at.
    at: usize,
    /// Where the line that `at` is in began.
    line: usize,
}

/// A line that does not end in CR LF (RFC 9112, section 2.2).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BareLineFeed;

impl Scan {
    /// The length of the head that `bytes` begins with, its empty line included; `None` as long as that is missing.
    /// To be asked again with the same bytes and more.
    ///
    /// # Errors
    /// [`BareLineFeed`], as soon as there is one.
    pub(crate) fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, BareLineFeed> {
        while let Some(found) = memchr(b'\n', &bytes[self.at..]) {
            let feed = self.at + found;
            let line = feed - self.line;
            if line == 0 || bytes[feed - 1] != b'\r' {
                return Err(BareLineFeed);
            }
            self.at = feed + 1;
            self.line = feed + 1;
            if line == 1 {
                *self = Scan::default();
                return Ok(Some(feed + 1));
            }
        }
        self.at = bytes.len();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_wherever_the_pieces_break() {
        let head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nrest";
        for cut in 0..head.len() {
            let mut scan = Scan::default();
            let early = scan.end(&head[..cut]).unwrap();
            let whole = if early.is_some() { early } else { scan.end(head).unwrap() };
            assert_eq!(whole, Some(head.len() - 4), "cut at {cut}");
        }
    }

    #[test]
    fn a_bare_line_feed_is_refused_as_soon_as_it_is_there() {
        for bytes in ["GET / HTTP/1.1\n", "\n", "GET / HTTP/1.1\r\nHost: x\n", "GET / HTTP/1.1\r\n\n"] {
            assert_eq!(Scan::default().end(bytes.as_bytes()), Err(BareLineFeed), "{bytes:?}");
        }
    }

    #[test]
    fn a_scan_begins_anew_after_a_head() {
        let mut scan = Scan::default();
        assert_eq!(scan.end(b"A: b\r\n\r\n"), Ok(Some(8)));
        assert_eq!(scan.end(b"A: b\r\n\r\n"), Ok(Some(8)));
    }
}
