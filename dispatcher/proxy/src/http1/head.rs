//! Heads of requests and responses: read strictly, kept as their bytes.

use super::framing::{Coding, Length, Told};
use http::{Method, StatusCode};
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;
use std::ops::Range;

/// No head may have more fields than this, whatever the configuration says.
pub(crate) const MOST_FIELDS: usize = 256;

/// The first bytes of a connection that speaks HTTP/2, which look like a head (RFC 9113, section 3.4).
pub(crate) const PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    /// It is not well formed, or its framing is not clear.
    Malformed,
    /// It has more fields than are taken.
    TooManyFields,
    /// Its first line, or the target in it, is longer than is taken.
    TargetTooLong,
    /// It speaks another version of HTTP than 1.0 and 1.1.
    Version,
    /// It is how a connection begins that speaks HTTP/2.
    Preface,
    /// It asks for a tunnel, or its body is encoded in a way that is not undone here.
    Unsupported,
}

/// A field by its name, as far as a gateway has something to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// `If-Match`, `If-None-Match`, `If-Modified-Since`, `If-Unmodified-Since`.
    Conditional,
    Connection,
    ContentEncoding,
    ContentLength,
    ContentRange,
    Date,
    ETag,
    Expect,
    Forwarded,
    Host,
    IfRange,
    KeepAlive,
    MaxForwards,
    ProxyAuthenticate,
    ProxyAuthenticationInfo,
    ProxyAuthorization,
    ProxyConnection,
    Range,
    Referer,
    Te,
    TraceParent,
    TraceState,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XRequestId,
    XRequestStart,
    XVibraExplain,
    /// Any other, listed in `Connection`.
    Listed,
    /// Any other.
    Other,
}

impl Name {
    fn of(name: &[u8]) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if is("te") => Name::Te,
            3 if is("via") => Name::Via,
            4 if is("host") => Name::Host,
            4 if is("date") => Name::Date,
            4 if is("etag") => Name::ETag,
            5 if is("range") => Name::Range,
            6 if is("expect") => Name::Expect,
            7 if is("upgrade") => Name::Upgrade,
            7 if is("referer") => Name::Referer,
            8 if is("if-match") => Name::Conditional,
            8 if is("if-range") => Name::IfRange,
            9 if is("forwarded") => Name::Forwarded,
            10 if is("connection") => Name::Connection,
            10 if is("tracestate") => Name::TraceState,
            10 if is("user-agent") => Name::UserAgent,
            10 if is("keep-alive") => Name::KeepAlive,
            11 if is("traceparent") => Name::TraceParent,
            12 if is("max-forwards") => Name::MaxForwards,
            12 if is("x-request-id") => Name::XRequestId,
            13 if is("content-range") => Name::ContentRange,
            13 if is("if-none-match") => Name::Conditional,
            14 if is("content-length") => Name::ContentLength,
            15 if is("x-forwarded-for") => Name::XForwardedFor,
            15 if is("x-request-start") => Name::XRequestStart,
            15 if is("x-vibra-explain") => Name::XVibraExplain,
            16 if is("content-encoding") => Name::ContentEncoding,
            16 if is("proxy-connection") => Name::ProxyConnection,
            16 if is("x-forwarded-host") => Name::XForwardedHost,
            17 if is("if-modified-since") => Name::Conditional,
            17 if is("transfer-encoding") => Name::TransferEncoding,
            17 if is("x-forwarded-proto") => Name::XForwardedProto,
            18 if is("proxy-authenticate") => Name::ProxyAuthenticate,
            19 if is("proxy-authorization") => Name::ProxyAuthorization,
            19 if is("if-unmodified-since") => Name::Conditional,
            25 if is("proxy-authentication-info") => Name::ProxyAuthenticationInfo,
            _ => Name::Other,
        }
    }

    fn bit(self) -> u64 {
        1 << self as u32
    }

    /// Whether `Connection` can make it concern one connection only.
    fn can_be_listed(self) -> bool {
        matches!(self, Name::Other | Name::Referer | Name::UserAgent)
    }

    /// Whether the field concerns one connection only, and so is not passed on (RFC 9110, section 7.6.1).
    pub(crate) fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Name::Connection
                | Name::KeepAlive
                | Name::ProxyAuthenticate
                | Name::ProxyAuthenticationInfo
                | Name::ProxyAuthorization
                | Name::ProxyConnection
                | Name::Te
                | Name::TransferEncoding
                | Name::Upgrade
                | Name::Listed
        )
    }
}

