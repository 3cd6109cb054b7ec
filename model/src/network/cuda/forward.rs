//! The forward pass up to the head.

use half::bf16;
use onebit_kernels_cuda::activation::{SubNorm, activation};
use onebit_kernels_cuda::attention::attention;
use onebit_kernels_cuda::dropout::Dropout;
use onebit_kernels_cuda::embedding::embedding;
use onebit_kernels_cuda::gemm::{Layout as Product, Matrix, Output, Scales, gemm_bf16, gemm_s8};
use onebit_kernels_cuda::quantize::{Blend, Codes, RowOutputs, blend_groups, dequantize, quantize};
use onebit_kernels_cuda::rms_norm::{Branch, Norm, norm, residual_norm};
use onebit_kernels_cuda::rope::{QkNorm, rope};
use onebit_kernels_cuda::{DeviceArray, Gpu};

use super::arrays::{embedding_tensor, keeps_dense};
use super::buffers::GroupInput;
use super::layout::{Form, Group, GroupLayout, Segment};
use super::{CudaNetwork, Stage};
use crate::config::LinearMode;
use crate::network::Result;
use crate::network::dropout::{attention_site, feed_forward_site};

impl GroupInput {
    /// What a kernel that ends in this input writes of it. `codes` is its int8 form, which must live as long as the result.
    fn outputs<'a>(
        &'a self,
        stage: Stage,
        codes: &'a Option<DeviceArray<i8>>,
        soft: &'a Option<DeviceArray<bf16>>,
        anneal: &'a DeviceArray<f32>,
    ) -> RowOutputs<'a> {
        match stage {
            Stage::Full => RowOutputs {
                plain: self.full.as_ref().or(soft.as_ref()),
                ..Default::default()
            },
            Stage::Anneal => RowOutputs {
                plain: self.full.as_ref(),
                blend: soft.as_ref().map(|values| Blend { values, anneal }),
                ..Default::default()
            },
            Stage::Hard => RowOutputs {
                codes: codes.as_ref().map(|values| Codes {
                    values,
                    steps: &self.steps,
                }),
                plain: self.full.as_ref(),
                ..Default::default()
            },
        }
    }

    /// The int8 form of the hard phase in bf16, in `out`: what products read of it that have no integer form.
    pub(super) fn open(&self, gpu: &Gpu, cols: usize, out: &DeviceArray<bf16>) -> Result<Option<DeviceArray<bf16>>> {
        let Some(values) = self.int8(cols) else { return Ok(None) };
        let out = out.slice(..self.steps.len() * cols);
        let codes = Codes {
            values: &values,
            steps: &self.steps,
        };
        dequantize(gpu, &codes, &out)?;
        Ok(Some(out))
    }

    /// What the products of rows that are (or are not) quantised read in bf16, in any stage but the hard one of quantised rows.
    pub(super) fn float(&self, stage: Stage, quantized: bool) -> Option<DeviceArray<bf16>> {
        match stage {
            Stage::Full => self.full.clone().or_else(|| self.soft()),
            _ if quantized => self.soft(),
            _ => self.full.clone(),
        }
    }
}

impl CudaNetwork {
    /// Launches what makes of the master weights what products read, as far as it does not happen block by block.
    pub(super) fn quantize_weights(&self, stage: Stage) -> Result<()> {
        let (gpu, a, matrices) = (&self.gpu, &self.arrays, self.layout.matrix_count());
        let (head, tables) = (matrices..matrices + 1, matrices..self.table.tensors().len());
        let quantized = [self.config.head_mode, self.config.embedding_mode] != [LinearMode::F16; 2];
        if quantized && stage != Stage::Full {
            self.table.measure(gpu, tables, &a.parameters, &a.scales)?;
        }
        self.table
            .write(gpu, head, &a.parameters, &a.scales, None, Some(&a.head), &a.anneal)?;
        if let Some(divided) = &self.divided {
            return divided.quantize(gpu, a, stage);
        }
        let codes = (stage == Stage::Hard).then_some(&a.codes);
        let dense = keeps_dense(&self.layout).then_some(&a.dense);
        if stage != Stage::Full {
            self.table.measure(gpu, 0..matrices, &a.parameters, &a.scales)?;
        }
        if codes.is_some() || dense.is_some() {
            self.table
                .write(gpu, 0..matrices, &a.parameters, &a.scales, codes, dense, &a.anneal)?;
        }
        Ok(())
    }

    /// Where the bf16 weights of `block` begin, after they were written if they are not kept.
    pub(super) fn dense_weights(&self, stage: Stage, block: usize) -> Result<usize> {
        let a = &self.arrays;
        if keeps_dense(&self.layout) {
            return Ok(self.layout.blocks[block].group(Group::Qkv).codes);
        }
        if let Some(divided) = &self.divided {
            divided.dense(&self.gpu, a, stage, block)?;
            return Ok(0);
        }
        let first: usize = self.layout.blocks[..block].iter().map(|b| b.matrices.len()).sum();
        let which = first..first + self.layout.blocks[block].matrices.len();
        self.table.write(
            &self.gpu,
            which,
            &a.parameters,
            &a.scales,
            None,
            Some(&a.dense),
            &a.anneal,
        )?;
        Ok(0)
    }

