//! How the threads of a cluster wait for each other, run in random orders: no stage is overwritten while it is read, each holds what its reader expects, and all
//! come to their end.

use super::Schedule;

/// Tile of the walk and stage of its sums.
type Tag = (usize, usize);

/// What a producer or a warpgroup does next.
#[derive(Clone, Copy, Debug)]
enum Op {
    WaitEmpty { stage: usize, parity: usize },
    Expect { stage: usize },
    CopyA { stage: usize, tag: Tag },
    CopyHalfB { stage: usize, tag: Tag },
    WaitFull { stage: usize, parity: usize, tag: Tag },
    Release { stage: usize, tag: Tag },
    Arrive { barrier: usize },
    Sync { barrier: usize },
}

/// An mbarrier: arrivals still due in this phase, bytes announced and not here, phases past.
struct Barrier {
    count: i64,
    due: i64,
    bytes: i64,
    phase: usize,
}

impl Barrier {
    fn change(&mut self, arrivals: i64, bytes: i64) {
        self.due -= arrivals;
        self.bytes += bytes;
        assert!(self.due >= 0, "more arrivals than the barrier counts");
        if self.due == 0 && self.bytes == 0 {
            (self.due, self.phase) = (self.count, self.phase + 1);
        }
    }

    fn passed(&self, parity: usize) -> bool {
        self.phase % 2 != parity
    }
}

#[derive(Clone, Default)]
struct Stage {
    a: Option<Tag>,
    b: [Option<Tag>; 2],
    readers: usize,
}

/// The ring as the kernel counts it.
#[derive(Default)]
struct Ring {
    stage: usize,
    parity: usize,
}

impl Ring {
    fn next(&mut self, stages: usize) {
        self.stage += 1;
        if self.stage == stages {
            (self.stage, self.parity) = (0, self.parity ^ 1);
        }
    }

    fn skip(&mut self, count: usize, stages: usize) {
        self.stage += count;
        self.parity ^= (self.stage / stages) & 1;
        self.stage %= stages;
    }
}

fn producer(tiles: &[usize], stages: usize) -> Vec<Op> {
    let (mut ring, mut ops) = (Ring::default(), Vec::new());
    for (index, &blocks) in tiles.iter().enumerate() {
        for block in 0..blocks {
            let (stage, parity, tag) = (ring.stage, ring.parity ^ 1, (index, block));
            ops.push(Op::WaitEmpty { stage, parity });
            ops.push(Op::Expect { stage });
            ops.push(Op::CopyA { stage, tag });
            ops.push(Op::CopyHalfB { stage, tag });
            ring.next(stages);
        }
    }
    ops
}

fn consumer(tiles: &[usize], stages: usize, pingpong: bool, group: usize) -> Vec<Op> {
    let (mut ring, mut ops) = (Ring::default(), Vec::new());
    if pingpong && group == 1 && !tiles.is_empty() {
        ops.push(Op::Arrive { barrier: 1 });
    }
    for (index, &blocks) in tiles.iter().enumerate() {
        if pingpong && index % 2 != group {
            ring.skip(blocks, stages);
            continue;
        }
        if pingpong {
            ops.push(Op::Sync { barrier: 1 + group });
        }
        let mut previous = 0;
        for block in 0..blocks {
            let (stage, parity, tag) = (ring.stage, ring.parity, (index, block));
            ops.push(Op::WaitFull { stage, parity, tag });
            if block > 0 {
                let tag = (index, block - 1);
                ops.push(Op::Release { stage: previous, tag });
            }
            previous = stage;
            ring.next(stages);
        }
        if pingpong && index + 1 < tiles.len() {
            ops.push(Op::Arrive { barrier: 2 - group });
        }
        let tag = (index, blocks - 1);
        ops.push(Op::Release { stage: previous, tag });
    }
    ops
}