/// Where a field stands among a head's bytes.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: Name,
    /// Where its line begins.
    line: u32,
    colon: u32,
    value: Range<u32>,
}

/// The fields of a message, with the bytes that they stand in.
#[derive(Debug, Default, Clone)]
pub(crate) struct Fields {
    bytes: Vec<u8>,
    list: Vec<Field>,
    /// Where the lines of the fields end, before the empty line.
    end: usize,
    /// A bit for each [`Name`] that is there: most that are asked for are not.
    names: u64,
}

/// What the `Connection` fields of a message say (RFC 9112, section 9.6).
#[derive(Debug, Default)]
struct Options {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

impl Options {
    /// Whether the connection is to stay open after the message (RFC 9112, section 9.3).
    fn stays_open(&self, version_10: bool) -> bool {
        !self.close && (!version_10 || self.keep_alive)
    }
}

impl Fields {
    /// The fields with that name, in order.
    pub(crate) fn all(&self, name: Name) -> impl Iterator<Item = &[u8]> + Clone {
        let list = if self.names & name.bit() == 0 { &[] } else { &self.list[..] };
        list.iter().filter(move |field| field.name == name).map(|field| self.value(field))
    }

    /// The value of the first field with that name.
    pub(crate) fn get(&self, name: Name) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// The value of the first field that is called so, in letters of either case.
    pub(crate) fn find(&self, name: &str) -> Option<&[u8]> {
        let called = |field: &&Field| {
            self.bytes[field.line as usize..field.colon as usize].eq_ignore_ascii_case(name.as_bytes())
        };
        self.list.iter().find(called).map(|field| self.value(field))
    }

    /// How much memory they take, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.bytes.capacity() + self.list.capacity() * size_of::<Field>()
    }

    fn value(&self, field: &Field) -> &[u8] {
        &self.bytes[field.value.start as usize..field.value.end as usize]
    }

    /// Copies the lines of the fields that `keep` wants, as they came.
    pub(crate) fn copy_to(&self, out: &mut Vec<u8>, keep: impl Fn(Name) -> bool) {
        // Most fields are kept: they go in runs.
        let mut run = None;
        for field in &self.list {
            match (keep(field.name), run) {
                (true, None) => run = Some(field.line as usize),
                (false, Some(start)) => {
                    out.extend_from_slice(&self.bytes[start..field.line as usize]);
                    run = None;
                }
                _ => {}
            }
        }
        if let Some(start) = run {
            out.extend_from_slice(&self.bytes[start..self.end]);
        }
    }

