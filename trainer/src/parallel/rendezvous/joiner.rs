//! The ranks but 0: come, and come again while nobody listens.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::handshake::introduce;
use super::link::{Peer, Tcp};
use super::{Meeting, frame};
use crate::Result;
use crate::parallel::ParallelError;

/// The first pause between two tries, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// How long rank 0 may take for its opening.
const WORDS: Duration = Duration::from_secs(20);

/// Comes to the meeting and waits until all have.
pub(super) fn join(meeting: &Meeting) -> Result<Tcp> {
    let end = Instant::now() + meeting.settings.timeout;
    let mut pause = PAUSES[0];
    loop {
        let why = match attempt(meeting, end) {
            Ok(tcp) => return tcp,
            Err(why) => why,
        };
        if Instant::now() + pause >= end {
            let seconds = meeting.settings.timeout.as_secs();
            return Err(meeting
                .failed(format!(
                    "rank 0 could not be reached within {seconds} s: {why}; see that it runs and that MASTER_ADDR and MASTER_PORT are the same on all ranks"
                ))
                .into());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSES[1]);
    }
}

/// One try: an error is worth another.
fn attempt(meeting: &Meeting, end: Instant) -> std::result::Result<Result<Tcp>, String> {
    let addresses = meeting.resolve()?;
    if let Err(error) = meeting.check_secret(&addresses) {
        return Ok(Err(error));
    }
    let left = || {
        end.saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1))
    };
    let mut reached = Err("no address".to_string());
    for address in &addresses {
        reached = TcpStream::connect_timeout(address, left()).map_err(|e| e.to_string());
        if reached.is_ok() {
            break;
        }
    }
    let stream = reached?;
    let ready = stream
        .set_nodelay(true)
        .and_then(|()| stream.set_write_timeout(Some(WORDS)));
    ready.map_err(|e| e.to_string())?;
    match introduce(meeting, &stream, end.min(Instant::now() + WORDS)) {
        Ok(Ok(())) => {}
        Ok(Err(why)) => return Ok(Err(meeting.failed(why).into())),
        // It may have been too busy, or about to end.
        Err(e) => return Err(format!("it was reached and then lost: {e}")),
    }
    Ok(wait(meeting, stream, end))
}

/// Waits for the word of rank 0 that all have come.
fn wait(meeting: &Meeting, stream: TcpStream, end: Instant) -> Result<Tcp> {
    // Rank 0 began to wait at another moment, and says itself who did not come.
    let end = end + WORDS;
    loop {
        let mut words = frame::Until {
            stream: &stream,
            moment: end,
        };
        match frame::read(&mut words, frame::LONG) {
            Ok((frame::Kind::Welcome, _)) => {}
            Ok((frame::Kind::Refusal, why)) => {
                let why = String::from_utf8_lossy(&why).into_owned();
                return Err(meeting.failed(format!("rank 0 refused: {why}")).into());
            }
            Ok((frame::Kind::Start, text)) => {
                let machines: Vec<String> =
                    serde_json::from_slice(&text).map_err(|e| meeting.failed(format!("rank 0 sent {e}")))?;
                if machines.len() != meeting.size {
                    let why = format!("rank 0 named {} ranks, expected {}", machines.len(), meeting.size);
                    return Err(meeting.failed(why).into());
                }
                let peer = Peer::new(0, stream).map_err(|e| meeting.failed(e.to_string()))?;
                return Tcp::begin(meeting.rank, machines, vec![peer], &meeting.settings);
            }
            Ok((kind, _)) => return Err(meeting.failed(format!("rank 0 sent {kind:?} too early")).into()),
            Err(e) if frame::is_timeout(&e) => {
                let seconds = meeting.settings.timeout.as_secs();
                let why = format!("the other ranks did not come within {seconds} s; see what rank 0 says");
                return Err(meeting.failed(why).into());
            }
            Err(e) => {
                return Err(ParallelError::Lost {
                    rank: 0,
                    host: meeting.host.clone(),
                    why: format!("it ended before all ranks had come ({e})"),
                }
                .into());
            }
        }
    }
}
