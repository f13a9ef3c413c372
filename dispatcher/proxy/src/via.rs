//! The way that a request took, as `Via` tells it, and loops in it (RFC 9110, section 7.6.3).

use crate::forwarded::is_token;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;

/// The longest pseudonym, in bytes.
const LONGEST: usize = 64;

/// The name that a dispatcher goes by in `Via`. A request that already bears it went in a circle and is refused, so no
/// two dispatchers on the way of a request may have the same; all that answer at one address may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pseudonym {
    name: Box<str>,
    /// Nobody has chosen it.
    drawn: bool,
}

impl Pseudonym {
    /// `vibra-` and a number that is this process's own.
    pub fn random() -> Self {
        // The standard library keys its hashers from the system's randomness.
        let number = RandomState::new().hash_one("pseudonym");
        Pseudonym { name: format!("vibra-{number:016x}").into(), drawn: true }
    }

    /// This one; but the earlier one `before` where both are drawn, for a reload is no reason to draw anew.
    pub(crate) fn after(self, before: &Pseudonym) -> Self {
        if self.drawn && before.drawn { before.clone() } else { self }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Whether a request with these values of `Via` has been here before.
    pub(crate) fn is_among<'a>(&self, values: impl Iterator<Item = &'a [u8]>) -> bool {
        // Comments are not told from hops: behind one that does not end, a loop could hide.
        let mut hops = values.flat_map(|value| value.split(|&byte| byte == b','));
        hops.any(|hop| name(hop).is_some_and(|name| name.eq_ignore_ascii_case(self.name.as_bytes())))
    }

    /// Writes the line `via`: what it said already, and this hop after it. `version` is the version of HTTP that the
    /// request came in, such as `1.1`.
    pub(crate) fn write<'a>(&self, values: impl Iterator<Item = &'a [u8]>, version: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"via: ");
        for value in values.filter(|value| !value.is_empty()) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
        for part in [version, " ", &self.name, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

impl fmt::Display for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A text that cannot be a name in `Via`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name for Via: use 1 to {LONGEST} letters, digits, '-', '.' or '_'")]
pub struct BadPseudonym(String);

impl FromStr for Pseudonym {
    type Err = BadPseudonym;

    fn from_str(text: &str) -> Result<Self, BadPseudonym> {
        if (1..=LONGEST).contains(&text.len()) && text.bytes().all(is_token) {
            Ok(Pseudonym { name: text.into(), drawn: false })
        } else {
            Err(BadPseudonym(text.to_owned()))
        }
    }
}

/// The name of a hop, which follows its protocol.
fn name(hop: &[u8]) -> Option<&[u8]> {
    hop.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty()).nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge() -> Pseudonym {
        "edge".parse().unwrap()
    }

    fn written(values: &[&str]) -> String {
        let mut out = Vec::new();
        edge().write(values.iter().map(|value| value.as_bytes()), "1.1", &mut out);
        String::from_utf8(out).unwrap()
    }

    fn has_been_at_edge(values: &[&str]) -> bool {
        edge().is_among(values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn rfc9110_7_6_3_each_hop_adds_itself_at_the_end() {
        assert_eq!(written(&[]), "via: 1.1 edge\r\n");
        assert_eq!(
            written(&["1.0 fred", "", "1.1 p.example.net (a, b)"]),
            "via: 1.0 fred, 1.1 p.example.net (a, b), 1.1 edge\r\n"
        );
    }

    #[test]
    fn rfc9110_7_6_3_a_request_that_was_here_is_known_again() {
        for values in [
            &["1.1 edge"][..],
            &["1.1 EDGE"],
            &["HTTP/1.1 edge"],
            &["1.0\tedge\t(Apache)"],
            &["1.1 fred,1.1 edge,1.1 wilma"],
            &["1.1 fred, , 1.1  edge (x), 1.1 wilma"],
            &["1.1 fred", "1.1 edge"],
            &["1.1 fred (a, (b), \\) c), 1.1 edge"],
            &["1.1 fred (, 1.1 edge"],
        ] {
            assert!(has_been_at_edge(values), "{values:?}");
        }
    }

    #[test]
    fn rfc9110_7_6_3_other_hops_are_no_loop() {
        for values in [
            &[][..],
            &[""],
            &["edge"],
            &["1.1 edge2, 1.1 my-edge, 1.1 edge:80"],
            &["edge 1.1"],
            &["1.1 fred (1.1 edge)"],
            &["1.1 fred edge"],
            &[",,,"],
        ] {
            assert!(!has_been_at_edge(values), "{values:?}");
        }
    }

    #[test]
    fn two_dispatchers_have_different_names_by_default() {
        let [first, second] = [Pseudonym::random(), Pseudonym::random()];
        assert_ne!(first, second);
        let read = first.as_str().parse::<Pseudonym>().unwrap();
        assert_eq!(read.as_str(), first.as_str());
        assert_eq!(first.clone().after(&second), second, "a reload draws no other name");
        assert_eq!(read.clone().after(&second), read);
    }

    #[test]
    fn names_that_would_break_the_field_are_refused() {
        for bad in ["", "a b", "a,b", "a(b", "a\r\n", "é", &"x".repeat(LONGEST + 1)] {
            assert!(bad.parse::<Pseudonym>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(LONGEST).parse::<Pseudonym>().is_ok());
    }
}
