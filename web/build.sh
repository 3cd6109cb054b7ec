#!/usr/bin/env bash
# Builds the page into a folder that any static server can serve: web/build.sh [FOLDER], by default web/dist.
# The target's library comes from `rustup target add`, else nightly builds it from its sources (`rustup component add --toolchain nightly rust-src`).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-web/dist}
target=wasm32-unknown-unknown
folder=${CARGO_TARGET_DIR:-target}
cargo=(cargo)
std=()
if ! rustup target list --installed | grep -qx "$target" && ! rustup target add "$target" >/dev/null 2>&1; then
    if ! rustup +nightly component list --installed 2>/dev/null | grep -q '^rust-src'; then
        echo "Rust's library for $target is needed: 'rustup target add $target', or 'rustup component add --toolchain nightly rust-src'" >&2
        exit 3
    fi
    cargo=(cargo +nightly)
    std=(-Zbuild-std=std,panic_abort)
fi
mkdir -p "$out"
# build NAME FEATURE: cargo keeps what is built with other flags beside it.
build() {
    RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=$2simd128" "${cargo[@]}" build --quiet --release --config profile.release.strip=true \
        -p onebit-web --target "$target" "${std[@]}"
    cp "$folder/$target/release/onebit_web.wasm" "$out/$1.wasm"
}
build onebit-simd128 +
build onebit -
cp web/index.html web/page.js web/onebit.js models/stories-mcu/stories-mcu.1bit "$out/"
ls -l "$out"
