//! One request: redirects, who gets the token, and the answer's bytes as they come.
//!
//! The library blocks while it waits for bytes, so a request has a thread of its own, and whoever asked looks every [`LOOK`] whether to stop. A thread that nobody
//! listens to any more ends with its next bytes, or with the longest wait for them; it touches nothing but its connection.

use std::io::{ErrorKind, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};

use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use super::address::{Address, Origin};
use super::error::Trouble;
use super::retry::LOOK;
use super::{HubError, HubOptions};

/// Redirects that are followed.
const REDIRECTS: usize = 8;
/// Bytes that go from the thread to the asker at once.
const CHUNK: usize = 64 << 10;
/// Chunks that wait for the asker.
const WAITING: usize = 4;

/// What is asked.
#[derive(Clone)]
pub(super) struct Request {
    pub address: Address,
    /// The first byte that is wanted.
    pub from: u64,
    /// For the Hub, whose origin it goes with.
    pub token: Option<String>,
    pub hub: Origin,
}

/// An answer, whose body is still coming.
pub(super) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// Who answered, after redirects.
    pub address: Address,
    events: Receiver<Event>,
}

enum Event {
    Head {
        status: u16,
        headers: HeaderMap,
        address: Address,
    },
    Bytes(Vec<u8>),
    End,
    Failed(Trouble),
}

/// The library, set up so that it decides nothing: statuses and redirects are told, nothing is unpacked. The environment's proxies are for a Hub elsewhere.
pub(super) fn agent(options: &HubOptions, endpoint: &Origin) -> Agent {
    let mut config = Agent::config_builder();
    if endpoint.is_loopback() {
        config = config.proxy(None);
    }
    config
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(&options.user_agent)
        .accept("*/*")
        .accept_encoding("identity")
        .timeout_resolve(Some(options.connect_timeout))
        .timeout_connect(Some(options.connect_timeout))
        .timeout_recv_response(Some(options.read_timeout))
        .timeout_per_read(Some(options.read_timeout))
        .timeout_per_write(Some(options.read_timeout))
        .build()
        .into()
}

/// Asks, and comes back with the head of the answer.
pub(super) fn ask(agent: &Agent, request: Request, stop: &AtomicBool) -> Result<Answer, Trouble> {
    let (sender, events) = sync_channel(WAITING);
    let agent = agent.clone();
    std::thread::Builder::new()
        .name("hub".into())
        .spawn(move || work(&agent, request, &sender))
        .map_err(|e| Trouble::passing(format!("no thread could be started ({e})")))?;
    match wait(&events, stop)? {
        Event::Head {
            status,
            headers,
            address,
        } => Ok(Answer {
            status,
            headers,
            address,
            events,
        }),
        Event::Failed(trouble) => Err(trouble),
        Event::Bytes(_) | Event::End => Err(Trouble::passing("the answer has no head")),
    }
}

impl Answer {
    /// The next bytes of the body, nothing at its end.
    pub fn next(&mut self, stop: &AtomicBool) -> Result<Option<Vec<u8>>, Trouble> {
        match wait(&self.events, stop)? {
            Event::Bytes(bytes) => Ok(Some(bytes)),
            Event::End => Ok(None),
            Event::Failed(trouble) => Err(trouble),
            Event::Head { .. } => Err(Trouble::passing("the answer has two heads")),
        }
    }

    /// The whole body, which must not be longer than `most`.
    pub fn whole(&mut self, most: usize, stop: &AtomicBool) -> Result<Vec<u8>, Trouble> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next(stop)? {
            if all.len() + bytes.len() > most {
                let what = format!("the answer has more than {most} bytes");
                return Err(HubError::Answer {
                    address: self.address.shown(),
                    what,
                }
                .into());
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    /// A header, if it is there once and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

fn wait(events: &Receiver<Event>, stop: &AtomicBool) -> Result<Event, Trouble> {
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(HubError::Stopped.into());
        }
        match events.recv_timeout(LOOK) {
            Ok(event) => return Ok(event),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Trouble::passing("the connection was given up")),
        }
    }
}

/// The thread of a request. An asker that has gone ends it.
fn work(agent: &Agent, request: Request, sender: &SyncSender<Event>) {
    let (response, address) = match follow(agent, request) {
        Ok(found) => found,
        Err(trouble) => {
            let _ = sender.send(Event::Failed(trouble));
            return;
        }
    };
    let (parts, body) = response.into_parts();
    let head = Event::Head {
        status: parts.status.as_u16(),
        headers: parts.headers,
        address: address.clone(),
    };
    if sender.send(head).is_err() {
        return;
    }
    let mut reader = body.into_reader();
    loop {
        let mut bytes = vec![0; CHUNK];
        let event = match reader.read(&mut bytes) {
            Ok(0) => Event::End,
            Ok(n) => {
                bytes.truncate(n);
                Event::Bytes(bytes)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => Event::Failed(Trouble::passing(format!("the connection broke ({error})"))),
        };
        let more = matches!(event, Event::Bytes(_));
        if sender.send(event).is_err() || !more {
            return;
        }
    }
}

/// Follows redirects. The token goes to the Hub's origin alone; once an answer led elsewhere, it goes nowhere any more.
fn follow(agent: &Agent, request: Request) -> Result<(Response<Body>, Address), Trouble> {
    let Request {
        address: mut at,
        from,
        mut token,
        hub,
    } = request;
    for _ in 0..=REDIRECTS {
        if *at.origin() != hub {
            token = None;
        }
        let mut call = agent.get(at.as_str());
        if let Some(token) = &token {
            call = call.header("Authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            call = call.header("Range", format!("bytes={from}-"));
        }
        let response = call.call().map_err(|error| trouble(error, &at))?;
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok((response, at));
        }
        let refused = |what: String| HubError::Redirect {
            address: at.shown(),
            what,
        };
        let place = response.headers().get("Location").and_then(|value| value.to_str().ok());
        let place = place.ok_or_else(|| refused("a redirect that says no place".into()))?;
        let next = at.join(place).map_err(|e| refused(format!("a redirect to what {e}")))?;
        if at.origin().is_secure() && !next.origin().is_secure() {
            return Err(refused(format!("a redirect from https to {}", next.shown())).into());
        }
        at = next;
    }
    Err(HubError::Redirect {
        address: at.shown(),
        what: format!("more than {REDIRECTS} redirects"),
    }
    .into())
}

/// Whether another attempt may go better.
fn trouble(error: ureq::Error, at: &Address) -> Trouble {
    let address = at.shown();
    match error {
        // What the TLS library thinks of a certificate comes as invalid data.
        ureq::Error::Io(e) if e.kind() == ErrorKind::InvalidData => HubError::Secure {
            address,
            what: e.to_string(),
        }
        .into(),
        ureq::Error::Tls(what) => HubError::Secure {
            address,
            what: what.into(),
        }
        .into(),
        ureq::Error::Rustls(e) => HubError::Secure {
            address,
            what: e.to_string(),
        }
        .into(),
        e @ (ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Protocol(_)
        | ureq::Error::BodyStalled) => Trouble::passing(format!("no answer ({e})")),
        e => HubError::Answer {
            address,
            what: e.to_string(),
        }
        .into(),
    }
}
