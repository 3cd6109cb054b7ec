//! Frames: length and kind, then as many bytes.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// What a frame is. The numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// The proof of the secret and an introduction.
    Introduction = 1,
    /// A place is held.
    Welcome = 2,
    /// It is not, because of what follows.
    Refusal = 3,
    /// All have come: their machines.
    Start = 4,
    /// The sender lives.
    Beat = 5,
    /// A contribution, or the collection of all, behind its number.
    Data = 6,
    /// A rank was lost, or has failed.
    Loss = 7,
    /// The sender leaves in good order.
    Farewell = 8,
}

const KINDS: [Kind; 8] = [
    Kind::Introduction,
    Kind::Welcome,
    Kind::Refusal,
    Kind::Start,
    Kind::Beat,
    Kind::Data,
    Kind::Loss,
    Kind::Farewell,
];

/// Bytes of the longest frame between strangers.
pub(super) const SHORT: usize = 4 << 10;
/// Of the longest between ranks of a run.
pub(super) const LONG: usize = 256 << 20;
/// Bytes of a frame's head.
const HEAD: usize = 5;

pub(super) fn write(to: &mut impl Write, kind: Kind, bytes: &[u8]) -> std::io::Result<()> {
    if bytes.len() > LONG {
        return Err(Error::new(ErrorKind::InvalidInput, "a frame that is too long"));
    }
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    head[4] = kind as u8;
    // One write, so that a short frame is one packet.
    let mut all = Vec::with_capacity(HEAD + bytes.len());
    all.extend_from_slice(&head);
    all.extend_from_slice(bytes);
    to.write_all(&all)
}

/// The next frame, of at most `limit` bytes. Memory grows with what has come, not with what is announced.
pub(super) fn read(from: &mut impl Read, limit: usize) -> std::io::Result<(Kind, Vec<u8>)> {
    let mut head = [0; HEAD];
    from.read_exact(&mut head)?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let kind = KINDS.into_iter().find(|kind| *kind as u8 == head[4]);
    let Some(kind) = kind.filter(|_| length <= limit) else {
        return Err(Error::new(ErrorKind::InvalidData, "what is no frame"));
    };
    let mut bytes = Vec::new();
    from.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok((kind, bytes))
}

/// Reads of a stream that end at a moment, however slowly bytes come.
pub(super) struct Until<'a> {
    pub stream: &'a TcpStream,
    pub moment: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let left = self.moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        self.stream.read(into)
    }
}

/// Whether an error means that time was up.
pub(super) fn is_timeout(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}
