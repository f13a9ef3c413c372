//! How a request can go wrong.

use crate::connection::Answer;
use crate::message::Expected;
use rustix::io::Errno;
use std::error::Error;
use std::io;

/// Why a request has no right answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection was to be had from the server.
    Connect,
    /// The time-out passed first.
    Timeout,
    /// The connection closed before a head had arrived.
    Closed,
    /// The answer is not HTTP/1.1.
    Protocol,
    /// This status, a 4xx or 5xx that the trace does not have here.
    Status(u16),
    /// The connection closed before the end of the body.
    Truncated,
    /// The whole body arrived, but it is not as long as the trace says.
    WrongLength,
    /// Not the server's: the generator could not send it, for this reason.
    Unsent(String),
}

impl Failure {
    pub(crate) fn of_connecting(error: &io::Error) -> Failure {
        let own = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
        match Errno::from_io_error(error) {
            Some(errno) if own.contains(&errno) => Failure::Unsent(format!("no connection could be opened: {error}")),
            _ => Failure::Connect,
        }
    }

    /// Of an error in the place of a response.
    pub(crate) fn of_head(error: &hyper::Error) -> Failure {
        if error.is_incomplete_message() || error.is_canceled() || io_kind(error).is_some() {
            Failure::Closed
        } else {
            Failure::Protocol
        }
    }

    /// Of an error in the place of a part of a body.
    pub(crate) fn of_body(error: &hyper::Error) -> Failure {
        use io::ErrorKind::{InvalidData, InvalidInput};
        match io_kind(error) {
            // Of the chunks of a chunked body.
            Some(InvalidData | InvalidInput) => Failure::Protocol,
            _ => Failure::Truncated,
        }
    }
}

fn io_kind(error: &hyper::Error) -> Option<io::ErrorKind> {
    error.source()?.downcast_ref().map(io::Error::kind)
}

/// Holds an answer against what the trace says; gives the bytes of its body.
pub(crate) fn judge(answer: Answer, expected: Expected) -> Result<u64, Failure> {
    match answer {
        Answer { status: 400.., .. } if answer.status == expected.status => Ok(answer.bytes),
        Answer { status: 400.., .. } => Err(Failure::Status(answer.status)),
        Answer { bytes, .. } if expected.length.is_some_and(|length| length != bytes) => Err(Failure::WrongLength),
        Answer { bytes, .. } => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_right_if_the_trace_has_the_same() {
        let judged =
            |status, bytes, logged, length| judge(Answer { status, bytes }, Expected { status: logged, length });
        assert_eq!(judged(200, 10, 200, Some(10)), Ok(10));
        assert_eq!(judged(200, 10, 0, None), Ok(10));
        assert_eq!(judged(200, 9, 200, Some(10)), Err(Failure::WrongLength));
        // The object was served although it was asked for only if modified.
        assert_eq!(judged(200, 10, 304, Some(0)), Err(Failure::WrongLength));
        assert_eq!(judged(404, 99, 404, Some(10)), Ok(99));
        assert_eq!(judged(404, 10, 200, Some(10)), Err(Failure::Status(404)));
        assert_eq!(judged(502, 10, 404, Some(10)), Err(Failure::Status(502)));
    }

    #[test]
    fn what_the_machine_refuses_is_not_the_servers_fault() {
        let failure = |errno: Errno| Failure::of_connecting(&errno.into());
        assert_eq!(failure(Errno::CONNREFUSED), Failure::Connect);
        assert_eq!(failure(Errno::HOSTUNREACH), Failure::Connect);
        assert!(matches!(failure(Errno::MFILE), Failure::Unsent(why) if why.contains("Too many open files")));
    }
}
