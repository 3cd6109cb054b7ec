//! `onebit doctor`: what this machine can do, what will be used and why. Its output is what a bug report should hold.

mod choice;
mod environment;
#[cfg(feature = "cuda")]
mod gpu;
#[cfg(not(feature = "cuda"))]
#[path = "doctor/no_gpu.rs"]
mod gpu;
mod machine;

use std::collections::BTreeMap;

use argh::FromArgs;
use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::rng::Key;
use onebit_kernels_cpu::ternary::{Layout, padded_cols};
use onebit_kernels_cpu::ternary_gemv;
use serde::Serialize;

use self::choice::Choice;
use self::gpu::{GpuReport, Gpus};
use self::machine::Machine;
use crate::limits;
use crate::version::VERSION;
use crate::{CliError, Result, device, output};

/// Shows the machine, tests each CPU path and each GPU, measures memory and arithmetic of the CPU, and says what will be used and why: what a bug report should hold.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "doctor",
    example = "{command_name} --json",
    note = "The self-test multiplies random ternary matrices on every path and compares each sum with the portable path; on each GPU it multiplies such matrices and compares with their definition."
)]
pub struct Doctor {
    /// threads of the measurements (default: physical cores)
    #[argh(option)]
    threads: Option<usize>,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
}

/// The result.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    debug_build: bool,
    features: Vec<&'static str>,
    os: &'static str,
    arch: &'static str,
    system: Option<String>,
    kernel: Option<String>,
    cpu: Option<String>,
    physical_cores: usize,
    hardware_threads: usize,
    threads: usize,
    memory_bytes: Option<u64>,
    memory_available_bytes: Option<u64>,
    isa: &'static str,
    paths: Vec<PathReport>,
    bandwidth_gb_s: f64,
    gpu: Option<String>,
    gpu_driver: Option<String>,
    gpu_note: Option<String>,
    gpus: Vec<GpuReport>,
    /// Variables that matter; of secrets, that they are set.
    environment: BTreeMap<String, String>,
    will_use: Vec<Choice>,
}

/// One CPU path.
#[derive(Serialize)]
struct PathReport {
    isa: &'static str,
    self_test: bool,
    f32_gflop_s: f64,
    int8_gop_s: f64,
}

/// Rows and columns of the self-test: whole blocks, padding on both sides, one row, one column.
const SHAPES: [(usize, usize); 5] = [(64, 1024), (7, 300), (4, 256), (1, 6912), (5, 1)];

impl Doctor {
    pub(super) fn run(self) -> Result<()> {
        let place = device::place_on_cpu(self.threads)?;
        let paths: Vec<PathReport> = Isa::available()
            .map(|isa| PathReport {
                isa: isa.name(),
                self_test: self_test(isa),
                f32_gflop_s: limits::fma_peak(isa, place.threads) / 1e9,
                int8_gop_s: limits::int8_peak(isa, place.threads) / 1e9,
            })
            .collect();
        let bandwidth = limits::Bandwidth::new(place.threads, limits::BUFFER_BYTES)?.measure(place.isa);
        let gpus = Gpus::find();
        let machine = Machine::find();
        let will_use = vec![
            choice::device(&gpus),
            choice::path(place.isa),
            choice::threads(place.threads, self.threads.is_some()),
        ];
        let report = Report {
            version: VERSION,
            debug_build: cfg!(debug_assertions),
            features: features(),
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            system: machine.system,
            kernel: machine.kernel,
            cpu: machine.cpu,
            physical_cores: device::physical_cores(),
            hardware_threads: machine.hardware_threads,
            threads: place.threads,
            memory_bytes: machine.memory_bytes,
            memory_available_bytes: device::available_memory(),
            isa: place.isa.name(),
            paths,
            bandwidth_gb_s: bandwidth / 1e9,
            gpu: gpus.names(),
            gpu_driver: gpus.driver,
            gpu_note: gpus.note,
            gpus: gpus.all,
            environment: environment::variables(std::env::vars_os()),
            will_use,
        };
        if self.json {
            output::json(&report)?
        } else {
            print(&report)?
        }
        if let Some(device) = report.gpus.iter().find_map(GpuReport::failed) {
            return Err(CliError::Failed(format!(
                "self-test: {device} gives other sums than the CPU, or none; use --device cpu and report this machine"
            )));
        }
        match report.paths.iter().find(|path| !path.self_test) {
            Some(path) => Err(CliError::Failed(format!(
                "self-test: path {} gives other sums than the portable one; set ONEBIT_ISA=scalar and report this machine",
                path.isa
            ))),
            None => Ok(()),
        }
    }
}

