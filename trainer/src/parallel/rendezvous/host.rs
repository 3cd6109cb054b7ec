//! Rank 0: listens until all have come.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::handshake::{Introduction, Visit, receive};
use super::link::{Peer, Tcp};
use super::{Meeting, frame, machine};
use crate::Result;
use crate::parallel::ParallelError;

/// How long somebody who came may take to say who it is.
const WORDS: Duration = Duration::from_secs(10);
/// Visitors that are heard out at a time, beside as many as there are ranks.
const VISITORS: usize = 64;
/// Between two looks at what has come.
const PAUSE: Duration = Duration::from_millis(5);
/// Notes of strangers that the error of a rendezvous quotes.
const NOTES: usize = 3;

/// Waits for all ranks at the meeting.
pub(super) fn gather(meeting: &Meeting) -> Result<Tcp> {
    let end = Instant::now() + meeting.settings.timeout;
    let addresses = meeting.resolve().map_err(|why| meeting.failed(why))?;
    meeting.check_secret(&addresses)?;
    let listening_at = meeting.listening_at(&addresses);
    let listener = TcpListener::bind(&listening_at[..]).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    let listener = listener.map_err(|e| {
        meeting.failed(format!(
            "rank 0 cannot listen there: {e}; MASTER_ADDR must be an address of its machine and MASTER_PORT free"
        ))
    })?;
    let mut seats = Seats {
        meeting,
        ranks: (0..meeting.size).map(|_| None).collect(),
        notes: Vec::new(),
    };
    let (sender, visits) = channel();
    let hearing = Arc::new(AtomicUsize::new(0));
    let outcome = seats.fill(&listener, (&sender, &visits), &hearing, end);
    match outcome {
        Ok(()) => seats.start(),
        Err(error) => {
            seats.dismiss(&error);
            Err(error.into())
        }
    }
}

struct Seats<'a> {
    meeting: &'a Meeting,
    ranks: Vec<Option<(TcpStream, Introduction)>>,
    notes: Vec<String>,
}

