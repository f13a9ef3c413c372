//! What holds for every input that comes from outside: one function a [`Target`], which panics where it does not hold.
//!
//! It is there because the dispatcher's readers meet hostile bytes. Two drivers use it: the test `replay`, an ordinary
//! one, runs the corpus and a bounded number of mutations of it; `fuzz/run` runs LLVM's libFuzzer, which looks for
//! inputs that reach new code. What either finds goes into `corpus/`, where it stays a test.
//!
//! ```sh
//! fuzz/run 3600                  # every target, an hour in all
//! fuzz/run 600 request           # one of them
//! ```
//!
//! The readers are private to their crates, so their files are compiled here once more.

mod configuration;
mod http2;
mod messages;
mod origins;
mod routing;

/// The modules that are fuzzed.
macro_rules! fuzzed {
    ($($module:ident: $path:literal,)*) => {
        $(
            #[path = $path]
            #[allow(dead_code, unreachable_pub, unused_imports, unexpected_cfgs, reason = "fuzzed, not used")]
            mod $module;
        )*
    };
}

fuzzed! {
    config: "../../vibra/src/config/mod.rs",
    forwarded: "../../dispatcher/proxy/src/forwarded.rs",
    ids: "../../dispatcher/proxy/src/ids.rs",
    http1: "../../dispatcher/proxy/src/http1/mod.rs",
    http2_head: "../../dispatcher/proxy/src/http2/head.rs",
    peers: "../../dispatcher/proxy/src/peers.rs",
    proxy_protocol: "../../dispatcher/proxy/src/proxy_protocol.rs",
    resume: "../../dispatcher/proxy/src/resume.rs",
    trace: "../../dispatcher/proxy/src/trace.rs",
    trust: "../../dispatcher/proxy/src/trust.rs",
    via: "../../dispatcher/proxy/src/via.rs",
}

/// One thing to be fuzzed.
#[derive(Debug)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Panics where something does not hold for the input.
    pub check: fn(&[u8]),
    /// Words that inputs are made of.
    pub words: &'static [&'static str],
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "chunked", check: messages::chunked, words: messages::CHUNK_WORDS },
    Target { name: "configuration", check: configuration::check, words: configuration::WORDS },
    Target { name: "forwarded", check: origins::forwarded, words: origins::FORWARDED_WORDS },
    Target { name: "http2-request", check: http2::request, words: http2::WORDS },
    Target { name: "proxy-header", check: origins::proxy_header, words: origins::PROXY_WORDS },
    Target { name: "request", check: messages::request, words: messages::REQUEST_WORDS },
    Target { name: "response", check: messages::response, words: messages::RESPONSE_WORDS },
    Target { name: "routing-key", check: routing::check, words: routing::WORDS },
];
