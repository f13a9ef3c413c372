//! Hashes over object names.

use crate::settings::HashKind;
use md5::{Digest as _, Md5};
use sha1::Sha1;
use xxhash_rust::xxh3::xxh3_64;

/// The object name of a request target: the path of the URL, without the query (section 3.4.3), the fragment, and,
/// in the absolute form that proxies are sent, without scheme and authority.
///
/// ```
/// use vibra_routing::object_name;
/// assert_eq!(object_name("/english/index.html?lang=en"), "/english/index.html");
/// assert_eq!(object_name("http://www.example.org/a?b"), "/a");
/// assert_eq!(object_name("http://www.example.org"), "/");
/// ```
pub fn object_name(target: &str) -> &str {
    let end = target.bytes().position(|c| c == b'?' || c == b'#').unwrap_or(target.len());
    let name = &target[..end];
    if name.starts_with('/') {
        return name;
    }
    match name.find("://") {
        Some(scheme) => {
            let rest = &name[scheme + 3..];
            rest.find('/').map_or("/", |path| &rest[path..])
        }
        None => name,
    }
}

impl HashKind {
    /// The hash of an object name as a whole number.
    ///
    /// - `charsum`: the sum of the character codes (section 3.1), which are the bytes of the name;
    /// - `md5`, `sha1`: the last 8 bytes of the digest, the last byte the least significant, so that for N a power of
    ///   two the sub-namespace is that of the whole digest as a number, which is what agrees with Table 3.1;
    /// - `xxh3`: XXH3_64bits without seed or secret, as its specification gives it.
    ///
    /// ```
    /// use vibra_routing::HashKind;
    /// assert_eq!(HashKind::Charsum.of("/prog"), HashKind::Charsum.of("/gorp"));
    /// assert_ne!(HashKind::Xxh3.of("/prog"), HashKind::Xxh3.of("/gorp"));
    /// ```
    #[inline]
    pub fn of(self, name: &str) -> u64 {
        match self {
            HashKind::Charsum => charsum(name.as_bytes()),
            HashKind::Md5 => trailing(&Md5::digest(name)),
            HashKind::Sha1 => trailing(&Sha1::digest(name)),
            HashKind::Xxh3 => xxh3_64(name.as_bytes()),
        }
    }
}

#[inline]
fn charsum(name: &[u8]) -> u64 {
    // A chunk's sum fits 32 bits, in which the compiler adds many bytes at once.
    name.chunks(1 << 16).map(|chunk| u64::from(chunk.iter().map(|&c| u32::from(c)).sum::<u32>())).sum()
}

fn trailing(digest: &[u8]) -> u64 {
    digest[digest.len() - 8..].iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Spreads a hash over all 64 bits, one to one (the finaliser of MurmurHash3). Charsum needs it where a place on a
/// circle of 2^64 is wanted: its values are small and close together.
#[inline]
pub(crate) fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ x >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_leave_out_query_and_authority() {
        for (target, name) in [
            ("/a/b.html", "/a/b.html"),
            ("/a?b=/c", "/a"),
            ("/?", "/"),
            ("", ""),
            ("/a#b?c", "/a"),
            ("https://h:8443/x/y?z", "/x/y"),
            ("http://h?q", "/"),
            ("*", "*"),
            ("h:443", "h:443"),
            ("/r?to=http://h/x", "/r"),
        ] {
            assert_eq!(object_name(target), name, "{target}");
        }
    }

    #[test]
    fn hashes_are_the_published_ones() {
        assert_eq!(HashKind::Charsum.of("/ab"), 47 + 97 + 98);
        assert_eq!(HashKind::Charsum.of(&"z".repeat(1_000_000)), 122 * 1_000_000);
        // RFC 1321 and FIPS 180: the digests of "abc" end with these bytes.
        assert_eq!(HashKind::Md5.of("abc"), 0xd696_3f7d_28e1_7f72);
        assert_eq!(HashKind::Sha1.of("abc"), 0x7850_c26c_9cd0_d89d);
        // XXH3_64bits of the empty input, from the specification's reference implementation.
        assert_eq!(HashKind::Xxh3.of(""), 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn charsum_confuses_the_pairs_of_the_world_cup_site() {
        // Section 3.5.1: these pairs share a value, which is what made one sub-namespace hot.
        let of = |name| HashKind::Charsum.of(name) % 4;
        assert_eq!(of("/english/prog.html"), of("/french/stat.html"));
    }
}