    fn read(bytes: &[u8], parsed: &[httparse::Header<'_>]) -> Self {
        let base = bytes.as_ptr() as usize;
        let place = |part: &[u8]| u32::try_from(part.as_ptr() as usize - base).unwrap_or(u32::MAX);
        let list = parsed.iter().map(|header| {
            let line = place(header.name.as_bytes());
            // An empty value has no place of its own that could be relied on.
            let start = if header.value.is_empty() { line } else { place(header.value) };
            Field {
                name: Name::of(header.name.as_bytes()),
                line,
                colon: line + header.name.len() as u32,
                value: start..start + header.value.len() as u32,
            }
        });
        let list: Vec<_> = list.collect();
        let names = list.iter().fold(0, |names, field| names | field.name.bit());
        Fields { bytes: bytes.to_vec(), list, end: bytes.len() - 2, names }
    }

    /// The members of all lists under that name.
    pub(crate) fn members(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        let members = self.all(name).flat_map(|value| value.split(|&b| b == b','));
        members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
    }

    fn lists(&self, name: Name, member: &str) -> bool {
        self.members(name).any(|listed| listed.eq_ignore_ascii_case(member.as_bytes()))
    }

    /// Reads what `Connection` says, and marks the fields that it lists. What frames or routes a message, or is handled
    /// by its own rules, cannot be listed away.
    fn read_options(&mut self) -> Options {
        let mut options = Options::default();
        let mut listed = Vec::new();
        for option in self.members(Name::Connection) {
            let is = |known: &str| option.eq_ignore_ascii_case(known.as_bytes());
            match () {
                () if is("close") => options.close = true,
                () if is("keep-alive") => options.keep_alive = true,
                () if is("upgrade") => options.upgrade = true,
                () if Name::of(option).can_be_listed() => listed.push(option.to_vec()),
                () => {}
            }
        }
        if !listed.is_empty() {
            self.mark(&listed);
        }
        options
    }

    fn mark(&mut self, listed: &[Vec<u8>]) {
        let Fields { bytes, list, names, .. } = self;
        for field in list.iter_mut().filter(|field| field.name.can_be_listed()) {
            let name = &bytes[field.line as usize..field.colon as usize];
            if listed.iter().any(|listed| listed.eq_ignore_ascii_case(name)) {
                field.name = Name::Listed;
                *names |= Name::Listed.bit();
            }
        }
    }

    fn told(&self) -> Result<Told, Bad> {
        let mut told = Told::default();
        for field in &self.list {
            match field.name {
                Name::ContentLength => told.length(self.value(field)),
                Name::TransferEncoding => told.coding(self.value(field)),
                _ => Ok(()),
            }
            .map_err(|_| Bad::Malformed)?;
        }
        Ok(told)
    }
}

/// How strict a reader is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// The most fields of a head.
    pub(crate) fields: usize,
    /// The longest first line of a request, without its line end.
    pub(crate) line: usize,
    /// The longest target of a request.
    pub(crate) target: usize,
    /// Whether a message with both a length and a coding is taken by its coding (RFC 9112, section 6.3) instead of
    /// refused.
    pub(crate) coding_overrules_length: bool,
}

fn header_space() -> [MaybeUninit<httparse::Header<'static>>; MOST_FIELDS] {
    [const { MaybeUninit::uninit() }; MOST_FIELDS]
}

fn refused(error: httparse::Error) -> Bad {
    match error {
        httparse::Error::TooManyHeaders => Bad::TooManyFields,
        httparse::Error::Version => Bad::Version,
        _ => Bad::Malformed,
    }
}

/// Whether the last of three parts of a request's first line, with one blank between each, is a version of HTTP,
/// whichever.
fn names_version(bytes: &[u8]) -> bool {
    let line = &bytes[..memchr::memchr(b'\r', bytes).unwrap_or(bytes.len())];
    let mut parts = line.split(|&byte| byte == b' ').skip(2);
    let version = parts.next().and_then(|version| version.strip_prefix(b"HTTP/")).unwrap_or_default();
    let is_number =
        |[major, point, minor]: &[u8; 3]| major.is_ascii_digit() && *point == b'.' && minor.is_ascii_digit();
    version.try_into().is_ok_and(is_number) && parts.next().is_none()
}

/// In which version of HTTP a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    Http11,
    Http2,
}

impl Version {
    pub(crate) const ALL: [Version; 3] = [Version::Http10, Version::Http11, Version::Http2];

    /// Its name, such as `HTTP/1.1`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2.0",
        }
    }

    /// Its number, such as `1.1`.
    pub(crate) fn number(self) -> &'static str {
        &self.name()["HTTP/".len()..]
    }
}

