//! Where the work runs, on how many threads, and how much memory there is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use onebit_kernels_cpu::Isa;

use crate::gpu::{self, Gpu};
use crate::{CliError, Result, output};

/// A device and its threads, chosen and announced.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// The path of the CPU, which does what the GPU does not.
    pub isa: Isa,
    /// Threads of the CPU.
    pub threads: usize,
    /// The GPU, if one was chosen.
    pub gpu: Option<Gpu>,
    /// Whether it was asked for, and not only found.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "there is no GPU to ask for"))]
    pub gpu_by_name: bool,
}

impl Placement {
    /// One line that names what does the work.
    pub fn describe(&self) -> String {
        match &self.gpu {
            Some(gpu) => gpu::describe(gpu),
            None => describe_cpu(self.isa, self.threads),
        }
    }

    /// The CPU as the trainer's device.
    #[cfg(feature = "train")]
    pub fn device(&self) -> onebit_engine::Device {
        onebit_engine::Device::Cpu(self.isa)
    }
}

/// One line that names the CPU's path and its threads.
pub(crate) fn describe_cpu(isa: Isa, threads: usize) -> String {
    format!("cpu ({}, {threads} threads)", isa.name())
}

/// Sets up `--device` (default `auto`: the first GPU if there is one) and `--threads` (default: physical cores) and says on stderr what was chosen.
pub(crate) fn place(device: Option<&str>, threads: Option<usize>) -> Result<Placement> {
    let name = device.unwrap_or("auto");
    let gpu = choose(name)?;
    let by_name = name != "auto";
    place_on(gpu, by_name, threads)
}

/// As [`place`], for what only the CPU does.
pub(crate) fn place_on_cpu(threads: Option<usize>) -> Result<Placement> {
    place_on(None, false, threads)
}

/// The GPU that `name` means, or none for the CPU.
fn choose(name: &str) -> Result<Option<Gpu>> {
    let ordinal = match name {
        "cpu" => return Ok(None),
        "auto" => return Ok(gpu::find()),
        "cuda" => Some(0),
        _ => name.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
    };
    let Some(ordinal) = ordinal else {
        let expected = "expected auto, cpu, cuda or cuda:N";
        return Err(CliError::Usage(format!("--device: {expected}, found {name:?}")));
    };
    let failed = |error| CliError::Failed(format!("--device {name}: {error}; use --device cpu"));
    gpu::open(ordinal).map(Some).map_err(failed)
}

fn place_on(gpu: Option<Gpu>, gpu_by_name: bool, threads: Option<usize>) -> Result<Placement> {
    let isa = Isa::from_env().map_err(|_| {
        let available = Isa::available().map(Isa::name).collect::<Vec<_>>().join(", ");
        let found = std::env::var("ONEBIT_ISA").unwrap_or_default();
        CliError::Failed(format!("ONEBIT_ISA: expected one of {available}, found {found:?}"))
    })?;
    let threads = match threads {
        Some(0) => return Err(CliError::Usage("--threads: expected at least 1, found 0".into())),
        Some(n) if n > MAX_THREADS => {
            return Err(CliError::Usage(format!(
                "--threads: expected at most {MAX_THREADS}, found {n}"
            )));
        }
        Some(n) => n,
        None => physical_cores(),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    pool.map_err(|e| {
        CliError::Failed(format!(
            "cannot start {threads} threads: {e}; ask for fewer with --threads"
        ))
    })?;
    let place = Placement {
        isa,
        threads,
        gpu,
        gpu_by_name,
    };
    output::note(&format!("device: {}", place.describe()));
    Ok(place)
}

const MAX_THREADS: usize = 4096;

/// Physical cores that this process may use: two hardware threads of a core share its arithmetic, and a second one gains nothing
/// here. Where the system does not say, every hardware thread counts.
pub(crate) fn physical_cores() -> usize {
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    cores_of(Path::new("/sys/devices/system/cpu")).map_or(usable, |cores| cores.clamp(1, usable))
}

fn cores_of(root: &Path) -> Option<usize> {
    let mut cores = BTreeSet::new();
    for entry in fs::read_dir(root).ok()? {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?;
        if name
            .strip_prefix("cpu")
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        {
            // Absent for a CPU that is switched off.
            if let Ok(siblings) = fs::read_to_string(path.join("topology/thread_siblings_list")) {
                cores.insert(siblings.trim().to_string());
            }
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

/// Bytes of memory that can be had without swapping, where the system says so.
pub(crate) fn available_memory() -> Option<u64> {
    memory("MemAvailable")
}

/// Bytes of a field of `/proc/meminfo`, where the system has it.
pub(crate) fn memory(field: &str) -> Option<u64> {
    bytes_of(&fs::read_to_string("/proc/meminfo").ok()?, field)
}

fn bytes_of(meminfo: &str, field: &str) -> Option<u64> {
    let of = |line: &str| line.strip_prefix(field)?.strip_prefix(':').map(str::to_string);
    let kilobytes = meminfo.lines().find_map(of)?;
    kilobytes
        .trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_the_system_writes_it() {
        let text = "MemTotal:       16 kB\nMemFree: 1 kB\nMemAvailable:    8 kB\n";
        assert_eq!(bytes_of(text, "MemTotal"), Some(16 << 10));
        assert_eq!(bytes_of(text, "MemAvailable"), Some(8 << 10));
        assert_eq!(bytes_of(text, "Mem"), None);
        assert_eq!(bytes_of("MemFree: 1 kB\n", "MemTotal"), None);
    }

    #[test]
    fn hardware_threads_of_one_core_count_once() {
        let dir = tempfile::tempdir().unwrap();
        for (cpu, siblings) in [(0, "0,2"), (1, "1,3"), (2, "0,2"), (3, "1,3")] {
            let topology = dir.path().join(format!("cpu{cpu}/topology"));
            fs::create_dir_all(&topology).unwrap();
            fs::write(topology.join("thread_siblings_list"), format!("{siblings}\n")).unwrap();
        }
        fs::create_dir_all(dir.path().join("cpufreq")).unwrap();
        assert_eq!(cores_of(dir.path()), Some(2));
        assert_eq!(cores_of(&dir.path().join("none")), None);
        assert!(physical_cores() >= 1);
    }
}
