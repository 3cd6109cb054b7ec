//! Visits to windows.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cursor::{Cursor, Place};
use super::queue::Made;
use super::{Shared, StackEvent};
use crate::data::DataError;
use crate::stack::StackError;
use crate::stack::cache::Pin;
use crate::stack::reader::{Document, LeftOut, Reader};
use crate::stack::sampler::Visit;
use crate::{Result, TrainError};

/// How reading a part of a visit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With the shard.
    Shard,
    /// With the tokens of a visit.
    Tokens,
    /// Nobody wants more windows.
    Closed,
}

/// Makes the windows from the cursor on.
pub(super) fn run(shared: &Shared, from: Cursor) -> Result<()> {
    let mut walk = shared.sampler.walk();
    for _ in 0..from.visit {
        walk.next();
    }
    let mut work = Work {
        shared,
        window: from.last.into_iter().collect(),
        begun: from.place != Place::default() || from.taken > 0,
        cursor: from,
        epoch: 1,
        left_out: LeftOut::default(),
    };
    let most_empty = 2 * shared.sampler.shards().count() as u64 + 8;
    let mut empty = 0;
    for visit in walk {
        work.epoch = visit.pass + 1;
        let before = work.cursor.taken;
        if !work.visit(visit)? {
            return Ok(());
        }
        empty = if work.cursor.taken > before { 0 } else { empty + 1 };
        if empty > most_empty {
            return Err(StackError::NothingLeft { visits: empty }.into());
        }
        work.next_visit(visit);
    }
    shared.queue.end();
    Ok(())
}

struct Work<'a> {
    shared: &'a Shared,
    /// The window that is being filled.
    window: Vec<u32>,
    /// Whether the cursor stands in the middle of a visit.
    begun: bool,
    /// Where the tokens that come next are.
    cursor: Cursor,
    epoch: u64,
    left_out: LeftOut,
}

impl Work<'_> {
    /// One visit; false if nobody wants more windows.
    fn visit(&mut self, visit: Visit) -> Result<bool> {
        let shared = self.shared;
        let shard = &shared.options.shards[visit.shard];
        if !std::mem::take(&mut self.begun) {
            self.cursor.place = self
                .cursor
                .shards
                .left_at
                .get(&visit.shard)
                .copied()
                .unwrap_or_default();
        }
        if self.cursor.shards.damaged.contains_key(&visit.shard) {
            return Ok(true);
        }
        let pin = shared.downloads.take(visit.number)?;
        shared.tell(StackEvent::Visiting {
            visit: visit.number,
            shard: shard.id.clone(),
            replay: visit.replay,
        });
        let before = self.cursor.taken;
        self.left_out = LeftOut::default();
        let mut again = false;
        let end = loop {
            let (why, row) = match self.read(visit.shard, &pin)? {
                Ok(end) => break end,
                Err(damage) => damage,
            };
            if !again {
                again = true;
                shared.tell(StackEvent::FetchedAgain {
                    shard: shard.id.clone(),
                    why,
                });
                shared.cache.renew(&pin, shard, &*shared.fetch, &shared.stop)?;
                continue;
            }
            let id = shard.id.clone();
            if !shared.options.skip_damaged {
                return Err(StackError::Damaged { shard: id, row, why }.into());
            }
            shared.tell(StackEvent::PassedOver { shard: id, row, why });
            Arc::make_mut(&mut self.cursor.shards).damaged.insert(visit.shard, row);
            break End::Shard;
        };
        if end == End::Closed {
            return Ok(false);
        }
        let shards = Arc::make_mut(&mut self.cursor.shards);
        match end {
            End::Tokens => shards.left_at.insert(visit.shard, self.cursor.place),
            _ => shards.left_at.remove(&visit.shard),
        };
        shared.tell(StackEvent::Visited {
            shard: shard.id.clone(),
            tokens: self.cursor.taken - before,
            left_out: self.left_out,
        });
        Ok(true)
    }

    fn next_visit(&mut self, done: Visit) {
        self.cursor.visit = done.number + 1;
        (self.cursor.place, self.cursor.taken) = (Place::default(), 0);
    }

    /// Reads a shard from the cursor on. What is wrong with one that is damaged, and its row, is no error yet.
    fn read(&mut self, shard: usize, pin: &Pin) -> Result<std::result::Result<End, (String, u64)>> {
        let shared = self.shared;
        let place = self.cursor.place;
        if self.is_full() {
            return Ok(Ok(End::Tokens));
        }
        let mut reader = match Reader::open(&shared.encoder, &pin.path(), shard, place.row, place.within > 0) {
            Ok(reader) => reader,
            Err(error) => return damage(error, place.row).map(Err),
        };
        loop {
            let row = reader.row();
            let documents = match reader.documents(&shared.memory) {
                Ok(Some(documents)) => documents,
                Ok(None) => {
                    self.count(reader.left_out);
                    return Ok(Ok(End::Shard));
                }
                Err(error) => {
                    self.count(reader.left_out);
                    return damage(error, row).map(Err);
                }
            };
            for document in documents {
                if let Some(end) = self.take(document) {
                    self.count(reader.left_out);
                    return Ok(Ok(end));
                }
            }
            if shared.stop.load(Ordering::Relaxed) {
                return Ok(Ok(End::Closed));
            }
        }
    }

    fn count(&mut self, left_out: LeftOut) {
        self.left_out.licenses += left_out.licenses;
        self.left_out.duplicates += left_out.duplicates;
    }

    /// Whether the visit has given all that it may.
    fn is_full(&self) -> bool {
        let most = self.shared.options.tokens_per_visit;
        most > 0 && self.cursor.taken >= most
    }

    /// Takes a document's tokens into windows; what ends the visit, if it ends.
    fn take(&mut self, document: Document) -> Option<End> {
        let options = &self.shared.options;
        let cursor = &mut self.cursor;
        if cursor.place.row != document.row {
            cursor.place = Place {
                row: document.row,
                within: 0,
            };
        }
        cursor.documents = document.kept;
        let mut from = usize::try_from(cursor.place.within)
            .unwrap_or(usize::MAX)
            .min(document.ids.len());
        while from < document.ids.len() {
            let left = match options.tokens_per_visit {
                0 => usize::MAX,
                most => usize::try_from(most.saturating_sub(self.cursor.taken)).unwrap_or(usize::MAX),
            };
            if left == 0 {
                return Some(End::Tokens);
            }
            let some = (options.seq_len + 1 - self.window.len())
                .min(left)
                .min(document.ids.len() - from);
            self.window.extend_from_slice(&document.ids[from..from + some]);
            from += some;
            (self.cursor.place.within, self.cursor.taken) = (from as u64, self.cursor.taken + some as u64);
            if self.window.len() == options.seq_len + 1 {
                self.cursor.last = self.window.last().copied();
                let made = Made {
                    tokens: std::mem::replace(&mut self.window, self.cursor.last.into_iter().collect()),
                    epoch: self.epoch,
                    after: self.cursor.clone(),
                };
                if !self.shared.queue.push(made) {
                    return Some(End::Closed);
                }
            }
        }
        self.is_full().then_some(End::Tokens)
    }
}

/// What is wrong with a damaged shard, and the row before which it was whole; another error stays one.
fn damage(error: TrainError, row: u64) -> Result<(String, u64)> {
    match error {
        TrainError::Data(DataError::Parquet { .. } | DataError::Utf8 { .. } | DataError::NoTextColumn { .. }) => {
            Ok((error.to_string(), row))
        }
        other => Err(other),
    }
}
