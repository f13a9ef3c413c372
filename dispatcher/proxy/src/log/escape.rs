//! Text from the network, made harmless.

/// The most bytes of one field that are written.
const MOST: usize = 8192;

/// What stands for the rest of a longer field.
const REST: &[u8] = b"...";

const UPPER: [u8; 16] = *b"0123456789ABCDEF";
const LOWER: [u8; 16] = *b"0123456789abcdef";

/// Appends `text` with `"`, `\` and all that is not printable ASCII as `\xHH`.
pub(super) fn hex(text: &[u8], out: &mut Vec<u8>) {
    bounded(text, out, |text, out| {
        for &byte in text {
            if is_plain(byte) {
                out.push(byte);
            } else {
                out.extend_from_slice(&[b'\\', b'x', UPPER[usize::from(byte >> 4)], UPPER[usize::from(byte & 15)]]);
            }
        }
    });
}

/// Appends `text` as the inside of a JSON string (RFC 8259, section 7) in ASCII.
pub(super) fn json(text: &[u8], out: &mut Vec<u8>) {
    bounded(text, out, |text, out| {
        for chunk in text.utf8_chunks() {
            for character in chunk.valid().chars() {
                match u8::try_from(character) {
                    Ok(byte) if is_plain(byte) => out.push(byte),
                    _ => character.encode_utf16(&mut [0; 2]).iter().for_each(|&unit| json_unit(unit, out)),
                }
            }
            if !chunk.invalid().is_empty() {
                json_unit(0xfffd, out);
            }
        }
    });
}

fn json_unit(unit: u16, out: &mut Vec<u8>) {
    let digit = |shift: u16| LOWER[usize::from(unit >> shift & 15)];
    out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

/// Appends what is allowed of `text`, by way of `escape` where that is needed: it rarely is.
#[inline]
fn bounded(text: &[u8], out: &mut Vec<u8>, escape: impl FnOnce(&[u8], &mut Vec<u8>)) {
    let head = &text[..text.len().min(MOST)];
    // Without a way out of the loop the compiler looks at many bytes at a time.
    if head.iter().fold(true, |plain, &byte| plain & is_plain(byte)) {
        out.extend_from_slice(head);
    } else {
        escape(head, out);
    }
    if head.len() < text.len() {
        out.extend_from_slice(REST);
    }
}

#[inline]
fn is_plain(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte) & (byte != b'"') & (byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(escape: fn(&[u8], &mut Vec<u8>), text: &[u8]) -> String {
        let mut out = Vec::new();
        escape(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn plain_text_stays_as_it_is() {
        let plain: Vec<u8> = (b' '..=b'~').filter(|byte| !b"\"\\".contains(byte)).collect();
        assert_eq!(text(hex, &plain).as_bytes(), plain);
        assert_eq!(text(json, &plain).as_bytes(), plain);
    }

    #[test]
    fn hex_escapes_every_other_byte_as_nginx_does() {
        assert_eq!(text(hex, b"a\"b\\c\r\n\t\0\x1b\x7f\x80\xff"), r"a\x22b\x5Cc\x0D\x0A\x09\x00\x1B\x7F\x80\xFF");
    }

    #[test]
    fn json_reads_back_whatever_was_unicode() {
        let odd = "q\"b\\n\nr\r\u{0}\u{1b}\u{7f}ä\u{85}\u{2028}\u{202e}𝄞";
        let escaped = text(json, odd.as_bytes());
        assert!(escaped.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&format!("\"{escaped}\"")).unwrap(), odd);
    }

    #[test]
    fn json_marks_what_is_not_unicode() {
        assert_eq!(text(json, b"a\xffb\xc3"), r"a\ufffdb\ufffd");
        // A surrogate in UTF-8 is no UTF-8.
        let escaped = text(json, b"\xed\xa0\x80");
        assert!(serde_json::from_str::<String>(&format!("\"{escaped}\"")).is_ok());
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        let long = vec![b'a'; MOST + 1];
        for escape in [hex, json] {
            assert_eq!(text(escape, &long).len(), MOST + REST.len());
            assert_eq!(text(escape, &long[1..]).len(), MOST);
        }
        // A cut through a character is no harm.
        let mut cut = vec![b'a'; MOST - 1];
        cut.extend_from_slice("ä".as_bytes());
        assert!(text(json, &cut).ends_with("a\\ufffd..."));
    }
}
