//! NVIDIA's driver: which one it is, without a look at any GPU.

/// The version of the kernel module where the system says it, and the newest CUDA; none without a driver.
pub(crate) fn driver() -> Option<String> {
    let cuda = onebit_kernels_cuda::cuda_version()?;
    Some(match kernel_module() {
        Some(version) => format!("{version}, CUDA {cuda}"),
        None => format!("CUDA {cuda}"),
    })
}

fn kernel_module() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    version_in(&text)
}

fn version_in(text: &str) -> Option<String> {
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines()
        .next()?
        .split_whitespace()
        .find(is_version)
        .map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_the_driver_is_found_in_what_it_writes() {
        for text in [
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 06:54:38 UTC 2025\nGCC version: 13.2.0",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (x)",
        ] {
            assert_eq!(version_in(text).as_deref(), Some("580.65.06"));
        }
        assert_eq!(version_in("nothing"), None);
    }
}