    /// Launches embedding, blocks and the last norm; `training` keeps what the backward needs and applies dropout.
    pub(super) fn forward(&self, stage: Stage, training: bool) -> Result<()> {
        let (gpu, a, b) = (&self.gpu, &self.arrays, &self.buffers);
        let number = self.number();
        let at = |site| training.then(|| self.hidden_dropout(site, &number)).flatten();
        let stream = &b.blocks[0].x_in;
        match embedding_tensor(&self.config, &self.layout).filter(|_| stage != Stage::Full) {
            Some(tensor) => self
                .table
                .rows(gpu, tensor, &a.ids, &a.parameters, &a.scales, &a.anneal, stream)?,
            None => {
                let table = self.parameter(self.layout.embedding);
                embedding(gpu, &table, &a.ids, self.config.hidden_size, stream, None)?;
            }
        }
        if training {
            self.drop_embedded(stream)?;
        }
        for block in 0..b.blocks.len() {
            let before = block
                .checked_sub(1)
                .map(|i| (&b.blocks[i].x_mid, at(feed_forward_site(i))));
            self.block((stage, training), block, before, at(attention_site(block)))?;
        }
        let last = b.blocks.len() - 1;
        let branch = Branch {
            values: &b.branch,
            factor: self.config.residual_scale(),
            dropout: at(feed_forward_site(last)),
            sum: &b.x_last,
        };
        // Dropout comes before the rounding of a quantised head's input; the gradient's place is free until then.
        let rounds = stage != Stage::Full && !matches!(self.config.head_mode, LinearMode::F16 | LinearMode::Int8);
        let head_in = if rounds { &b.d_head_in } else { &b.head_in };
        let outputs = RowOutputs {
            plain: Some(head_in),
            ..Default::default()
        };
        let weight = self.parameter(self.layout.final_norm);
        let norm = self.norm(&weight);
        residual_norm(gpu, &b.blocks[last].x_mid, Some(&branch), &norm, &b.rstd_last, &outputs)?;
        if training {
            self.drop_output(head_in)?;
        }
        if rounds { self.round_head_input(head_in) } else { Ok(()) }
    }

    /// Launches what a quantised head reads of its input `x`, in `head_in`.
    fn round_head_input(&self, x: &DeviceArray<bf16>) -> Result<()> {
        let (gpu, anneal, to) = (&self.gpu, &self.arrays.anneal, &self.buffers.head_in);
        let (tokens, hidden) = (self.shape.tokens(), self.config.hidden_size);
        if self.config.head_mode == LinearMode::Int4 {
            return Ok(blend_groups(gpu, x, tokens, anneal, to)?);
        }
        let blend = Blend { values: to, anneal };
        let outputs = RowOutputs {
            blend: Some(blend),
            ..Default::default()
        };
        Ok(quantize(gpu, x, tokens, hidden, hidden, &outputs)?)
    }

