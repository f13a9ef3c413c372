//! Frames, told apart as their bytes pass (RFC 9113, section 4.1).

/// The length of what a client's connection begins with (RFC 9113, section 3.4).
const PREFACE: usize = 24;
const HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// What a frame does for a client's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It carries a part of a request. How much of these is taken, windows and h2 bound.
    Carries,
    /// It carries nothing: settings, pings, windows, priorities, resets, empty data and what nobody knows.
    Talks,
}

/// What comes first are not settings, so it is not HTTP/2 (RFC 9113, section 3.4).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsettled;

/// How far in the frames of a connection the next byte is.
#[derive(Debug)]
pub(super) struct Frames {
    /// Whether there was a frame.
    begun: bool,
    /// So many bytes are of no header.
    skip: usize,
    header: [u8; HEADER],
    /// So much of the header has come.
    got: usize,
}

impl Frames {
    /// At the beginning of a client's connection.
    pub(super) fn new() -> Self {
        Frames { begun: false, skip: PREFACE, header: [0; HEADER], got: 0 }
    }

    /// Tells of every frame that begins in `bytes`, which follow what was given before.
    ///
    /// # Errors
    /// [`Unsettled`].
    pub(super) fn pass(&mut self, mut bytes: &[u8], mut frame: impl FnMut(Use)) -> Result<(), Unsettled> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEADER - self.got).min(bytes.len());
            if taken == 0 {
                return Ok(());
            }
            self.header[self.got..self.got + taken].copy_from_slice(&bytes[..taken]);
            self.got += taken;
            bytes = &bytes[taken..];
            if self.got == HEADER {
                self.got = 0;
                let [a, b, c, kind, flags, ..] = self.header;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                if !std::mem::replace(&mut self.begun, true) && kind != SETTINGS {
                    return Err(Unsettled);
                }
                let carries = match kind {
                    DATA => self.skip > 0 || flags & END_STREAM != 0,
                    HEADERS | CONTINUATION => true,
                    _ => false,
                };
                frame(if carries { Use::Carries } else { Use::Talks });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize, kind: u8, flags: u8) -> Vec<u8> {
        let [.., a, b, c] = length.to_be_bytes();
        let mut bytes = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        bytes.resize(HEADER + length, 9);
        bytes
    }

    #[test]
    fn frames_are_told_apart_however_their_bytes_come() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let frames = [
            (frame(0, 4, 0), Use::Talks),
            (frame(300, HEADERS, 4), Use::Carries),
            (frame(1, CONTINUATION, 4), Use::Carries),
            (frame(70_000, DATA, 0), Use::Carries),
            (frame(0, DATA, 0), Use::Talks),
            (frame(0, DATA, END_STREAM), Use::Carries),
            (frame(8, 6, 0), Use::Talks),
            (frame(4, 3, 0), Use::Talks),
            (frame(4, 8, 0), Use::Talks),
            (frame(11, 0xbe, 0), Use::Talks),
        ];
        bytes.extend(frames.iter().flat_map(|(bytes, _)| bytes));
        let expected: Vec<_> = frames.iter().map(|(_, used)| *used).collect();
        for step in [1, 2, 7, 24, 1000, bytes.len()] {
            let (mut state, mut seen) = (Frames::new(), Vec::new());
            bytes.chunks(step).for_each(|piece| state.pass(piece, |used| seen.push(used)).unwrap());
            assert_eq!(seen, expected, "in steps of {step}");
        }
    }

    #[test]
    fn rfc9113_3_4_settings_come_first() {
        let bytes = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(8, 6, 0)].concat();
        assert_eq!(Frames::new().pass(&bytes, |_| {}), Err(Unsettled));
    }
}
