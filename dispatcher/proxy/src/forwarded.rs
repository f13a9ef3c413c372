//! Where a request came from, as servers are told: `X-Forwarded-For`, `-Proto` and `-Host`, and `Forwarded` (RFC 7239).
//!
//! Anyone can write such fields. What the next hop is told, the dispatcher vouches for: it believes what trusted peers
//! say and adds to it, and replaces what others say. Fields of the kind that it does not write, it does not pass on
//! either.

/// Which fields tell where a request came from. Those are believed, if a trusted peer sent them, and written; others
/// are removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarding {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    #[default]
    XForwarded,
    /// `Forwarded`.
    Rfc7239,
    /// Both kinds.
    Both,
    /// None.
    Off,
}

impl Forwarding {
    fn is_x_forwarded(self) -> bool {
        matches!(self, Forwarding::XForwarded | Forwarding::Both)
    }

    fn is_rfc7239(self) -> bool {
        matches!(self, Forwarding::Rfc7239 | Forwarding::Both)
    }
}

/// What the dispatcher itself knows of where a request came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop<'a> {
    /// The IP address that the request came from.
    pub(crate) address: &'a str,
    /// Whether what comes from there is believed.
    pub(crate) trusted: bool,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The host that was asked, with its port if it named one.
    pub(crate) host: Option<&'a [u8]>,
}

/// What a request says of where it came from: the values of its fields, in order.
#[derive(Clone, Debug)]
pub(crate) struct Claims<I> {
    /// Of `X-Forwarded-For`.
    pub(crate) x_for: I,
    /// Of `X-Forwarded-Proto`.
    pub(crate) x_proto: I,
    /// Of `X-Forwarded-Host`.
    pub(crate) x_host: I,
    /// Of `Forwarded`.
    pub(crate) forwarded: I,
}

/// Writes the lines that tell a server where a request came from.
pub(crate) fn write<'a, I>(forwarding: Forwarding, hop: &Hop<'_>, claims: &Claims<I>, out: &mut Vec<u8>)
where
    I: Iterator<Item = &'a [u8]> + Clone,
{
    let believed = |values: &I| {
        let values = hop.trusted.then(|| values.clone());
        values.into_iter().flatten().filter(|value| !value.is_empty())
    };
    if forwarding.is_x_forwarded() {
        line("x-forwarded-for", believed(&claims.x_for), out, |out| out.extend_from_slice(hop.address.as_bytes()));
        // Scheme and host are those of the client's own request. Where there are several, the trusted peer's come last.
        let scheme = believed(&claims.x_proto).last().unwrap_or(hop.scheme.as_bytes());
        line("x-forwarded-proto", [].into_iter(), out, |out| out.extend_from_slice(scheme));
        if let Some(host) = believed(&claims.x_host).last().or(hop.host) {
            line("x-forwarded-host", [].into_iter(), out, |out| out.extend_from_slice(host));
        }
    }
    if forwarding.is_rfc7239() {
        // What is added after a quotation that does not end would be part of it.
        let sound = believed(&claims.forwarded).flat_map(elements).all(|element| element.is_ok());
        line("forwarded", believed(&claims.forwarded).filter(|_| sound), out, |out| element(hop, out));
    }
}

/// Writes one line with a list: `values`, and after them what `own` writes.
fn line<'a>(name: &str, values: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>, own: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    for value in values {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
    own(out);
    out.extend_from_slice(b"\r\n");
}

/// Writes what the dispatcher knows as an element of `Forwarded` (RFC 7239, section 4).
fn element(hop: &Hop<'_>, out: &mut Vec<u8>) {
    let is_ipv6 = hop.address.contains(':');
    let [open, close] = if is_ipv6 { ["\"[", "]\""] } else { ["", ""] };
    for part in ["for=", open, hop.address, close, ";proto=", hop.scheme] {
        out.extend_from_slice(part.as_bytes());
    }
    if let Some(host) = hop.host {
        out.extend_from_slice(b";host=");
        value(host, out);
    }
}

/// Writes a value, quoted where it is no token (RFC 9110, section 5.6.4).
fn value(text: &[u8], out: &mut Vec<u8>) {
    if !text.is_empty() && text.iter().copied().all(is_token) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Whether a character may be in a token (RFC 9110, section 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A value of `Forwarded` that cannot be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The `for` of every element of a value of `Forwarded` (RFC 7239, section 4). Ends after the first fault.
pub(crate) fn elements(value: &[u8]) -> Elements<'_> {
    Elements { rest: value }
}

pub(crate) struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Option<&'a [u8]>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        // Empty elements are none (RFC 9110, section 5.6.1.2).
        self.skip(|byte| matches!(byte, b',' | b' ' | b'\t'));
        if self.rest.is_empty() {
            return None;
        }
        let element = self.element();
        if element.is_err() {
            self.rest = &[];
        }
        Some(element)
    }
}

impl<'a> Elements<'a> {
    /// Takes the bytes off the front that are as wanted.
    fn skip(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|&byte| !wanted(byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn take(&mut self, byte: u8) -> bool {
        let taken = self.rest.strip_prefix(&[byte]);
        self.rest = taken.unwrap_or(self.rest);
        taken.is_some()
    }

    /// Takes an element, up to its comma or the end.
    fn element(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let mut node = None;
        loop {
            // Blanks around semicolons are not allowed, but usual.
            self.skip(is_blank);
            let name = self.skip(is_token);
            if !name.is_empty() {
                let value = if self.take(b'=') { self.value()? } else { return Err(Malformed) };
                if name.eq_ignore_ascii_case(b"for") && node.replace(value).is_some() {
                    return Err(Malformed);
                }
            }
            self.skip(is_blank);
            match self.rest.first() {
                Some(b';') => self.rest = &self.rest[1..],
                Some(b',') | None => return Ok(node),
                Some(_) => return Err(Malformed),
            }
        }
    }

    /// Takes a value, without its quotation marks. Escapes stay as they are: no address needs them.
    fn value(&mut self) -> Result<&'a [u8], Malformed> {
        if !self.take(b'"') {
            // Addresses with colons and brackets must be quoted, but are often seen without.
            let value = self.skip(|byte| is_token(byte) || matches!(byte, b':' | b'[' | b']'));
            return if value.is_empty() { Err(Malformed) } else { Ok(value) };
        }
        let quoted = self.rest;
        loop {
            self.skip(|byte| !matches!(byte, b'"' | b'\\'));
            match self.rest {
                [b'"', rest @ ..] => {
                    let value = &quoted[..quoted.len() - self.rest.len()];
                    self.rest = rest;
                    return Ok(value);
                }
                [b'\\', _, rest @ ..] => self.rest = rest,
                _ => return Err(Malformed),
            }
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
#[path = "forwarded_tests.rs"]
mod tests;
