//! `wgmma.cu` in the open, without a GPU: where its bytes lie, which tiles its clusters visit, and how its warpgroups wait for each other.
//!
//! The address arithmetic of the kernel is repeated here line by line beside a model of the hardware: a bulk copy or a tensor core that meets byte `a` of the
//! plain layout finds it at [`swizzled`]`(a)`.

use super::{BOX_ROWS, Schedule, TILE_M, blocks};

/// 128-byte swizzle: the 16-byte chunk within 128 bytes, xor the row of 128 bytes within 1024.
fn swizzled(address: usize) -> usize {
    address ^ (address >> 3 & 0x70)
}

/// What lies at a byte of shared memory: byte `k_byte` of row `mn` of an operand with k contiguous, or element (`k`, `mn`) of one with m or n contiguous.
type Tag = (usize, usize, usize);

/// A bulk copy of a box of `rows` × 128 bytes at (`y`, `x`), x in elements of `size` bytes.
fn copy_in(shared: &mut [Option<Tag>], at: usize, rows: usize, (y, x): (usize, usize), size: usize) {
    assert!(at.is_multiple_of(1024));
    for row in 0..rows {
        for byte in 0..128 {
            let place = &mut shared[swizzled(at + row * 128 + byte)];
            assert_eq!(*place, None, "written twice");
            *place = Some((y + row, x + byte / size, byte % size));
        }
    }
}

/// The operand that a descriptor names, as the tensor core reads it: `mn` × 32 bytes of k, each as its tag.
struct Operand {
    at: usize,
    leading: usize,
    stride: usize,
}

impl Operand {
    fn k_major(&self, mn: usize, byte: usize) -> usize {
        swizzled(self.at + mn / 8 * self.stride + mn % 8 * 128 + byte)
    }

    fn mn_major(&self, mn: usize, k: usize, byte: usize) -> usize {
        swizzled(self.at + mn / 64 * self.leading + k / 8 * self.stride + k % 8 * 128 + mn % 64 * 2 + byte)
    }
}

/// Both operands of every product of a stage, for each warpgroup, are the elements that they should be.
fn stage_is_read_as_meant(schedule: Schedule, size: usize, a_mn: bool, b_mn: bool) {
    let tile_n = schedule.tile_n();
    let block_k = 128 / size;
    let (row, col, k0) = (TILE_M * 3, tile_n * 5, block_k * 7);
    let (a_bytes, b_bytes) = (TILE_M * 128, tile_n * 128);
    let stage = 2 * (a_bytes + b_bytes);
    let (a_at, b_at) = (stage, stage + a_bytes);
    let mut shared = vec![None; stage + a_bytes + b_bytes];
    // produce(), of both blocks as far as it concerns this one
    if a_mn {
        for part in 0..TILE_M / 64 {
            copy_in(&mut shared, a_at + part * 8192, 64, (k0, row + part * 64), size);
        }
    } else {
        copy_in(&mut shared, a_at, TILE_M, (row, k0), size);
    }
    for rank in 0..2 {
        if b_mn {
            for i in 0..tile_n / 128 {
                let part = rank * (tile_n / 128) + i;
                copy_in(&mut shared, b_at + part * 8192, 64, (k0, col + part * 64), size);
            }
        } else {
            let corner = (col + rank * (tile_n / 2), k0);
            copy_in(&mut shared, b_at + rank * (b_bytes / 2), tile_n / 2, corner, size);
        }
    }
    assert!(
        shared[stage..].iter().all(Option::is_some),
        "the bytes that `full` waits for"
    );
    // multiply()
    let check = |operand: &Operand, mn_major: bool, rows: usize, first: usize, k_first: usize| {
        for mn in 0..rows {
            for k in 0..32 / size {
                for byte in 0..size {
                    let (address, tag) = if mn_major {
                        (operand.mn_major(mn, k, byte), (k_first + k, first + mn, byte))
                    } else {
                        (operand.k_major(mn, k * size + byte), (first + mn, k_first + k, byte))
                    };
                    assert_eq!(shared[address], Some(tag));
                }
            }
        }
    };
    let (groups, parts) = match schedule {
        Schedule::Cooperative => (2, 1),
        Schedule::PingPong => (1, 2),
    };
    for group in 0..groups {
        for step in 0..4 {
            let k_first = k0 + step * 32 / size;
            for part in 0..parts {
                let row_in = group * 64;
                let a = Operand {
                    at: a_at + row_in * 128 + step * if a_mn { 16 * 128 } else { 32 } + part * 8192,
                    leading: 8192,
                    stride: 1024,
                };
                check(&a, a_mn, 64, row + row_in + part * 64, k_first);
            }
            let b = Operand {
                at: b_at + step * if b_mn { 16 * 128 } else { 32 },
                leading: 8192,
                stride: 1024,
            };
            check(&b, b_mn, tile_n, col, k_first);
        }
    }
}

