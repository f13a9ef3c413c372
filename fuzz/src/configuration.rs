//! `vibra.toml`: any text is accepted, or refused with a place and a reason.

use crate::config::Config;
use std::path::Path;

pub(crate) const WORDS: &[&str] = &[
    "[dispatcher]\n",
    "[[server]]\n",
    "[directory]\n",
    "[[token]]\n",
    "[allocator]\n",
    "[[customer]]\n",
    "[[host]]\n",
    "[[vm]]\n",
    "listen = \"127.0.0.1:0\"\n",
    "name = \"a\"\n",
    "address = \"a:80\"\n",
    "customer = \"a\"\n",
    "host = \"a\"\n",
    "kind = \"in-process\"\n",
    "content = \"worldcup\"\n",
    "weight = ",
    "replicas = ",
    "fallbacks = ",
    "bound = { bandwidth = \"1MB/s\", memory = \"1GiB\", cpu = \"1500m\" }\n",
    "policy = \"proportional\"",
    "18446744073709551615",
    "-1",
    "0",
    "1e308",
    "\"3s\"",
    "\"\"",
    "\u{e9}",
    "{",
    "}",
    "[",
    "]",
    "\n",
    "=",
    "#",
    "'''",
];

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = Config::parse(Path::new("vibra.toml"), text) {
        let shown = error.to_string();
        assert!(shown.starts_with("vibra.toml:") && !error.message.is_empty(), "no place or no reason: {shown:?}");
    }
}
