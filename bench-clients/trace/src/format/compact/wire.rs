//! Numbers and texts of the compact format.

use super::Header;
use crate::Origin;
use std::time::Duration;
use vibra_model::Timestamp;

/// Appends a LEB128 varint: 7 bits a byte, least significant first, the top bit set on all but the last.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Signed numbers as unsigned ones, small ones small: 0, -1, 1, -2 …
pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn put_header(out: &mut Vec<u8>, header: &Header) {
    put_text(out, &header.name);
    match header.start {
        None => put(out, 0),
        Some(Timestamp(micros)) => {
            put(out, 1);
            put(out, micros);
        }
    }
    put(out, header.resolution.as_secs());
    put(out, header.resolution.subsec_nanos().into());
    let (kind, seed) = match header.origin {
        Origin::Recorded => (0, None),
        Origin::Reconstruction { seed } => (1, Some(seed)),
        Origin::Synthetic { seed } => (2, Some(seed)),
    };
    put(out, kind);
    if let Some(seed) = seed {
        put(out, seed);
    }
}

/// The unread part of a payload.
pub(super) struct Payload<'a>(pub(super) &'a [u8]);

impl<'a> Payload<'a> {
    pub(super) fn number(&mut self) -> Result<u64, String> {
        let mut number = 0u64;
        for (index, &byte) in self.0.iter().enumerate().take(10) {
            let part = u64::from(byte & 0x7f);
            if index == 9 && part > 1 {
                break;
            }
            number |= part << (7 * index);
            if byte < 0x80 {
                self.0 = &self.0[index + 1..];
                return Ok(number);
            }
        }
        Err("a number is cut or too large".into())
    }

    pub(super) fn narrow<T: TryFrom<u64>>(&mut self, what: &str) -> Result<T, String> {
        let number = self.number()?;
        T::try_from(number).map_err(|_| format!("{what} is too large: {number}"))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, String> {
        let length: usize = self.narrow("a text's length")?;
        let (text, rest) = self.0.split_at_checked(length).ok_or("a text is cut")?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| "a text is not UTF-8".into())
    }

    pub(super) fn header(&mut self) -> Result<Header, String> {
        let name = self.text()?.to_owned();
        let start = match self.number()? {
            0 => None,
            _ => Some(Timestamp(self.number()?)),
        };
        let resolution = Duration::from_secs(self.number()?);
        let nanos = Duration::from_nanos(self.narrow::<u32>("the resolution")?.into());
        let resolution = resolution.checked_add(nanos).ok_or("the resolution is too large")?;
        let origin = match self.number()? {
            0 => Origin::Recorded,
            1 => Origin::Reconstruction { seed: self.number()? },
            2 => Origin::Synthetic { seed: self.number()? },
            other => return Err(format!("there is no origin {other}")),
        };
        Ok(Header { name, origin, start, resolution })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(number: u64, signed: i64) {
            let mut out = Vec::new();
            put(&mut out, number);
            put(&mut out, zigzag(signed));
            let mut payload = Payload(&out);
            prop_assert_eq!(payload.number(), Ok(number));
            prop_assert_eq!(payload.number().map(unzigzag), Ok(signed));
            prop_assert!(payload.0.is_empty());
        }
    }

    #[test]
    fn overlong_and_cut_numbers_are_refused() {
        for bytes in [&[][..], &[0x80], &[0xff; 10], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]] {
            assert!(Payload(bytes).number().is_err(), "{bytes:?}");
        }
    }
}
