//! Ids of requests, traces and spans.

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use smallvec::SmallVec;

/// The longest id that is taken from a peer, in bytes.
const LONGEST: usize = 128;

/// Makes ids; one for each thread. They are random: nobody can guess one from another, and no two dispatchers make the
/// same.
#[derive(Debug)]
pub(crate) struct Ids(ChaCha8Rng);

impl Ids {
    /// Takes a seed from the system.
    pub(crate) fn new() -> Self {
        Ids(rand::make_rng())
    }

    /// 128 random bits, not all 0.
    pub(crate) fn wide(&mut self) -> u128 {
        (u128::from(self.narrow()) << 64) | u128::from(self.0.next_u64())
    }

    /// 64 random bits, not all 0.
    pub(crate) fn narrow(&mut self) -> u64 {
        self.0.random_range(1..=u64::MAX)
    }

    /// The id for a request: the one that a trusted peer has given it, if that is one, else a new one.
    pub(crate) fn request(&mut self, given: Option<&[u8]>) -> RequestId {
        match given.filter(|id| is_id(id)) {
            Some(id) => RequestId(id.into()),
            None => RequestId(hex::<32>(self.wide()).as_slice().into()),
        }
    }
}

/// A request's id: 32 lower-case hexadecimal digits, or what a trusted peer gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(SmallVec<[u8; 36]>);

impl RequestId {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whether something can be an id: letters, digits and what UUIDs, Base64 and others use besides.
fn is_id(text: &[u8]) -> bool {
    (1..=LONGEST).contains(&text.len())
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~+/=:@".contains(byte))
}

/// The last `N` hexadecimal digits of a number.
pub(crate) fn hex<const N: usize>(number: u128) -> [u8; N] {
    let bytes = number.to_be_bytes();
    std::array::from_fn(|i| {
        let place = 2 * bytes.len() - N + i;
        let byte = bytes[place / 2];
        b"0123456789abcdef"[usize::from(if place.is_multiple_of(2) { byte >> 4 } else { byte & 15 })]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_new_id_is_128_bits_in_hexadecimal_and_like_no_other() {
        let mut threads = [Ids::new(), Ids::new()];
        let mut seen = HashSet::new();
        for i in 0..2000 {
            let id = threads[i % 2].request(None);
            let text = id.as_bytes();
            assert!(text.len() == 32 && text.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')), "{id:?}");
            assert!(seen.insert(text.to_vec()), "{id:?} twice");
        }
    }

    #[test]
    fn an_id_of_a_peer_is_kept() {
        let mut ids = Ids::new();
        for given in ["0f8fad5b-d9cb-469f-a165-70867728950e", "Root=1-67891233-abcdef012345678912345678", "x"] {
            assert_eq!(ids.request(Some(given.as_bytes())).as_bytes(), given.as_bytes());
        }
        let longest = [b'a'; LONGEST];
        assert_eq!(ids.request(Some(&longest)).as_bytes(), longest);
    }

    #[test]
    fn what_is_no_id_is_replaced() {
        let mut ids = Ids::new();
        for given in [&b""[..], b"a b", b"a\"", b"a\x80", b"a,b", b"a\n", &[b'a'; LONGEST + 1]] {
            let id = ids.request(Some(given));
            assert_eq!(id.as_bytes().len(), 32);
            assert_ne!(id.as_bytes(), given);
        }
    }

    #[test]
    fn digits_keep_their_leading_zeros() {
        assert_eq!(&hex::<4>(0x0a), b"000a");
        assert_eq!(&hex::<16>(u64::MAX.into()), b"ffffffffffffffff");
    }
}
