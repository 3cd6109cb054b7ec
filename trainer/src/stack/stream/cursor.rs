//! Where a window begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::stack::StackError;

/// A place in the stream: a function of the windows before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Number of the visit.
    pub visit: u64,
    /// Where in its shard.
    pub place: Place,
    /// Tokens that the visit gave.
    pub taken: u64,
    /// The last token before: the window begins with it. None before the first window.
    pub last: Option<u32>,
    /// Documents that the filters had let through.
    pub documents: u64,
    /// What is known of shards.
    pub shards: Arc<Shards>,
}

/// A place in a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The row.
    pub row: u64,
    /// Tokens of its document that were taken.
    pub within: u64,
}

/// What earlier visits left; the same within a visit. Shards are named by their places in the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shards {
    /// Where a visit ended that did not come to the end of the shard.
    pub left_at: BTreeMap<usize, Place>,
    /// Damaged shards that are passed over, and the row from which on.
    pub damaged: BTreeMap<usize, u64>,
}

/// A cursor as a checkpoint has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    visit: u64,
    row: u64,
    within: u64,
    taken: u64,
    last: Option<u32>,
    documents: u64,
    left_at: BTreeMap<usize, Place>,
    damaged: BTreeMap<usize, u64>,
}

impl Cursor {
    pub fn to_json(&self) -> Result<Value, StackError> {
        let stored = Stored {
            visit: self.visit,
            row: self.place.row,
            within: self.place.within,
            taken: self.taken,
            last: self.last,
            documents: self.documents,
            left_at: self.shards.left_at.clone(),
            damaged: self.shards.damaged.clone(),
        };
        serde_json::to_value(stored).map_err(|e| StackError::Cursor { why: e.to_string() })
    }

    /// The cursor of a checkpoint, for a manifest of `shards` shards.
    pub fn from_json(json: &Value, shards: usize) -> Result<Self, StackError> {
        let wrong = |why: String| StackError::Cursor { why };
        let stored = Stored::deserialize(json).map_err(|e| wrong(e.to_string()))?;
        let named = stored.left_at.keys().chain(stored.damaged.keys());
        if let Some(shard) = named.copied().find(|&shard| shard >= shards) {
            return Err(wrong(format!("it names shard {shard} of {shards}")));
        }
        Ok(Cursor {
            visit: stored.visit,
            place: Place {
                row: stored.row,
                within: stored.within,
            },
            taken: stored.taken,
            last: stored.last,
            documents: stored.documents,
            shards: Arc::new(Shards {
                left_at: stored.left_at,
                damaged: stored.damaged,
            }),
        })
    }
}
