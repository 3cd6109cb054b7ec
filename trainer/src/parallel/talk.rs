//! What ranks say over a link: decisions of rank 0, words of all, bytes that one of them has.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ParallelError, World};
use crate::Result;

/// Bytes that are sent at a time where one rank has many.
const PIECE: usize = 4 << 20;

impl World {
    /// What `find` finds on rank 0, which alone calls it, on every rank. If it fails there, the others are told.
    ///
    /// # Errors
    /// Of `find` on rank 0; what the link says.
    pub fn decide<T: Serialize + DeserializeOwned>(&self, find: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.is_single() {
            return find();
        }
        if !self.is_first() {
            return parse(0, &self.word_of(0, &[])?);
        }
        let found = find().inspect_err(|error| self.link.fail(&error.to_string()))?;
        self.word_of(0, &text(self.rank, &found)?)?;
        Ok(found)
    }

    /// As [`World::decide`], of bytes.
    ///
    /// # Errors
    /// As there.
    pub fn decide_bytes(&self, find: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let found = if self.is_first() {
            find().inspect_err(|error| self.link.fail(&error.to_string()))?
        } else {
            Vec::new()
        };
        self.word_of(0, &found)
    }

    /// What every rank has, in the order of ranks.
    ///
    /// # Errors
    /// What the link says.
    pub fn gather<T: Serialize + DeserializeOwned>(&self, own: &T) -> Result<Vec<T>> {
        let all = self.link.all_gather(&text(self.rank, own)?)?;
        all.iter().enumerate().map(|(rank, text)| parse(rank, text)).collect()
    }

    /// The bytes of rank `root`, in the place of everybody's: many, by way of sums where there is one.
    ///
    /// # Errors
    /// What the link or the library says.
    pub fn spread(&self, bytes: &mut [u8], root: usize) -> Result<()> {
        for piece in bytes.chunks_mut(PIECE) {
            let from = match &self.collective {
                Some(collective) => {
                    // Floats whose bits are the bytes: nothing is computed with them.
                    let mut floats = vec![0.0f32; piece.len().div_ceil(4)];
                    bytemuck::cast_slice_mut(&mut floats)[..piece.len()].copy_from_slice(piece);
                    collective.broadcast(&mut floats, root)?;
                    bytemuck::cast_slice(&floats)[..piece.len()].to_vec()
                }
                None => self.word_of(root, if self.rank == root { piece } else { &[] })?,
            };
            if from.len() != piece.len() {
                let what = format!("{} bytes where {} were expected", from.len(), piece.len());
                return Err(ParallelError::Protocol { rank: root, what }.into());
            }
            piece.copy_from_slice(&from);
        }
        Ok(())
    }

    /// What rank `root` says, while all say something.
    fn word_of(&self, root: usize, own: &[u8]) -> Result<Vec<u8>> {
        let all = self.link.all_gather(own)?;
        let lost = || ParallelError::Protocol {
            rank: root,
            what: "nothing".into(),
        };
        Ok(all.into_iter().nth(root).ok_or_else(lost)?)
    }
}

fn text(rank: usize, value: &impl Serialize) -> Result<Vec<u8>> {
    let what = |e: serde_json::Error| ParallelError::Protocol {
        rank,
        what: e.to_string(),
    };
    Ok(serde_json::to_vec(value).map_err(what)?)
}

fn parse<T: DeserializeOwned>(rank: usize, text: &[u8]) -> Result<T> {
    let what = |e| ParallelError::Protocol {
        rank,
        what: format!("what cannot be read: {e}"),
    };
    Ok(serde_json::from_slice(text).map_err(what)?)
}

#[cfg(test)]
mod tests {
    use super::super::threads::ranks;
    use super::*;

    #[test]
    fn rank_0_decides_and_all_are_heard() {
        for n in 1..4 {
            let said = ranks(n, |world| {
                let decided = world.decide(|| {
                    assert!(world.is_first());
                    Ok(7 + world.rank())
                });
                let bytes = world.decide_bytes(|| Ok(vec![9, 8])).unwrap();
                (decided.unwrap(), bytes, world.gather(&world.rank()).unwrap())
            });
            let all: Vec<usize> = (0..n).collect();
            assert!(said.iter().all(|s| *s == (7, vec![9, 8], all.clone())), "{said:?}");
        }
    }

    #[test]
    fn bytes_of_any_rank_reach_all() {
        for with_sums in [false, true] {
            for len in [0, 1, 3, 4, 5, PIECE - 1, PIECE + 6] {
                let root = 1;
                ranks(3, |mut world| {
                    if !with_sums {
                        world.collective = None;
                    }
                    let value = |rank: usize| (0..len).map(|i| (i * 31 + rank) as u8).collect::<Vec<_>>();
                    let mut bytes = value(world.rank());
                    world.spread(&mut bytes, root).unwrap();
                    assert!(bytes == value(root), "{len}");
                });
            }
        }
    }
}
