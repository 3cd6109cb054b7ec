//! What a bench says.

use onebit_model::config::ModelConfig;
use serde::Serialize;

use crate::device::Placement;
use crate::{Result, limits, output};

/// The machine, to be measured between the parts of what is timed.
pub(super) struct Machine {
    pub place: Placement,
    /// Where the CPU does the work.
    memory: Option<limits::Bandwidth>,
}

impl Machine {
    pub fn new(place: Placement) -> Result<Self> {
        let memory = match place.gpu {
            Some(_) => None,
            None => Some(limits::Bandwidth::new(place.threads, limits::BUFFER_BYTES)?),
        };
        Ok(Self { place, memory })
    }

    /// Bytes a second that all threads read from memory.
    pub fn sweep(&self) -> f64 {
        let isa = self.place.isa;
        self.memory.as_ref().map_or(f64::NAN, |memory| memory.sweep(isa))
    }
}

/// What was timed.
pub(super) struct Timed {
    pub tokens: usize,
    pub seconds: f64,
    /// Bytes a second of the memory while it was timed, where that was measured.
    pub bandwidth: Option<f64>,
    /// Peak operations a second, likewise.
    pub peak_ops: Option<f64>,
    pub bytes_per_token: f64,
    pub ops_per_token: f64,
    pub decoding: Option<Decoding>,
    pub training: Option<Training>,
}

/// What a report of decoding says beside.
#[derive(Serialize)]
pub(super) struct Decoding {
    /// Tokens a second for each GB/s of the memory.
    pub tok_s_per_gb_s: f64,
    /// Nanoseconds of an empty phase.
    pub barrier_ns: f64,
    /// Bytes of the head, or of its sketch, that were read.
    pub head_bytes_per_token: f64,
    /// Rows of the head that were computed exactly.
    pub head_rows_per_token: f64,
}

/// What a report of training says beside.
#[derive(Serialize)]
pub(super) struct Training {
    pub phase: &'static str,
    pub precision: &'static str,
    /// f32 operations a second of the matrix product, measured between the steps.
    pub gemm_ops: f64,
    /// Operations of the steps to those.
    pub fraction_of_gemm: f64,
    /// Bytes that training takes.
    pub memory_bytes: u64,
    /// From opening the GPU to the end of the first step, which loads the kernels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_step_seconds: Option<f64>,
    /// Of the last step that was timed, on a GPU: nats a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
}

/// The result.
#[derive(Serialize)]
pub(super) struct Report {
    bench: String,
    model: String,
    parameters: u64,
    tokens: usize,
    seconds: f64,
    tok_s: f64,
    bytes_per_token: f64,
    bandwidth_gb_s: f64,
    fraction_of_bandwidth: f64,
    ops_per_token: f64,
    peak_ops: f64,
    fraction_of_peak: f64,
    #[serde(flatten)]
    decoding: Option<Decoding>,
    #[serde(flatten)]
    training: Option<Training>,
    isa: &'static str,
    threads: usize,
    device: String,
}

impl Report {
    pub fn new(bench: String, model: String, parameters: u64, timed: Timed, machine: &Machine) -> Self {
        let place = &machine.place;
        let isa = place.isa;
        let bandwidth = timed.bandwidth.unwrap_or_else(|| {
            let measured = machine.memory.as_ref().map(|memory| memory.measure(isa));
            measured.unwrap_or(f64::NAN)
        });
        let peak_ops = timed.peak_ops.unwrap_or_else(|| match timed.training {
            Some(_) => limits::fma_peak(isa, place.threads),
            None => limits::int8_peak(isa, place.threads),
        });
        let tok_s = timed.tokens as f64 / timed.seconds;
        Self {
            bench,
            model,
            parameters,
            tokens: timed.tokens,
            seconds: timed.seconds,
            tok_s,
            bytes_per_token: timed.bytes_per_token,
            bandwidth_gb_s: bandwidth / 1e9,
            fraction_of_bandwidth: tok_s * timed.bytes_per_token / bandwidth,
            ops_per_token: timed.ops_per_token,
            peak_ops,
            fraction_of_peak: tok_s * timed.ops_per_token / peak_ops,
            decoding: timed.decoding.map(|decoding| Decoding {
                tok_s_per_gb_s: tok_s / (bandwidth / 1e9),
                ..decoding
            }),
            training: timed.training,
            isa: isa.name(),
            threads: place.threads,
            device: place.describe(),
        }
    }

    /// As a table.
    pub fn print(&self) -> Result<()> {
        let named = output::count(self.parameters);
        let mut rows = vec![
            (
                "bench",
                format!("{} of {} ({named} parameters)", self.bench, self.model),
            ),
            (
                "speed",
                format!(
                    "{:.2} tok/s ({} tokens in {:.2} s)",
                    self.tok_s, self.tokens, self.seconds
                ),
            ),
            (
                "memory",
                format!(
                    "{} a token, {:.0}% of the {:.1} GB/s that were measured",
                    output::bytes(self.bytes_per_token as u64),
                    100.0 * self.fraction_of_bandwidth,
                    self.bandwidth_gb_s
                ),
            ),
            (
                "arithmetic",
                format!(
                    "{:.2} GOP a token, {:.0}% of the {:.0} GOP/s that were measured",
                    self.ops_per_token / 1e9,
                    100.0 * self.fraction_of_peak,
                    self.peak_ops / 1e9
                ),
            ),
        ];
        if let Some(d) = &self.decoding {
            let read = output::bytes(d.head_bytes_per_token as u64);
            rows.push((
                "head",
                format!("{read} a token, {:.0} rows exactly", d.head_rows_per_token),
            ));
            rows.push((
                "phases",
                format!(
                    "{:.0} ns each beside their work; {:.2} tok/s for each GB/s",
                    d.barrier_ns, d.tok_s_per_gb_s
                ),
            ));
        }
        if let Some(t) = &self.training {
            rows.push((
                "training",
                format!(
                    "{} phase in {}: {:.2} of the f32 matrix product's {:.0} GOP/s, measured between the steps",
                    t.phase,
                    t.precision,
                    t.fraction_of_gemm,
                    t.gemm_ops / 1e9
                ),
            ));
        }
        rows.push(("device", self.device.clone()));
        output::table(&rows)
    }
}

/// Weights of the blocks' linears.
pub(crate) fn block_weights(config: &ModelConfig) -> f64 {
    let linears = (0..config.num_hidden_layers).flat_map(|layer| config.linears(layer));
    linears.map(|linear| linear.rows as f64 * linear.cols as f64).sum()
}
