//! Where everything lies in the arenas: parameters, what the blocks' matrices become, and which of them are multiplied as one.

#[cfg(test)]
mod tests;

use std::ops::Range;

use onebit_kernels_cuda::weights::WeightMode;

use crate::config::{LinearKind, LinearMode, ModelConfig, TensorKind, TensorSpec};
use crate::network::{NetworkError, Result};

/// Every parameter begins at a multiple of this many elements, so that a block of the optimiser belongs to one.
pub const ALIGNMENT: usize = 256;

/// Widths are multiples of this: matrices that are multiplied as one then lie one behind the other without a gap, and rows of int8 at multiples of
/// 16 bytes.
const WIDTH: usize = 16;

/// Linears with the same input, multiplied as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Qkv,
    O,
    GateUp,
    Down,
}

impl Group {
    pub const ALL: [Group; 4] = [Group::Qkv, Group::O, Group::GateUp, Group::Down];

    fn of(kind: LinearKind) -> Self {
        match kind {
            LinearKind::Q | LinearKind::K | LinearKind::V => Group::Qkv,
            LinearKind::O => Group::O,
            LinearKind::Gate | LinearKind::Up => Group::GateUp,
            LinearKind::Down => Group::Down,
        }
    }
}

/// What a product of rows multiplies in the hard phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// bf16 both: never quantised.
    Full,
    /// int8 both, a scale for each row.
    Integers,
    /// Weights with a step for each 32 columns, which no integer product has: bf16 both, of quantised weights and inputs.
    Groups,
}

impl Form {
    fn of(mode: LinearMode) -> Self {
        match mode {
            LinearMode::F16 => Form::Full,
            LinearMode::Int4 => Form::Groups,
            LinearMode::Int8 | LinearMode::Ternary | LinearMode::Binary => Form::Integers,
        }
    }

    /// Whether the rows are quantised in the hard phase.
    pub fn quantized(self) -> bool {
        self != Form::Full
    }
}

/// Rows of a group that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Rows of the group's matrix, which are columns of its output.
    pub rows: Range<usize>,
    /// What is multiplied.
    pub form: Form,
    /// Where their scales begin in the arena of scales.
    pub scales: usize,
}

/// The mode of a tensor, as the kernels name it.
pub(super) fn weight_mode(mode: LinearMode) -> WeightMode {
    match mode {
        LinearMode::F16 => WeightMode::Full,
        LinearMode::Int8 => WeightMode::Int8,
        LinearMode::Int4 => WeightMode::Int4,
        LinearMode::Ternary => WeightMode::Ternary,
        LinearMode::Binary => WeightMode::Binary,
    }
}

/// The matrix of a group.
#[derive(Clone, Debug)]
pub(super) struct GroupLayout {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// In the arenas of parameters and gradients.
    pub parameters: usize,
    /// In the arenas that have the blocks' matrices alone: of codes, of gradients in bf16.
    pub codes: usize,
    /// In the dense weights of one block.
    pub dense: usize,
    pub segments: Vec<Segment>,
}

impl GroupLayout {
    /// Whether any of its rows is quantised in the hard phase.
    pub fn quantizes(&self) -> bool {
        self.segments.iter().any(|s| s.form.quantized())
    }

    /// Whether any of its rows never is.
    pub fn has_full(&self) -> bool {
        self.segments.iter().any(|s| !s.form.quantized())
    }

    /// Whether products of the hard phase read any of its weights in bf16.
    pub fn reads_dense(&self) -> bool {
        self.segments.iter().any(|s| s.form != Form::Integers)
    }
}

/// One matrix of a block, as the kernel that quantises sees it.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    /// Index of its parameter.
    pub index: usize,
    pub rows: usize,
    pub cols: usize,
    pub mode: LinearMode,
    pub codes: usize,
    pub scales: usize,
    pub dense: usize,
}

/// A block.
#[derive(Clone, Debug)]
pub(super) struct BlockLayout {
    groups: [GroupLayout; 4],
    /// Its matrices, in their order in the arena.
    pub matrices: Vec<Matrix>,
    pub input_norm: usize,
    pub qk_norms: Option<(usize, usize)>,
    pub attn_sub_norm: Option<usize>,
    pub post_attention_norm: usize,
    pub ffn_sub_norm: Option<usize>,
}

