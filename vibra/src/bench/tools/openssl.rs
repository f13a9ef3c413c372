//! openssl: a certificate, and `s_time`, which makes one TLS connection after the other.

use super::{Load, said};
use crate::bench::contender::Certificate;
use anyhow::{Context, ensure};
use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// Whether a connection takes up an earlier TLS session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Handshake {
    Full,
    Resumed,
}

/// Makes a certificate as most sites have today: an ECDSA key on P-256.
pub(in crate::bench) fn certificate(folder: &Path) -> anyhow::Result<Certificate> {
    let [chain, key, both] = ["certificate.pem", "key.pem", "both.pem"].map(|name| folder.join(name));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    command.args(["-subj", "/CN=bench", "-addext", "subjectAltName=DNS:bench"]);
    command.arg("-keyout").arg(&key).arg("-out").arg(&chain);
    said(&mut command)?;
    fs::write(&both, [fs::read(&chain)?, fs::read(&key)?].concat())?;
    Ok(Certificate { chain, key, both })
}

/// Connects to `target` over TLS and asks for `path` once a connection, from so many processes at once.
pub(in crate::bench) fn load(
    target: SocketAddr,
    path: &str,
    length: Duration,
    handshake: Handshake,
    processes: usize,
) -> anyhow::Result<Load> {
    let mut command = Command::new("openssl");
    command.arg("s_time").arg("-connect").arg(target.to_string()).arg("-www").arg(path);
    command.arg("-time").arg(length.as_secs().max(1).to_string());
    command.arg(match handshake {
        Handshake::Full => "-new",
        Handshake::Resumed => "-reuse",
    });
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let children: Vec<_> =
        (0..processes).map(|_| command.spawn()).collect::<Result<_, _>>().context("cannot start openssl")?;
    let mut sum = Load { requests: 0, errors: 0, seconds: length.as_secs_f64() };
    for child in children {
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "openssl s_time failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        let part = parse(&text, handshake).with_context(|| format!("openssl said something unexpected: {text}"))?;
        sum.requests += part.requests;
        sum.errors += part.errors;
        sum.seconds = sum.seconds.max(part.seconds);
    }
    Ok(sum)
}

/// A connection shows as a letter: `r` if it took up a session, else what TLS version it made one with.
fn parse(text: &str, wanted: Handshake) -> Option<Load> {
    let summary = text.lines().find(|line| line.contains(" connections in ") && line.contains(" real seconds"))?;
    let mut words = summary.split_whitespace();
    let requests: u64 = words.next()?.parse().ok()?;
    let seconds = words.nth(2)?.parse().ok()?;
    let marks = text.lines().find(|line| !line.is_empty() && line.bytes().all(|c| b"rt3*".contains(&c)))?;
    let resumed = marks.bytes().filter(|&mark| mark == b'r').count() as u64;
    let errors = match wanted {
        Handshake::Full => resumed,
        Handshake::Resumed => requests.saturating_sub(resumed),
    };
    Some(Load { requests, errors, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESUMED: &str = "\
Now timing with session id reuse.
starting
rrr*r

5 connections in 0.74s; 3479.73 connections/user sec, bytes read 2124375
5 connections in 2 real seconds, 825 bytes read per connection
";

    #[test]
    fn a_full_handshake_where_one_should_resume_is_an_error_and_the_reverse() {
        let load = |errors| Some(Load { requests: 5, errors, seconds: 2.0 });
        assert_eq!(parse(RESUMED, Handshake::Resumed), load(1));
        assert_eq!(parse(RESUMED, Handshake::Full), load(4));
        assert_eq!(parse(&RESUMED.replace("rrr*r", "*****"), Handshake::Full), load(0));
        assert_eq!(parse("ERROR\n", Handshake::Full), None);
    }

    #[test]
    fn the_certificate_and_its_key_are_there_alone_and_together() {
        if crate::bench::tools::require([("openssl", "openssl")]).is_err() {
            eprintln!("skipped: openssl is not installed");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let Certificate { chain, key, both } = certificate(folder.path()).unwrap();
        let [chain, key, both] = [chain, key, both].map(|file| fs::read_to_string(file).unwrap());
        assert!(chain.starts_with("-----BEGIN CERTIFICATE") && key.contains("PRIVATE KEY"));
        assert_eq!(both, chain + &key);
    }
}
