//! Names what processors without an operating system have, for which stable Rust has no `cfg(target_feature)`.
//!
//! | cfg | instructions | where |
//! |---|---|---|
//! | `arm_dsp` | `smlad` and its like (the DSP extension) | every `thumbv7em` target; `thumbv8m.main` with `-C target-cpu` of a core that has them |
//! | `arm_vfma` | `vfma.f32` (FPv4-SP, FPv5) | the `eabihf` targets of both |
//! | `soft_float` | no floating point at all | RISC-V without the extension F; ARM's bare-metal targets that end in `eabi` |

use std::env;

/// Cores of Armv8-M whose compilers' definition includes the DSP extension.
const CORES_WITH_DSP: [&str; 4] = ["cortex-m33", "cortex-m35p", "cortex-m55", "cortex-m85"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    println!("cargo::rustc-check-cfg=cfg(arm_dsp, arm_vfma, soft_float)");
    let target = env::var("TARGET").unwrap_or_default();
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let asked = |features: &str| flags.contains(features);
    let v7em = target.starts_with("thumbv7em-");
    let v8m = target.starts_with("thumbv8m.main-");
    let core = CORES_WITH_DSP.iter().any(|core| asked(&format!("target-cpu={core}")));
    if (v7em || (v8m && (core || asked("+dsp")))) && !asked("-dsp") {
        println!("cargo::rustc-cfg=arm_dsp");
    }
    if (v7em || v8m) && target.ends_with("-eabihf") {
        println!("cargo::rustc-cfg=arm_vfma");
    }
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let soft = match architecture.as_str() {
        "riscv32" | "riscv64" => !features.split(',').any(|feature| feature == "f"),
        "arm" => target.ends_with("-none-eabi"),
        _ => false,
    };
    if soft {
        println!("cargo::rustc-cfg=soft_float");
    }
}
