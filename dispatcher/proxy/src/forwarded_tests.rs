use super::*;

/// The fields of a request that tell where it came from, as they came.
#[derive(Default, Clone, Copy)]
struct Said<'a> {
    x_for: &'a [&'a str],
    x_proto: &'a [&'a str],
    x_host: &'a [&'a str],
    forwarded: &'a [&'a str],
}

impl<'a> Said<'a> {
    fn claims(self) -> Claims<impl Iterator<Item = &'a [u8]> + Clone> {
        let values = |list: &'a [&'a str]| list.iter().map(|value| value.as_bytes());
        Claims {
            x_for: values(self.x_for),
            x_proto: values(self.x_proto),
            x_host: values(self.x_host),
            forwarded: values(self.forwarded),
        }
    }

    fn written(self, forwarding: Forwarding, hop: &Hop<'_>) -> String {
        let mut out = Vec::new();
        write(forwarding, hop, &self.claims(), &mut out);
        String::from_utf8(out).unwrap()
    }
}

const STRANGER: Hop<'_> = Hop { address: "192.0.2.7", trusted: false, scheme: "http", host: Some(b"shop.example") };
const FRIEND: Hop<'_> = Hop { address: "10.0.0.1", trusted: true, scheme: "http", host: Some(b"inner:8080") };

const LIES: Said<'_> = Said {
    x_for: &["10.0.0.9", "10.0.0.8"],
    x_proto: &["https"],
    x_host: &["admin.example"],
    forwarded: &["for=10.0.0.9;proto=https;host=admin.example"],
};

#[test]
fn what_strangers_say_is_replaced() {
    let x = "x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\nx-forwarded-host: shop.example\r\n";
    let rfc = "forwarded: for=192.0.2.7;proto=http;host=shop.example\r\n";
    for said in [LIES, Said::default()] {
        assert_eq!(said.written(Forwarding::XForwarded, &STRANGER), x);
        assert_eq!(said.written(Forwarding::Rfc7239, &STRANGER), rfc);
        assert_eq!(said.written(Forwarding::Both, &STRANGER), format!("{x}{rfc}"));
        assert_eq!(said.written(Forwarding::Off, &STRANGER), "");
    }
}

#[test]
fn what_trusted_peers_say_is_added_to() {
    let said = Said {
        x_for: &["192.0.2.7, 198.51.100.1", "", "203.0.113.2"],
        x_proto: &["https"],
        x_host: &["shop.example"],
        forwarded: &["for=192.0.2.7;proto=https", "for=198.51.100.1"],
    };
    assert_eq!(
        said.written(Forwarding::Both, &FRIEND),
        "x-forwarded-for: 192.0.2.7, 198.51.100.1, 203.0.113.2, 10.0.0.1\r\n\
         x-forwarded-proto: https\r\n\
         x-forwarded-host: shop.example\r\n\
         forwarded: for=192.0.2.7;proto=https, for=198.51.100.1, for=10.0.0.1;proto=http;host=\"inner:8080\"\r\n"
    );
}

#[test]
fn what_trusted_peers_do_not_say_is_known_from_here() {
    assert_eq!(
        Said { x_host: &[""], ..Said::default() }.written(Forwarding::Both, &FRIEND),
        "x-forwarded-for: 10.0.0.1\r\n\
         x-forwarded-proto: http\r\n\
         x-forwarded-host: inner:8080\r\n\
         forwarded: for=10.0.0.1;proto=http;host=\"inner:8080\"\r\n"
    );
    let nameless = Hop { host: None, ..FRIEND };
    assert_eq!(
        Said::default().written(Forwarding::Both, &nameless),
        "x-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: http\r\nforwarded: for=10.0.0.1;proto=http\r\n"
    );
}

#[test]
fn of_several_schemes_and_hosts_the_one_that_the_trusted_peer_added_counts() {
    let said = Said { x_proto: &["http", "https"], x_host: &["forged.example", "shop.example"], ..Said::default() };
    assert_eq!(
        said.written(Forwarding::XForwarded, &FRIEND),
        "x-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: https\r\nx-forwarded-host: shop.example\r\n"
    );
}

#[test]
fn rfc7239_6_1_an_ipv6_address_is_bracketed_and_quoted() {
    let hop = Hop { address: "2001:db8::7", scheme: "https", ..STRANGER };
    assert_eq!(
        Said::default().written(Forwarding::Both, &hop),
        "x-forwarded-for: 2001:db8::7\r\nx-forwarded-proto: https\r\nx-forwarded-host: shop.example\r\n\
         forwarded: for=\"[2001:db8::7]\";proto=https;host=shop.example\r\n"
    );
}

#[test]
fn rfc7239_4_a_value_that_is_no_token_is_quoted() {
    for (host, expected) in [
        ("shop.example", "shop.example"),
        ("shop.example:8080", "\"shop.example:8080\""),
        ("[2001:db8::1]:80", "\"[2001:db8::1]:80\""),
        ("", "\"\""),
        ("a,b;c=d", "\"a,b;c=d\""),
        ("a\"b\\c", "\"a\\\"b\\\\c\""),
    ] {
        let hop = Hop { host: Some(host.as_bytes()), ..STRANGER };
        let line = format!("forwarded: for=192.0.2.7;proto=http;host={expected}\r\n");
        assert_eq!(Said::default().written(Forwarding::Rfc7239, &hop), line);
        // What was written is read back as one element.
        let value = line.trim_start_matches("forwarded: ").trim_end();
        assert_eq!(elements(value.as_bytes()).collect::<Vec<_>>(), [Ok(Some(&b"192.0.2.7"[..]))]);
    }
}

#[test]
fn rfc7239_4_what_cannot_be_taken_apart_is_not_added_to() {
    let own = "forwarded: for=10.0.0.1;proto=http;host=\"inner:8080\"\r\n";
    for bad in [
        "for=\"192.0.2.7",
        "for=\"192.0.2.7\\\"",
        "for",
        "for=",
        "=x",
        "for=a b",
        "for=1.2.3.4;for=5.6.7.8",
        "for=a\"b\"",
        "for=\"a\"b",
        "for=a;;proto==x",
        "(for=a)",
    ] {
        let said = Said { forwarded: &["for=192.0.2.9", bad], ..Said::default() };
        assert_eq!(said.written(Forwarding::Rfc7239, &FRIEND), own, "{bad:?}");
    }
}

#[test]
fn rfc7239_4_elements_are_found() {
    for (value, nodes) in [
        ("for=\"_gazonk\"", &[Some("_gazonk")][..]),
        ("For=\"[2001:db8:cafe::17]:4711\"", &[Some("[2001:db8:cafe::17]:4711")]),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", &[Some("192.0.2.60")]),
        ("for=192.0.2.43, for=198.51.100.17", &[Some("192.0.2.43"), Some("198.51.100.17")]),
        ("proto=https ; for=192.0.2.43 ;", &[Some("192.0.2.43")]),
        (" ,for=a,,\t, proto=http, ", &[Some("a"), None]),
        ("for=\"a,\\\"b;c\\\\\";host=x,for=c", &[Some("a,\\\"b;c\\\\"), Some("c")]),
        ("for=[2001:db8::1]:80", &[Some("[2001:db8::1]:80")]),
        ("", &[]),
        (" , ", &[]),
    ] {
        let found: Vec<_> = elements(value.as_bytes()).collect();
        let expected: Vec<_> = nodes.iter().map(|node| Ok(node.map(str::as_bytes))).collect();
        assert_eq!(found, expected, "{value:?}");
    }
}
