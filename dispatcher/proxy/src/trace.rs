//! Trace context: to which trace a request belongs, and the dispatcher's own span therein (W3C Trace Context, level 2).

use crate::ids::{Ids, hex};

/// A trace's id; not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(u128);

/// A span's id; not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(u64);

impl TraceId {
    /// An id that is not 0.
    pub fn new(id: u128) -> Option<Self> {
        (id != 0).then_some(TraceId(id))
    }

    /// Its 32 lower-case hexadecimal digits.
    pub fn digits(self) -> [u8; 32] {
        hex(self.0)
    }
}

impl SpanId {
    /// An id that is not 0.
    pub fn new(id: u64) -> Option<Self> {
        (id != 0).then_some(SpanId(id))
    }

    /// Its 16 lower-case hexadecimal digits.
    pub fn digits(self) -> [u8; 16] {
        hex(self.0.into())
    }
}

/// The flag that says that the caller may have recorded its span (section 3.2.2.5.1).
const SAMPLED: u8 = 1;
/// The flag that says that the trace's id is random (section 3.2.2.5.2).
const RANDOM: u8 = 2;

/// The most members of a `tracestate` (section 3.3.1.1).
const MEMBERS: usize = 32;

/// The dispatcher's part in a request's trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The trace.
    pub trace: TraceId,
    /// The dispatcher's own span.
    pub span: SpanId,
    /// The caller's span; `None` where the trace begins here.
    pub parent: Option<SpanId>,
    /// What the caller says of the trace, as far as it is passed on.
    flags: u8,
}

/// Which share of the traces that begin here is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sampling {
    /// A trace is recorded if the last 56 bits of its id are not below this; everyone who samples so agrees.
    threshold: u64,
}

impl Sampling {
    /// `share` is from 0 (none) to 1 (all).
    pub(crate) fn new(share: f64) -> Self {
        Sampling { threshold: ((1.0 - share.clamp(0.0, 1.0)) * RANDOMNESS as f64) as u64 }
    }

    fn takes(self, trace: TraceId) -> bool {
        trace.0 as u64 % RANDOMNESS >= self.threshold
    }
}

/// A trace's id has so many random ends (section 3.2.2.3.2).
const RANDOMNESS: u64 = 1 << 56;

impl Hop {
    /// A hop of a trace that is not recorded.
    pub fn new(trace: TraceId, span: SpanId, parent: Option<SpanId>) -> Self {
        Hop { trace, span, parent, flags: 0 }
    }

    /// Goes on with the trace that a request's `traceparent` fields name. Where they do not name one, or not as the
    /// specification wants it, a new trace begins.
    pub(crate) fn join<'a>(traceparent: impl IntoIterator<Item = &'a [u8]>, new: Sampling, ids: &mut Ids) -> Hop {
        let span = SpanId(ids.narrow());
        let mut fields = traceparent.into_iter();
        let caller = match (fields.next(), fields.next()) {
            (Some(only), None) => parse(only),
            _ => None,
        };
        match caller {
            Some((trace, parent, flags)) => Hop { trace, span, parent: Some(parent), flags },
            None => {
                let trace = TraceId(ids.wide());
                Hop { trace, span, parent: None, flags: RANDOM | u8::from(new.takes(trace)) }
            }
        }
    }

    /// Whether this trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The `traceparent` for the server, whose caller is the dispatcher.
    pub(crate) fn traceparent(&self) -> [u8; 55] {
        let mut field = *b"00-TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT-SSSSSSSSSSSSSSSS-FF";
        field[3..35].copy_from_slice(&self.trace.digits());
        field[36..52].copy_from_slice(&self.span.digits());
        field[53..].copy_from_slice(&hex::<2>(self.flags.into()));
        field
    }

    /// Whether a request's `tracestate` fields go on to the server: only with the trace that they came with, and only
    /// as a whole. The dispatcher adds nothing of its own.
    pub(crate) fn keeps<'a>(&self, tracestate: impl IntoIterator<Item = &'a [u8]>) -> bool {
        self.parent.is_some() && is_tracestate(tracestate)
    }
}

/// Reads a `traceparent` (section 3.2): the trace, the caller's span, and the flags that are passed on. Later versions
/// may have more at the end (section 4.3).
fn parse(field: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let (known, more) = field.split_at_checked(55)?;
    if known[2] != b'-' || known[35] != b'-' || known[52] != b'-' {
        return None;
    }
    match (number(&known[..2])?, more) {
        (0xff, _) => return None,
        (0, [_, ..]) => return None,
        (_, [first, ..]) if *first != b'-' => return None,
        _ => {}
    }
    let trace = TraceId::new(number(&known[3..35])?)?;
    let span = SpanId::new(u64::try_from(number(&known[36..52])?).ok()?)?;
    let flags = u8::try_from(number(&known[53..])?).ok()?;
    Some((trace, span, flags & (SAMPLED | RANDOM)))
}

/// The value of at most 32 lower-case hexadecimal digits.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, &digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Whether fields are together one `tracestate` (section 3.3.1): at most 32 members, no key twice. Members may be empty.
fn is_tracestate<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let mut keys: [&[u8]; MEMBERS] = [&[]; MEMBERS];
    let mut count = 0;
    let members = fields.into_iter().flat_map(|field| field.split(|&byte| byte == b','));
    for member in members.map(trim).filter(|member| !member.is_empty()) {
        let Some(equals) = memchr::memchr(b'=', member) else { return false };
        let (key, value) = (&member[..equals], &member[equals + 1..]);
        if count == MEMBERS || !is_key(key) || !is_value(value) || keys[..count].contains(&key) {
            return false;
        }
        keys[count] = key;
        count += 1;
    }
    count > 0
}

