//! The stream of a watch.

use crate::{
    published::{Published, line},
    serve::signalled,
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};
use vibra_model::{Revision, api::WatchLine};
use vibra_store::{Follow, Gone};

/// How often a watch without commits says that it is alive.
const ALIVE: Duration = Duration::from_secs(1);
/// The most commits that are sent in one piece.
const PIECE: usize = 256;

/// The lines of a watch, in pieces; ends after a `resync`, or when `stopping` turns true.
///
/// It reads the history at the pace of the connection: who reads slower than the directory commits falls behind the
/// history some day, and nothing else is kept for him.
pub(crate) fn lines(
    published: &Arc<Published>,
    from: Revision,
    stopping: watch::Receiver<bool>,
) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + use<>, Gone> {
    let follow = published.lines().follow(from)?;
    let state = Some(Running { follow, published: published.clone(), stopping });
    Ok(stream::unfold(state, |state| async {
        let mut running = state?;
        let (piece, last) = running.piece().await?;
        Some((Ok(piece), (!last).then_some(running)))
    }))
}

struct Running {
    follow: Follow<Bytes>,
    published: Arc<Published>,
    stopping: watch::Receiver<bool>,
}

impl Running {
    /// The next piece, and whether it is the last; `None` at the end.
    async fn piece(&mut self) -> Option<(Bytes, bool)> {
        let next = tokio::select! {
            biased;
            () = signalled(&mut self.stopping) => return None,
            next = timeout(ALIVE, self.follow.next(PIECE)) => next,
        };
        match next {
            Ok(Ok(lines)) => Some((joined(lines), false)),
            Ok(Err(Gone::Ended)) => None,
            Ok(Err(_)) => Some((line(&WatchLine::Resync(self.published.revision())), true)),
            // Nothing was missed up to here: what is newer comes in the next piece.
            Err(_) => Some((line(&WatchLine::Alive(self.follow.last())), false)),
        }
    }
}

fn joined(mut lines: Vec<Bytes>) -> Bytes {
    if lines.len() == 1 {
        return lines.remove(0);
    }
    let mut piece = BytesMut::with_capacity(lines.iter().map(Bytes::len).sum());
    lines.iter().for_each(|line| piece.extend_from_slice(line));
    piece.freeze()
}
