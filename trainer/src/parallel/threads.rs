//! Ranks as threads of one process, for tests of what runs over them.

use std::sync::{Arc, Condvar, Mutex};

use super::{Collective, Link, OnLoss, ParallelError, World};
use crate::Result;

#[derive(Debug)]
struct Room {
    meeting: Mutex<Meeting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Meeting {
    /// Of the collection that is being made, and of the last.
    coming: Vec<Option<Vec<u8>>>,
    all: Vec<Vec<u8>>,
    count: u64,
    failed: Option<ParallelError>,
}

#[derive(Debug)]
struct Thread {
    rank: usize,
    room: Arc<Room>,
}

impl Link for Thread {
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut meeting = self.room.meeting.lock().unwrap();
        assert!(meeting.coming[self.rank].replace(bytes.to_vec()).is_none());
        let number = meeting.count;
        if meeting.coming.iter().all(Option::is_some) {
            meeting.all = meeting.coming.iter_mut().map(|bytes| bytes.take().unwrap()).collect();
            meeting.count += 1;
            self.room.changed.notify_all();
        }
        while meeting.count == number {
            if let Some(failed) = &meeting.failed {
                return Err(failed.clone().into());
            }
            meeting = self.room.changed.wait(meeting).unwrap();
        }
        // The next collection waits for this rank.
        Ok(meeting.all.clone())
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn on_loss(&self, _callback: OnLoss) {}

    fn finish(&self) -> Result<()> {
        Ok(())
    }

    fn fail(&self, why: &str) {
        self.room.meeting.lock().unwrap().failed = Some(ParallelError::Failed {
            rank: self.rank,
            host: "here".into(),
            why: why.into(),
        });
        self.room.changed.notify_all();
    }
}

impl Collective for Thread {
    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        let all = self.all_gather(bytemuck::cast_slice(values))?;
        values.fill(0.0);
        for (rank, bytes) in all.iter().enumerate() {
            for (sum, value) in values.iter_mut().zip(floats(bytes)) {
                // The first is no sum, so that a sum of one keeps its sign of zero.
                *sum = if rank == 0 { value } else { *sum + value };
            }
        }
        Ok(())
    }

    fn broadcast(&self, values: &mut [f32], root: usize) -> Result<()> {
        let all = self.all_gather(bytemuck::cast_slice(values))?;
        values.copy_from_slice(&floats(&all[root]));
        Ok(())
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect()
}

/// What each of `n` ranks makes of its world, in the order of ranks.
pub(crate) fn ranks<T: Send>(n: usize, work: impl Fn(World) -> T + Sync) -> Vec<T> {
    let room = Arc::new(Room {
        meeting: Mutex::new(Meeting {
            coming: vec![None; n],
            ..Meeting::default()
        }),
        changed: Condvar::new(),
    });
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n)
            .map(|rank| {
                let (room, work) = (room.clone(), &work);
                scope.spawn(move || {
                    let thread = Arc::new(Thread { rank, room });
                    let world = World::new((rank, rank, n), thread.clone(), Some(thread));
                    // A pool for each, because a rank that waits for another blocks its thread.
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
                    pool.install(|| work(world))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
