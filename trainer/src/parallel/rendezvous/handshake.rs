//! Who comes: openings, proofs of the secret, introductions.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde::{Deserialize, Serialize};

use super::{Meeting, Secret, frame, machine};
use crate::parallel::ParallelError;

const MAGIC: [u8; 8] = *b"1BRANKS\n";
/// What ranks say and in which order.
pub(super) const PROTOCOL: u32 = 1;
/// Bytes of an opening.
const OPENING: usize = MAGIC.len() + 4 + 1 + 32;

/// The first words of either side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub protocol: u32,
    pub has_secret: bool,
    pub nonce: [u8; 32],
}

impl Opening {
    pub fn new(secret: Option<&Secret>) -> Result<Self, String> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|e| format!("no random numbers: {e}"))?;
        Ok(Opening {
            protocol: PROTOCOL,
            has_secret: secret.is_some(),
            nonce,
        })
    }

    pub fn send(&self, to: &mut impl Write, proof: &[u8]) -> std::io::Result<()> {
        let mut bytes = Vec::with_capacity(OPENING + proof.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.protocol.to_le_bytes());
        bytes.push(u8::from(self.has_secret));
        bytes.extend_from_slice(&self.nonce);
        bytes.extend_from_slice(proof);
        to.write_all(&bytes)
    }

    /// The opening of a peer, or none from whoever is no rank.
    pub fn read(from: &mut impl Read) -> std::io::Result<Option<Self>> {
        let mut bytes = [0; OPENING];
        // What does not begin with the magic may be shorter than an opening.
        let (magic, rest) = bytes.split_at_mut(MAGIC.len());
        from.read_exact(magic)?;
        if *magic != MAGIC {
            return Ok(None);
        }
        from.read_exact(rest)?;
        let mut nonce = [0; 32];
        nonce.copy_from_slice(&rest[5..]);
        Ok(Some(Opening {
            protocol: u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]),
            has_secret: rest[4] != 0,
            nonce,
        }))
    }
}

/// Who a rank is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Introduction {
    pub version: String,
    pub size: usize,
    pub rank: usize,
    pub local_rank: usize,
    pub machine: String,
}

impl Introduction {
    pub fn of(meeting: &Meeting) -> Self {
        Introduction {
            version: meeting.settings.version.clone(),
            size: meeting.size,
            rank: meeting.rank,
            local_rank: meeting.local_rank,
            machine: machine(),
        }
    }
}

/// A proof of the secret of `side`, zeros without a secret.
pub(super) fn proof(secret: Option<&Secret>, side: &str, parts: &[&[u8]]) -> [u8; 32] {
    secret.map_or([0; 32], |secret| secret.proof(side, parts))
}

/// Whether a proof holds, in a time that does not tell where it differs.
pub(super) fn holds(expected: [u8; 32], found: [u8; 32]) -> bool {
    blake3::Hash::from_bytes(expected) == blake3::Hash::from_bytes(found)
}

/// What became of somebody who came.
pub(super) enum Visit {
    /// A rank, whose introduction is for rank 0 to judge.
    Rank(TcpStream, Introduction),
    /// Nobody of the run, with what is worth telling.
    Stranger(Option<String>),
    /// A process of the run that cannot take part.
    Wrong(ParallelError),
}

/// Hears out a visitor.
pub(super) fn receive(meeting: &Meeting, mut stream: TcpStream, from: &str, moment: std::time::Instant) -> Visit {
    let secret = meeting.settings.secret.as_ref();
    let mut words = frame::Until {
        stream: &stream,
        moment,
    };
    let Ok(Some(theirs)) = Opening::read(&mut words) else {
        return Visit::Stranger(None);
    };
    let Ok(ours) = Opening::new(secret) else {
        return Visit::Stranger(Some("there are no random numbers".into()));
    };
    let told = proof(secret, "rank 0", &[&theirs.nonce, &ours.nonce]);
    if ours.send(&mut &stream, &told).is_err() {
        return Visit::Stranger(None);
    }
    if theirs.protocol != PROTOCOL {
        let why = format!(
            "{from} speaks protocol {}, expected {PROTOCOL}; use the same version everywhere",
            theirs.protocol
        );
        return match secret {
            Some(_) => Visit::Stranger(Some(why)),
            None => Visit::Wrong(meeting.failed(why)),
        };
    }
    if theirs.has_secret != secret.is_some() {
        let has = if theirs.has_secret {
            "a secret, and rank 0 has none"
        } else {
            "no secret, and rank 0 has one"
        };
        return Visit::Stranger(Some(format!("{from} has {has}")));
    }
    let mut words = frame::Until {
        stream: &stream,
        moment,
    };
    let other_secret = || Visit::Stranger(Some(format!("{from} has another secret")));
    let bytes = match frame::read(&mut words, frame::SHORT) {
        Ok((frame::Kind::Introduction, bytes)) => bytes,
        // As soon as it saw our proof.
        Ok((frame::Kind::Refusal, _)) => return other_secret(),
        _ => return Visit::Stranger(Some(format!("{from} came, and left before it was known"))),
    };
    let Some((found, text)) = bytes.split_first_chunk::<32>() else {
        return Visit::Stranger(None);
    };
    if !holds(proof(secret, "joiner", &[&ours.nonce, &theirs.nonce, text]), *found) {
        let _ = frame::write(&mut stream, frame::Kind::Refusal, b"its secret is another one");
        return other_secret();
    }
    match serde_json::from_slice(text) {
        Ok(introduction) => Visit::Rank(stream, introduction),
        Err(e) => Visit::Stranger(Some(format!("{from} sent what is no introduction: {e}"))),
    }
}

/// What rank 0 says to a joiner that gave its opening `ours`.
pub(super) fn introduce(
    meeting: &Meeting,
    stream: &TcpStream,
    moment: std::time::Instant,
) -> std::io::Result<Result<(), String>> {
    let secret = meeting.settings.secret.as_ref();
    let ours = match Opening::new(secret) {
        Ok(ours) => ours,
        Err(why) => return Ok(Err(why)),
    };
    ours.send(&mut &*stream, &[])?;
    let mut words = frame::Until { stream, moment };
    let Some(theirs) = Opening::read(&mut words)? else {
        return Ok(Err("what listens there is no rank of this program".into()));
    };
    let mut found = [0; 32];
    words.read_exact(&mut found)?;
    if theirs.protocol != PROTOCOL {
        let why = format!(
            "rank 0 speaks protocol {}, expected {PROTOCOL}; use the same version everywhere",
            theirs.protocol
        );
        return Ok(Err(why));
    }
    if theirs.has_secret != secret.is_some() {
        let has = if secret.is_some() {
            "has no secret, and this one has one"
        } else {
            "has a secret, and this one has none"
        };
        return Ok(Err(format!(
            "rank 0 {has}; set ONEBIT_SECRET or give --secret-file on all ranks alike"
        )));
    }
    if !holds(proof(secret, "rank 0", &[&ours.nonce, &theirs.nonce]), found) {
        let _ = frame::write(&mut &*stream, frame::Kind::Refusal, b"");
        return Ok(Err("rank 0 has another secret; give all ranks the same".into()));
    }
    let text = serde_json::to_vec(&Introduction::of(meeting)).map_err(std::io::Error::other)?;
    let mut bytes = proof(secret, "joiner", &[&theirs.nonce, &ours.nonce, &text]).to_vec();
    bytes.extend_from_slice(&text);
    frame::write(&mut &*stream, frame::Kind::Introduction, &bytes)?;
    Ok(Ok(()))
}