impl BlockLayout {
    pub fn group(&self, group: Group) -> &GroupLayout {
        &self.groups[group as usize]
    }
}

/// The arenas of a model.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Of each parameter, in the order of the specs: where it begins.
    pub offsets: Vec<usize>,
    /// Elements of each parameter.
    lengths: Vec<usize>,
    /// Elements of the arena of parameters.
    pub len: usize,
    /// Where the blocks' matrices begin in it: behind all else, in the order in which the arena of codes has them.
    pub matrices: usize,
    /// Elements of the arena of codes, and so of the blocks' matrices.
    pub codes: usize,
    /// Elements of the arena of scales: of the blocks' matrices, then of head and embedding where they are quantised.
    pub scales: usize,
    /// Where the scales of the head and of the embedding begin there; of a tied table they are the same.
    pub(super) table_scales: [usize; 2],
    /// Elements of the dense weights of the largest block.
    pub dense: usize,
    pub(super) blocks: Vec<BlockLayout>,
    pub(super) embedding: usize,
    pub(super) final_norm: usize,
    pub(super) head: usize,
}

impl Layout {
    /// The arenas of `config`.
    pub fn new(config: &ModelConfig, specs: &[TensorSpec]) -> Result<Self> {
        check(config)?;
        let is_matrix = |spec: &TensorSpec| matches!(spec.kind, TensorKind::Linear(_));
        let mut offsets = vec![0; specs.len()];
        let (mut len, mut matrices_at) = (0usize, 0);
        for wanted in [false, true] {
            matrices_at = if wanted { len } else { matrices_at };
            for (spec, offset) in specs.iter().zip(&mut offsets).filter(|(s, _)| is_matrix(s) == wanted) {
                *offset = len;
                len += spec.len().next_multiple_of(ALIGNMENT);
            }
        }
        let find = |name: &str| specs.iter().position(|s| s.name == name);
        let need = |name: &str| find(name).ok_or_else(|| NetworkError::MissingTensor { name: name.into() });
        let (mut codes, mut scales, mut dense) = (0, 0, 0);
        let mut blocks = Vec::with_capacity(config.num_hidden_layers);
        for layer in 0..config.num_hidden_layers {
            let full = |suffix: &str| format!("model.layers.{layer}.{suffix}.weight");
            let mut groups: [Option<GroupLayout>; 4] = [const { None }; 4];
            let (mut matrices, mut block_dense) = (Vec::new(), 0);
            for linear in config.linears(layer) {
                let index = need(&linear.name)?;
                let form = Form::of(linear.mode);
                let elements = linear.rows * linear.cols;
                let group = groups[Group::of(linear.kind) as usize].get_or_insert(GroupLayout {
                    rows: 0,
                    cols: linear.cols,
                    parameters: offsets[index],
                    codes,
                    dense: block_dense,
                    segments: Vec::new(),
                });
                let rows = group.rows..group.rows + linear.rows;
                // What `check` and the order of the specs see to: the blocks' matrices follow each other without a gap.
                debug_assert_eq!(matrices_at + codes, offsets[index]);
                match group.segments.last_mut() {
                    Some(last) if last.form == form => last.rows.end = rows.end,
                    _ => group.segments.push(Segment {
                        rows: rows.clone(),
                        form,
                        scales,
                    }),
                }
                group.rows = rows.end;
                matrices.push(Matrix {
                    index,
                    rows: linear.rows,
                    cols: linear.cols,
                    mode: linear.mode,
                    codes,
                    scales,
                    dense: block_dense,
                });
                codes += elements;
                scales += weight_mode(linear.mode).scales(linear.rows, linear.cols);
                block_dense += elements;
            }
            let [Some(qkv), Some(o), Some(gate_up), Some(down)] = groups else {
                return Err(NetworkError::MissingTensor { name: full("mlp") });
            };
            blocks.push(BlockLayout {
                groups: [qkv, o, gate_up, down],
                matrices,
                input_norm: need(&full("input_layernorm"))?,
                qk_norms: find(&full("self_attn.q_norm")).zip(find(&full("self_attn.k_norm"))),
                attn_sub_norm: find(&full("self_attn.attn_sub_norm")),
                post_attention_norm: need(&full("post_attention_layernorm"))?,
                ffn_sub_norm: find(&full("mlp.ffn_sub_norm")),
            });
            dense = dense.max(block_dense);
        }
        let embedding = need("model.embed_tokens.weight")?;
        let of_table = |mode| weight_mode(mode).scales(config.vocab_size, config.hidden_size);
        let head_scales = scales;
        scales += of_table(config.head_mode);
        let mut embedding_scales = head_scales;
        if !config.tie_word_embeddings {
            embedding_scales = scales;
            scales += of_table(config.embedding_mode);
        }
        Ok(Layout {
            table_scales: [head_scales, embedding_scales],
            final_norm: need("model.norm.weight")?,
            head: if config.tie_word_embeddings {
                embedding
            } else {
                need("lm_head.weight")?
            },
            lengths: specs.iter().map(TensorSpec::len).collect(),
            offsets,
            len,
            matrices: matrices_at,
            codes,
            scales,
            dense,
            blocks,
            embedding,
        })
    }