/// Without the spaces and tabs around it.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// `( lcalpha / DIGIT ) 0*255 ( lcalpha / DIGIT / "_" / "-"/ "*" / "/" / "@" )`
fn is_key(key: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    key.len() <= 256 && key.first().is_some_and(plain) && key.iter().all(|byte| plain(byte) || b"_-*/@".contains(byte))
}

/// `0*255(chr) nblk-chr`: printable ASCII but `,` and `=`, not ending in a space.
fn is_value(value: &[u8]) -> bool {
    (1..=256).contains(&value.len()) && value.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of section 3.2.3.
    const SAMPLED_CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const UNSAMPLED_CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn join(fields: &[&str]) -> Hop {
        Hop::join(fields.iter().map(|field| field.as_bytes()), Sampling::new(0.0), &mut Ids::new())
    }

    fn sent(hop: &Hop) -> String {
        String::from_utf8(hop.traceparent().to_vec()).unwrap()
    }

    #[track_caller]
    fn continues(field: &str, flags: &str) {
        let hop = join(&[field]);
        let sent = sent(&hop);
        assert_eq!(hop.parent, SpanId::new(0x00f0_67aa_0ba9_02b7));
        assert_eq!((&sent[..3], &sent[3..35], &sent[53..]), ("00-", TRACE, flags));
        assert_ne!(&sent[36..52], "00f067aa0ba902b7", "the server's caller is the dispatcher");
    }

    #[track_caller]
    fn begins_anew(fields: &[&str]) {
        let hop = join(fields);
        let sent = sent(&hop);
        assert_eq!(hop.parent, None, "{fields:?}");
        assert_ne!(&sent[3..35], TRACE, "{fields:?}");
        assert!(parse(sent.as_bytes()).is_some(), "{sent}");
    }

    #[test]
    fn a_trace_goes_on_with_a_span_of_the_dispatchers_own() {
        continues(SAMPLED_CALLER, "01");
        continues(UNSAMPLED_CALLER, "00");
        assert!(join(&[SAMPLED_CALLER]).is_sampled());
        assert!(!join(&[UNSAMPLED_CALLER]).is_sampled());
    }

    #[test]
    fn every_hop_has_a_span_of_its_own() {
        assert_ne!(join(&[SAMPLED_CALLER]).span, join(&[SAMPLED_CALLER]).span);
    }

    #[test]
    fn without_a_trace_one_begins() {
        begins_anew(&[]);
        assert_eq!(&sent(&join(&[]))[53..], "02");
        let recorded = Hop::join([], Sampling::new(1.0), &mut Ids::new());
        assert_eq!(&sent(&recorded)[53..], "03");
        assert!(recorded.is_sampled());
    }

    #[test]
    fn a_share_of_the_new_traces_is_recorded() {
        let mut ids = Ids::new();
        let mut recorded =
            |share| (0..4000).filter(|_| Hop::join([], Sampling::new(share), &mut ids).is_sampled()).count();
        assert_eq!((recorded(0.0), recorded(1.0)), (0, 4000));
        // Twelve standard deviations.
        assert!(recorded(0.25).abs_diff(1000) < 330);
    }

    #[test]
    fn flags_that_nobody_has_defined_are_not_passed_on() {
        continues("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", "03");
        continues("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0c", "00");
    }

    #[test]
    fn a_later_version_is_read_as_the_known_one() {
        continues("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "01");
        continues("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be-like", "01");
        begins_anew(&["cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what-the-future-will-not-be-like"]);
    }

    #[test]
    fn what_is_not_as_specified_begins_anew() {
        for field in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be-like",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ".0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-.bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902.7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-.0",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b7-0001",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            begins_anew(&[field]);
        }
        begins_anew(&[SAMPLED_CALLER, SAMPLED_CALLER]);
    }

    #[test]
    fn trace_state_goes_on_with_its_trace() {
        let keeps = |fields: &[&str]| join(&[SAMPLED_CALLER]).keeps(fields.iter().map(|field| field.as_bytes()));
        let keys: Vec<_> = (0..33).map(|i| format!("k{i}=v")).collect();
        for fields in [
            &["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"][..],
            &["rojo=1", "congo=2"],
            &["foo=1 , \t bar=2, ", "", "baz=a b"],
            &["tenant@system=1,0a-_*/=~"],
            &[&keys[..32].join(",")],
            &[&format!("{}={}", "k".repeat(256), "v".repeat(256))],
        ] {
            assert!(keeps(fields), "{fields:?}");
        }
        for fields in [
            &["rojo"][..],
            &["rojo="],
            &["=1"],
            &["Rojo=1"],
            &["-rojo=1"],
            &["ro jo=1"],
            &["rojo =1"],
            &["rojo=1=2"],
            &["rojo=\u{e4}"],
            &["rojo=a\tb"],
            &["rojo=1,rojo=1"],
            &["rojo=1", "rojo=2"],
            &[&keys.join(",")],
            &[&format!("{}=1", "k".repeat(257))],
            &[&format!("k={}", "v".repeat(257))],
            &[""],
            &[],
        ] {
            assert!(!keeps(fields), "{fields:?}");
        }
        assert!(!join(&[]).keeps([&b"rojo=1"[..]]), "the trace that it came with has ended");
    }
}
