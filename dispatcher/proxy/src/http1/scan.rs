//! Where a head ends, found as its bytes come.

use memchr::memmem::Finder;
use std::sync::LazyLock;

/// The end of a head's last line, and the empty line after it.
static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// How far the search for a head's end has come. Every byte is looked at once, however slowly they come.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// So many bytes were looked at, and the head does not end in them.
    seen: usize,
}

/// A line that does not end in CR LF (RFC 9112, section 2.2).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BareLineFeed;

impl Scan {
    /// The length of the head that `bytes` begins with, its empty line included, which may be all of it; `None` as long
    /// as that is missing. To be asked again with the same bytes and more.
    ///
    /// # Errors
    /// [`BareLineFeed`], as soon as there is one.
    pub(crate) fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, BareLineFeed> {
        let end = if bytes.starts_with(b"\r\n") {
            Some(2)
        } else {
            // It may have begun in what was looked at.
            let from = self.seen.saturating_sub(3);
            END.find(&bytes[from..]).map(|at| from + at + 4)
        };
        let head = &bytes[..end.unwrap_or(bytes.len())];
        if head.first() == Some(&b'\n') || has_bare_line_feed(&head[self.seen.saturating_sub(1)..]) {
            return Err(BareLineFeed);
        }
        self.seen = if end.is_some() { 0 } else { head.len() };
        Ok(end)
    }
}

/// Whether there is one after the first byte.
fn has_bare_line_feed(bytes: &[u8]) -> bool {
    // Without a way out of the loop the compiler looks at many bytes at a time.
    let pairs = bytes.iter().zip(bytes.iter().skip(1));
    pairs.fold(false, |found, (before, byte)| found | ((*byte == b'\n') & (*before != b'\r')))
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
            let mut scan = Scan::default();
            let refused = (1..=bytes.len()).position(|come| scan.end(&bytes.as_bytes()[..come]).is_err());
            assert_eq!(refused, Some(bytes.len() - 1), "{bytes:?} byte by byte");
        }
    }

    #[test]
    fn what_follows_a_head_is_not_looked_at() {
        assert_eq!(Scan::default().end(b"A: b\r\n\r\n\nx\n"), Ok(Some(8)));
        assert_eq!(Scan::default().end(b"\r\n\n"), Ok(Some(2)));
    }

    #[test]
    fn a_scan_begins_anew_after_a_head() {
        let mut scan = Scan::default();
        assert_eq!(scan.end(b"A: b\r\n\r\n"), Ok(Some(8)));
        assert_eq!(scan.end(b"A: b\r\n\r\n"), Ok(Some(8)));
    }
}
