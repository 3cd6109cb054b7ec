//! The machine and its system, as far as the system tells.

use std::fs;

/// What the system says of itself, read from a Linux's files; elsewhere most of it is unknown.
pub(super) struct Machine {
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub system: Option<String>,
    /// `6.1.0-18-amd64`.
    pub kernel: Option<String>,
    /// `AMD EPYC 9354 32-Core Processor`, or the board's name.
    pub cpu: Option<String>,
    /// Hardware threads that this process may use.
    pub hardware_threads: usize,
    /// Bytes of memory, all of it.
    pub memory_bytes: Option<u64>,
}

impl Machine {
    /// Asks.
    pub fn find() -> Self {
        let read = |path: &str| fs::read_to_string(path).ok();
        Self {
            system: read("/etc/os-release").as_deref().and_then(pretty_name),
            kernel: read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_string()),
            cpu: read("/proc/cpuinfo")
                .as_deref()
                .and_then(cpu_model)
                .or_else(|| read("/proc/device-tree/model").map(|text| text.trim_end_matches('\0').to_string())),
            hardware_threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: crate::device::memory("MemTotal"),
        }
    }
}

/// `PRETTY_NAME` of an `os-release`.
fn pretty_name(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches(['"', '\'']).to_string()).filter(|name| !name.is_empty())
}

/// The name of the CPU in a `cpuinfo`: x86 and 32-bit ARM write it out, 64-bit ARM gives the numbers of maker and part, RISC-V the microarchitecture.
fn cpu_model(text: &str) -> Option<String> {
    let value = |name: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        let found = fields
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim().to_string());
        found.filter(|value| !value.is_empty())
    };
    value("model name")
        .or_else(|| {
            let (maker, part) = (value("CPU implementer")?, value("CPU part")?);
            Some(format!("implementer {maker}, part {part}"))
        })
        .or_else(|| value("uarch"))
        .or_else(|| value("isa"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systems_write_is_understood() {
        let release = "NAME=\"Debian GNU/Linux\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        assert_eq!(pretty_name(release).as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(pretty_name("PRETTY_NAME=''\n"), None);
        for (text, name) in [
            (
                "processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC 9354\n",
                "AMD EPYC 9354",
            ),
            (
                "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n",
                "implementer 0x41, part 0xd0b",
            ),
            (
                "processor\t: 0\nisa\t\t: rv64imafdc\nuarch\t\t: sifive,u74\n",
                "sifive,u74",
            ),
        ] {
            assert_eq!(cpu_model(text).as_deref(), Some(name));
        }
        assert_eq!(cpu_model("processor : 0\n"), None);
    }
}