/// The head of a request.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    pub(crate) fields: Fields,
    /// The path, which is empty where an absolute target has none, and the query; or `*`.
    target: Range<usize>,
    /// Where the target's path ends.
    path_end: usize,
    /// The host of a target in absolute form.
    authority: Option<Range<usize>>,
    pub(crate) version: Version,
    pub(crate) length: Length,
    pub(crate) keep_alive: bool,
    /// Whether the client waits for 100 before it sends the body.
    pub(crate) expects_continue: bool,
    /// Whether the client takes another protocol, if the server wants.
    pub(crate) upgrades: bool,
    /// Whether the client takes trailers.
    pub(crate) takes_trailers: bool,
}

impl RequestHead {
    /// Reads a whole head, its empty line included.
    ///
    /// # Errors
    /// [`Bad`].
    pub(crate) fn read(bytes: &[u8], rules: &Rules) -> Result<Self, Bad> {
        let mut space = header_space();
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(bytes, &mut space[..rules.fields.min(MOST_FIELDS)]);
        match parsed {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(Bad::Malformed),
            Err(httparse::Error::Version) if bytes == PREFACE_HEAD => return Err(Bad::Preface),
            Err(httparse::Error::Version) if !names_version(bytes) => return Err(Bad::Malformed),
            Err(error) => return Err(refused(error)),
        }
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
            return Err(Bad::Malformed);
        };
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| Bad::Malformed)?;
        if method == Method::CONNECT {
            return Err(Bad::Unsupported);
        }
        let start = target.as_ptr() as usize - bytes.as_ptr() as usize;
        // The version, with the space before it, has nine bytes.
        if target.len() > rules.target || start + target.len() + 9 > rules.line {
            return Err(Bad::TargetTooLong);
        }
        let (authority, target) = split_target(bytes, start..start + target.len(), &method)?;
        let version_10 = version == 0;
        let mut fields = Fields::read(bytes, request.headers);
        let options = fields.read_options();
        check_host(&fields, version_10)?;
        let length = request_length(fields.told()?, version_10, rules)?;
        // Where a body comes first, its bytes could be taken for those of the other protocol, or the reverse.
        let upgrades = !version_10 && options.upgrade && length == Length::None && asks_for_upgrade(&fields);
        let path_end = bytes[target.clone()].iter().position(|&b| b == b'?').map_or(target.end, |at| target.start + at);
        Ok(RequestHead {
            expects_continue: expects_continue(&fields, version_10),
            takes_trailers: fields.lists(Name::Te, "trailers"),
            // Whoever sends both a length and a coding may be trying something: nothing more is taken from there.
            keep_alive: options.stays_open(version_10)
                && !(length == Length::Chunked && fields.get(Name::ContentLength).is_some()),
            method,
            fields,
            target,
            path_end,
            authority,
            version: if version_10 { Version::Http10 } else { Version::Http11 },
            length,
            upgrades,
        })
    }

    /// How many more gateways may pass the request on, where that is limited (RFC 9110, section 7.6.2).
    pub(crate) fn max_forwards(&self) -> Option<u64> {
        if self.method != Method::OPTIONS && self.method != Method::TRACE {
            return None;
        }
        let value = self.fields.get(Name::MaxForwards).filter(|value| value.iter().all(u8::is_ascii_digit))?;
        text(value).parse().ok()
    }

    /// What is asked for, as servers get it.
    pub(crate) fn target(&self) -> &[u8] {
        &self.fields.bytes[self.target.clone()]
    }

    /// The path as servers get it, without its query; `*` where the whole server is meant.
    pub(crate) fn path(&self) -> &str {
        match text(&self.fields.bytes[self.target.start..self.path_end]) {
            "" if self.method == Method::OPTIONS && self.query().is_empty() => "*",
            "" => "/",
            path => path,
        }
    }

    /// The query with its question mark; empty if there is none.
    pub(crate) fn query(&self) -> &str {
        text(&self.fields.bytes[self.path_end..self.target.end])
    }

    /// The host that is asked for: what an absolute target says, or else `Host`. `None` only with HTTP/1.0.
    pub(crate) fn host(&self) -> Option<&[u8]> {
        match &self.authority {
            Some(place) => Some(&self.fields.bytes[place.clone()]),
            None => self.fields.get(Name::Host),
        }
    }
}

