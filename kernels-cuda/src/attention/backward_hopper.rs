//! The backward's launches on Hopper.

use half::bf16;

use super::AttentionShape;
use crate::device::{DeviceArray, Gpu, Kernel, Launch, Module, Result, TensorMap, ptx};
use crate::rope::RopeTable;

static QUERIES: Module = ptx!("backward_queries_wgmma.ptx");
static KEYS: Module = ptx!("backward_keys_wgmma.ptx");

/// Rows of a step and columns of a unit; a unit is a box of bulk copies.
const UNIT: usize = 64;

/// A kernel, and the parameters that it was compiled with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    kernel: Kernel,
    /// Warpgroups that own 64 rows each.
    groups: usize,
    /// Steps in shared memory.
    stages: usize,
    /// Tiles of own rows in shared memory.
    buffers: usize,
}

const fn plan(kernel: Kernel, groups: usize, stages: usize, buffers: usize) -> Plan {
    Plan {
        kernel,
        groups,
        stages,
        buffers,
    }
}

/// The kernel that owns queries: `delta` and `dq`.
pub(super) fn queries(head_dim: usize) -> Plan {
    match head_dim {
        64 => plan(QUERIES.kernel("attention_queries_wgmma_64"), 3, 4, 2),
        _ => plan(QUERIES.kernel("attention_queries_wgmma_128"), 2, 4, 1),
    }
}

/// The kernel that owns keys: `dk` and `dv`.
pub(super) fn keys(head_dim: usize) -> Plan {
    match head_dim {
        64 => plan(KEYS.kernel("attention_keys_wgmma_64"), 2, 4, 2),
        _ => plan(KEYS.kernel("attention_keys_wgmma_128"), 2, 4, 1),
    }
}

/// In which order the blocks of a persistent grid take tiles; as `take_tile` of `attention_backward_wgmma.cuh` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Heads in sections, whose operands stay in the second-level cache, and within a section tile by tile.
    Sections = 0,
    /// Head by head, a long tile and then the short one that makes up for it.
    Pairs = 1,
    /// Tile by tile over all heads, every other round of blocks in the opposite direction.
    Snake = 2,
}

/// Tiles of rows, and the blocks that take them.
#[derive(Clone, Copy, Debug)]
struct Work {
    /// Of a head, the longest first.
    tiles: usize,
    heads: usize,
    blocks: usize,
    /// Heads.
    section: usize,
}

impl Work {
    /// The tile and the head that are the `turn`-th of `block`.
    fn take(&self, order: Order, block: usize, turn: usize) -> Option<(usize, usize)> {
        let Work {
            tiles,
            heads,
            blocks,
            section,
        } = *self;
        if order == Order::Pairs {
            let (pairs, unit) = (tiles / 2, turn / 2 * blocks + block);
            let tile = if turn % 2 == 1 {
                tiles - 1 - unit % pairs
            } else {
                unit % pairs
            };
            return (unit < pairs * heads).then_some((tile, unit / pairs));
        }
        let backwards = order == Order::Snake && turn % 2 == 1;
        let index = turn * blocks + if backwards { blocks - 1 - block } else { block };
        if index >= tiles * heads {
            return None;
        }
        let first = index / (section * tiles) * section;
        let (rest, width) = (index - first * tiles, section.min(heads - first));
        Some((rest / width, first + rest % width))
    }

    /// The largest sum of the `lengths` of tiles that a block has.
    fn longest(&self, order: Order, lengths: &[usize]) -> usize {
        let of_block = |block| {
            let taken = (0..).map_while(|turn| self.take(order, block, turn));
            taken.map(|(tile, _)| lengths[tile]).sum()
        };
        (0..self.blocks).map(of_block).max().unwrap_or(0)
    }

    /// The order in which the block with the most work has the least, with `section` as that order has it. Where another is not much better it is that of sections.
    fn best(mut self, lengths: &[usize]) -> (Order, usize) {
        let sections = self.section;
        // Many rounds are even in any order, and tedious to count.
        if self.tiles * self.heads > 64 * self.blocks {
            return (Order::Sections, sections);
        }
        let mut best = (
            self.longest(Order::Sections, lengths) * 98 / 100,
            Order::Sections,
            sections,
        );
        if self.tiles.is_multiple_of(2) {
            let longest = self.longest(Order::Pairs, lengths);
            if longest < best.0 {
                best = (longest, Order::Pairs, sections);
            }
        }
        // What streams past a head's tiles should be read by some of them at a time.
        if 2 * self.heads <= self.blocks {
            self.section = self.heads;
            let longest = self.longest(Order::Snake, lengths);
            if longest < best.0 {
                best = (longest, Order::Snake, self.heads);
            }
        }
        (best.1, best.2)
    }
}

/// What both kernels are given; lengths have been compared with `shape`.
pub(super) struct Backward<'a> {
    pub shape: AttentionShape,
    pub qkv: &'a DeviceArray<bf16>,
    pub o: &'a DeviceArray<bf16>,
    pub lse: &'a DeviceArray<f32>,
    pub d_o: &'a DeviceArray<bf16>,
    /// For as many positions as `shape` has, and heads of its size.
    pub rotation: Option<&'a RopeTable>,
    pub delta: &'a DeviceArray<f32>,
    pub dqkv: &'a DeviceArray<bf16>,
}