/// Runs a cluster whose tiles have so many stages each, every step by someone at random.
fn run(schedule: Schedule, tiles: &[usize], mut random: impl FnMut(usize) -> usize) {
    let (stages, pingpong) = (schedule.stages(), schedule == Schedule::PingPong);
    let (a_bytes, b_bytes) = (super::TILE_M as i64, schedule.tile_n() as i64);
    let barrier = |count| Barrier {
        count,
        due: count,
        bytes: 0,
        phase: 0,
    };
    let ring = |count: i64| [0, 1].map(|_| (0..stages).map(|_| barrier(count)).collect::<Vec<_>>());
    let (mut full, mut empty) = (ring(1), ring(2 * if pingpong { 1 } else { 2 }));
    let mut shared = [0, 1].map(|_| vec![Stage::default(); stages]);
    // Named barriers 1 and 2: whether the other warpgroup has arrived.
    let mut named = [[false; 3]; 2];
    // Copies under way: to which block, to which stage, A or a half of B, what.
    let mut copies: Vec<(usize, usize, Option<usize>, Tag)> = Vec::new();
    let mut threads: Vec<(usize, std::vec::IntoIter<Op>, Option<Op>)> = Vec::new();
    for rank in 0..2 {
        threads.push((rank, producer(tiles, stages).into_iter(), None));
        for group in 0..2 {
            threads.push((rank, consumer(tiles, stages, pingpong, group).into_iter(), None));
        }
    }
    let mut idle = 0;
    loop {
        if threads.iter().all(|(_, ops, op)| ops.len() == 0 && op.is_none()) {
            break;
        }
        // A run of steps in which nobody could go on, with nothing under way, is a deadlock; orders are random, so it has to be long.
        assert!(idle < 10_000, "deadlock");
        idle += 1;
        let who = random(threads.len() + 2);
        if who >= threads.len() {
            if !copies.is_empty() {
                let (rank, stage, half, tag) = copies.swap_remove(random(copies.len()));
                let to = &mut shared[rank][stage];
                assert_eq!(to.readers, 0, "a stage is overwritten while it is read");
                match half {
                    None => to.a = Some(tag),
                    Some(half) => to.b[half] = Some(tag),
                }
                full[rank][stage].change(0, -if half.is_some() { b_bytes / 2 } else { a_bytes });
                idle = 0;
            }
            continue;
        }
        let (rank, ops, op) = &mut threads[who];
        let rank = *rank;
        let Some(current) = op.take().or_else(|| ops.next()) else {
            continue;
        };
        let done = match current {
            Op::WaitEmpty { stage, parity } => empty[rank][stage].passed(parity),
            Op::Expect { stage } => {
                full[rank][stage].change(1, a_bytes + b_bytes);
                true
            }
            Op::CopyA { stage, tag } => {
                copies.push((rank, stage, None, tag));
                true
            }
            Op::CopyHalfB { stage, tag } => {
                copies.push((0, stage, Some(rank), tag));
                copies.push((1, stage, Some(rank), tag));
                true
            }
            Op::WaitFull { stage, parity, tag } => {
                let ready = full[rank][stage].passed(parity);
                if ready {
                    let from = &mut shared[rank][stage];
                    assert_eq!((from.a, from.b), (Some(tag), [Some(tag); 2]));
                    from.readers += 1;
                }
                ready
            }
            Op::Release { stage, tag } => {
                let from = &mut shared[rank][stage];
                assert_eq!((from.a, from.b), (Some(tag), [Some(tag); 2]));
                from.readers -= 1;
                empty[0][stage].change(1, 0);
                empty[1][stage].change(1, 0);
                true
            }
            Op::Arrive { barrier } => {
                assert!(!std::mem::replace(&mut named[rank][barrier], true), "arrived twice");
                true
            }
            Op::Sync { barrier } => std::mem::replace(&mut named[rank][barrier], false),
        };
        if done {
            idle = 0;
        } else {
            *op = Some(current);
        }
    }
    assert_eq!(named, [[false; 3]; 2], "a barrier is left with arrivals");
    assert!(copies.is_empty() && shared.iter().flatten().all(|stage| stage.readers == 0));
}

#[test]
fn clusters_come_to_their_end_in_any_order() {
    let mut state = std::time::UNIX_EPOCH.elapsed().map_or(1, |t| t.as_nanos() as u64);
    println!("seed {state}");
    let mut random = move |below: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    };
    for schedule in Schedule::ALL {
        for tiles in [
            &[1][..],
            &[8; 6],
            &[1; 9],
            &[3, 4, 3, 4, 4],
            &[17, 16],
            &[6; 7],
            &[12, 13, 5],
        ] {
            for _ in 0..20 {
                run(schedule, tiles, &mut random);
            }
        }
    }
}
