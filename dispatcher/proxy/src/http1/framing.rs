//! How long a message's body is (RFC 9112, section 6.3).

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// There is none.
    None,
    /// So many bytes, at least one.
    Exact(u64),
    /// Its chunks tell.
    Chunked,
    /// All that comes until the connection closes; responses only.
    UntilClose,
}

impl Length {
    pub(crate) fn exact(bytes: u64) -> Self {
        if bytes == 0 { Length::None } else { Length::Exact(bytes) }
    }
}

/// What the fields of a head say about its body: its length fields and its coding fields, in order.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    /// The value of `Content-Length`.
    pub(crate) length: Option<u64>,
    /// What `Transfer-Encoding` says.
    pub(crate) coding: Option<Coding>,
}

/// What a message's transfer coding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// `chunked`, and nothing else.
    Chunked,
    /// Others, and `chunked` last: the end can be told, the content not be read.
    Other,
}

/// Fields that contradict themselves, or say nothing that can be understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unclear;

impl Told {
    /// Takes in the value of a `Content-Length`. A second one is refused even where it says the same, and so is a list.
    pub(crate) fn length(&mut self, value: &[u8]) -> Result<(), Unclear> {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let parsed = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).filter(|_| digits);
        match (self.length, parsed) {
            (None, Some(length)) => {
                self.length = Some(length);
                Ok(())
            }
            _ => Err(Unclear),
        }
    }

    /// Takes in the value of a `Transfer-Encoding`. Its last coding must be `chunked`, once.
    pub(crate) fn coding(&mut self, value: &[u8]) -> Result<(), Unclear> {
        if self.coding == Some(Coding::Chunked) {
            return Err(Unclear);
        }
        let mut codings = value.split(|&b| b == b',').map(<[u8]>::trim_ascii).rev();
        let last = codings.next().unwrap_or_default();
        if !last.eq_ignore_ascii_case(b"chunked") || codings.clone().any(|c| c.eq_ignore_ascii_case(b"chunked")) {
            return Err(Unclear);
        }
        let alone = codings.next().is_none() && self.coding.is_none();
        self.coding = Some(if alone { Coding::Chunked } else { Coding::Other });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lengths: &[&str], codings: &[&str]) -> Result<Told, Unclear> {
        let mut told = Told::default();
        lengths.iter().try_for_each(|value| told.length(value.as_bytes()))?;
        codings.iter().try_for_each(|value| told.coding(value.as_bytes()))?;
        Ok(told)
    }

    #[test]
    fn lengths_are_digits_once() {
        assert_eq!(told(&["0"], &[]).unwrap().length, Some(0));
        assert_eq!(told(&["18446744073709551615"], &[]).unwrap().length, Some(u64::MAX));
        for bad in ["", "+1", "-1", " 1", "1 ", "0x1", "1,1", "1, 1", "18446744073709551616", "१"] {
            assert_eq!(told(&[bad], &[]), Err(Unclear), "{bad:?}");
        }
        assert_eq!(told(&["1", "1"], &[]), Err(Unclear));
    }

    #[test]
    fn the_last_coding_is_chunked_once() {
        assert_eq!(told(&[], &["Chunked"]).unwrap().coding, Some(Coding::Chunked));
        assert_eq!(told(&[], &["gzip ,\tchunked"]).unwrap().coding, Some(Coding::Other));
        for bad in ["", "gzip", "chunked, gzip", "chunked, chunked", "xchunked", "chunked;q=1", "chunked,"] {
            assert_eq!(told(&[], &[bad]), Err(Unclear), "{bad:?}");
        }
        assert_eq!(told(&[], &["chunked", "chunked"]), Err(Unclear));
        assert_eq!(told(&[], &["gzip", "chunked"]), Err(Unclear), "the first field alone is not final");
    }
}
