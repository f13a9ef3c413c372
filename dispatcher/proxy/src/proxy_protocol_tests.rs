use super::*;
use proptest::prelude::*;

fn ends(source: &str, destination: &str) -> Ends {
    Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

/// A header of version 2 with that command, family and protocol, and what follows the length.
fn v2(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, kind][..], &length, rest].concat()
}

const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];

fn ipv4() -> Ends {
    ends("192.0.2.1:56324", "198.51.100.2:443")
}

/// What a whole header says, after it was made sure that less of it says nothing and more after it changes nothing.
fn read_whole(header: &[u8]) -> Result<Option<Ends>, BadHeader> {
    for cut in 0..header.len() {
        assert_eq!(read(&header[..cut]), Ok(None), "the first {cut} bytes");
    }
    let alone = read(header);
    assert_eq!(read(&[header, b"GET / HTTP/1.1\r\n"].concat()), alone, "with a request after it");
    alone.map(|parsed| {
        let parsed = parsed.expect("the header is whole");
        assert_eq!(parsed.length, header.len());
        parsed.ends
    })
}

#[test]
fn section_2_1_a_line_names_both_ends() {
    let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";
    assert_eq!(read_whole(line), Ok(Some(ipv4())));
    let line = b"PROXY TCP6 2001:DB8::1 ::1 0 65535\r\n";
    assert_eq!(read_whole(line), Ok(Some(ends("[2001:db8::1]:0", "[::1]:65535"))));
    let longest = format!("PROXY TCP6 {0} {0} 65535 65535\r\n", "ffff:".repeat(8).trim_end_matches(':'));
    assert_eq!(longest.len(), 104);
    assert!(read_whole(longest.as_bytes()).unwrap().is_some());
}

#[test]
fn section_2_1_unknown_means_the_connections_own_ends() {
    for line in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
        b"PROXY UNKNOWN whatever  there\xffis\r\n",
    ] {
        assert_eq!(read_whole(line), Ok(None), "{}", line.escape_ascii());
    }
    let longest = [b"PROXY UNKNOWN ", &[b'x'; 91][..], b"\r\n"].concat();
    assert_eq!(longest.len(), LONGEST_V1);
    assert_eq!(read_whole(&longest), Ok(None));
}

#[test]
fn section_2_1_a_line_ends_within_107_bytes() {
    let long = [b"PROXY UNKNOWN ", &[b'x'; 92][..], b"\r\n"].concat();
    assert_eq!(read(&long[..106]), Ok(None));
    assert_eq!(read(&long[..107]), Err(BadHeader::TooLong));
    assert_eq!(read(&long), Err(BadHeader::TooLong));
}

#[test]
fn section_2_1_a_line_ends_in_cr_lf() {
    for line in [
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\rGET",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN a\rb\r\n",
        "PROXY UNKNOWN a\nb\r\n",
    ] {
        assert_eq!(read(line.as_bytes()), Err(BadHeader::LineEnd), "{line:?}");
    }
}

#[test]
fn section_2_1_a_line_has_exactly_its_words() {
    for line in [
        "PROXY \r\n",
        "PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY unknown\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
    ] {
        assert_eq!(read(line.as_bytes()), Err(BadHeader::Unknown), "{line:?}");
    }
    for words in [
        "TCP4",
        "TCP4 192.0.2.1 198.51.100.2 1",
        "TCP4 192.0.2.1 198.51.100.2 1 2 ",
        "TCP4 192.0.2.1 198.51.100.2 1 2 3",
        "TCP4 192.0.2.1  198.51.100.2 1 2",
        "TCP4 192.0.2.1\t198.51.100.2 1 2",
        "TCP4 192.0.2.256 198.51.100.2 1 2",
        "TCP4 192.0.02.1 198.51.100.2 1 2",
        "TCP4 192.0.2 198.51.100.2 1 2",
        "TCP4 2001:db8::1 ::1 1 2",
        "TCP6 192.0.2.1 198.51.100.2 1 2",
        "TCP6 2001:db8::1 1::2::3 1 2",
        "TCP6 fe80::1%1 ::1 1 2",
        "TCP6 [::1] ::1 1 2",
        "TCP4 192.0.2.1 198.51.100.2 01 2",
        "TCP4 192.0.2.1 198.51.100.2 00 2",
        "TCP4 192.0.2.1 198.51.100.2 +1 2",
        "TCP4 192.0.2.1 198.51.100.2 -1 2",
        "TCP4 192.0.2.1 198.51.100.2 1 65536",
        "TCP4 192.0.2.1 198.51.100.2 1 ",
        "TCP4 192.0.2.1 198.51.100.2 1 0x2",
    ] {
        let line = format!("PROXY {words}\r\n");
        assert_eq!(read(line.as_bytes()), Err(BadHeader::Addresses), "{line:?}");
    }
    assert_eq!(read(b"PROXY TCP4 192.0.2.1 \xff 1 2\r\n"), Err(BadHeader::Addresses));
}

