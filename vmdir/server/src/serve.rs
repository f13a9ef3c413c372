//! The connections: accepted up to a number, served, ended in order.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::SockRef;
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long a connection may take for the head of a request, idling included.
const HEAD: Duration = Duration::from_secs(60);
/// How long the peer may leave sent data unacknowledged, or its window closed.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// How long running requests may take once the server is to stop.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait after a connection could not be accepted, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` until `stopping` turns true, or its sender is gone.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    connections: usize,
    mut stopping: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(connections));
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = signalled(&mut stopping) => break,
            Some(_) = running.join_next() => {}
            (stream, place) = accept(&listener, &places) => {
                running.spawn(connection(stream, router.clone(), stopping.clone(), place));
            }
        }
    }
    drop((listener, router));
    let ended = timeout(GRACE, async { while running.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::warn!(connections = running.len(), "connections that did not end were cut off");
        running.shutdown().await;
    }
}

/// Returns once the server is to stop.
pub(crate) async fn signalled(stopping: &mut watch::Receiver<bool>) {
    // An error says that the handle is gone, with which nobody else can stop the server.
    drop(stopping.wait_for(|stopping| *stopping).await);
}

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let place = places.clone().acquire_owned().await.expect("the places are never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    mut stopping: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let socket = SockRef::from(&stream);
    // Without these a connection works too, only slower, or for longer than its peer lives.
    if let Err(error) = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))) {
        tracing::debug!(%error, "socket options");
    }
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = signalled(&mut stopping) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection broke");
    }
}
