#!/usr/bin/env bash
# Builds the inference command for a board with Linux, on a plain Debian, and prints the path and the size of the program.
set -euo pipefail
cd "$(dirname "$0")/.."

known=(x86_64-unknown-linux-musl aarch64-unknown-linux-musl aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf riscv64gc-unknown-linux-gnu)

usage() {
    cat <<TEXT
usage: scripts/cross.sh TARGET [CARGO OPTIONS]

Builds the command \`onebit\` without trainer and CUDA for a board with Linux. TARGET is one of
  x86_64-unknown-linux-musl       x86, one static program for every distribution
  aarch64-unknown-linux-musl      64-bit ARM, one static program for every distribution
  aarch64-unknown-linux-gnu       64-bit ARM with glibc
  armv7-unknown-linux-gnueabihf   32-bit ARM with VFP, glibc
  riscv64gc-unknown-linux-gnu     64-bit RISC-V, glibc

CARGO OPTIONS replace the features that are built, which are \`--features inference\`; none, as in
  scripts/cross.sh armv7-unknown-linux-gnueabihf --no-default-features
is the smallest program: it runs .1bit files.

The target's standard library comes from \`rustup target add\`, else it is built from its sources with a nightly toolchain, else with Debian's own
toolchain (rustc-web, about 145 MB, unpacked into a private directory). A cross compiler that is missing is installed from Debian's packages.
  ONEBIT_CROSS_ROUTE=rustup|nightly|debian   takes that way alone
  CARGO_TARGET_DIR                           where to build (default: target)
  RUSTFLAGS                                  as ever, such as "-C target-feature=+vfp4" for a 32-bit ARM with VFPv4
The exit status is 3 where a toolchain or a linker cannot be had.
TEXT
}

# What is needed to build cannot be had.
fail() {
    echo "error: $*" >&2
    exit 3
}

case ${1:-} in
-h | --help)
    usage
    exit
    ;;
"")
    usage >&2
    exit 2
    ;;
esac
target=$1
shift
[[ " ${known[*]} " == *" $target "* ]] || {
    echo "error: unknown target '$target'; expected one of: ${known[*]}" >&2
    exit 2
}
features=(--no-default-features --features inference)
[[ $# -eq 0 ]] || features=("$@")

case $target in
x86_64-*) gcc=x86_64-linux-gnu-gcc debian_arch=amd64 packages=(gcc-x86-64-linux-gnu libc6-dev-amd64-cross) ;;
aarch64-*) gcc=aarch64-linux-gnu-gcc debian_arch=arm64 packages=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross) ;;
armv7-*) gcc=arm-linux-gnueabihf-gcc debian_arch=armhf packages=(gcc-arm-linux-gnueabihf libc6-dev-armhf-cross) ;;
riscv64gc-*) gcc=riscv64-linux-gnu-gcc debian_arch=riscv64 packages=(gcc-riscv64-linux-gnu libc6-dev-riscv64-cross) ;;
esac
if ! command -v "$gcc" >/dev/null; then
    echo "installing ${packages[*]}, which have the linker for $target" >&2
    [[ $(id -u) -eq 0 ]] || fail "that takes root: run 'apt-get install --no-install-recommends ${packages[*]}' first"
    if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null; }; then
        fail "apt-get could not install ${packages[*]}, which have the linker for $target"
    fi
fi

export CARGO_INCREMENTAL=0
out=${CARGO_TARGET_DIR:-target}
variable=${target^^}
export "CARGO_TARGET_${variable//-/_}_LINKER=$gcc"
build=(build --quiet --profile board -p onebit-cli --bin onebit "${features[@]}" --target "$target")
build_std=("-Zbuild-std=std,panic_abort")

rustup_way() {
    command -v rustup >/dev/null || return 1
    if ! rustup target list --installed | grep -qx "$target"; then
        echo "adding the standard library of $target (rustup target add)" >&2
        timeout 300 rustup target add "$target" >&2 || return 1
    fi
}

nightly_way() {
    # A static C library is not part of the sources.
    [[ $target != *-musl ]] && command -v rustup >/dev/null &&
        rustup +nightly component list --installed 2>/dev/null | grep -q '^rust-src'
}

# Debian's rustc, cargo and the library's sources, unpacked where they are in nobody's way.
debian_way() {
    [[ $target != *-musl ]] && command -v apt-get >/dev/null || return 1
    debian=${XDG_CACHE_HOME:-$HOME/.cache}/onebit-rust-web
    if [[ ! -x $debian/usr/bin/cargo ]]; then
        local parts
        parts=$(mktemp -d)
        echo "unpacking Debian's rustc-web, cargo-web and rust-web-src into $debian" >&2
        # What an installation would bring, and nothing is installed.
        mapfile -t packages < <(apt-get install --simulate --no-install-recommends rustc-web cargo-web rust-web-src 2>/dev/null |
            sed -n 's/^Inst \([^ ]*\).*/\1/p')
        [[ ${#packages[@]} -ge 3 ]] || return 1
        (cd "$parts" && apt-get download -qq "${packages[@]}") || return 1
        mkdir -p "$debian"
        for part in "$parts"/*.deb; do dpkg -x "$part" "$debian" || return 1; done
        rm -r "$parts"
    fi
}

with_debian() {
    local libraries
    libraries=$debian/usr/lib/$(uname -m)-linux-gnu
    RUSTC_BOOTSTRAP=1 RUSTC=$debian/usr/bin/rustc LD_LIBRARY_PATH=$libraries PATH=$debian/usr/bin:$PATH \
        "$debian/usr/bin/cargo" "${build[@]}" "${build_std[@]}"
}

route=${ONEBIT_CROSS_ROUTE:-any}
[[ $route =~ ^(any|rustup|nightly|debian)$ ]] || {
    echo "error: ONEBIT_CROSS_ROUTE: expected rustup, nightly or debian, found '$route'" >&2
    exit 2
}
if [[ $route =~ ^(any|rustup)$ ]] && rustup_way; then
    cargo "${build[@]}"
elif [[ $route =~ ^(any|nightly)$ ]] && nightly_way; then
    echo "building the standard library of $target from its sources with nightly" >&2
    cargo +nightly "${build[@]}" "${build_std[@]}"
elif [[ $route =~ ^(any|debian)$ ]] && debian_way; then
    echo "building the standard library of $target from its sources with Debian's toolchain" >&2
    with_debian
else
    fail "no standard library for $target: 'rustup target add $target' must work here, or (but for musl) a nightly toolchain with rust-src, or Debian's rustc-web ($debian_arch)"
fi

program=$out/$target/board/onebit
echo "$program: $(stat -c %s "$program") bytes"
