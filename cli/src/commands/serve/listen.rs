//! Connections: how many, how slow, and how they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at a time; further ones wait to be accepted.
const CONNECTIONS: usize = 1024;
/// How often it is asked whether the server is to end.
const POLL: Duration = Duration::from_millis(50);

/// Serves until `stop`, then lets what was begun finish for up to `grace`; tells `ending` first.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    head: Duration,
    grace: Duration,
    stop: &AtomicBool,
    ending: impl FnOnce(),
) -> bool {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // From a connection's start, or its last answer, to the end of a request's head: a slow one takes no place for long.
        .header_read_timeout(head)
        .max_buf_size(64 << 10);
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
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(socket), service));
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use axum::routing::get;

    use super::*;

    /// Serves with so much time for a head while `f` is a client.
    fn serving(head: Duration, grace: Duration, f: impl FnOnce(&mut TcpStream, &AtomicBool) + Send) -> bool {
        let slow = async || {
            tokio::time::sleep(Duration::from_millis(300)).await;
            "done"
        };
        let never = async || std::future::pending::<&str>().await;
        let router = Router::new()
            .route("/", get(async || "here"))
            .route("/slow", get(slow))
            .route("/never", get(never));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                f(&mut client, &stop);
                stop.store(true, Ordering::Relaxed);
            });
            runtime.block_on(serve(listener, router, head, grace, &stop, || ()))
        })
    }

    /// What comes until the connection ends.
    fn rest(client: &mut TcpStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_head_that_does_not_come_ends_the_connection() {
        for begun in ["", "GET / HT"] {
            serving(Duration::from_millis(100), Duration::ZERO, |client, _| {
                client.write_all(begun.as_bytes()).unwrap();
                assert!(!rest(client).contains("200 OK"), "{begun:?}");
            });
        }
    }

    #[test]
    fn what_was_begun_is_finished_within_the_grace() {
        let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let long = Duration::from_secs(30);
        let finished = serving(long, long, |client, stop| {
            client.write_all(ask("/slow").as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            stop.store(true, Ordering::Relaxed);
            assert!(rest(client).ends_with("done"));
        });
        assert!(finished);
        let finished = serving(long, Duration::from_millis(100), |client, stop| {
            client.write_all(ask("/never").as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            stop.store(true, Ordering::Relaxed);
        });
        assert!(!finished);
    }
}