/// Features that this build has.
fn features() -> Vec<&'static str> {
    let all = [
        ("train", cfg!(feature = "train")),
        ("cuda", cfg!(feature = "cuda")),
        ("mpi", cfg!(feature = "mpi")),
        ("tokenizers", cfg!(feature = "tokenizers")),
        ("bundled", cfg!(feature = "bundled")),
    ];
    all.into_iter().filter_map(|(name, has)| has.then_some(name)).collect()
}

fn print(report: &Report) -> Result<()> {
    let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
    let bytes = |n: Option<u64>| n.map_or_else(|| "unknown".into(), output::bytes);
    let profile = if report.debug_build { "debug" } else { "release" };
    let features = match report.features.join(", ") {
        none if none.is_empty() => "no features".to_string(),
        some => format!("with {some}"),
    };
    let mut rows = vec![
        ("onebit", format!("{}, {profile} build {features}", report.version)),
        (
            "system",
            format!(
                "{}, {} {} on {}",
                known(&report.system),
                report.os,
                known(&report.kernel),
                report.arch
            ),
        ),
        ("cpu", known(&report.cpu)),
        (
            "cores",
            format!(
                "{} physical, {} hardware threads",
                report.physical_cores, report.hardware_threads
            ),
        ),
        (
            "memory",
            format!(
                "{}, {} available",
                bytes(report.memory_bytes),
                bytes(report.memory_available_bytes)
            ),
        ),
        (
            "bandwidth",
            format!("{:.1} GB/s on {} threads", report.bandwidth_gb_s, report.threads),
        ),
    ];
    for path in &report.paths {
        let test = if path.self_test {
            "self-test passed"
        } else {
            "SELF-TEST FAILED"
        };
        rows.push((
            "path",
            format!(
                "{}: {test}, f32 {:.0} GFLOP/s, int8 {:.0} GOP/s",
                path.isa, path.f32_gflop_s, path.int8_gop_s
            ),
        ));
    }
    rows.extend(report.gpu_driver.clone().map(|driver| ("driver", driver)));
    rows.extend(report.gpus.iter().map(|gpu| ("gpu", gpu.line())));
    rows.extend(report.gpu_note.clone().map(|note| ("gpu", note)));
    let variables = report.environment.iter();
    rows.extend(variables.map(|(name, value)| ("variable", format!("{name}={value}{}", environment::remark(name)))));
    rows.extend(report.will_use.iter().map(|choice| ("will use", choice.line())));
    output::table(&rows)
}

/// Whether the ternary product of a path equals that of the portable path, and that one the sums by their definition.
fn self_test(isa: Isa) -> bool {
    SHAPES.iter().enumerate().all(|(i, &(rows, cols))| {
        let key = Key::new(7, u32::from_be_bytes(*b"self"), i as u64);
        let weights: Vec<i8> = (0..rows * cols).map(|j| key.below(j as u64, 3) as i8 - 1).collect();
        let mut x = vec![0i8; padded_cols(cols)];
        x[..cols]
            .iter_mut()
            .enumerate()
            .for_each(|(j, x)| *x = key.below((rows * cols + j) as u64, 256) as u8 as i8);
        // Where there is no 0, each is a 1.
        let signs: Vec<i8> = weights.iter().map(|&w| if w == 0 { 1 } else { w }).collect();
        let agrees = |isa, layout: Layout| {
            let weights = if layout.has_zero() { &weights } else { &signs };
            let (mut packed, mut out) = (vec![0; layout.bytes(rows, cols)], vec![0; rows]);
            layout.pack(weights, rows, cols, &mut packed);
            ternary_gemv::ternary_gemv(isa, layout, &packed, cols, &x, &mut out);
            let defined = weights.chunks(cols).map(|row| {
                row.iter()
                    .zip(&x)
                    .map(|(&w, &x)| i32::from(w) * i32::from(x))
                    .sum::<i32>()
            });
            defined.eq(out)
        };
        let all = |isa| Layout::ALL.into_iter().all(|layout| agrees(isa, layout));
        all(isa) && all(Isa::SCALAR)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_this_machine_passes() {
        for isa in Isa::available() {
            println!("self-test of {}", isa.name());
            assert!(self_test(isa));
        }
    }
}