    /// Launches a block, in `training` with stochastic depth and dropout of probabilities. `before` is the stream that the branch of the block before is added to; without, the block's input is there already.
    pub(super) fn block(
        &self,
        (stage, training): (Stage, bool),
        block: usize,
        before: Option<(&DeviceArray<f32>, Option<Dropout<'_>>)>,
        attention_dropout: Option<Dropout<'_>>,
    ) -> Result<()> {
        let (gpu, config) = (&self.gpu, &self.config);
        let (layout, b, shared) = (&self.layout.blocks[block], &self.buffers.blocks[block], &self.buffers);
        let tokens = self.shape.tokens();
        let needs_dense = stage != Stage::Hard || Group::ALL.iter().any(|&g| layout.group(g).reads_dense());
        let dense = if needs_dense {
            self.dense_weights(stage, block)?
        } else {
            0
        };
        let anneal = &self.arrays.anneal;

        let input = b.input(Group::Qkv);
        let (codes, soft) = (input.int8(config.hidden_size), self.soft_of(input));
        let outputs = input.outputs(stage, &codes, &soft, anneal);
        let weight = self.parameter(layout.input_norm);
        let branch = before.as_ref().map(|(_, dropout)| Branch {
            values: &shared.branch,
            factor: config.residual_scale(),
            dropout: *dropout,
            sum: &b.x_in,
        });
        let stream = before.as_ref().map_or(&b.x_in, |(stream, _)| *stream);
        residual_norm(gpu, stream, branch.as_ref(), &self.norm(&weight), &b.rstd_in, &outputs)?;
        self.product(stage, dense, layout.group(Group::Qkv), input, &b.qkv)?;

        let norms = layout.qk_norms.map(|(q, k)| (self.parameter(q), self.parameter(k)));
        let norms = norms.as_ref().map(|(q, k)| QkNorm {
            q,
            k,
            eps: config.rms_norm_eps,
        });
        let shape = self.attention_shape();
        rope(gpu, shape, &self.rope, norms, &b.qkv, &b.rotated)?;
        let number = self.number();
        let drop = training.then(|| self.probability_dropout(block, &number)).flatten();
        attention(gpu, shape, drop.as_ref(), &b.rotated, &b.attn_out, &b.lse)?;

        let (input, width) = (b.input(Group::O), config.query_size());
        let (codes, soft) = (input.int8(width), self.soft_of(input));
        let outputs = input.outputs(stage, &codes, &soft, anneal);
        match layout.attn_sub_norm.map(|index| self.parameter(index)) {
            Some(weight) => norm(gpu, &b.attn_out, width, &self.norm(&weight), &b.rstd_attn, &outputs)?,
            None => quantize(gpu, &b.attn_out, tokens, width, width, &outputs)?,
        }
        self.product(stage, dense, layout.group(Group::O), input, &shared.branch)?;
        if training {
            self.drop_branch(&shared.branch, block, attention_site(block))?;
        }

        let input = b.input(Group::GateUp);
        let (codes, soft) = (input.int8(config.hidden_size), self.soft_of(input));
        let outputs = input.outputs(stage, &codes, &soft, anneal);
        let weight = self.parameter(layout.post_attention_norm);
        let branch = Branch {
            values: &shared.branch,
            factor: config.residual_scale(),
            dropout: attention_dropout,
            sum: &b.x_mid,
        };
        residual_norm(gpu, &b.x_in, Some(&branch), &self.norm(&weight), &b.rstd_mid, &outputs)?;
        self.product(stage, dense, layout.group(Group::GateUp), input, &b.gate_up)?;

        let (input, width) = (b.input(Group::Down), config.intermediate_size);
        let (codes, soft) = (input.int8(width), self.soft_of(input));
        let outputs = input.outputs(stage, &codes, &soft, anneal);
        let weight = layout.ffn_sub_norm.map(|index| self.parameter(index));
        let sub_norm = weight.as_ref().map(|weight| SubNorm {
            norm: self.norm(weight),
            rstd: &b.rstd_ffn,
        });
        activation(
            gpu,
            self.activation(),
            &b.gate_up,
            tokens,
            width,
            sub_norm.as_ref(),
            &outputs,
        )?;
        self.product(stage, dense, layout.group(Group::Down), input, &shared.branch)?;
        if training {
            self.drop_branch(&shared.branch, block, feed_forward_site(block))?;
        }
        Ok(())
    }

    /// An input's bf16 form, where there is room for one.
    fn soft_of(&self, input: &GroupInput) -> Option<DeviceArray<bf16>> {
        if self.shape.soft_phases { input.soft() } else { None }
    }

    pub(super) fn norm<'a>(&self, weight: &'a DeviceArray<f32>) -> Norm<'a> {
        Norm {
            weight,
            eps: self.config.rms_norm_eps,
        }
    }

    /// Launches `out` = the input through the group's weights: integers where both are and rows have one scale, bf16 elsewhere.
    fn product(
        &self,
        stage: Stage,
        dense: usize,
        group: &GroupLayout,
        input: &GroupInput,
        out: &DeviceArray<bf16>,
    ) -> Result<()> {
        let (a, tokens, workspace) = (&self.arrays, self.shape.tokens(), self.buffers.workspace.slice(..0));
        let mut opened = None;
        for Segment { rows, form, scales } in &group.segments {
            let size = (tokens, rows.len(), group.cols);
            let weights = rows.start * group.cols..rows.end * group.cols;
            let part = out.slice(rows.start..);
            let out = Output::Bf16(Matrix {
                array: &part,
                stride: group.rows,
            });
            if *form == Form::Integers && stage == Stage::Hard {
                let Some(x) = input.int8(group.cols) else { continue };
                let w = a.codes.slice(group.codes + weights.start..group.codes + weights.end);
                let cols = a.scales.slice(*scales..scales + rows.len());
                let scales = Scales {
                    rows: Some(&input.steps),
                    cols: Some(&cols),
                    alpha: 1.0,
                };
                gemm_s8(
                    &self.gpu,
                    size,
                    matrix(&x, group.cols),
                    matrix(&w, group.cols),
                    out,
                    scales,
                    &workspace,
                )?;
            } else {
                if *form == Form::Groups && stage == Stage::Hard && opened.is_none() {
                    opened = input.open(&self.gpu, group.cols, &self.buffers.dequantized)?;
                }
                let x = match form {
                    Form::Groups if stage == Stage::Hard => opened.clone(),
                    _ => input.float(stage, form.quantized()),
                };
                let Some(x) = x else { continue };
                let at = dense + group.dense;
                let w = a.dense.slice(at + weights.start..at + weights.end);
                let (x, w) = (matrix(&x, group.cols), matrix(&w, group.cols));
                gemm_bf16(&self.gpu, Product::NT, size, x, w, out, Scales::NONE, &workspace)?;
            }
        }
        Ok(())
    }
}

/// `array` as rows of `stride` without a gap.
pub(super) fn matrix<T>(array: &DeviceArray<T>, stride: usize) -> Matrix<'_, T> {
    Matrix { array, stride }
}