impl Seats<'_> {
    fn fill(
        &mut self,
        listener: &TcpListener,
        (sender, visits): (&Sender<Visit>, &Receiver<Visit>),
        hearing: &Arc<AtomicUsize>,
        end: Instant,
    ) -> std::result::Result<(), ParallelError> {
        loop {
            let missing = self.missing();
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(self.too_late(&missing));
            }
            self.all_still_there()?;
            match listener.accept() {
                // Whoever is one too many tries again.
                Ok((stream, from)) if hearing.load(Ordering::Relaxed) < VISITORS + self.meeting.size => {
                    self.hear(stream, from.to_string(), sender, hearing);
                }
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
                // A connection that was gone before it was taken.
                Err(_) => std::thread::sleep(PAUSE),
            }
            while let Ok(visit) = visits.try_recv() {
                match visit {
                    Visit::Rank(stream, introduction) => self.seat(stream, introduction)?,
                    Visit::Stranger(Some(note)) if self.notes.len() < NOTES && !self.notes.contains(&note) => {
                        self.notes.push(note);
                    }
                    Visit::Stranger(_) => {}
                    Visit::Wrong(error) => return Err(error),
                }
            }
        }
    }

    /// Hears a visitor out on a thread, so that nobody who says nothing keeps the others waiting.
    fn hear(&self, stream: TcpStream, from: String, sender: &Sender<Visit>, hearing: &Arc<AtomicUsize>) {
        let (sender, hearing) = (sender.clone(), hearing.clone());
        let meeting = self.meeting.clone();
        hearing.fetch_add(1, Ordering::Relaxed);
        let count = hearing.clone();
        let heard = std::thread::Builder::new().name("rendezvous".into()).spawn(move || {
            let ready = stream
                .set_nonblocking(false)
                .and_then(|()| stream.set_nodelay(true))
                .and_then(|()| stream.set_write_timeout(Some(WORDS)));
            if ready.is_ok() {
                // The rendezvous may be over by now.
                let _ = sender.send(receive(&meeting, stream, &from, Instant::now() + WORDS));
            }
            hearing.fetch_sub(1, Ordering::Relaxed);
        });
        if heard.is_err() {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Gives a rank its place, or refuses it and ends the rendezvous.
    fn seat(&mut self, mut stream: TcpStream, found: Introduction) -> std::result::Result<(), ParallelError> {
        if let Some(error) = self.refuse(&found) {
            let _ = frame::write(&mut stream, frame::Kind::Refusal, error.to_string().as_bytes());
            return Err(error);
        }
        // One that has gone is found missing.
        let _ = frame::write(&mut stream, frame::Kind::Welcome, &[]);
        let rank = found.rank;
        self.ranks[rank] = Some((stream, found));
        Ok(())
    }

    fn refuse(&self, found: &Introduction) -> Option<ParallelError> {
        let meeting = self.meeting;
        let differs = |field, host: String, joiner: String| ParallelError::Mismatch {
            address: meeting.address.clone(),
            field,
            rank: found.rank,
            host,
            joiner,
        };
        if found.version != meeting.settings.version {
            let ours = meeting.settings.version.clone();
            return Some(differs("the version of onebit", ours, found.version.clone()));
        }
        if found.size != meeting.size {
            return Some(differs(
                "the number of ranks",
                meeting.size.to_string(),
                found.size.to_string(),
            ));
        }
        let taken = match self.ranks.get(found.rank) {
            None => format!("expected a rank below {}, found {}", meeting.size, found.rank),
            _ if found.rank == 0 => format!("there are two of rank 0: here and on {}", found.machine),
            Some(None) => return None,
            Some(Some((_, first))) => {
                format!(
                    "there are two of rank {}: on {} and on {}",
                    found.rank, first.machine, found.machine
                )
            }
        };
        Some(meeting.failed(format!("{taken}; give each process a rank of its own")))
    }

    fn missing(&self) -> Vec<usize> {
        (1..self.meeting.size)
            .filter(|&rank| self.ranks[rank].is_none())
            .collect()
    }

    /// That no rank has gone again.
    fn all_still_there(&self) -> std::result::Result<(), ParallelError> {
        for (stream, found) in self.ranks.iter().flatten() {
            let gone = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
            let _ = stream.set_nonblocking(false);
            match gone {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                _ => {
                    return Err(ParallelError::Lost {
                        rank: found.rank,
                        host: found.machine.clone(),
                        why: "it ended before all ranks had come; see what it said".into(),
                    });
                }
            }
        }
        Ok(())
    }

    fn too_late(&self, missing: &[usize]) -> ParallelError {
        let seconds = self.meeting.settings.timeout.as_secs();
        let mut why = format!("{} did not come within {seconds} s", ranks(missing));
        if !self.notes.is_empty() {
            why += &format!(" ({})", self.notes.join("; "));
        }
        self.meeting.failed(
            why + "; start all ranks with the same MASTER_ADDR and MASTER_PORT, or give --rendezvous-timeout more",
        )
    }

    /// Tells those who came that it came to nothing.
    fn dismiss(&mut self, error: &ParallelError) {
        for (stream, _) in self.ranks.iter_mut().flatten() {
            let _ = frame::write(stream, frame::Kind::Refusal, error.to_string().as_bytes());
        }
    }

    fn start(self) -> Result<Tcp> {
        let meeting = self.meeting;
        let mut machines = vec![machine()];
        machines.extend(self.ranks.iter().flatten().map(|(_, found)| found.machine.clone()));
        let text = serde_json::to_vec(&machines).map_err(|e| meeting.failed(e.to_string()))?;
        let mut peers = Vec::with_capacity(meeting.size);
        for (mut stream, found) in self.ranks.into_iter().flatten() {
            let lost = |e: std::io::Error| ParallelError::Lost {
                rank: found.rank,
                host: found.machine.clone(),
                why: e.to_string(),
            };
            frame::write(&mut stream, frame::Kind::Start, &text).map_err(lost)?;
            peers.push(Peer::new(found.rank, stream).map_err(lost)?);
        }
        Tcp::begin(0, machines, peers, &meeting.settings)
    }
}

/// `rank 3`, or `ranks 3, 5 and 6`.
fn ranks(some: &[usize]) -> String {
    const MOST: usize = 8;
    match some {
        [one] => format!("rank {one}"),
        many if many.len() > MOST => format!("rank {} and {} others", many[0], many.len() - 1),
        many => {
            let names: Vec<_> = many.iter().map(usize::to_string).collect();
            let (last, first) = names
                .split_last()
                .map_or((String::new(), &[][..]), |(l, f)| (l.clone(), f));
            format!("ranks {} and {last}", first.join(", "))
        }
    }
}