/// Targets are checked to be ASCII when they are read.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// The host of a target in absolute form, and the target in origin form (RFC 9112, section 3.2).
fn split_target(
    bytes: &[u8],
    place: Range<usize>,
    method: &Method,
) -> Result<(Option<Range<usize>>, Range<usize>), Bad> {
    let target = &bytes[place.clone()];
    if target.iter().any(|&b| !b.is_ascii_graphic() || b == b'#') {
        return Err(Bad::Malformed);
    }
    if target.starts_with(b"/") || target == b"*" && *method == Method::OPTIONS {
        return Ok((None, place));
    }
    let scheme = ["http://", "https://"]
        .iter()
        .find(|scheme| target.len() > scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme.as_bytes()));
    let authority = place.start + scheme.ok_or(Bad::Malformed)?.len();
    let after = bytes[authority..place.end].iter().position(|&b| matches!(b, b'/' | b'?'));
    let path = after.map_or(place.end, |at| authority + at);
    // A user name in the target could pass for the host with a careless reader (RFC 9110, section 4.2.4).
    if !is_host(&bytes[authority..path]) || path == authority {
        return Err(Bad::Malformed);
    }
    Ok((Some(authority..path), path..place.end))
}

/// Whether it is a host with or without a port, or nothing at all (RFC 3986, section 3.2).
fn is_host(host: &[u8]) -> bool {
    let (is_good, rest) = match host.strip_prefix(b"[") {
        Some(literal) => {
            let Some(end) = memchr::memchr(b']', literal) else { return false };
            (text(&literal[..end]).parse::<Ipv6Addr>().is_ok(), &literal[end + 1..])
        }
        None => {
            let (name, rest) = host.split_at(memchr::memchr(b':', host).unwrap_or(host.len()));
            (is_name(name) && (rest.is_empty() || !name.is_empty()), rest)
        }
    };
    is_good && (rest.is_empty() || rest[0] == b':' && rest[1..].iter().all(u8::is_ascii_digit))
}

/// Whether it has only what a name or an IPv4 address may have.
fn is_name(name: &[u8]) -> bool {
    let escapes = |at: usize| name.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    name.iter().enumerate().all(|(at, &byte)| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => true,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => true,
        b'%' => escapes(at),
        _ => false,
    })
}

/// Exactly one host that is one; none only with HTTP/1.0 (RFC 9112, section 3.2).
fn check_host(fields: &Fields, version_10: bool) -> Result<(), Bad> {
    let mut hosts = fields.all(Name::Host);
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host) => Ok(()),
        (None, None) if version_10 => Ok(()),
        _ => Err(Bad::Malformed),
    }
}

/// Whether `Upgrade` names other protocols. A tunnel of HTTP/2 would carry requests past every rule of the dispatcher, so
/// that is not passed on.
fn asks_for_upgrade(fields: &Fields) -> bool {
    fields.get(Name::Upgrade).is_some()
        && !fields.members(Name::Upgrade).any(|protocol| protocol.to_ascii_lowercase().starts_with(b"h2"))
}