#[test]
fn tensor_cores_find_what_copies_brought() {
    for schedule in Schedule::ALL {
        stage_is_read_as_meant(schedule, 2, false, false);
        stage_is_read_as_meant(schedule, 2, false, true);
        stage_is_read_as_meant(schedule, 2, true, true);
        stage_is_read_as_meant(schedule, 1, false, false);
        assert!(schedule.shared() <= 227 << 10, "what a block may have on Hopper");
    }
}

/// The banks of 4 bytes that lanes touch at once are all different.
fn no_conflict(addresses: impl Iterator<Item = (usize, usize)>) {
    let mut banks = [false; 32];
    for (address, bytes) in addresses {
        for bank in (address..address + bytes).step_by(4).map(|a| a / 4 % 32) {
            assert!(!std::mem::replace(&mut banks[bank], true), "two lanes in bank {bank}");
        }
    }
}

#[test]
fn results_leave_in_their_places_and_without_bank_conflicts() {
    // Boxes of 16 rows of 128 bytes; each place holds (row, column) of the result.
    let at = 3 * BOX_ROWS * 128;
    let mut shared = vec![None; at + BOX_ROWS * 128];
    // store_bf16(): lane i gives the address of row i % 8 of matrix i / 8.
    for j in (0..8).step_by(2) {
        let address = |lane: usize| at + lane % 16 * 128 + ((j + lane / 16) ^ (lane % 8)) * 16;
        for matrix in 0..4 {
            no_conflict((0..8).map(|i| (address(matrix * 8 + i), 16)));
            // The registers: matrices 0 and 1 are d[at..], rows 0 and 8 on, of column group j; 2 and 3 of j + 1.
            let (rows, group) = (matrix % 2 * 8, j + matrix / 2);
            for i in 0..8 {
                for col in 0..8 {
                    shared[address(matrix * 8 + i) + col * 2] = Some((rows + i, group * 8 + col));
                }
            }
        }
    }
    for row in 0..BOX_ROWS {
        for col in 0..64 {
            assert_eq!(shared[swizzled(at + row * 128 + col * 2)], Some((row, col)));
        }
    }
    // store_f32()
    shared.fill(None);
    for j in 0..4 {
        let group = |lane: usize| j ^ if lane / 4 % 2 == 1 { 2 } else { 0 };
        let address = |lane: usize| {
            let (line, quad) = (lane / 4, lane % 4);
            at + line * 128 + (((2 * group(lane) + quad / 2) ^ line) * 16) + quad % 2 * 8
        };
        for half in 0..2 {
            no_conflict((0..16).map(|i| (address(half * 16 + i), 8)));
        }
        for lane in 0..32 {
            for (row, below) in [(lane / 4, 0), (lane / 4 + 8, 1024)] {
                for i in 0..2 {
                    shared[address(lane) + below + i * 4] = Some((row, group(lane) * 8 + lane % 4 * 2 + i));
                }
            }
        }
    }
    for row in 0..BOX_ROWS {
        for col in 0..32 {
            assert_eq!(shared[swizzled(at + row * 128 + col * 4)], Some((row, col)));
        }
    }
}

/// A block's tile as tile() gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    row: usize,
    col: usize,
    first: usize,
    end: usize,
    out_row: usize,
}

