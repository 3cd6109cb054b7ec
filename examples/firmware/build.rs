//! Gives the linker the board's memory, and the program the path of its model.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let target = env::var("TARGET").unwrap_or_default();
    let board = match target.as_str() {
        "thumbv7em-none-eabihf" => "mps2-an386",
        "thumbv8m.main-none-eabihf" => "mps2-an505",
        "riscv32imac-unknown-none-elf" => "riscv-virt",
        other => panic!("no board for the target {other:?}; see memory/"),
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let memory = format!("memory/{board}.x");
    fs::copy(&memory, out.join("memory.x")).unwrap_or_else(|error| panic!("{memory}: {error}"));
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rerun-if-changed={memory}");
    println!("cargo::rustc-env=BOARD={board}");
    println!("cargo::rustc-check-cfg=cfg(board, values(\"mps2-an386\", \"mps2-an505\", \"riscv-virt\"))");
    println!("cargo::rustc-cfg=board=\"{board}\"");

    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let folder = env::var("FIRMWARE_MODEL").unwrap_or(format!("{root}/../../models/stories-mcu"));
    for (variable, file) in [("MODEL", "stories-mcu.1bit"), ("GOLDEN", "golden.txt")] {
        let path = Path::new(&folder).join(file);
        let path = fs::canonicalize(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        println!("cargo::rustc-env={variable}={}", path.display());
        println!("cargo::rerun-if-changed={}", path.display());
    }
    println!("cargo::rerun-if-env-changed=FIRMWARE_MODEL");
}
