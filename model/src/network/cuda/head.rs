//! The head, part by part: logits of some tokens, their losses and gradients, and what follows from these, in memory for those tokens alone.

use onebit_kernels_cuda::DeviceArray;
use onebit_kernels_cuda::cross_entropy::{RowLosses, Vocabulary, cross_entropy, cross_entropy_evaluate, loss_sums};
use onebit_kernels_cuda::gemm::{Layout as Product, Matrix, Output, Scales, gemm_bf16};

use super::CudaNetwork;
use super::forward::matrix;
use super::teachers::{CudaTeachers, as_argument};
use crate::network::Result;

impl CudaNetwork {
    /// Launches losses and gradients: of the head's weight, and of its input in `d_head_in`.
    pub(super) fn head(&self, accumulate: bool, teachers: Option<&CudaTeachers>) -> Result<()> {
        let (gpu, a, b) = (&self.gpu, &self.arrays, &self.buffers);
        let (hidden, vocab, tokens) = (self.config.hidden_size, self.config.vocab_size, self.shape.tokens());
        let scale = 1.0 / (tokens * self.step.all) as f32;
        let gradient = self.gradient(self.layout.head);
        for first in (0..tokens).step_by(b.head_rows) {
            let rows = first..(first + b.head_rows).min(tokens);
            let likely = teachers.map(|teachers| teachers.likely(rows.clone())).transpose()?;
            let logits = self.logits(rows.clone())?;
            let losses = [&b.lse, &b.nll, &b.smoothed].map(|of| of.slice(rows.clone()));
            let targets = a.targets.slice(rows.clone());
            let taught = likely.as_ref().map(as_argument);
            let losses = row_losses(&losses);
            cross_entropy(gpu, &logits, &targets, self.vocabulary(), taught, scale, losses)?;
            let values = rows.start * hidden..rows.end * hidden;
            let (x, dx) = (b.head_in.slice(values.clone()), b.d_head_in.slice(values));
            let d_logits = matrix(&logits, b.vocab_stride);
            let out = Output::Bf16(matrix(&dx, hidden));
            let (size, none) = ((rows.len(), hidden, vocab), b.workspace.slice(..0));
            gemm_bf16(
                gpu,
                Product::NN,
                size,
                d_logits,
                matrix(&a.head, hidden),
                out,
                Scales::NONE,
                &none,
            )?;
            let out = Output::F32 {
                matrix: matrix(&gradient, hidden),
                accumulate: accumulate || first > 0,
            };
            let size = (vocab, hidden, rows.len());
            gemm_bf16(
                gpu,
                Product::TN,
                size,
                d_logits,
                matrix(&x, hidden),
                out,
                Scales::NONE,
                &b.workspace,
            )?;
        }
        let losses = a.losses.slice(..2 * self.step.all);
        Ok(loss_sums(gpu, &b.nll, &b.smoothed, &a.numbers.slice(1..), &losses)?)
    }

    /// Launches the losses alone.
    pub(super) fn head_losses(&self) -> Result<()> {
        let (gpu, a, b) = (&self.gpu, &self.arrays, &self.buffers);
        let tokens = self.shape.tokens();
        for first in (0..tokens).step_by(b.head_rows) {
            let rows = first..(first + b.head_rows).min(tokens);
            let logits = self.logits(rows.clone())?;
            let losses = [&b.lse, &b.nll, &b.smoothed].map(|of| of.slice(rows.clone()));
            let targets = a.targets.slice(rows);
            cross_entropy_evaluate(gpu, &logits, &targets, self.vocabulary(), row_losses(&losses))?;
        }
        Ok(())
    }

    /// Launches the logits of tokens `rows`, as the head gives them: who reads them caps them.
    pub(super) fn logits(&self, rows: std::ops::Range<usize>) -> Result<DeviceArray<half::bf16>> {
        let (a, b, hidden) = (&self.arrays, &self.buffers, self.config.hidden_size);
        let logits = b.logits.slice(..rows.len() * b.vocab_stride);
        let x = b.head_in.slice(rows.start * hidden..rows.end * hidden);
        let out = Output::Bf16(Matrix {
            array: &logits,
            stride: b.vocab_stride,
        });
        let (size, none) = ((rows.len(), b.vocab_stride, hidden), b.workspace.slice(..0));
        let (x, w) = (matrix(&x, hidden), matrix(&a.head, hidden));
        gemm_bf16(&self.gpu, Product::NT, size, x, w, out, Scales::NONE, &none)?;
        Ok(logits)
    }

    pub(super) fn vocabulary(&self) -> Vocabulary {
        Vocabulary {
            size: self.config.vocab_size,
            stride: self.buffers.vocab_stride,
            smoothing: self.terms.smoothing,
            z_loss: self.terms.z_loss,
            softcap: self.config.final_logit_softcapping,
        }
    }
}

fn row_losses([lse, nll, smoothed]: &[DeviceArray<f32>; 3]) -> RowLosses<'_> {
    RowLosses { lse, nll, smoothed }
}
