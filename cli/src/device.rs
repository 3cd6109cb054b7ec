//! Where the work runs, on how many threads, and how much memory there is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use onebit_engine::{Device, EngineError};

use crate::{CliError, Result, output};

/// A device and its threads, chosen and announced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement {
    /// The device.
    pub device: Device,
    /// Threads of the CPU.
    pub threads: usize,
}

/// Sets up `--device` (default `auto`) and `--threads` (default: physical cores) and says on stderr what was chosen.
pub(crate) fn place(device: Option<&str>, threads: Option<usize>) -> Result<Placement> {
    let name = device.unwrap_or("auto");
    let device = Device::by_name(name).map_err(|error| match error {
        EngineError::Device { .. } if !names_a_device(name) => CliError::Usage(error.to_string()),
        error => CliError::from(error),
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
    output::note(&format!("device: {}", device.describe()));
    Ok(Placement { device, threads })
}

const MAX_THREADS: usize = 4096;

fn names_a_device(name: &str) -> bool {
    matches!(name, "auto" | "cpu" | "cuda") || name.strip_prefix("cuda:").is_some_and(|n| n.parse::<u32>().is_ok())
}

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
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim()
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