struct Walk {
    schedule: Schedule,
    m: usize,
    blocks: usize,
    splits: usize,
    pairs: usize,
    columns: usize,
}

impl Walk {
    fn new(schedule: Schedule, (m, n, k): (usize, usize, usize), splits: usize) -> Self {
        let (pairs, columns) = (m.div_ceil(2 * TILE_M), n.div_ceil(schedule.tile_n()));
        Walk {
            schedule,
            m,
            blocks: blocks(k, false),
            splits,
            pairs,
            columns,
        }
    }

    fn tiles(&self) -> usize {
        self.columns * self.pairs * self.splits
    }

    fn tile(&self, index: usize, rank: usize) -> Tile {
        const GROUP_PAIRS: usize = 8;
        let Walk {
            blocks,
            splits,
            pairs,
            columns,
            ..
        } = *self;
        let (split, rest) = (index / (columns * pairs), index % (columns * pairs));
        let first_pair = rest / (GROUP_PAIRS * columns) * GROUP_PAIRS;
        let inner = rest % (GROUP_PAIRS * columns);
        let group = GROUP_PAIRS.min(pairs - first_pair);
        let row = ((first_pair + inner % group) * 2 + rank) * TILE_M;
        Tile {
            row,
            col: inner / group * self.schedule.tile_n(),
            first: blocks * split / splits,
            end: blocks * (split + 1) / splits,
            out_row: split * self.m.next_multiple_of(TILE_M) + row,
        }
    }
}

#[test]
fn clusters_visit_each_tile_once() {
    for schedule in Schedule::ALL {
        for (sizes, splits) in [
            ((1, 1, 1), 1),
            ((8192, 8192, 8192), 1),
            ((65536, 1536, 512), 1),
            ((1408, 512, 65536), 11),
            ((129, 1000, 777), 3),
            ((4097, 257, 640), 10),
        ] {
            for clusters in [1, 2, 7, 66] {
                let walk = Walk::new(schedule, sizes, splits);
                // Of each element's tile, which blocks of k have been added, and where.
                let rows = walk.pairs * 2;
                let mut seen = vec![false; rows * walk.columns * walk.blocks];
                for cluster in 0..clusters {
                    for index in (cluster..walk.tiles()).step_by(clusters) {
                        for rank in 0..2 {
                            let t = walk.tile(index, rank);
                            assert!(t.first < t.end, "a piece without a stage would store what was there");
                            for block in t.first..t.end {
                                let tile = t.row / TILE_M * walk.columns + t.col / schedule.tile_n();
                                assert!(!std::mem::replace(&mut seen[tile * walk.blocks + block], true));
                            }
                            // Rows that are stored stay within their piece of the workspace, in boxes of 16.
                            let stored = (0..TILE_M).step_by(BOX_ROWS).filter(|r| t.row + r < sizes.0);
                            let piece = sizes.0.next_multiple_of(TILE_M);
                            for r in stored {
                                assert_eq!((t.out_row + r) / piece, (t.out_row + r + BOX_ROWS - 1) / piece);
                                assert_eq!((t.out_row + r) % piece, t.row + r);
                            }
                        }
                    }
                }
                assert!(seen.iter().all(|&s| s), "{schedule:?} {sizes:?} {splits} {clusters}");
            }
        }
    }
}

#[test]
fn plans_are_within_what_launches_take() {
    for (m, n, k, int8) in [
        (1, 1, 1, false),
        (65536, 1536, 512, true),
        (512, 1536, 65536, false),
        (2048, 11264, 16384, false),
        (8192, 8192, 8192, true),
        (64, 2048, 5632, true),
    ] {
        for workspace in [0, 1 << 20, usize::MAX] {
            let plan = super::plan(132, (m, n, k), int8, workspace);
            println!("{m}x{n}x{k} int8 {int8}, workspace {workspace}: {plan:?}");
            assert!((1..=blocks(k, int8)).contains(&plan.splits));
            assert!(plan.splits == 1 || plan.splits * m.next_multiple_of(128) * n.next_multiple_of(4) <= workspace);
        }
    }
}
