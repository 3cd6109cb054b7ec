//! The backward's launches on Hopper.

use half::bf16;

use super::AttentionShape;
use crate::device::{DeviceArray, Gpu, Kernel, Launch, Module, Result, Swizzle, TensorMap, ptx};
use crate::rope::RopeTable;

static MODULE: Module = ptx!("backward_wgmma.ptx");

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

const fn plan(name: &'static str, groups: usize, stages: usize, buffers: usize) -> Plan {
    Plan {
        kernel: MODULE.kernel(name),
        groups,
        stages,
        buffers,
    }
}

/// The kernel that owns queries: `delta` and `dq`.
pub(super) fn queries(head_dim: usize) -> Plan {
    match head_dim {
        64 => plan("attention_queries_wgmma_64", 3, 4, 2),
        _ => plan("attention_queries_wgmma_128", 2, 4, 1),
    }
}

/// The kernel that owns keys: `dk` and `dv`.
pub(super) fn keys(head_dim: usize) -> Plan {
    match head_dim {
        64 => plan("attention_keys_wgmma_64", 2, 4, 2),
        _ => plan("attention_keys_wgmma_128", 2, 4, 1),
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
        let AttentionShape {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.shape;
        self.launch(gpu, plan, heads, self.shape.section(4 * head_dim) * (heads / kv_heads))
    }

    /// `dk` and `dv`, after `delta`.
    pub fn keys(&self, gpu: &Gpu, plan: Plan) -> Result<()> {
        let AttentionShape {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.shape;
        self.launch(
            gpu,
            plan,
            kv_heads,
            self.shape.section(4 * head_dim * (heads / kv_heads)),
        )
    }

    /// `heads`: those whose rows the kernel owns, `section` of which are worked on at a time.
    fn launch(&self, gpu: &Gpu, plan: Plan, heads: usize, section: usize) -> Result<()> {
        let shape = &self.shape;
        let map = |array, row| TensorMap::matrix(array, (shape.tokens(), row), row, (UNIT, UNIT), Swizzle::B128);
        let tiles = shape.seq.div_ceil(UNIT * plan.groups) * shape.batch * heads;
        let blocks = tiles.min(gpu.properties().multiprocessors as usize);
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
            .f32(shape.scale());
        // SAFETY: the parameters are the kernel's; it reads matrices through maps, which do not leave them, and otherwise reads and writes rows of tokens below
        // `batch·seq`, columns of a row as `shape` has them and rows of the table below `seq`. Shared memory is what its plan takes.
        unsafe { launch.run() }
    }
}
