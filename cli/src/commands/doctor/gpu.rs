//! The GPUs of this machine: what each is, and whether a kernel of it computes what the CPU does.

use onebit_kernels_cpu::rng::Key;
use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cuda::ternary_gemv::{Epilogue, TernaryCode, TernaryMatrix, TernaryPart, ternary_gemv};
use onebit_kernels_cuda::{CudaError, Gpu};
use serde::Serialize;

use super::SHAPES;
use crate::{gpu, output};

/// What was found.
pub(super) struct Gpus {
    /// The driver, if there is one.
    pub driver: Option<String>,
    pub all: Vec<GpuReport>,
    /// Why there is none.
    pub note: Option<String>,
}

/// One GPU.
#[derive(Serialize)]
pub(super) struct GpuReport {
    device: String,
    name: String,
    memory_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    free_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capability: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multiprocessors: Option<u32>,
    /// None where it cannot be used at all.
    self_test: Option<bool>,
    /// Why it cannot be used, or what failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Gpus {
    /// Looks for them and tests each.
    pub fn find() -> Self {
        match onebit_kernels_cuda::driver() {
            Ok(driver) => Gpus {
                note: driver
                    .devices
                    .is_empty()
                    .then(|| "the driver reports no GPU".to_string()),
                all: driver
                    .devices
                    .iter()
                    .enumerate()
                    .map(|(at, (name, bytes))| GpuReport::new(at, name, *bytes as u64))
                    .collect(),
                driver: gpu::driver(),
            },
            Err(error) => Gpus {
                driver: None,
                all: Vec::new(),
                note: Some(error.to_string()),
            },
        }
    }

    /// All of them on one line.
    pub fn names(&self) -> Option<String> {
        let names: Vec<String> = self.all.iter().map(GpuReport::title).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

impl GpuReport {
    fn new(at: usize, name: &str, memory_bytes: u64) -> Self {
        let mut report = GpuReport {
            device: format!("cuda:{at}"),
            name: name.to_string(),
            memory_bytes,
            free_bytes: None,
            capability: None,
            multiprocessors: None,
            self_test: None,
            note: None,
        };
        match Gpu::open(at) {
            Ok(gpu) => {
                let properties = gpu.properties();
                let (major, minor) = properties.capability;
                report.capability = Some(format!("{major}.{minor}"));
                report.multiprocessors = Some(properties.multiprocessors);
                report.free_bytes = gpu.free_memory().ok();
                let tested = self_test(&gpu);
                report.self_test = Some(*tested.as_ref().unwrap_or(&false));
                report.note = tested.err().map(|error| error.to_string());
            }
            Err(error) => report.note = Some(error.to_string()),
        }
        report
    }

    fn title(&self) -> String {
        format!("{} {} ({} MiB)", self.device, self.name, self.memory_bytes >> 20)
    }

    /// Its name, if it can be used, else why it cannot.
    pub fn usable(&self) -> Result<&str, &str> {
        match self.self_test {
            Some(_) => Ok(&self.device),
            None => Err(self.note.as_deref().unwrap_or("it cannot be opened")),
        }
    }

    /// Its name, if a kernel of it gave other sums than the CPU, or none.
    pub fn failed(&self) -> Option<&str> {
        (self.self_test == Some(false)).then_some(&self.device)
    }

    /// For people.
    pub fn line(&self) -> String {
        let mut parts = vec![self.title()];
        parts.extend(self.capability.as_ref().map(|c| format!("compute capability {c}")));
        parts.extend(self.multiprocessors.map(|n| format!("{n} multiprocessors")));
        parts.extend(self.free_bytes.map(|n| format!("{} free", output::bytes(n))));
        parts.push(match self.self_test {
            Some(true) => "self-test passed".into(),
            Some(false) => "SELF-TEST FAILED".into(),
            None => "cannot be used".into(),
        });
        parts.extend(self.note.clone());
        parts.join(", ")
    }
}

/// Whether the ternary product of a GPU gives the sums of its definition, in both codes.
fn self_test(gpu: &Gpu) -> Result<bool, CudaError> {
    for (i, &(rows, cols)) in SHAPES.iter().enumerate() {
        let key = Key::new(7, u32::from_be_bytes(*b"sgpu"), i as u64);
        let weights: Vec<i8> = (0..rows * cols).map(|j| key.below(j as u64, 3) as i8 - 1).collect();
        let x: Vec<i8> = (0..cols)
            .map(|j| key.below((rows * cols + j) as u64, 256) as u8 as i8)
            .collect();
        // Sums of so few bytes are exact as floats.
        let defined: Vec<f32> = weights
            .chunks(cols)
            .map(|row| {
                row.iter()
                    .zip(&x)
                    .map(|(&w, &x)| i32::from(w) * i32::from(x))
                    .sum::<i32>() as f32
            })
            .collect();
        for (layout, code) in [(Layout::T2, TernaryCode::T2), (Layout::T5, TernaryCode::T5)] {
            let mut packed = vec![0; layout.bytes(rows, cols)];
            layout.pack(&weights, rows, cols, &mut packed);
            let part = TernaryPart {
                code,
                rows,
                cols,
                packed: &packed,
                gamma: 1.0,
                steps: &[],
            };
            let matrix = TernaryMatrix::stacked(gpu, &[part])?;
            let mut padded = x.clone();
            padded.resize(matrix.padded_cols(), 0);
            let (xq, scales, out) = (gpu.upload(&padded)?, gpu.upload(&[1.0])?, gpu.zeros(rows)?);
            ternary_gemv(gpu, &matrix, &xq, &scales, Epilogue::Store(&out))?;
            if gpu.download(&out)? != defined {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gpu_that_cuda_reports_passes() {
        let found = Gpus::find();
        if let Some(note) = &found.note {
            return println!("SKIPPED (no GPU): the self-test; {note}");
        }
        for gpu in &found.all {
            println!("{}", gpu.line());
            assert_eq!(gpu.failed(), None);
        }
    }
}