fn expects_continue(fields: &Fields, version_10: bool) -> bool {
    !version_10 && fields.all(Name::Expect).any(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

fn request_length(told: Told, version_10: bool, rules: &Rules) -> Result<Length, Bad> {
    match (told.coding, told.length) {
        (None, length) => Ok(length.map_or(Length::None, Length::exact)),
        // HTTP/1.0 has no codings: who sends one may be read differently by others (RFC 9112, section 6.1).
        (Some(_), _) if version_10 => Err(Bad::Malformed),
        (Some(_), Some(_)) if !rules.coding_overrules_length => Err(Bad::Malformed),
        (Some(Coding::Chunked), _) => Ok(Length::Chunked),
        (Some(Coding::Other), _) => Err(Bad::Unsupported),
    }
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    /// The reason phrase, which may be empty.
    reason: Range<usize>,
    pub(crate) length: Length,
    pub(crate) keep_alive: bool,
}

impl ResponseHead {
    /// Reads a whole head, its empty line included, of the answer to a request; `to_head` says that it had the method
    /// `HEAD`.
    ///
    /// # Errors
    /// [`Bad`].
    pub(crate) fn read(bytes: &[u8], to_head: bool, rules: &Rules) -> Result<Self, Bad> {
        let mut space = header_space();
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            &mut space[..rules.fields.min(MOST_FIELDS)],
        );
        match parsed {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(Bad::Malformed),
            Err(error) => return Err(refused(error)),
        }
        let (Some(code), Some(version)) = (response.code, response.version) else { return Err(Bad::Malformed) };
        let status = StatusCode::from_u16(code).map_err(|_| Bad::Malformed)?;
        let line_end = memchr::memchr(b'\r', bytes).unwrap_or(bytes.len());
        // "HTTP/1.1 200" and a blank.
        let reason = line_end.min(13)..line_end;
        let mut fields = Fields::read(bytes, response.headers);
        let options = fields.read_options();
        let told = fields.told()?;
        let length = response_length(told, status, version == 0, to_head, rules)?;
        let announces = told.coding.is_some() || told.length.is_some_and(|length| length > 0);
        let keep_alive = options.stays_open(version == 0)
            && length != Length::UntilClose
            && !(told.coding.is_some() && told.length.is_some())
            // The body that there cannot be may come after all, and would be taken for the next response.
            && !(status == StatusCode::NO_CONTENT && announces);
        Ok(ResponseHead { status, fields, reason, length, keep_alive })
    }

    pub(crate) fn reason(&self) -> &[u8] {
        &self.fields.bytes[self.reason.clone()]
    }

    /// Whether it switches to protocols that `request` has asked for (RFC 9110, section 7.8).
    pub(crate) fn switches_as_asked(&self, request: &RequestHead) -> bool {
        let mut protocols = self.fields.members(Name::Upgrade).peekable();
        let asked = |protocol: &[u8]| {
            let mut wanted = request.fields.members(Name::Upgrade);
            wanted.any(|wanted| wanted.eq_ignore_ascii_case(protocol))
        };
        request.upgrades && protocols.peek().is_some() && protocols.all(asked)
    }
}

fn response_length(
    told: Told,
    status: StatusCode,
    version_10: bool,
    to_head: bool,
    rules: &Rules,
) -> Result<Length, Bad> {
    if told.coding.is_some() && (version_10 || told.length.is_some() && !rules.coding_overrules_length) {
        return Err(Bad::Malformed);
    }
    if to_head || status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Length::None);
    }
    match (told.coding, told.length) {
        (Some(Coding::Chunked), _) => Ok(Length::Chunked),
        (Some(Coding::Other), _) => Err(Bad::Unsupported),
        (None, Some(length)) => Ok(Length::exact(length)),
        (None, None) => Ok(Length::UntilClose),
    }
}

/// Reads a whole trailer section, its empty line included.
///
/// # Errors
/// [`Bad`].
pub(crate) fn read_trailers(bytes: &[u8], rules: &Rules) -> Result<Fields, Bad> {
    let mut space = [httparse::EMPTY_HEADER; MOST_FIELDS];
    match httparse::parse_headers(bytes, &mut space[..rules.fields.min(MOST_FIELDS)]) {
        Ok(httparse::Status::Complete((length, parsed))) if length == bytes.len() => Ok(Fields::read(bytes, parsed)),
        Ok(_) => Err(Bad::Malformed),
        Err(error) => Err(refused(error)),
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
