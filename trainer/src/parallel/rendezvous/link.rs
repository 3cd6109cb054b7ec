//! The connections of a run that has begun: collections by way of rank 0, beats, losses.

use std::collections::VecDeque;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Settings, frame};
use crate::Result;
use crate::parallel::{Link, OnLoss, ParallelError};

/// Beats in the time after which a silent rank is lost.
const BEATS: u32 = 6;

/// A rank at the other end of a connection.
pub(super) struct Peer {
    rank: usize,
    reader: TcpStream,
    writer: Mutex<TcpStream>,
}

impl Peer {
    pub fn new(rank: usize, stream: TcpStream) -> std::io::Result<Self> {
        Ok(Peer {
            rank,
            reader: stream.try_clone()?,
            writer: Mutex::new(stream),
        })
    }

    fn send(&self, kind: frame::Kind, bytes: &[u8]) -> std::io::Result<()> {
        frame::write(&mut *lock(&self.writer), kind, bytes)
    }
}

/// What has come from a peer.
#[derive(Default)]
struct Inbox {
    data: VecDeque<Vec<u8>>,
    left: bool,
}

struct State {
    inboxes: Vec<Inbox>,
    lost: Option<ParallelError>,
    callback: Option<OnLoss>,
    /// This rank leaves: what happens to connections from here on means nothing.
    leaving: bool,
    /// Rank 0 tells the others who was lost: it does not leave before, or they would take it for the one.
    telling: bool,
}

struct Shared {
    rank: usize,
    machines: Vec<String>,
    /// On rank 0 all others, on these rank 0.
    peers: Vec<Peer>,
    state: Mutex<State>,
    changed: Condvar,
    silence: Duration,
    answer: Duration,
}

/// The link of ranks that met over TCP.
pub(super) struct Tcp {
    shared: Arc<Shared>,
    /// Collections so far: whoever counts another number has lost the thread.
    count: Mutex<u64>,
}

impl std::fmt::Debug for Tcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tcp(rank {} of {})", self.shared.rank, self.shared.machines.len())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tcp {
    /// Goes on with connections that are open on both sides.
    pub fn begin(rank: usize, machines: Vec<String>, peers: Vec<Peer>, settings: &Settings) -> Result<Self> {
        let shared = Arc::new(Shared {
            rank,
            state: Mutex::new(State {
                inboxes: peers.iter().map(|_| Inbox::default()).collect(),
                lost: None,
                callback: None,
                leaving: false,
                telling: false,
            }),
            changed: Condvar::new(),
            silence: settings.silence,
            answer: settings.answer,
            machines,
            peers,
        });
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.into()).spawn(work);
            thread.map_err(|e| shared.lost(rank, format!("no thread could be started: {e}")))
        };
        for (i, peer) in shared.peers.iter().enumerate() {
            let stream = &peer.reader;
            let ready = stream
                .set_read_timeout(Some(settings.silence))
                .and_then(|()| stream.set_write_timeout(Some(settings.silence)));
            ready.map_err(|e| shared.lost(peer.rank, e.to_string()))?;
            let of_thread = shared.clone();
            spawn("rank", Box::new(move || of_thread.listen(i)))?;
        }
        let of_thread = shared.clone();
        spawn("beats", Box::new(move || of_thread.beat()))?;
        Ok(Tcp {
            shared,
            count: Mutex::new(0),
        })
    }

    /// Contributions of all on rank 0, for all.
    fn collect(&self, number: u64, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let shared = &*self.shared;
        let mut all = vec![bytes.to_vec()];
        for i in 0..shared.peers.len() {
            all.push(shared.take(i, number)?);
        }
        let mut message = number.to_le_bytes().to_vec();
        for bytes in &all {
            message.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            message.extend_from_slice(bytes);
        }
        for peer in &shared.peers {
            shared.send(peer, frame::Kind::Data, &message)?;
        }
        Ok(all)
    }

    /// The contribution of this rank to rank 0, and what it collected.
    fn contribute(&self, number: u64, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let shared = &*self.shared;
        let mut message = number.to_le_bytes().to_vec();
        message.extend_from_slice(bytes);
        shared.send(&shared.peers[0], frame::Kind::Data, &message)?;
        let collected = shared.take(0, number)?;
        split(&collected, shared.machines.len()).ok_or_else(|| {
            let what = "a collection that is cut off".into();
            ParallelError::Protocol { rank: 0, what }.into()
        })
    }
}

