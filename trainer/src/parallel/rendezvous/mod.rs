//! Ranks find one another over TCP, and stay in touch.
//!
//! Rank 0 listens where the launcher says, the others come to it ([`join`]); the connections then stay open, a star with rank 0 in the middle, as the
//! [`Link`] of the run. It carries what ranks agree on, not gradients.
//!
//! ```text
//! joiner → rank 0   opening      magic, protocol, whether it has a secret, a nonce
//! rank 0 → joiner   opening      the same, and the proof of the secret
//! joiner → rank 0   introduction the proof of the secret; version, ranks, rank, machine, as JSON
//! rank 0 → joiner   welcome, or a refusal with its reason
//! rank 0 → all      start        once all have come: their machines
//! all               frames       contributions and their collections, beats, news of a lost rank, farewell
//! ```
//!
//! **The secret** proves that a process belongs to the run: each side hashes the nonce of the other with it (BLAKE3, keyed), rank 0 first, and neither sends it. What is said
//! afterwards is not encrypted. Ranks without a secret meet on a loopback address alone: on any other, whoever reaches the port could take a rank's place.
//!
//! **Whoever comes by mistake** (a scanner, a browser) sends no opening, and is let go without taking a place; so is one that has another secret, of whom the error of a
//! rendezvous that came to nothing tells. A process of the run that differs in version, world or rank is refused by name, and ends the rendezvous on both sides.
//!
//! **A lost rank** is one whose connection ended without a farewell, or that said nothing for [`Settings::silence`]: a thread of each rank sends a beat several times in that
//! time, whatever the others are doing. Rank 0 tells the others who it was.

mod frame;
mod handshake;
mod host;
mod joiner;
mod link;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use super::launch::Place;
use super::{Link, ParallelError};
use crate::Result;

/// How ranks come together.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What all ranks know and nobody else.
    pub secret: Option<Secret>,
    /// The version of the program, which is the same everywhere.
    pub version: String,
    /// How long ranks wait for one another at the beginning.
    pub timeout: Duration,
    /// How long a rank may be silent before it is lost.
    pub silence: Duration,
    /// How long a rank that lives may take to answer.
    pub answer: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            secret: None,
            version: env!("CARGO_PKG_VERSION").into(),
            timeout: Duration::from_secs(600),
            silence: Duration::from_secs(30),
            // Rank 0 may write a large checkpoint meanwhile.
            answer: Duration::from_secs(3600),
        }
    }
}

/// A secret, as the key that is made of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// The secret of `text`, none if it is empty but for blanks.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Secret(blake3::derive_key("onebit 2026 rendezvous of ranks", text.as_bytes())))
    }

    fn proof(&self, side: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = blake3::Hasher::new_keyed(&self.0);
        hash.update(side.as_bytes());
        parts.iter().for_each(|part| {
            hash.update(part);
        });
        *hash.finalize().as_bytes()
    }
}

/// A random secret, as text.
///
/// # Errors
/// A system without random numbers.
pub fn random_secret() -> std::result::Result<String, String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| e.to_string())?;
    Ok(blake3::Hash::from_bytes(bytes).to_hex().to_string())
}

/// Brings this rank together with all others, and returns their link.
///
/// # Errors
/// [`ParallelError::Rendezvous`], [`ParallelError::Mismatch`]: who did not come, or what differs.
pub fn join(place: &Place, settings: &Settings) -> Result<Arc<dyn Link>> {
    let Some(host) = &place.host else {
        let why =
            "where rank 0 listens is not known; set MASTER_ADDR to its host, and MASTER_PORT, on all ranks".into();
        let address = format!("port {}", place.port);
        return Err(ParallelError::Rendezvous { address, why }.into());
    };
    let meeting = Meeting {
        host: host.clone(),
        address: format!("{host}:{}", place.port),
        rank: place.rank,
        local_rank: place.local_rank,
        size: place.size,
        port: place.port,
        settings: settings.clone(),
    };
    let link = if place.rank == 0 {
        host::gather(&meeting)?
    } else {
        joiner::join(&meeting)?
    };
    Ok(Arc::new(link))
}

/// One rank's view of a rendezvous.
#[derive(Clone)]
struct Meeting {
    host: String,
    /// Host and port, for messages.
    address: String,
    rank: usize,
    local_rank: usize,
    size: usize,
    port: u16,
    settings: Settings,
}

impl Meeting {
    fn failed(&self, why: impl Into<String>) -> ParallelError {
        ParallelError::Rendezvous {
            address: self.address.clone(),
            why: why.into(),
        }
    }

    /// The addresses of rank 0.
    fn resolve(&self) -> std::result::Result<Vec<SocketAddr>, String> {
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let found: Vec<_> = found.map_err(|e| format!("{}: {e}", self.host))?.collect();
        if found.is_empty() {
            return Err(format!("{} has no address", self.host));
        }
        Ok(found)
    }

    /// That a network is not joined without a secret.
    fn check_secret(&self, addresses: &[SocketAddr]) -> Result<()> {
        if self.settings.secret.is_none() && !addresses.iter().all(|at| at.ip().to_canonical().is_loopback()) {
            let why = "other machines can reach it, so ranks need a secret there; \
                       set ONEBIT_SECRET to the same random text on all ranks, or give --secret-file";
            return Err(self.failed(why).into());
        }
        Ok(())
    }

    /// Where rank 0 listens: on loopback only if that is where it is named to be, because a machine may know itself by another address than the others do.
    fn listening_at(&self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let named = self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if named || self.settings.secret.is_none() {
            return addresses.to_vec();
        }
        let any = addresses.iter().map(|at| match at {
            SocketAddr::V4(_) => SocketAddr::from(([0; 4], self.port)),
            SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], self.port)),
        });
        let mut any: Vec<_> = any.collect();
        any.dedup();
        any
    }
}

/// What this machine is called.
fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
