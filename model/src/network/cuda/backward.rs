//! The backward pass from the head's input to the embedding.

use half::bf16;
use onebit_kernels_cuda::DeviceArray;
use onebit_kernels_cuda::activation::{SubNormBackward, activation_backward};
use onebit_kernels_cuda::attention::attention_backward;
use onebit_kernels_cuda::elementwise::add;
use onebit_kernels_cuda::embedding::embedding_backward;
use onebit_kernels_cuda::gemm::{Layout as Product, Output, Scales, gemm_bf16};
use onebit_kernels_cuda::rms_norm::{
    BranchGradient, ResidualBackward, WeightGradient, norm_backward, residual_norm_backward,
};
use onebit_kernels_cuda::rope::{QkNorm, rope_norm_backward};

use super::arrays::plan_shape;
use super::forward::matrix;
use super::layout::{Group, GroupLayout, Segment};
use super::{CudaNetwork, Stage};
use crate::network::Result;
use crate::network::dropout::{attention_site, feed_forward_site};

impl CudaNetwork {
    /// Launches what is between the head and the last block.
    pub(super) fn backward_begin(&self, accumulate: bool) -> Result<()> {
        let b = &self.buffers;
        let last = b.blocks.len() - 1;
        self.drop_output(&b.d_head_in)?;
        self.norm_backward(
            (&b.x_last, &b.rstd_last, self.layout.final_norm),
            &b.d_head_in,
            Some((last, feed_forward_site(last))),
            (true, accumulate),
        )
    }

    /// Launches what is behind the first block: the embedding's gradient.
    pub(super) fn backward_end(&self, accumulate: bool) -> Result<()> {
        let (gpu, a, b) = (&self.gpu, &self.arrays, &self.buffers);
        self.drop_embedded(&b.d_stream)?;
        // A tied head has written there already.
        let accumulate = accumulate || self.config.tie_word_embeddings;
        let gradient = self.gradient(self.layout.embedding);
        let shape = plan_shape(&self.config, &self.shape);
        Ok(embedding_backward(
            gpu,
            &b.d_stream,
            &a.plan,
            shape,
            &a.embedding_partials,
            &gradient,
            accumulate,
        )?)
    }

    /// Launches the backward of a norm of the stream: adds to the stream's gradient, and leaves that of the branch that a block added at a site in `d_branch`.
    fn norm_backward(
        &self,
        (x, rstd, index): (&DeviceArray<f32>, &DeviceArray<f32>, usize),
        dy: &DeviceArray<bf16>,
        branch: Option<(usize, u32)>,
        (fresh, accumulate): (bool, bool),
    ) -> Result<()> {
        let b = &self.buffers;
        let (weight, total, number) = (self.parameter(index), self.gradient(index), self.number());
        let backward = ResidualBackward {
            dy,
            dy2: None,
            x,
            rstd,
            weight: &weight,
            dres: &b.d_stream,
            fresh,
            branch: branch.map(|(_, site)| BranchGradient {
                values: &b.d_branch,
                factor: self.config.residual_scale(),
                dropout: self.hidden_dropout(site, &number),
            }),
            dw: self.weight_gradient(&total, accumulate),
        };
        residual_norm_backward(&self.gpu, &backward)?;
        match branch {
            Some((block, site)) => self.drop_branch(&b.d_branch, block, site),
            None => Ok(()),
        }
    }

    fn weight_gradient<'a>(&'a self, total: &'a DeviceArray<f32>, accumulate: bool) -> WeightGradient<'a> {
        WeightGradient {
            total,
            accumulate,
            partials: &self.arrays.partials,
        }
    }

