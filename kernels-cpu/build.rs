//! Names the instructions of a Cortex-M, for which stable Rust has no `cfg(target_feature)`.
//!
//! | cfg | instructions | where |
//! |---|---|---|
//! | `arm_dsp` | `smlad` and its like (the DSP extension) | every `thumbv7em` target; `thumbv8m.main` with `-C target-cpu` of a core that has them |
//! | `arm_vfma` | `vfma.f32` (FPv4-SP, FPv5) | the `eabihf` targets of both |

use std::env;

/// Cores of Armv8-M whose compilers' definition includes the DSP extension.
const CORES_WITH_DSP: [&str; 4] = ["cortex-m33", "cortex-m35p", "cortex-m55", "cortex-m85"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    println!("cargo::rustc-check-cfg=cfg(arm_dsp, arm_vfma)");
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
}