#[test]
fn section_2_what_is_no_header_is_refused_at_its_first_byte() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PROXYTCP4",
        b"proxy ",
        b"PROX ",
        b"\n",
        b"\r\n\r\n\0\r\nQUIT\r",
        b"\x16\x03\x01",
        b"PRI * HTTP/2.0",
    ] {
        assert_eq!(read(bytes), Err(BadHeader::Missing), "{}", bytes.escape_ascii());
    }
    assert_eq!(read(b"G"), Err(BadHeader::Missing));
    assert_eq!(read(b""), Ok(None));
}

#[test]
fn section_2_2_a_block_names_both_ends() {
    assert_eq!(read_whole(&v2(0x21, 0x11, &IPV4)), Ok(Some(ipv4())));
    let mut block = [0; 36];
    block[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    block[31] = 1;
    block[32..].copy_from_slice(&[0, 0, 0xff, 0xff]);
    assert_eq!(read_whole(&v2(0x21, 0x21, &block)), Ok(Some(ends("[2001:db8::1]:0", "[::1]:65535"))));
}

#[test]
fn section_2_2_local_means_the_connections_own_ends_whatever_else_it_says() {
    for (kind, rest) in [(0x00, &b""[..]), (0x11, &IPV4), (0x11, b""), (0xff, b"\x03\0\x04lies"), (0x21, &IPV4)] {
        assert_eq!(read_whole(&v2(0x20, kind, rest)), Ok(None), "{kind:#x}");
    }
}

#[test]
fn section_2_2_families_that_say_nothing_of_a_client_mean_the_connections_own_ends() {
    for (kind, length) in [(0x00, 0), (0x00, 5), (0x12, 12), (0x22, 36), (0x31, 216), (0x32, 216)] {
        assert_eq!(read_whole(&v2(0x21, kind, &vec![7; length])), Ok(None), "{kind:#x}");
    }
}

#[test]
fn section_2_2_what_is_unassigned_is_refused() {
    for command in [0x00, 0x01, 0x11, 0x22, 0x2f, 0x31] {
        let header = v2(command, 0x11, &IPV4);
        assert_eq!(read(&header), Err(BadHeader::Unknown), "{command:#x}");
        assert_eq!(read(&header[..13]), Err(BadHeader::Unknown), "{command:#x}, as soon as it is there");
    }
    for kind in [0x01, 0x02, 0x10, 0x13, 0x20, 0x23, 0x30, 0x33, 0x40, 0x41, 0xf1] {
        assert_eq!(read(&v2(0x21, kind, &[0; 216])), Err(BadHeader::Unknown), "{kind:#x}");
    }
}

#[test]
fn section_2_2_addresses_must_fit_in_the_length() {
    for (kind, length) in [(0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216), (0x32, 216)] {
        for short in [0, length - 1] {
            assert_eq!(read(&v2(0x21, kind, &vec![0; short])), Err(BadHeader::Addresses), "{kind:#x}: {short}");
        }
    }
}

#[test]
fn section_2_2_a_block_is_bounded() {
    let padding = |total: usize| {
        let noop = total - FIXED_V2 - IPV4.len() - 3;
        let head = [4, (noop >> 8) as u8, noop as u8];
        v2(0x21, 0x11, &[&IPV4[..], &head, &vec![0; noop]].concat())
    };
    let longest = padding(LONGEST);
    assert_eq!(read(&longest).unwrap().unwrap().length, LONGEST);
    // Refused by what its length says, before it comes.
    assert_eq!(read(&padding(LONGEST + 1)[..FIXED_V2]), Err(BadHeader::TooLong));
    let local = [SIGNATURE, &[0x20, 0, 0xff, 0xff][..]].concat();
    assert_eq!(read(&local), Err(BadHeader::TooLong));
}

#[test]
fn section_2_2_extensions_are_passed_over() {
    let extensions = b"\x01\0\x02h2\x04\0\0\x02\0\x04shop\xea\0\x01x\x20\0\x05\x01\0\0\0\0";
    assert_eq!(read_whole(&v2(0x21, 0x11, &[&IPV4[..], extensions].concat())), Ok(Some(ipv4())));
}

#[test]
fn section_2_2_extensions_must_fit() {
    for bad in [&b"\x01"[..], b"\x01\0", b"\x01\0\x01", b"\x04\0\0\x01\0\x03h2", b"\x01\xff\xffh2"] {
        let header = v2(0x21, 0x11, &[&IPV4[..], bad].concat());
        assert_eq!(read(&header), Err(BadHeader::Extensions), "{}", bad.escape_ascii());
    }
}

#[test]
fn section_2_2_3_a_checksum_is_verified() {
    // The check value of CRC-32C.
    assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
    let mut header = v2(0x21, 0x11, &[&IPV4[..], b"\x04\0\x01x\x03\0\x04\0\0\0\0\x04\0\x01y"].concat());
    let at = FIXED_V2 + IPV4.len() + 4 + 3;
    let sum = crc32c(header.iter());
    header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(read_whole(&header), Ok(Some(ipv4())));
    for broken in [FIXED_V2, at, header.len() - 1] {
        let mut bad = header.clone();
        bad[broken] ^= 1;
        assert_eq!(read(&bad), Err(BadHeader::Checksum), "byte {broken}");
    }
    let odd = v2(0x21, 0x11, &[&IPV4[..], b"\x03\0\x03abc"].concat());
    assert_eq!(read(&odd), Err(BadHeader::Extensions));
}

#[test]
fn what_is_written_is_as_specified() {
    let write = |version, ends: &Ends| {
        let mut out = Vec::new();
        super::write(version, ends, &mut out);
        out
    };
    assert_eq!(write(ProxyVersion::V1, &ipv4()), b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
    let ipv6 = ends("[2001:db8::1]:1", "[::1]:2");
    assert_eq!(write(ProxyVersion::V1, &ipv6), b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n");
    assert_eq!(write(ProxyVersion::V2, &ipv4()), v2(0x21, 0x11, &IPV4));
    // A socket for both families shows IPv4 addresses mapped.
    let mapped = ends("[::ffff:192.0.2.1]:56324", "[::ffff:198.51.100.2]:443");
    assert_eq!(write(ProxyVersion::V1, &mapped), write(ProxyVersion::V1, &ipv4()));
    assert_eq!(write(ProxyVersion::V2, &mapped), v2(0x21, 0x11, &IPV4));
    let mixed = ends("192.0.2.1:1", "[::1]:2");
    assert_eq!(write(ProxyVersion::V1, &mixed), b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n");
}

#[test]
fn a_connection_for_nobody_else_says_so() {
    let mut out = Vec::new();
    write_own(ProxyVersion::V2, &ipv4(), &mut out);
    assert_eq!(out, v2(0x20, 0x00, b""));
    out.clear();
    write_own(ProxyVersion::V1, &ipv4(), &mut out);
    assert_eq!(out, b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
}

fn any_ends() -> impl Strategy<Value = Ends> {
    let v4 = any::<([u8; 4], u16, [u8; 4], u16)>()
        .prop_map(|(a, p, b, q)| Ends { source: (a, p).into(), destination: (b, q).into() });
    let v6 = any::<([u8; 16], u16, [u8; 16], u16)>()
        .prop_map(|(a, p, b, q)| Ends { source: (a, p).into(), destination: (b, q).into() });
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn what_is_written_reads_back(ends in any_ends(), text in any::<bool>()) {
        let mut out = Vec::new();
        write(if text { ProxyVersion::V1 } else { ProxyVersion::V2 }, &ends, &mut out);
        prop_assert_eq!(read_whole(&out), Ok(Some(ends)));
    }
}
