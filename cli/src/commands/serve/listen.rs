//! Connections: how many, how slow, and how they end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::Service;

/// Connections at a time; further ones wait to be accepted.
const CONNECTIONS: usize = 1024;
/// How often it is asked whether the server is to end.
const POLL: Duration = Duration::from_millis(50);

/// A socket that listens.
pub(super) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `stop`, then lets what was begun finish for up to `grace`; tells `ending` first.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    head: Duration,
    grace: Duration,
    stop: &AtomicBool,
    ending: impl FnOnce(),
) -> bool {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // From a connection's start, or its last answer, to the end of a request's head: a slow one takes no place for long.
        .header_read_timeout(head)
        .max_buf_size(64 << 10);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64);
    let builder = Arc::new(builder);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while !stop.load(Ordering::Relaxed) {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            break;
        };
        let accepted = loop {
            if stop.load(Ordering::Relaxed) {
                break None;
            }
            if let Ok(accepted) = tokio::time::timeout(POLL, listener.accept()).await {
                break Some(accepted);
            }
        };
        let socket = match accepted {
            None => break,
            Some(Ok((socket, _))) => socket,
            // No more files, or a client that left at once: neither ends the server.
            Some(Err(_)) => {
                tokio::time::sleep(POLL).await;
                continue;
            }
        };
        let _ = socket.set_nodelay(true);
        let router = router.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut router = router.clone();
            async move { Ok::<_, Infallible>(answered(router.call(request).await)) }
        });
        let connection = builder.serve_connection(TokioIo::new(socket), service);
        let connection = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            // A client that breaks off is its own affair.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    ending();
    tokio::time::timeout(grace, graceful.shutdown()).await.is_ok()
}

/// What a router answers: it cannot fail.
fn answered<T>(result: Result<T, Infallible>) -> T {
    match result {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}