impl Backward<'_> {
    /// `delta` and `dq`.
    pub fn queries(&self, gpu: &Gpu, plan: Plan) -> Result<()> {
        let shape = &self.shape;
        let section = shape.section(4 * shape.head_dim) * (shape.heads / shape.kv_heads);
        // The last tile sees the most keys.
        let steps = |first: usize, rows: usize| (first + rows).min(shape.seq).div_ceil(UNIT);
        let lengths: Vec<usize> = self.lengths(plan, steps).rev().collect();
        self.launch(gpu, plan, shape.heads, section, &lengths)
    }

    /// `dk` and `dv`, after `delta`.
    pub fn keys(&self, gpu: &Gpu, plan: Plan) -> Result<()> {
        let shape = &self.shape;
        let group = shape.heads / shape.kv_heads;
        let steps = |first: usize, _| group * (shape.seq - first).div_ceil(UNIT);
        let lengths: Vec<usize> = self.lengths(plan, steps).collect();
        self.launch(
            gpu,
            plan,
            shape.kv_heads,
            shape.section(4 * shape.head_dim * group),
            &lengths,
        )
    }

    /// How long a tile of a head takes, in thirds of a step, by its steps; beginning and end are as five thirds.
    fn lengths(&self, plan: Plan, steps: impl Fn(usize, usize) -> usize) -> impl DoubleEndedIterator<Item = usize> {
        let rows = UNIT * plan.groups;
        let tiles = self.shape.seq.div_ceil(rows);
        (0..tiles).map(move |tile| 3 * steps(tile * rows, rows) + 5)
    }

    /// `heads`: those of a sequence whose rows the kernel owns, `section` of which are worked on at a time; `lengths` of the tiles of a head, the longest first.
    fn launch(&self, gpu: &Gpu, plan: Plan, heads: usize, section: usize, lengths: &[usize]) -> Result<()> {
        let shape = &self.shape;
        let map = |array, row| TensorMap::matrix(array, (shape.tokens(), row), row, (UNIT, UNIT));
        let (tiles, heads) = (lengths.len(), shape.batch * heads);
        let blocks = (tiles * heads).min(gpu.properties().multiprocessors as usize);
        let work = Work {
            tiles,
            heads,
            blocks,
            section,
        };
        let (order, section) = work.best(lengths);
        let Plan {
            groups,
            stages,
            buffers,
            ..
        } = plan;
        // Two rows of units for each warpgroup's rows and for each step, and the log-sum-exp and delta of a step; two barriers each.
        let units = 2 * shape.head_dim * UNIT * 2;
        let shared = (buffers * groups + stages) * (units + 16) + stages * 2 * UNIT * 4;
        let launch = Launch::new(gpu, plan.kernel, [blocks as u32, 1, 1], 128 * (groups as u32 + 1))
            .shared(shared)
            .map(map(self.qkv, shape.qkv_row())?)
            .map(map(self.d_o, shape.o_row())?)
            .array(self.o)
            .array(self.d_o)
            .array(self.lse)
            .array(self.delta)
            .optional(self.rotation.map(|table| &table.cos))
            .optional(self.rotation.map(|table| &table.sin))
            .array(self.dqkv)
            .u32(shape.batch)
            .u32(shape.seq)
            .u32(shape.heads)
            .u32(shape.kv_heads)
            .u32(section)
            .u32(order as usize)
            .f32(shape.scale());
        // SAFETY: the parameters are the kernel's; it reads matrices through maps, which do not leave them, and otherwise reads and writes rows of tokens below
        // `batch·seq`, columns of a row as `shape` has them and rows of the table below `seq`. Shared memory is what its plan takes.
        unsafe { launch.run() }
    }
}

#[cfg(test)]
mod tests {
    use super::{Order, Work};

    #[test]
    fn every_tile_is_taken_once_in_any_order() {
        for (tiles, heads, blocks, section) in [
            (1, 1, 1, 1),
            (2, 3, 5, 2),
            (16, 40, 132, 4),
            (7, 64, 132, 64),
            (6, 11, 13, 3),
        ] {
            for order in [Order::Sections, Order::Pairs, Order::Snake] {
                if order == Order::Pairs && tiles % 2 == 1 {
                    continue;
                }
                let section = if order == Order::Snake { heads } else { section };
                let work = Work {
                    tiles,
                    heads,
                    blocks,
                    section,
                };
                let mut taken = vec![0; tiles * heads];
                for block in 0..blocks {
                    for turn in 0.. {
                        let Some((tile, head)) = work.take(order, block, turn) else {
                            break;
                        };
                        taken[head * tiles + tile] += 1;
                    }
                }
                assert!(taken.iter().all(|&times| times == 1), "{order:?} {work:?}");
            }
        }
    }

    #[test]
    fn the_order_shares_the_work_out() {
        // Keys of 8 sequences of 2048 with 8 (5) heads, whose groups of 4 make sections short.
        let lengths: Vec<usize> = (0..16).map(|tile| 3 * 4 * (32 - 2 * tile) + 5).collect();
        for (heads, expected) in [(64, Order::Pairs), (40, Order::Snake)] {
            let work = Work {
                tiles: 16,
                heads,
                blocks: 132,
                section: 4,
            };
            let (order, section) = work.best(&lengths);
            assert_eq!(order, expected);
            let mean = heads * lengths.iter().sum::<usize>() / 132;
            assert!(Work { section, ..work }.longest(order, &lengths) * 94 / 100 < mean);
        }
    }
}