/// The parts of a collection of `n`, each behind its length.
fn split(mut bytes: &[u8], n: usize) -> Option<Vec<Vec<u8>>> {
    let mut parts = Vec::new();
    for _ in 0..n {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        parts.push(part.to_vec());
        bytes = rest;
    }
    bytes.is_empty().then_some(parts)
}

impl Shared {
    fn lost(&self, rank: usize, why: String) -> ParallelError {
        let host = self.machines.get(rank).cloned().unwrap_or_default();
        ParallelError::Lost { rank, host, why }
    }

    fn send(&self, peer: &Peer, kind: frame::Kind, bytes: &[u8]) -> Result<()> {
        self.check()?;
        let sent = peer.send(kind, bytes);
        if let Err(e) = sent {
            if e.kind() == std::io::ErrorKind::InvalidInput {
                let what = format!("more than {} bytes at once", frame::LONG);
                return Err(ParallelError::Protocol { rank: self.rank, what }.into());
            }
            self.lose(self.lost(peer.rank, format!("its connection ended ({e})")));
            return self.check();
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        lock(&self.state).lost.clone().map_or(Ok(()), |lost| Err(lost.into()))
    }

    /// Waits for the next data of peer `i`, which must have this number, and takes it.
    fn take(&self, i: usize, number: u64) -> Result<Vec<u8>> {
        let rank = self.peers[i].rank;
        let end = Instant::now() + self.answer;
        let mut state = lock(&self.state);
        loop {
            if let Some(bytes) = state.inboxes[i].data.pop_front() {
                let what = match bytes.split_first_chunk::<8>() {
                    Some((found, rest)) if *found == number.to_le_bytes() => return Ok(rest.to_vec()),
                    Some((found, _)) => format!(
                        "its contribution {} where {number} was expected",
                        u64::from_le_bytes(*found)
                    ),
                    None => "a contribution without a number".into(),
                };
                return Err(ParallelError::Protocol { rank, what }.into());
            }
            if let Some(lost) = &state.lost {
                return Err(lost.clone().into());
            }
            if state.inboxes[i].left {
                return Err(self.lost(rank, "it ended before the others".into()).into());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ParallelError::Silent {
                    rank,
                    host: self.machines.get(rank).cloned().unwrap_or_default(),
                    seconds: self.answer.as_secs(),
                }
                .into());
            }
            (state, _) = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Reads what peer `i` sends, to the end of the connection.
    fn listen(&self, i: usize) {
        let peer = &self.peers[i];
        let mut from = &peer.reader;
        loop {
            let why = match frame::read(&mut from, frame::LONG) {
                Ok((frame::Kind::Beat, _)) => continue,
                Ok((frame::Kind::Data, bytes)) => {
                    lock(&self.state).inboxes[i].data.push_back(bytes);
                    self.changed.notify_all();
                    continue;
                }
                Ok((frame::Kind::Farewell, _)) => {
                    lock(&self.state).inboxes[i].left = true;
                    self.changed.notify_all();
                    continue;
                }
                Ok((frame::Kind::Loss, bytes)) => match self.read_loss(&bytes) {
                    Some(error) => {
                        self.lose(error);
                        continue;
                    }
                    None => "it sent news of no rank".to_string(),
                },
                Ok((kind, _)) => format!("it sent {kind:?}, which has no place here"),
                Err(e) if frame::is_timeout(&e) => format!("it was silent for {} s", self.silence.as_secs_f32()),
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => "its process or its connection ended".into(),
                Err(e) => format!("its connection ended ({e})"),
            };
            let state = lock(&self.state);
            if state.leaving || state.inboxes[i].left {
                return;
            }
            drop(state);
            self.lose(self.lost(peer.rank, why));
            return;
        }
    }

    /// Remembers the first loss, tells of it and acts on it.
    fn lose(&self, error: ParallelError) {
        let mut state = lock(&self.state);
        if state.leaving || state.lost.is_some() {
            return;
        }
        state.lost = Some(error.clone());
        let callback = state.callback.take();
        state.telling = self.rank == 0;
        drop(state);
        self.changed.notify_all();
        if self.rank == 0 {
            self.tell(&error);
            lock(&self.state).telling = false;
            self.changed.notify_all();
        }
        if let Some(callback) = callback {
            callback(&error);
        }
    }

    /// Tells the peers of a loss, as far as they hear.
    fn tell(&self, error: &ParallelError) {
        let (rank, kind, why) = match error {
            ParallelError::Failed { rank, why, .. } => (*rank, 1, why),
            ParallelError::Lost { rank, why, .. } => (*rank, 0, why),
            _ => return,
        };
        let mut bytes = (rank as u32).to_le_bytes().to_vec();
        bytes.push(kind);
        bytes.extend_from_slice(why.as_bytes());
        for peer in self.peers.iter().filter(|peer| peer.rank != rank) {
            let _ = peer.send(frame::Kind::Loss, &bytes);
        }
    }

    fn read_loss(&self, bytes: &[u8]) -> Option<ParallelError> {
        let (rank, rest) = bytes.split_first_chunk::<4>()?;
        let (kind, why) = rest.split_first()?;
        let rank = u32::from_le_bytes(*rank) as usize;
        let host = self.machines.get(rank)?.clone();
        let why = String::from_utf8_lossy(why).into_owned();
        Some(match kind {
            0 => ParallelError::Lost { rank, host, why },
            _ => ParallelError::Failed { rank, host, why },
        })
    }

    /// Says that this rank lives, until it leaves.
    fn beat(&self) {
        let pause = self.silence / BEATS;
        let mut state = lock(&self.state);
        while !state.leaving {
            drop(state);
            for peer in &self.peers {
                // Whoever does not hear it is found out by reading.
                let _ = peer.send(frame::Kind::Beat, &[]);
            }
            state = lock(&self.state);
            let end = Instant::now() + pause;
            while !state.leaving && Instant::now() < end {
                let left = end.saturating_duration_since(Instant::now());
                (state, _) = self
                    .changed
                    .wait_timeout(state, left)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn leave(&self) {
        let mut state = lock(&self.state);
        while state.telling {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.leaving = true;
        drop(state);
        self.changed.notify_all();
    }
}

impl Link for Tcp {
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        // Held to the end: one collection at a time.
        let mut count = lock(&self.count);
        let number = *count;
        *count += 1;
        if self.shared.rank == 0 {
            self.collect(number, bytes)
        } else {
            self.contribute(number, bytes)
        }
    }

    fn check(&self) -> Result<()> {
        self.shared.check()
    }

    fn on_loss(&self, callback: OnLoss) {
        let mut state = lock(&self.shared.state);
        match state.lost.clone() {
            Some(lost) => {
                drop(state);
                callback(&lost);
            }
            None => state.callback = Some(callback),
        }
    }

    fn finish(&self) -> Result<()> {
        self.all_gather(&[])?;
        for peer in &self.shared.peers {
            // All have come to this point: whoever has gone by now has gone in good order.
            let _ = peer.send(frame::Kind::Farewell, &[]);
        }
        self.shared.leave();
        Ok(())
    }

    fn fail(&self, why: &str) {
        let error = ParallelError::Failed {
            rank: self.shared.rank,
            host: String::new(),
            why: why.into(),
        };
        if self.shared.check().is_ok() {
            self.shared.tell(&error);
        }
        self.shared.leave();
    }
}

impl Drop for Tcp {
    /// Ends the threads, and the connections: without a farewell that is a loss to the others.
    fn drop(&mut self) {
        self.shared.leave();
        for peer in &self.shared.peers {
            let _ = peer.reader.shutdown(Shutdown::Both);
        }
    }
}
