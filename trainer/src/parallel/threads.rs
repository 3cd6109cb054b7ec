//! Ranks as threads of one process, for tests of what runs over them.

use std::sync::{Arc, Barrier, Mutex};

use super::{Collective, Link, OnLoss, World};
use crate::Result;

#[derive(Debug)]
struct Room {
    all_in: Barrier,
    bytes: Mutex<Vec<Vec<u8>>>,
}

#[derive(Debug)]
struct Thread {
    rank: usize,
    room: Arc<Room>,
}

impl Link for Thread {
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.room.bytes.lock().unwrap()[self.rank] = bytes.to_vec();
        self.room.all_in.wait();
        let all = self.room.bytes.lock().unwrap().clone();
        self.room.all_in.wait();
        Ok(all)
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn on_loss(&self, _callback: OnLoss) {}

    fn finish(&self) -> Result<()> {
        Ok(())
    }

    fn fail(&self, _why: &str) {}
}

impl Collective for Thread {
    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        let all = self.all_gather(bytemuck::cast_slice(values))?;
        values.fill(0.0);
        for (rank, bytes) in all.iter().enumerate() {
            for (sum, value) in values.iter_mut().zip(bytemuck::pod_collect_to_vec::<u8, f32>(bytes)) {
                // The first is no sum, so that a sum of one keeps its sign of zero.
                *sum = if rank == 0 { value } else { *sum + value };
            }
        }
        Ok(())
    }

    fn broadcast(&self, values: &mut [f32], root: usize) -> Result<()> {
        let all = self.all_gather(bytemuck::cast_slice(values))?;
        values.copy_from_slice(&bytemuck::pod_collect_to_vec::<u8, f32>(&all[root]));
        Ok(())
    }
}

/// What each of `n` ranks makes of its world, in the order of ranks.
pub(crate) fn ranks<T: Send>(n: usize, work: impl Fn(World) -> T + Sync) -> Vec<T> {
    let room = Arc::new(Room {
        all_in: Barrier::new(n),
        bytes: Mutex::new(vec![Vec::new(); n]),
    });
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n)
            .map(|rank| {
                let (room, work) = (room.clone(), &work);
                scope.spawn(move || {
                    let thread = Arc::new(Thread { rank, room });
                    work(World::new((rank, rank, n), thread.clone(), Some(thread)))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