    /// Launches the gradients of a block.
    pub(super) fn block_backward(&self, stage: Stage, block: usize, accumulate: bool) -> Result<()> {
        let (gpu, config) = (&self.gpu, &self.config);
        let (layout, b, shared) = (&self.layout.blocks[block], &self.buffers.blocks[block], &self.buffers);
        let (tokens, hidden) = (self.shape.tokens(), config.hidden_size);
        if self.shape.recompute {
            let number = self.number();
            self.block(
                (stage, true),
                block,
                None,
                self.hidden_dropout(attention_site(block), &number),
            )?;
        }
        let dense = self.dense_weights(stage, block)?;

        let width = config.intermediate_size;
        let d_hidden = shared.d_in.slice(..tokens * width);
        self.product_backward(
            (stage, accumulate),
            dense,
            block,
            Group::Down,
            &shared.d_branch,
            &d_hidden,
        )?;
        let d_gate_up = shared.d_out.slice(..b.gate_up.len());
        let sub = layout.ffn_sub_norm.map(|i| (self.parameter(i), self.gradient(i)));
        let sub = sub.as_ref().map(|(weight, total)| SubNormBackward {
            weight,
            rstd: &b.rstd_ffn,
            dw: self.weight_gradient(total, accumulate),
        });
        activation_backward(
            gpu,
            self.activation(),
            &d_hidden,
            &b.gate_up,
            tokens,
            width,
            sub.as_ref(),
            &d_gate_up,
        )?;
        let d_normed = shared.d_in.slice(..tokens * hidden);
        self.product_backward((stage, accumulate), dense, block, Group::GateUp, &d_gate_up, &d_normed)?;
        let norm = (&b.x_mid, &b.rstd_mid, layout.post_attention_norm);
        self.norm_backward(
            norm,
            &d_normed,
            Some((block, attention_site(block))),
            (false, accumulate),
        )?;

        let width = config.query_size();
        let d_sub = shared.d_in.slice(..tokens * width);
        self.product_backward((stage, accumulate), dense, block, Group::O, &shared.d_branch, &d_sub)?;
        // The branch's gradient has been read, and the attention's has the same kind of place.
        let d_attention = match layout.attn_sub_norm {
            Some(index) => {
                let (weight, total) = (self.parameter(index), self.gradient(index));
                let dw = self.weight_gradient(&total, accumulate);
                let dx = shared.dequantized.slice(..tokens * width);
                norm_backward(gpu, &d_sub, &b.attn_out, width, &weight, &b.rstd_attn, &dx, &dw)?;
                dx
            }
            None => d_sub,
        };
        let d_qkv = shared.d_out.slice(..b.qkv.len());
        let shape = self.attention_shape();
        let rotation = layout.qk_norms.is_none().then_some(&self.rope);
        let number = self.number();
        let drop = self.probability_dropout(block, &number);
        attention_backward(
            gpu,
            shape,
            drop.as_ref(),
            &b.rotated,
            &b.attn_out,
            &b.lse,
            &d_attention,
            rotation,
            &shared.delta,
            &d_qkv,
        )?;
        if let Some((q, k)) = layout.qk_norms {
            let [q_weight, k_weight] = [q, k].map(|i| self.parameter(i));
            let [q_total, k_total] = [q, k].map(|i| self.gradient(i));
            let norms = QkNorm {
                q: &q_weight,
                k: &k_weight,
                eps: config.rms_norm_eps,
            };
            let partials = &self.arrays.rope_partials;
            rope_norm_backward(
                gpu, shape, &self.rope, norms, &b.qkv, &d_qkv, &q_total, &k_total, accumulate, partials,
            )?;
        }
        let d_normed = shared.d_in.slice(..tokens * hidden);
        self.product_backward((stage, accumulate), dense, block, Group::Qkv, &d_qkv, &d_normed)?;
        let norm = (&b.x_in, &b.rstd_in, layout.input_norm);
        self.norm_backward(
            norm,
            &d_normed,
            block.checked_sub(1).map(|before| (before, feed_forward_site(before))),
            (false, accumulate),
        )
    }

    /// Launches the gradients of a group's weights and of its input, `d_in`, from that of its output.
    fn product_backward(
        &self,
        (stage, accumulate): (Stage, bool),
        dense: usize,
        block: usize,
        group: Group,
        d_out: &DeviceArray<bf16>,
        d_in: &DeviceArray<bf16>,
    ) -> Result<()> {
        let (gpu, a, shared) = (&self.gpu, &self.arrays, &self.buffers);
        let input = shared.blocks[block].input(group);
        let GroupLayout {
            rows: width,
            cols,
            parameters,
            codes,
            dense: at,
            ref segments,
            ..
        } = *self.layout.blocks[block].group(group);
        let tokens = self.shape.tokens();
        let mut opened = None;
        for (i, Segment { rows, form, .. }) in segments.iter().enumerate() {
            let hard = form.quantized() && stage == Stage::Hard;
            if hard && opened.is_none() {
                opened = input.open(gpu, cols, &shared.dequantized)?;
            }
            let x = match hard {
                true => opened.clone(),
                false => input.float(stage, form.quantized()),
            };
            let Some(x) = x else { continue };
            let weights = rows.start * cols..rows.end * cols;
            let dy = d_out.slice(rows.start..);
            let (wide, narrow);
            let out = if self.shape.bf16_gradients {
                narrow = a.matrix_gradients.slice(codes + weights.start..codes + weights.end);
                Output::Bf16(matrix(&narrow, cols))
            } else {
                wide = a.gradients.slice(parameters + weights.start..parameters + weights.end);
                Output::F32 {
                    matrix: matrix(&wide, cols),
                    accumulate,
                }
            };
            let (dy, size) = (matrix(&dy, width), (rows.len(), cols, tokens));
            gemm_bf16(
                gpu,
                Product::TN,
                size,
                dy,
                matrix(&x, cols),
                out,
                Scales::NONE,
                &shared.workspace,
            )?;

            let w = a.dense.slice(dense + at + weights.start..dense + at + weights.end);
            let more = shared.d_in_more.slice(..if i > 0 { tokens * cols } else { 0 });
            let out = Output::Bf16(matrix(if i > 0 { &more } else { d_in }, cols));
            let (size, none) = ((tokens, cols, rows.len()), shared.workspace.slice(..0));
            gemm_bf16(gpu, Product::NN, size, dy, matrix(&w, cols), out, Scales::NONE, &none)?;
            if i > 0 {
                add(gpu, d_in, &more)?;
            }
        }
        Ok(())
    }
}