    /// The arena in pieces whose gradients are complete one after the other in a backward pass: the head, if it is a tensor of its own; the matrices of the blocks from the last to the first; what is left.
    pub fn buckets(&self) -> Vec<Range<usize>> {
        let head = match self.head == self.embedding {
            true => 0..0,
            false => self.offsets[self.head]..self.range(self.head).end.next_multiple_of(ALIGNMENT),
        };
        let mut buckets = vec![head.clone()];
        buckets.extend((0..self.blocks.len()).rev().map(|block| self.block(block)));
        buckets.push(0..head.start);
        buckets.push(head.end..self.matrices);
        buckets.retain(|bucket| !bucket.is_empty());
        buckets
    }

    /// How many matrices the blocks have.
    pub fn matrix_count(&self) -> usize {
        self.blocks.iter().map(|b| b.matrices.len()).sum()
    }

    /// The matrices of a block in the arena of parameters.
    fn block(&self, block: usize) -> Range<usize> {
        let begin = |block: &BlockLayout| self.matrices + block.group(Group::Qkv).codes;
        let end = self.blocks.get(block + 1).map_or(self.len, begin);
        begin(&self.blocks[block])..end
    }

    /// Parameter `index` in its arena.
    pub fn range(&self, index: usize) -> Range<usize> {
        self.offsets[index]..self.offsets[index] + self.lengths[index]
    }

    /// Parameter `index` in the arenas that have the blocks' matrices alone, if it is one of them.
    pub fn codes_range(&self, index: usize) -> Option<Range<usize>> {
        let Range { start, end } = self.range(index);
        Some(start.checked_sub(self.matrices)?..end - self.matrices)
    }

    /// For each block of [`ALIGNMENT`] elements of the arena, 1 where `decayed` of its parameter's spec.
    pub fn decayed(&self, specs: &[TensorSpec], decayed: impl Fn(TensorKind) -> bool) -> Vec<u8> {
        let mut table = vec![0; self.len / ALIGNMENT];
        for (spec, offset) in specs.iter().zip(&self.offsets) {
            let blocks = spec.len().div_ceil(ALIGNMENT);
            table[offset / ALIGNMENT..][..blocks].fill(u8::from(decayed(spec.kind)));
        }
        table
    }
}

/// What the kernels have forms for.
fn check(config: &ModelConfig) -> Result<()> {
    let widths = [
        ("hidden_size", config.hidden_size),
        ("num_attention_heads · head_dim", config.query_size()),
        ("num_key_value_heads · head_dim", config.key_value_size()),
        ("intermediate_size", config.intermediate_size),
    ];
    for (what, width) in widths {
        if !width.is_multiple_of(WIDTH) {
            return Err(NetworkError::NotOnCuda {
                what,
                expected: format!("a multiple of {WIDTH}"),
                found: width,
            });
        }
    }
    if config.head_dim > 128 || !config.head_dim.is_multiple_of(8) {
        return Err(NetworkError::NotOnCuda {
            what: "head_dim",
            expected: "a multiple of 8 up to 128".into(),
            found: config.head_dim,
        });
    }
    Ok(())
}
